/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/recover: disk and index agree after a start, whatever was killed when. */
#include "cache/object.h"
#include "cache/store_internal.h"
#include "tests/unit/store_env.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#define ONE ((const char *const[][2]){ { "a", "12345" }, { "b", "1" } })

TEST(recovery_removes_what_no_row_knows) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2);
    _cleanup_free_ char *a = NULL;
    Err err;

    (void)mkdirat(tmpdir_fd(dir), "store/ingest/dead", 0700);
    env_write(tmpdir_fd(dir), "store/ingest/dead/partial", "x", 1);
    (void)mkdirat(tmpdir_fd(dir), "store/trees/.new-0123", 0700);
    env_write(tmpdir_fd(dir), "store/trees/.new-0123/x", "x", 1);
    (void)mkdirat(tmpdir_fd(dir),
                  "store/trees/"
                  "00000000000000000000000000000000000000000000000000000000000000ff",
                  0555);
    env_write(tmpdir_fd(dir),
              "store/objects/00/"
              "000000000000000000000000000000000000000000000000000000000000ff",
              "x", 1);
    env_write(tmpdir_fd(dir),
              "store/objects/ff/"
              "000000000000000000000000000000000000000000000000000000000000ff.x",
              "x", 1);
    env_write(tmpdir_fd(dir), "store/objects/7f/rubbish", "x", 1);
    store_close(s);
    s = env_open(dir);
    ASSERT_EQ(env_count(s, "ingest", true), 0);
    ASSERT_EQ(env_count(s, "objects", false), 2);
    ASSERT_EQ(env_count(s, "trees", true), 3);
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 1);
    a = env_read(s, &one, "a");
    ASSERT_STREQ(a, "12345");
    store_close(s);
}

TEST(recovery_drops_rows_without_content) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2), d;
    _cleanup_free_ char *path = NULL, *tree = NULL;
    Err err;

    digest_of(&d, "12345", 5);
    path = xasprintf("store/objects/%s", OBJECT_NAME(&d, false));
    ASSERT_OK(unlinkat(tmpdir_fd(dir), path, 0));
    store_close(s);
    s = env_open(dir);
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 0);
    ASSERT_EQ(env_count(s, "trees", true), 0);
    (void)env_artifact(s, "one", ONE, 2);
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 1);
    /* Only the tree is gone: it is built again without any new content. */
    tree = xstrdup(DIGEST_HEX(&one));
    ASSERT_OK(fs_remove_recursive(store_trees_fd(s), tree, &err));
    store_close(s);
    s = env_open(dir);
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 0);
    ASSERT_EQ(env_count(s, "objects", false), 2);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    ASSERT_OK(store_manifest(s, &one, &m, &err));
    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "one", &err));
    ASSERT_EQ(env_count(s, "trees", true), 3);
    store_close(s);
}

/* A mount that was being staged when the daemon died must not be removed through. */
TEST(recovery_takes_staged_mounts_off) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2);
    _cleanup_free_ char *tree = env_tree_path(s, &one, NULL), *a = NULL;
    const char *point = tmpdir_join(dir, "store/staging/0123");

    ASSERT_OK(mkdir(point, 0700));
    if (mount(tree, point, NULL, MS_BIND, NULL) < 0) {
        store_close(s);
        SKIP("mounting is not allowed here");
    }
    store_close(s);
    s = env_open(dir);
    ASSERT_EQ(access(point, F_OK), -1);
    a = env_read(s, &one, "a");
    ASSERT_STREQ(a, "12345");
    store_close(s);
}

TEST(recovery_takes_files_in_staging_away) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    const char *file = tmpdir_join(dir, "store/staging/file"),
               *link = tmpdir_join(dir, "store/staging/link");

    ASSERT_OK(mknod(file, S_IFREG | 0600, 0));
    ASSERT_OK(symlink("/", link));
    store_close(s);
    s = env_open(dir);
    ASSERT_EQ(access(file, F_OK), -1);
    ASSERT_EQ(faccessat(AT_FDCWD, link, F_OK, AT_SYMLINK_NOFOLLOW), -1);
    store_close(s);
}

TEST(recovery_of_a_hundred_thousand_objects_is_quick) {
    enum { N = 100000 };
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    struct timespec start, end;
    Err err;

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);

        ASSERT_OK(index_begin(ix, false, &err));
        for (int64_t i = 0; i < N; i++) {
            Digest d;
            _cleanup_close_ int fd = -EBADF;

            digest_of(&d, &i, sizeof(i));
            fd =
                openat(s->objects_fd, OBJECT_NAME(&d, false), O_CREAT | O_WRONLY | O_CLOEXEC, 0444);
            ASSERT_OK(fd);
            ASSERT_OK(index_run(
                ix, &err, "INSERT INTO objects (digest, exec, size, origin) VALUES (?, 0, 0, 'o')",
                "d", &d));
        }
        ASSERT_OK(index_commit(ix, &err));
    }
    store_close(s);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    s = env_open(dir);
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%d objects recovered in %.2f s\n", N,
           (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    ASSERT_EQ(env_count(s, "objects", false), N);
    ASSERT_TRUE(end.tv_sec - start.tv_sec < 10);
    store_close(s);
}

/* Commits and removes artifacts that share files, until it is killed; a byte to `done_fd` for each.
 */
_noreturn_ static void work(const char *path, unsigned seed, int done_fd) {
    Store *s = NULL;

    if (store_open(&s, path, NULL) < 0)
        _exit(EXIT_FAILURE);
    for (unsigned i = seed;; i++) {
        char names[3][32], contents[3][32];
        const char *files[3][2];

        for (unsigned k = 0; k < 3; k++) {
            (void)snprintf(names[k], sizeof(names[k]), "d%u/f%u", k % 2, k);
            (void)snprintf(contents[k], sizeof(contents[k]), "content %u", (i + k * k) % 12);
            files[k][0] = names[k];
            files[k][1] = contents[k];
        }
        char name[32];
        (void)snprintf(name, sizeof(name), "artifact-%u", i % 12);
        (void)env_artifact(s, name, (const char *const(*)[2])files, 3);
        (void)snprintf(name, sizeof(name), "artifact-%u", (i + 5) % 12);
        (void)!store_remove(s, name, NULL, NULL, NULL, NULL); /* mostly absent */
        if (write(done_fd, "", 1) != 1)
            _exit(EXIT_FAILURE);
    }
}

/* Lets the child finish `n` of its artifacts, then a little more. */
static void let_work(int done_fd, unsigned n, unsigned usec) {
    char byte;

    for (unsigned i = 0; i < n; i++)
        ASSERT_EQ(read(done_fd, &byte, 1), 1);
    (void)usleep(usec);
}

TEST(killed_at_any_moment_nothing_wrong_is_visible) {
    enum { ROUNDS = 40 };
    STORE_TEST_DIR(dir);
    const char *path = tmpdir_join(dir, "store");
    unsigned artifacts = 0;
    StoreStats stats;
    Err err;

    for (unsigned i = 0; i < ROUNDS; i++) {
        int done[2], status;
        Store *s;
        pid_t pid;

        ASSERT_OK(pipe2(done, O_CLOEXEC));
        pid = fork();
        ASSERT_OK(pid);
        if (pid == 0)
            work(path, i * 7, done[1]);
        (void)close(done[1]);
        let_work(done[0], i % 4, i * 7919 % 23 * 1000);
        ASSERT_OK(kill(pid, SIGKILL));
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        (void)close(done[0]); /* not before: the child would die of SIGPIPE */
        s = env_open(dir);
        env_check_invariants(s);
        ASSERT_OK(store_stats(s, &stats, &err));
        artifacts += stats.artifacts;
        store_close(s);
    }
    ASSERT_TRUE(artifacts > ROUNDS / 2); /* the children really worked */
}

/* One of each operation, in a child that is killed at a system call of its own. */
_noreturn_ static void work_traced(const char *path, unsigned i) {
    char content[32], name[32];
    Store *s = NULL;

    if (store_open(&s, path, NULL) < 0)
        _exit(EXIT_FAILURE);
    env_trace_me();
    (void)snprintf(content, sizeof(content), "content %u", i % 5);
    (void)snprintf(name, sizeof(name), "artifact-%u", i % 7);
    const char *files[2][2] = { { "a", "same" }, { "d/b", content } };
    (void)env_artifact(s, name, (const char *const(*)[2])files, 2);
    (void)!store_remove(s, name, NULL, NULL, NULL, NULL);
    _exit(EXIT_SUCCESS);
}

/* Each stop is the entry or the exit of a call; all of them take minutes, so a run takes a sample.
 */
TEST(killed_at_system_calls_one_by_one_nothing_wrong_is_visible) {
    enum { STEP = 7 };
    STORE_TEST_DIR(dir);
    const char *path = tmpdir_join(dir, "store");
    unsigned n = 0, rounds = 0;
    bool killed = true;

    store_close(env_open(dir));
    while (killed) {
        pid_t pid = fork();
        Store *s;

        ASSERT_OK(pid);
        if (pid == 0)
            work_traced(path, rounds);
        killed = env_kill_at(pid, n);
        s = env_open(dir);
        env_check_invariants(s);
        store_close(s);
        rounds++;
        n += STEP;
    }
    printf("killed at %u of %u stops\n", rounds - 1, n);
    ASSERT_TRUE(rounds > 10);
}

/* A small disk of its own.  Returns its mount point, or NULL when this machine can't do it. */
static const char *disk_make(TmpDir *dir, const char *size) {
    _cleanup_free_ char *command = xasprintf(
        "cd '%s' && mkdir disk && truncate -s %s image && mkfs.ext4 -q -F image >/dev/null 2>&1 &&"
        " mount -o loop image disk >/dev/null 2>&1",
        tmpdir_path(dir), size);

    return system(command) == 0 ? tmpdir_join(dir, "disk") : NULL;
}

/* After a failed test as well. */
static void disk_done(const char **disk) {
    if (*disk)
        (void)umount2(*disk, MNT_DETACH); /* mostly gone already */
}

static int disk_unmount(const char *disk) {
    return umount2(disk, 0) < 0 ? -errno : 0;
}

static int disk_mount_again(TmpDir *dir) {
    _cleanup_free_ char *command =
        xasprintf("cd '%s' && mount -o loop image disk", tmpdir_path(dir));

    return system(command) == 0 ? 0 : -EIO;
}

/* A power cut: the file system forgets all that was not made durable (EXT4_GOING_FLAGS_NOLOGFLUSH).
 */
static int disk_cut_power(const char *disk) {
    _cleanup_close_ int fd = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint32_t flags = 2;

    return ioctl(fd, _IOR('X', 125, uint32_t), &flags) < 0 ? -errno : 0;
}

/* The same with a store on it, and the next start.  -ENOTTY, -EOPNOTSUPP: this file system can't.
 */
static int disk_restart(TmpDir *dir, const char *disk, Store **s) {
    int r = disk_cut_power(disk);

    store_close(TAKE_PTR(*s));
    ASSERT_OK(disk_unmount(disk));
    return r < 0 ? r : disk_mount_again(dir);
}

TEST(a_power_cut_takes_nothing_that_was_answered) {
    STORE_TEST_DIR(dir);
    _cleanup_(disk_done) const char *disk = disk_make(dir, "128M");
    _cleanup_free_ char *path = disk ? xasprintf("%s/store", disk) : NULL, *a = NULL;
    _cleanup_close_ int fd = -EBADF;
    Store *s = NULL;
    Digest one;
    Err err;
    int r;

    if (!disk)
        SKIP("no loop device, mkfs.ext4 or permission to mount");
    ASSERT_OK(store_open(&s, path, &err));
    one = env_artifact(s, "one", ONE, 2);
    fd = env_ingest(s, "dead");
    env_write(fd, "partial", "x", 1);
    (void)close(TAKE_FD(fd));
    r = disk_restart(dir, disk, &s);
    if (r == -ENOTTY || r == -EOPNOTSUPP)
        SKIP("the file system can't be shut down");
    ASSERT_OK(r);
    ASSERT_OK(store_open(&s, path, &err));
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 1);
    a = env_read(s, &one, "a");
    ASSERT_STREQ(a, "12345");
    env_check_invariants(s);
    store_close(s);
    ASSERT_OK(disk_unmount(disk));
}

/* Gives the object all the names that a file may have. */
static void link_to_the_limit(const Store *s, const Digest *object) {
    _cleanup_close_ int many = -EBADF;
    char name[16];
    int r = 0;

    ASSERT_OK(mkdirat(s->fd, "../many", 0700));
    many = openat(s->fd, "../many", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; r == 0; i++) {
        (void)snprintf(name, sizeof(name), "%u", i);
        r = linkat(s->objects_fd, OBJECT_NAME(object, false), many, name, 0);
    }
    ASSERT_EQ(errno, EMLINK);
}

/* A file that has no names left is copied for the next tree. */
TEST(a_power_cut_takes_no_copy) {
    STORE_TEST_DIR(dir);
    _cleanup_(disk_done) const char *disk = disk_make(dir, "128M");
    _cleanup_free_ char *path = disk ? xasprintf("%s/store", disk) : NULL, *c = NULL;
    const char *const again[][2] = { { "c", "12345" } };
    Store *s = NULL;
    Digest object, two;
    Err err;
    int r;

    if (!disk)
        SKIP("no loop device, mkfs.ext4 or permission to mount");
    ASSERT_OK(store_open(&s, path, &err));
    (void)env_artifact(s, "one", ONE, 2);
    digest_of(&object, "12345", strlen("12345"));
    link_to_the_limit(s, &object);
    two = env_artifact(s, "two", again, 1);
    r = disk_restart(dir, disk, &s);
    if (r == -ENOTTY || r == -EOPNOTSUPP)
        SKIP("the file system can't be shut down");
    ASSERT_OK(r);
    ASSERT_OK(store_open(&s, path, &err));
    ASSERT_EQ(store_has_manifest(s, &two, ENV_ORIGIN, &err), 1);
    c = env_read(s, &two, "c");
    ASSERT_STREQ(c, "12345");
    store_close(s);
    ASSERT_OK(disk_unmount(disk));
}

/* Fills the disk, with `n` bytes left free. */
static void disk_fill(const char *disk, off_t leave) {
    _cleanup_close_ int dir = open(disk, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    _cleanup_close_ int fd = openat(dir, "fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    struct statfs fs;

    (void)fstatfs(fd, &fs);
    for (off_t n = (off_t)fs.f_bfree * fs.f_bsize - leave; n > 4096; n /= 2) {
        struct stat st;

        (void)fstat(fd, &st);
        (void)fallocate(fd, 0, st.st_size, n);
        (void)fstatfs(fd, &fs);
        n = MIN(n, (off_t)fs.f_bfree * fs.f_bsize - leave);
    }
}

/* Many small files, so that names and rows need space as well.  The disk is filled before the
 * commit, but for `leave` bytes. */
static int commit_many(Store *s, const char *disk, off_t leave, Err *err) {
    enum { N = 1000 };
    _cleanup_free_ char *name = xasprintf("many-%lld", (long long)leave);
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry *entries = xnew_n(LayerEntry, N);
    Layer layer = env_tar(name);
    _cleanup_(manifest_freep) Manifest *m = env_manifest(name, &layer, 1);
    int r;

    for (size_t i = 0; i < N; i++) {
        _cleanup_free_ char *path =
            xasprintf("a-directory-with-a-long-name-%zu/a-file-%zu", i / 4, i);

        entries[i] = env_file(-1, path, name);
        digest_of(&entries[i].digest, &i, sizeof(i)); /* nobody looks at the content */
        entries[i].size = 0;
        entries[i].ingest = xasprintf("f%zu", i);
        env_write(fd, entries[i].ingest, "", 0);
    }
    disk_fill(disk, leave);
    r = env_commit(s, ENV_PULL("p"), &m->layers[0], entries, N, err);
    layer_entries_free(entries, N);
    if (r >= 0)
        r = store_commit_manifest(s, m, ENV_ORIGIN, "r", err);
    if (store_ingest_end(s, "p", NULL) < 0)
        test_fail(__FILE__, __LINE__, "store_ingest_end failed");
    return r;
}

TEST(a_full_disk_is_said_so_and_leaves_a_good_store) {
    STORE_TEST_DIR(dir);
    _cleanup_(disk_done) const char *disk = disk_make(dir, "64M");
    _cleanup_free_ char *path = disk ? xasprintf("%s/store", disk) : NULL,
                        *fill = disk ? xasprintf("%s/fill", disk) : NULL;
    Store *s = NULL;
    Digest one;
    Err err = { "" };
    int n_full = 0;

    if (!disk)
        SKIP("no loop device, mkfs.ext4 or permission to mount");
    ASSERT_OK(store_open(&s, path, &err));
    one = env_artifact(s, "one", ONE, 2);
    for (off_t leave = 16384; leave <= 1 << 20; leave *= 2) {
        int r = commit_many(s, disk, leave, &err);

        ASSERT_TRUE(r == 0 || r == -ENOSPC);
        if (r < 0) {
            n_full++;
            ASSERT_TRUE(strcasestr(err.text, "no space") != NULL);
        }
        ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 1);
        ASSERT_OK(unlink(fill));
        (void)!store_remove(s, "r", NULL, NULL, NULL, NULL); /* absent when it failed */
        ASSERT_OK(store_prune(s, NULL, &err));
        ASSERT_EQ(env_count(s, "objects", false), 2);
        ASSERT_EQ(env_count(s, "trees", true), 3);
        ASSERT_EQ(env_count(s, "ingest", true), 0);
    }
    ASSERT_TRUE(n_full > 0);
    store_close(s);
    ASSERT_OK(store_open(&s, path, &err));
    env_check_invariants(s);
    store_close(s);
    ASSERT_OK(disk_unmount(disk));
}

static Volume numbered_volume(const Digest *manifest, unsigned i) {
    return (Volume){ .volume_id = xasprintf("volume-%u", i),
                     .target = xasprintf("/a/target/path/of/a/volume/of/a/pod/%u", i),
                     .parameters = xstrdup("parameters"),
                     .manifest = *manifest };
}

/* Adds volumes until there is no space; returns how many are recorded. */
static unsigned add_volumes(Store *s, const Digest *manifest, unsigned first) {
    for (unsigned i = first;; i++) {
        Volume v = numbered_volume(manifest, i);
        Err err = { "" };
        int r = store_volume_add(s, &v, &err);

        volume_clear(&v);
        if (r == -ENOSPC)
            return i;
        ASSERT_OK(r);
    }
}

static void remove_volumes(Store *s, const Digest *manifest, unsigned from, unsigned to) {
    for (unsigned i = from; i < to; i++) {
        Volume v = numbered_volume(manifest, i);
        Err err = { "" };

        if (store_volume_remove(s, v.volume_id, v.target, &err) < 0)
            test_fail(__FILE__, __LINE__, "volume %u of %u: %s", i, to, err.text);
        volume_clear(&v);
    }
}

TEST(a_full_disk_keeps_nothing_from_being_removed) {
    STORE_TEST_DIR(dir);
    _cleanup_(disk_done) const char *disk = disk_make(dir, "64M");
    _cleanup_free_ char *path = disk ? xasprintf("%s/store", disk) : NULL,
                        *fill = disk ? xasprintf("%s/fill", disk) : NULL;
    Store *s = NULL;
    unsigned n;
    Digest one, two;
    Err err = { "" };

    if (!disk)
        SKIP("no loop device, mkfs.ext4 or permission to mount");
    ASSERT_OK(store_open(&s, path, &err));
    one = env_artifact(s, "one", ONE, 2);
    two = env_artifact(s, "two", ((const char *const[][2]){ { "c", "two" } }), 1);
    disk_fill(disk, 2 << 20); /* ext4 keeps more than 1 MiB to itself */
    n = add_volumes(s, &one, 0);
    ASSERT_TRUE(n > 0);
    remove_volumes(s, &one, 0, 1);
    disk_fill(disk, 0); /* what the reserve gave up is for the log, not for others */
    remove_volumes(s, &one, 1, n / 2);
    ASSERT_EQ(add_volumes(s, &one, n), n); /* and not for this */
    store_close(s);
    ASSERT_OK(store_open(&s, path, &err));
    remove_volumes(s, &one, n / 2, n);
    ASSERT_OK(store_remove(s, "one", NULL, NULL, NULL, &err));
    ASSERT_EQ(store_has_manifest(s, &two, ENV_ORIGIN, &err), 1);
    ASSERT_OK(unlink(fill));
    Volume v = numbered_volume(&two, 0);
    ASSERT_OK(store_volume_add(s, &v, &err));
    volume_clear(&v);
    store_close(s);
    ASSERT_OK(store_open(&s, path, &err));
    env_check_invariants(s);
    store_close(s);
    ASSERT_OK(disk_unmount(disk));
}
