/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of base/memory: files as the kernel shows them, in directories of the test's own. */
#include "base/fs.h"
#include "base/memory.h"
#include "tests/unit/test.h"

static void put(TmpDir *dir, const char *path, const char *text) {
    _cleanup_free_ char *parent = xstrndup(path, (size_t)(strrchr(path, '/') - path));

    ASSERT_OK(fs_mkdir_p(tmpdir_fd(dir), parent, 0700, NULL));
    {
        _cleanup_free_ char *full = xasprintf("%s/%s", tmpdir_path(dir), path);
        FILE *file = fopen(full, "we");

        ASSERT_TRUE(file && fputs(text, file) >= 0 && fclose(file) == 0);
    }
}

static uint64_t room(TmpDir *dir) {
    _cleanup_free_ char *proc = xasprintf("%s/proc", tmpdir_path(dir));
    _cleanup_free_ char *cgroup = xasprintf("%s/cgroup", tmpdir_path(dir));

    return memory_room(proc, cgroup);
}

TEST(memory_of_the_machine) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();

    ASSERT_TRUE(room(dir) == UINT64_MAX); /* nothing can be told */
    put(dir, "proc/meminfo", "MemTotal:       10000 kB\nMemFree: 5 kB\nMemAvailable:   4000 kB\n");
    ASSERT_EQ(room(dir), KiB(3000));
    put(dir, "proc/meminfo", "MemTotal:       10000 kB\nMemAvailable:   900 kB\n");
    ASSERT_EQ(room(dir), 0);
    put(dir, "proc/meminfo", "MemTotal:       10000 kB\n");
    ASSERT_TRUE(room(dir) == UINT64_MAX);
}

TEST(memory_of_cgroups) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();

    put(dir, "proc/meminfo", "MemTotal: 10000 kB\nMemAvailable: 9000 kB\n");
    put(dir, "proc/self/cgroup", "1:cpu:/\n0::/pods/one\n");
    put(dir, "cgroup/pods/one/memory.max", "max\n");
    put(dir, "cgroup/pods/one/memory.current", "500000\n");
    put(dir, "cgroup/pods/one/memory.stat", "anon 100\nfile_mapped 7\nfile 400000\n");
    ASSERT_EQ(room(dir), KiB(8000));
    put(dir, "cgroup/pods/one/memory.max", "1000000\n");
    ASSERT_EQ(room(dir), 800000); /* 900,000 less what is no page cache */
    put(dir, "cgroup/pods/one/memory.high", "600000\n");
    ASSERT_EQ(room(dir), 440000);
    put(dir, "cgroup/pods/memory.max", "300000\n");
    put(dir, "cgroup/pods/memory.current", "250000\n");
    put(dir, "cgroup/pods/memory.stat", "file 50000\n");
    ASSERT_EQ(room(dir), 70000);
    put(dir, "cgroup/memory.max", "100000\n"); /* that of a container is the root of what it sees */
    put(dir, "cgroup/memory.current", "99000\n");
    put(dir, "cgroup/memory.stat", "file 0\n");
    ASSERT_EQ(room(dir), 0);
}

TEST(memory_of_this_machine) {
    ASSERT_TRUE(memory_room("/proc", "/sys/fs/cgroup") > 0);
}
