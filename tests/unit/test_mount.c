/* SPDX-License-Identifier: Apache-2.0 */
/* test_mount: each method really, in a mount namespace of the test's own. */
#include "cache/mount.h"
#include "tests/unit/store_env.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

typedef struct Env {
    TmpDir *dir;
    int tree_fd, staging_fd;
    const char *target;
} Env;

static void env_done(Env *env) {
    if (env->target)
        (void)!mount_detach(env->target, NULL);
    safe_close(env->tree_fd);
    safe_close(env->staging_fd);
    tmpdir_free(env->dir);
}

/* NULL, or why mounting can't be tested here. */
static const char *env_setup(Env *env) {
    *env = (Env){ .tree_fd = -EBADF, .staging_fd = -EBADF };
    if (geteuid() != 0)
        return "mounting needs root";
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return "a mount namespace of its own is refused";
    env->dir = tmpdir_new(); /* its descriptor must be of this namespace's mount */
    (void)mkdirat(tmpdir_fd(env->dir), "tree", 0755);
    (void)mkdirat(tmpdir_fd(env->dir), "target", 0755);
    (void)mkdirat(tmpdir_fd(env->dir), "staging", 0700);
    env->tree_fd = openat(tmpdir_fd(env->dir), "tree", O_PATH | O_DIRECTORY | O_CLOEXEC);
    env->staging_fd = openat(tmpdir_fd(env->dir), "staging", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    env->target = tmpdir_join(env->dir, "target");
    return NULL;
}

static int target_open(const Env *env) {
    return open(env->target, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static int do_mount(const Env *env, MountMethod method, bool exec, Err *err) {
    _cleanup_close_ int target = target_open(env);
    MountRequest request = {
        .tree_fd = env->tree_fd, .target_fd = target, .exec = exec, .staging_fd = env->staging_fd
    };

    return mount_tree(method, &request, err);
}

static void check_mounted(const Env *env, bool exec) {
    const unsigned long want = ST_RDONLY | ST_NOSUID | ST_NODEV | (exec ? 0 : ST_NOEXEC);
    _cleanup_close_ int target = target_open(env), fd = -EBADF;
    _cleanup_(freep) void *block = aligned_alloc(4096, 4096);
    struct statvfs fs;
    MountInfo *list;
    size_t n, found = 0;
    Err err;

    ASSERT_OK(fstatvfs(target, &fs));
    ASSERT_EQ(fs.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC), want);
    ASSERT_EQ(mount_shows(target, env->tree_fd, &err), 1);
    ASSERT_ERR(openat(target, "new", O_WRONLY | O_CREAT, 0600) < 0 ? -errno : 0, -EROFS);
    ASSERT_ERR(openat(target, "file", O_WRONLY) < 0 ? -errno : 0, -EROFS);
    ASSERT_ERR(unlinkat(target, "file", 0) < 0 ? -errno : 0, -EROFS);
    fd = openat(target, "file", O_RDONLY | O_DIRECT | O_CLOEXEC);
    ASSERT_OK(fd);
    ASSERT_EQ(read(fd, block, 4096), 5);
    ASSERT_MEMEQ(block, "HELLO", 5);
    ASSERT_OK(mount_list(&list, &n, &err));
    for (size_t i = 0; i < n; i++)
        if (streq(list[i].target, env->target)) {
            found++;
            ASSERT_TRUE(list[i].read_only);
            ASSERT_TRUE(endswith(list[i].root, "/tree") != NULL);
        }
    mount_info_free(list, n);
    ASSERT_EQ(found, 1);
}

static void check_method(MountMethod method) {
    _cleanup_(env_done) Env env;
    Err err = { "" };

    if (env_setup(&env))
        SKIP("mounting needs root and a mount namespace");
    env_write(tmpdir_fd(env.dir), "tree/file", "HELLO", 5);
    for (int exec = 0; exec < 2; exec++) {
        _cleanup_close_ int before = target_open(&env), after = -EBADF;

        ASSERT_EQ(mount_shows(before, env.tree_fd, &err), 0);
        ASSERT_OK(do_mount(&env, method, exec != 0, &err));
        check_mounted(&env, exec != 0);
        ASSERT_EQ(mount_detach(env.target, &err), 1);
        ASSERT_EQ(mount_detach(env.target, &err), 0);
        after = target_open(&env);
        ASSERT_EQ(mount_shows(after, env.tree_fd, &err), 0);
    }
    /* Nothing is left where it was staged, and the tree itself stays writable for us. */
    ASSERT_OK(rmdir(tmpdir_join(env.dir, "staging")));
    env_write(tmpdir_fd(env.dir), "tree/other", "", 0);
}

TEST(mount_detached_method) {
    check_method(MOUNT_METHOD_DETACHED);
}

TEST(mount_remount_method) {
    check_method(MOUNT_METHOD_REMOUNT);
}

/* Where "/" is shared, as systemd makes it, both must work as well, and join the target's peers. */
TEST(mount_on_a_shared_parent) {
    static const MountMethod methods[] = { MOUNT_METHOD_DETACHED, MOUNT_METHOD_REMOUNT };
    _cleanup_(env_done) Env env;
    Err err = { "" };

    if (env_setup(&env))
        SKIP("mounting needs root and a mount namespace");
    env_write(tmpdir_fd(env.dir), "tree/file", "HELLO", 5);
    ASSERT_OK(mount(NULL, "/", NULL, MS_REC | MS_SHARED, NULL));
    for (size_t i = 0; i < ELEMENTSOF(methods); i++) {
        _cleanup_free_ char *text = NULL;
        char *line;

        ASSERT_OK(do_mount(&env, methods[i], false, &err));
        check_mounted(&env, false);
        ASSERT_OK(fs_read_file(AT_FDCWD, "/proc/self/mountinfo", MiB(8), &text, NULL, &err));
        line = strstr(text, env.target);
        ASSERT_TRUE(line != NULL);
        *strchr(line, '\n') = '\0';
        ASSERT_STRSTR(line, "shared:");
        ASSERT_EQ(mount_detach(env.target, &err), 1);
    }
    ASSERT_OK(rmdir(tmpdir_join(env.dir, "staging")));
}

TEST(mount_detach_takes_a_stack_off_and_one_in_use) {
    _cleanup_(env_done) Env env;
    _cleanup_close_ int busy = -EBADF;
    char text[5];
    Err err = { "" };

    if (env_setup(&env))
        SKIP("mounting needs root and a mount namespace");
    env_write(tmpdir_fd(env.dir), "tree/file", "HELLO", 5);
    for (int i = 0; i < 3; i++)
        ASSERT_OK(do_mount(&env, MOUNT_METHOD_DETACHED, false, &err));
    busy = open(tmpdir_join(env.dir, "target/file"), O_RDONLY | O_CLOEXEC);
    ASSERT_OK(busy);
    for (int i = 0; i < 3; i++)
        ASSERT_EQ(mount_detach(env.target, &err), 1);
    ASSERT_EQ(mount_detach(env.target, &err), 0);
    ASSERT_EQ(pread(busy, text, 5, 0), 5); /* a workload keeps what it has open */
    ASSERT_OK(rmdir(env.target));
    ASSERT_EQ(mount_detach(env.target, &err), 0);
    ASSERT_EQ(mount_detach("/nowhere/at/all", &err), 0);
    ASSERT_ERR(mount_detach("/tmp/../x", &err), -EINVAL);
    ASSERT_ERR(mount_detach("relative", &err), -EINVAL);
}

TEST(mount_detach_follows_no_symlink) {
    _cleanup_(env_done) Env env;
    Err err = { "" };

    if (env_setup(&env))
        SKIP("mounting needs root and a mount namespace");
    ASSERT_OK(do_mount(&env, MOUNT_METHOD_DETACHED, false, &err));
    ASSERT_OK(symlinkat("target", tmpdir_fd(env.dir), "link"));
    ASSERT_EQ(mount_detach(tmpdir_join(env.dir, "link"), &err), 0);
    ASSERT_EQ(mount_detach(env.target, &err), 1);
}

TEST(mount_shows_something_else) {
    _cleanup_(env_done) Env env;
    _cleanup_close_ int target = -EBADF;
    Err err = { "" };

    if (env_setup(&env))
        SKIP("mounting needs root and a mount namespace");
    ASSERT_OK(mount("tmpfs", env.target, "tmpfs", 0, "size=1m"));
    target = target_open(&env);
    ASSERT_ERR(mount_shows(target, env.tree_fd, &err), -EEXIST);
}

TEST(mount_without_a_method_or_a_staging_directory) {
    _cleanup_(env_done) Env env;
    Err err = { "" };

    if (env_setup(&env))
        SKIP("mounting needs root and a mount namespace");
    ASSERT_ERR(do_mount(&env, MOUNT_METHOD_NONE, false, &err), -EPERM);
    (void)close(TAKE_FD(env.staging_fd));
    ASSERT_ERR(do_mount(&env, MOUNT_METHOD_REMOUNT, false, &err), -EINVAL);
}

TEST(mount_probe_leaves_nothing) {
    _cleanup_(env_done) Env env;
    const char *why;

    if (env_setup(&env))
        SKIP("mounting needs root and a mount namespace");
    ASSERT_NE(mount_method_probe(env.tree_fd, &why), MOUNT_METHOD_NONE);
    for (unsigned m = MOUNT_METHOD_NONE; m <= MOUNT_METHOD_REMOUNT; m++)
        ASSERT_TRUE(mount_method_name((MountMethod)m)[0] != '\0');
}
