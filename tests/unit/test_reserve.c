/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/reserve: held, given up when space is short, held again when there is some. */
#include "cache/reserve.h"
#include "tests/unit/store_env.h"

#include <sys/mount.h>

/* A file system of 64 MiB in memory: its reserve has 2 MiB. */
static const char *disk_make(TmpDir *dir) {
    const char *disk = tmpdir_join(dir, "disk");

    ASSERT_OK(mkdir(disk, 0700));
    return mount("none", disk, "tmpfs", 0, "size=64m") == 0 ? disk : NULL;
}

static void disk_done(const char **disk) {
    if (*disk)
        (void)umount2(*disk, MNT_DETACH);
}

static void fill(const char *disk, uint64_t leave) {
    _cleanup_free_ char *path = xasprintf("%s/fill", disk);
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct statfs fs;

    ASSERT_OK(fstatfs(fd, &fs));
    ASSERT_OK(fallocate(fd, 0, 0, (off_t)((uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize - leave)));
}

static void empty(const char *disk) {
    _cleanup_free_ char *path = xasprintf("%s/fill", disk);

    ASSERT_OK(unlink(path));
}

TEST(reserve_is_given_up_when_space_is_short_and_held_again_when_there_is_some) {
    STORE_TEST_DIR(dir);
    _cleanup_(disk_done) const char *disk = disk_make(dir);
    _cleanup_(reserve_freep) Reserve *r = NULL;
    _cleanup_free_ char *path = disk ? xasprintf("%s/reserve", disk) : NULL;
    struct stat st;
    Err err;

    if (!disk)
        SKIP("mounting is not allowed here");
    reserve_new(&r, path);
    ASSERT_OK(reserve_hold(r, &err));
    ASSERT_OK(stat(path, &st));
    ASSERT_TRUE((uint64_t)st.st_blocks * 512 >= MiB(2));
    ASSERT_TRUE(!reserve_give_up_if_needed(r)); /* there is plenty */
    fill(disk, KiB(64));
    ASSERT_OK(reserve_hold(r, &err)); /* it is there */
    r = reserve_free(r);
    reserve_new(&r, path);
    ASSERT_OK(reserve_hold(r, &err)); /* after a restart, too */
    ASSERT_TRUE(reserve_give_up_if_needed(r));
    ASSERT_EQ(access(path, F_OK), -1);
    ASSERT_TRUE(reserve_give_up_if_needed(r));
    empty(disk);
    fill(disk, MiB(1));
    ASSERT_ERR(reserve_hold(r, &err), -ENOSPC);
    ASSERT_STRSTR(err.text, "no space is left");
    ASSERT_EQ(access(path, F_OK), -1); /* nothing was taken */
    empty(disk);
    ASSERT_OK(reserve_hold(r, &err));
    ASSERT_OK(stat(path, &st));
    ASSERT_TRUE((uint64_t)st.st_blocks * 512 >= MiB(2));
    reserve_give_up(r);
    ASSERT_EQ(access(path, F_OK), -1);
}

TEST(reserve_that_cannot_be_made_says_why) {
    STORE_TEST_DIR(dir);
    _cleanup_(reserve_freep) Reserve *r = NULL;
    Err err;

    reserve_new(&r, tmpdir_join(dir, "absent/reserve"));
    ASSERT_ERR(reserve_hold(r, &err), -ENOENT);
    ASSERT_STRSTR(err.text, "absent/reserve");
}
