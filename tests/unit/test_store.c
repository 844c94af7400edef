/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/store: opening, refusals, the folders of pulls, statistics. */
#include "tests/unit/store_env.h"

#include <sys/mount.h>

static void write_file(TmpDir *dir, const char *path, const char *text) {
    env_write(tmpdir_fd(dir), path, text, strlen(text));
}

TEST(store_makes_itself_and_opens_again) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    _cleanup_free_ char *first = NULL, *second = NULL;
    StoreStats stats;
    struct stat st;
    Err err;

    ASSERT_OK(fs_read_file(tmpdir_fd(dir), "store/format", 4096, &first, NULL, &err));
    ASSERT_TRUE(startswith(first, "modelcached store\nversion 1\nid ") != NULL);
    ASSERT_EQ(strlen(first), strlen("modelcached store\nversion 1\nid \n") + 32);
    ASSERT_OK(stat(store_path(s), &st));
    ASSERT_EQ(st.st_mode & 07777, 0700);
    ASSERT_OK(store_stats(s, &stats, &err));
    ASSERT_EQ(stats.bytes + stats.objects + stats.artifacts + stats.volumes, 0);
    ASSERT_TRUE(stats.fs_bytes > stats.fs_free_bytes && stats.fs_free_bytes > 0);
    store_close(s);
    s = env_open(dir);
    ASSERT_OK(fs_read_file(tmpdir_fd(dir), "store/format", 4096, &second, NULL, &err));
    ASSERT_STREQ(first, second);
    store_close(s);
}

TEST(store_follows_a_symlink_to_a_big_disk) {
    STORE_TEST_DIR(dir);
    Store *s = NULL;
    Err err;

    ASSERT_OK(mkdirat(tmpdir_fd(dir), "disk", 0755));
    ASSERT_OK(symlinkat("disk", tmpdir_fd(dir), "store"));
    ASSERT_OK(store_open(&s, tmpdir_join(dir, "store"), &err));
    ASSERT_STREQ(store_path(s), tmpdir_join(dir, "disk"));
    store_close(s);
}

TEST(store_wants_root) {
    enum { NOBODY = 65534 };
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = NULL;
    Err err = { "" };
    int r;

    ASSERT_OK(fchmod(tmpdir_fd(dir), 0755));
    ASSERT_OK(mkdirat(tmpdir_fd(dir), "store", 0755));
    ASSERT_OK(fchownat(tmpdir_fd(dir), "store", NOBODY, NOBODY, 0));
    ASSERT_OK(seteuid(NOBODY));
    r = store_open(&s, tmpdir_join(dir, "store"), &err);
    ASSERT_OK(seteuid(0));
    ASSERT_ERR(r, -EPERM);
    ASSERT_STRSTR(err.text, "run modelcached as root");
}

TEST(store_is_for_one_at_a_time) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) _unused_ Store *s = env_open(dir);
    _cleanup_(store_closep) Store *other = NULL;
    Err err;

    ASSERT_ERR(store_open(&other, tmpdir_join(dir, "store"), &err), -EWOULDBLOCK);
    ASSERT_STRSTR(err.text, "another modelcached");
}

TEST(store_refuses_what_is_not_its_own) {
    static const struct {
        const char *file, *text;
        int want;
        const char *sentence;
    } cases[] = {
        { "format", "something\n", -ENOTSUP, "not modelcached's" },
        { "format", "", -ENOTSUP, "not modelcached's" },
        { "format", "modelcached store\nversion 2\nid 00\n", -ENOTSUP, "version '2'" },
        { "format", "modelcached store\nversion x\n", -ENOTSUP, "version 'x'" },
        { "photo.jpg", "", -EUCLEAN, "photo.jpg" },
        { "index.db", "", -EUCLEAN, "index.db" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        STORE_TEST_DIR(dir);
        _cleanup_(store_closep) Store *s = NULL;
        _cleanup_free_ char *file = xasprintf("store/%s", cases[i].file);
        Err err;

        ASSERT_OK(mkdirat(tmpdir_fd(dir), "store", 0700));
        write_file(dir, file, cases[i].text);
        ASSERT_ERR(store_open(&s, tmpdir_join(dir, "store"), &err), cases[i].want);
        ASSERT_STRSTR(err.text, cases[i].sentence);
    }
}

TEST(store_takes_an_empty_disk_and_its_own_beginnings) {
    STORE_TEST_DIR(dir);
    Store *s;

    ASSERT_OK(mkdirat(tmpdir_fd(dir), "store", 0755));
    ASSERT_OK(mkdirat(tmpdir_fd(dir), "store/lost+found", 0700));
    write_file(dir, "store/lock", "");
    s = env_open(dir);
    store_close(s);
}

TEST(store_refuses_a_damaged_index) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = NULL;
    char garbage[8192];
    Err err;

    store_close(env_open(dir));
    memset(garbage, 'x', sizeof(garbage));
    env_write(tmpdir_fd(dir), "store/index.db", garbage, sizeof(garbage));
    ASSERT_ERR(store_open(&s, tmpdir_join(dir, "store"), &err), -EUCLEAN);
    ASSERT_STRSTR(err.text, "remove index.db");
}

TEST(store_refuses_bad_paths) {
    static const char *const paths[] = { "", "relative", "/a/../b", "/tmp/", "/tmp//x", "/" };

    for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
        _cleanup_(store_closep) Store *s = NULL;
        Err err;

        ASSERT_ERR(store_open(&s, paths[i], &err), -EINVAL);
    }
    _cleanup_(store_closep) Store *s = NULL;
    Err err;
    ASSERT_ERR(store_open(&s, "/proc/nothing/here", &err), -ENOENT);
}

TEST(store_refuses_tmpfs_and_a_read_only_disk) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = NULL;
    const char *path = tmpdir_join(dir, "store");
    Err err;
    int r;

    ASSERT_OK(mkdir(path, 0700));
    if (mount("tmpfs", path, "tmpfs", 0, "size=1m") < 0)
        SKIP("mounting is not allowed here");
    r = store_open(&s, path, &err);
    ASSERT_OK(umount2(path, MNT_DETACH));
    ASSERT_ERR(r, -ENOTSUP);
    ASSERT_STRSTR(err.text, "ext4, xfs or btrfs");

    ASSERT_OK(mount(path, path, NULL, MS_BIND, NULL));
    ASSERT_OK(mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
    r = store_open(&s, path, &err);
    ASSERT_OK(umount2(path, MNT_DETACH));
    ASSERT_ERR(r, -EROFS);
    ASSERT_STRSTR(err.text, path);
}

TEST(store_ingest_folders) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = -EBADF;
    int other = -EBADF;
    struct stat st;
    Err err;

    ASSERT_ERR(store_ingest_begin(s, "../x", 0, 0, &other, &err), -EINVAL);
    ASSERT_ERR(store_ingest_begin(s, "a/b", 0, 0, &other, &err), -EINVAL);
    ASSERT_OK(store_ingest_begin(s, "pull-1", 1234, 4321, &fd, &err));
    ASSERT_ERR(store_ingest_begin(s, "pull-1", 0, 0, &other, &err), -EEXIST);
    ASSERT_OK(fstat(fd, &st));
    ASSERT_EQ(st.st_uid, 1234);
    ASSERT_EQ(st.st_gid, 4321);
    ASSERT_EQ(st.st_mode & 07777, 0700);
    env_write(fd, "left", "over", 4);
    ASSERT_OK(store_ingest_end(s, "pull-1", &err));
    ASSERT_OK(store_ingest_end(s, "pull-1", &err));
    ASSERT_EQ(env_count(s, "ingest", true), 0);
    ASSERT_ERR(store_ingest_end(s, "..", &err), -EINVAL);
}

TEST(store_stats_count_what_is_stored) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    StoreStats stats;
    Err err;

    (void)env_artifact(s, "one", (const char *const[][2]){ { "a", "12345" }, { "b", "1" } }, 2);
    (void)env_artifact(s, "two", (const char *const[][2]){ { "c", "12345" } }, 1);
    ASSERT_OK(store_stats(s, &stats, &err));
    ASSERT_EQ(stats.artifacts, 2);
    ASSERT_EQ(stats.objects, 2);
    ASSERT_EQ(stats.bytes, 6);
}
