/* SPDX-License-Identifier: Apache-2.0 */
/* test_fs: opening without symlinks, durable writes, removal of any tree, names. */
#include "base/fs.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "base/limits.h"
#include "tests/unit/test.h"

TEST(beneath_refuses_to_leave_and_to_follow) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir);
    _cleanup_close_ int file = -EBADF;
    Err err = { 0 };

    ASSERT_OK(fs_mkdir_p(fd, "a/b", 0755, &err));
    ASSERT_OK(symlinkat("a", fd, "link"));
    ASSERT_OK(symlinkat("/etc/passwd", fd, "out"));
    file = fs_open_beneath(fd, "a/b/f", O_CREAT | O_EXCL | O_WRONLY, 0640, &err);
    ASSERT_OK(file);
    ASSERT_EQ(fcntl(file, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    ASSERT_ERR(fs_open_beneath(fd, "link/b", O_RDONLY, 0, &err), -ELOOP);
    ASSERT_STRSTR(err.text, "cannot open link/b");
    ASSERT_ERR(fs_open_beneath(fd, "out", O_RDONLY, 0, &err), -ELOOP);
    ASSERT_ERR(fs_open_beneath(fd, "..", O_RDONLY, 0, &err), -EXDEV);
    ASSERT_ERR(fs_open_beneath(fd, "/etc", O_RDONLY, 0, &err), -EXDEV);
    ASSERT_ERR(fs_open_beneath(fd, "none", O_RDONLY, 0, &err), -ENOENT);
}

TEST(absolute_paths_pass_no_symlink) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = -EBADF, proc = -EBADF;
    Err err = { 0 };

    ASSERT_OK(mkdirat(tmpdir_fd(dir), "real", 0755));
    ASSERT_OK(symlinkat("real", tmpdir_fd(dir), "link"));
    fd = fs_open_absolute(tmpdir_join(dir, "real"), O_RDONLY | O_DIRECTORY, &err);
    ASSERT_OK(fd);
    proc = fs_open_absolute("/proc/version", O_RDONLY, &err); /* mounts may be crossed */
    ASSERT_OK(proc);
    ASSERT_ERR(fs_open_absolute(tmpdir_join(dir, "link"), O_RDONLY, &err), -ELOOP);
    ASSERT_STRSTR(err.text, "symlink");
    ASSERT_ERR(fs_open_absolute("relative", O_RDONLY, &err), -EINVAL);
    ASSERT_ERR(fs_open_absolute("/a/../b", O_RDONLY, &err), -EINVAL);
    ASSERT_ERR(fs_open_absolute("/", O_RDONLY, &err), -EINVAL);
    ASSERT_ERR(fs_open_absolute("/nowhere/at/all", O_RDONLY, &err), -ENOENT);
}

TEST(files_are_read_up_to_the_cap) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir);
    _cleanup_free_ char *text = NULL, *exact = NULL, *empty = NULL, *large = NULL, *out = NULL;
    size_t n = 0;
    Err err = { 0 };

    ASSERT_OK(fs_write_file_durably(fd, "f", "hello\0x", 7, 0644, &err));
    ASSERT_OK(fs_read_file(fd, "f", 100, &text, &n, &err));
    ASSERT_EQ(n, 7);
    ASSERT_MEMEQ(text, "hello\0x", 8);
    ASSERT_OK(fs_read_file(fd, "f", 7, &exact, NULL, &err));
    ASSERT_ERR(fs_read_file(fd, "f", 6, &out, NULL, &err), -E2BIG);
    ASSERT_STREQ(err.text, "f is larger than 6 bytes");
    ASSERT_ERR(fs_read_file(fd, "none", 6, &out, NULL, &err), -ENOENT);
    ASSERT_ERR(fs_read_file(fd, ".", 6, &out, NULL, &err), -EISDIR);
    ASSERT_TRUE(out == NULL);
    ASSERT_OK(fs_write_file_durably(fd, "f", "", 0, 0644, &err));
    ASSERT_OK(fs_read_file(fd, "f", 0, &empty, &n, &err));
    ASSERT_STREQ(empty, "");
    out = xcalloc(300000, 1);
    ASSERT_OK(fs_write_file_durably(fd, "f", out, 300000, 0644, &err));
    ASSERT_OK(fs_read_file(fd, "f", 300000, &large, &n, &err));
    ASSERT_EQ(n, 300000);
}

TEST(durable_write_replaces_and_leaves_nothing_behind) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir);
    mode_t mask = umask(077);
    struct stat st;
    Err err = { 0 };

    ASSERT_OK(fs_write_file_durably(fd, "f", "old", 3, 0600, &err));
    ASSERT_OK(fs_write_file_durably(fd, "f", "newer", 5, 0444, &err));
    (void)umask(mask);
    ASSERT_OK(fstatat(fd, "f", &st, AT_SYMLINK_NOFOLLOW));
    ASSERT_EQ(st.st_size, 5);
    ASSERT_EQ(st.st_mode & 07777, 0444);
    ASSERT_EQ(tmpdir_count(dir), 1);
    ASSERT_OK(mkdirat(fd, "d", 0755));
    ASSERT_OK(fs_write_file_durably(fd, "d/g", "x", 1, 0600, &err));
    ASSERT_ERR(fs_write_file_durably(fd, "d", "x", 1, 0600, &err), -EISDIR);
    ASSERT_ERR(fs_write_file_durably(fd, "none/f", "x", 1, 0600, &err), -ENOENT);
    ASSERT_EQ(tmpdir_count(dir), 2);
}

TEST(write_all_tells_why) {
    _cleanup_close_ int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    Err err = { 0 };

    ASSERT_ERR(fs_write_all(full, "x", 1, &err), -ENOSPC);
    ASSERT_STRSTR(err.text, "No space left");
    ASSERT_ERR(fs_write_all(-1, "x", 1, NULL), -EBADF);
    ASSERT_OK(fs_write_all(full, "", 0, &err));
}

TEST(mkdir_p_takes_directories_only) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir);
    Err err = { 0 };

    ASSERT_OK(fs_mkdir_p(fd, "a/b/c", 0755, &err));
    ASSERT_OK(fs_mkdir_p(fd, "a/b/c", 0755, &err));
    ASSERT_OK(fs_write_file_durably(fd, "a/file", "", 0, 0600, &err));
    ASSERT_ERR(fs_mkdir_p(fd, "a/file/x", 0755, &err), -ENOTDIR);
    ASSERT_OK(symlinkat("b", fd, "a/link"));
    ASSERT_ERR(fs_mkdir_p(fd, "a/link/x", 0755, &err), -ELOOP);
    ASSERT_ERR(fs_mkdir_p(fd, "../x", 0755, &err), -EINVAL);
    ASSERT_ERR(fs_mkdir_p(fd, "/tmp", 0755, &err), -EINVAL);
    ASSERT_ERR(fs_mkdir_p(fd, "", 0755, &err), -EINVAL);
}

TEST(sync_of_directories_and_descriptors) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    Err err = { 0 };

    ASSERT_OK(fs_fsync_dir(tmpdir_fd(dir), ".", &err));
    ASSERT_OK(fs_fsync_dir(tmpdir_fd(dir), NULL, &err));
    ASSERT_ERR(fs_fsync_dir(tmpdir_fd(dir), "none", &err), -ENOENT);
    ASSERT_ERR(fs_fsync_dir(-1, NULL, &err), -EBADF);
}

/* A chain of `depth` directories, each with a file and a symlink out, the last and some others
 * read-only. */
static void make_deep(int fd, unsigned depth) {
    int at = dup(fd);

    for (unsigned i = 0; i < depth; i++) {
        int next;
        if (mkdirat(at, "deep", 0755) < 0)
            test_fail(__FILE__, __LINE__, "mkdir: %m");
        next = openat(at, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        (void)close(openat(next, "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0400));
        (void)!symlinkat("/etc", next, "link");
        if (i % 3 == 0)
            (void)fchmod(at, 0555);
        (void)close(at);
        at = next;
    }
    (void)fchmod(at, 0);
    (void)close(at);
}

TEST(removal_of_a_tree_deeper_than_descriptors_and_paths) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir);
    _cleanup_close_ int top = -EBADF;
    Err err = { 0 };

    ASSERT_OK(mkdirat(fd, "top", 0755));
    top = openat(fd, "top", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    make_deep(top, 1000);
    ASSERT_OK(fs_remove_recursive(fd, "top", &err));
    ASSERT_EQ(tmpdir_count(dir), 0);
}

TEST(removal_as_a_user_whom_modes_stop) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir), r;
    _cleanup_close_ int top = -EBADF;
    Err err = { 0 };

    if (geteuid() == 0 && (fchmod(fd, 0777) < 0 || seteuid(65534) < 0))
        SKIP("cannot become another user");
    ASSERT_OK(mkdirat(fd, "top", 0755));
    top = openat(fd, "top", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    make_deep(top, 100);
    r = fs_remove_recursive(fd, "top", &err);
    if (getuid() == 0)
        ASSERT_OK(seteuid(0));
    ASSERT_OK(r);
    ASSERT_EQ(tmpdir_count(dir), 0);
}

TEST(removal_of_other_things) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir);
    char name[32];
    Err err = { 0 };

    ASSERT_OK(fs_remove_recursive(fd, "absent", &err));
    ASSERT_OK(mkdirat(fd, "kept", 0755));
    ASSERT_OK(symlinkat("kept", fd, "link"));
    ASSERT_OK(fs_remove_recursive(fd, "link", &err));
    ASSERT_EQ(tmpdir_count(dir), 1);
    ASSERT_OK(mkdirat(fd, "wide", 0755));
    for (int i = 0; i < 1200; i++) {
        (void)snprintf(name, sizeof(name), "wide/%d", i);
        ASSERT_OK(i % 2 ? mkdirat(fd, name, 0755) : mknodat(fd, name, S_IFREG | 0600, 0));
    }
    ASSERT_OK(fs_remove_recursive(fd, "wide", &err));
    ASSERT_EQ(tmpdir_count(dir), 1);
    ASSERT_ERR(fs_remove_recursive(-1, "x", &err), -EBADF);
}

TEST(removal_stops_at_a_mount) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    int fd = tmpdir_fd(dir), r;
    struct stat st;
    Err err = { 0 };

    ASSERT_OK(fs_mkdir_p(fd, "kept", 0755, &err));
    ASSERT_OK(fs_write_file_durably(fd, "kept/file", "", 0, 0600, &err));
    ASSERT_OK(fs_mkdir_p(fd, "top/mnt", 0755, &err));
    if (mount(tmpdir_join(dir, "kept"), tmpdir_join(dir, "top/mnt"), NULL, MS_BIND, NULL) < 0)
        SKIP("cannot mount"); /* the same file system, so st_dev would not tell */
    r = fs_remove_recursive(fd, "top", &err);
    ASSERT_OK(umount(tmpdir_join(dir, "top/mnt")));
    ASSERT_ERR(r, -EXDEV);
    ASSERT_OK(fstatat(fd, "kept/file", &st, 0));
    ASSERT_OK(fs_remove_recursive(fd, "top", &err));
}

/* /run is a file system of its own on every machine, and /var/run a symlink to it. */
TEST(directory_for_a_socket_may_lie_behind_mounts_and_symlinks) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_free_ char *link = xasprintf("%s/link", tmpdir_path(dir));
    _cleanup_free_ char *socket = xasprintf("%s/link/made/x.sock", tmpdir_path(dir));
    _cleanup_free_ char *deep = xasprintf("%s/a/b/x.sock", tmpdir_path(dir));
    Err err = { "" };
    bool mounted;

    ASSERT_OK(fs_mkdir_p(tmpdir_fd(dir), "run", 0755, &err));
    ASSERT_OK(symlink("run", link));
    mounted = mount("tmpfs", tmpdir_join(dir, "run"), "tmpfs", 0, "size=1m") == 0;
    ASSERT_OK(fs_mkdir_for(socket, 0755, &err));
    ASSERT_OK(fs_mkdir_for(socket, 0755, &err)); /* there already */
    ASSERT_OK(access(tmpdir_join(dir, "run/made"), F_OK));
    ASSERT_OK(fs_mkdir_for("/x.sock", 0755, &err));
    ASSERT_ERR(fs_mkdir_for(deep, 0755, &err), -ENOENT);
    ASSERT_STRSTR(err.text, "/a/b");
    if (mounted)
        ASSERT_OK(umount(tmpdir_join(dir, "run")));
}

TEST(names_and_paths) {
    static const struct {
        const char *path;
        bool name, relative, absolute;
    } cases[] = {
        { "a", true, true, false },        { "...", true, true, false },
        { ".a", true, true, false },       { "a/b", false, true, false },
        { "", false, false, false },       { ".", false, false, false },
        { "..", false, false, false },     { "/", false, false, false },
        { "/a", false, false, true },      { "/a/b", false, false, true },
        { "a/", false, false, false },     { "/a/", false, false, false },
        { "a//b", false, false, false },   { "//a", false, false, false },
        { "a/../b", false, false, false }, { "/a/./b", false, false, false },
    };
    char path[LIMIT_PATH_BYTES + 2];

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        const char *p = cases[i].path;
        if (name_is_safe(p, strlen(p)) != cases[i].name ||
            path_is_safe_relative(p) != cases[i].relative ||
            path_is_clean_absolute(p) != cases[i].absolute)
            test_fail(__FILE__, __LINE__, "\"%s\"", p);
    }
    ASSERT_TRUE(!name_is_safe("a\0b", 3));
    memset(path, 'a', sizeof(path));
    ASSERT_TRUE(name_is_safe(path, LIMIT_NAME_BYTES));
    ASSERT_TRUE(!name_is_safe(path, LIMIT_NAME_BYTES + 1));
    for (size_t i = 1; i < sizeof(path); i += 2)
        path[i] = '/';
    path[sizeof(path) - 1] = '\0';
    ASSERT_TRUE(!path_is_safe_relative(path));
    path[LIMIT_PATH_BYTES - 1] = '\0';
    ASSERT_TRUE(path_is_safe_relative(path));
}

TEST(beneath_by_name) {
    ASSERT_TRUE(path_is_beneath("/a/b", "/a"));
    ASSERT_TRUE(path_is_beneath("/a", "/a"));
    ASSERT_TRUE(!path_is_beneath("/ab", "/a"));
    ASSERT_TRUE(!path_is_beneath("/b", "/a"));
}

TEST(space_that_is_not_there_is_not_taken_in_part) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct statvfs fs;
    struct stat st;
    int r;

    ASSERT_OK(fd);
    ASSERT_OK(fs_allocate(fd, 0));
    ASSERT_OK(fstatvfs(fd, &fs));
    r = fs_allocate(fd, (uint64_t)fs.f_bavail * fs.f_frsize + GiB(64)); /* others may free some */
    ASSERT_OK(fstat(fd, &st));
    ASSERT_OK(ftruncate(fd, 0)); /* before a failure leaves the machine without space */
    ASSERT_EQ(r, -ENOSPC);
    ASSERT_EQ(st.st_blocks, 0);
    ASSERT_OK(fs_allocate(fd, KiB(64)));
    ASSERT_OK(fstat(fd, &st));
    ASSERT_EQ(st.st_size, KiB(64));
    ASSERT_STREQ(fs_space_advice(fd), FS_BYTES_ADVICE);
}

TEST(symlinks_that_stay_inside) {
    static const struct {
        const char *path, *target;
        bool inside;
    } cases[] = {
        { "l", "a", true },
        { "l", "a/b", true },
        { "l", ".", true },
        { "l", "./a//b/", true },
        { "l", "..", false },
        { "l", "../a", false },
        { "d/l", "../a", true },
        { "d/l", "..", true },
        { "d/l", "../../a", false },
        { "d/e/l", "../../a", true },
        { "d/e/l", "./.././../a", true },
        { "d/e/l", "../../../a", false },
        { "l", "/etc", false },
        { "l", "", false },
        { "l", "a/../..", false },
        { "l", "up/..", false }, /* `up` may be a symlink to the root of the tree */
        { "l", "..a", true },
    };
    char target[LIMIT_SYMLINK_BYTES + 2];

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (symlink_stays_inside(cases[i].path, cases[i].target) != cases[i].inside)
            test_fail(__FILE__, __LINE__, "%s -> %s", cases[i].path, cases[i].target);
    memset(target, 'a', sizeof(target) - 1);
    target[sizeof(target) - 1] = '\0';
    ASSERT_TRUE(!symlink_stays_inside("l", target));
    target[LIMIT_SYMLINK_BYTES] = '\0';
    ASSERT_TRUE(symlink_stays_inside("l", target));
}
