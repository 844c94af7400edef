/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/partial: what is kept of an interrupted pull, to whom it is given, when it goes.
 */
#include "cache/object.h"
#include "cache/partial.h"
#include "tests/unit/store_env.h"

#include <time.h>

#define A "00000000000000000000000000000000000000000000000000000000000000aa"
#define B "00000000000000000000000000000000000000000000000000000000000000bb"

static Layer layer_a(void) {
    return (Layer){ .digest = { .bytes = { [DIGEST_BYTES - 1] = 0xaa } } };
}

/* Both files of a blob, in a folder. */
static void put(int dir_fd, const char *hex, const char *text) {
    _cleanup_free_ char *part = xasprintf("%s.part", hex), *map = xasprintf("%s.map", hex);

    env_write(dir_fd, part, text, strlen(text));
    env_write(dir_fd, map, "map", 3);
}

static bool is_there(const Store *s, const char *hex, const char *suffix) {
    _cleanup_free_ char *path = xasprintf("%s/partial/%s", store_path(s), ENV_KEPT(hex, suffix));

    return access(path, F_OK) == 0;
}

TEST(partial_goes_from_one_pull_to_the_next) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int one = env_ingest(s, "r-one"), two = -EBADF;
    _cleanup_free_ char *text = NULL;
    const Layer a = layer_a();
    uint64_t bytes = 0, all = 0;
    StoreStats stats;
    struct stat st;
    Err err = { "" };

    put(one, A, "half");
    env_write(one, "other", "x", 1);
    ASSERT_OK(store_partial_keep(s, "r-one", true, &err));
    ASSERT_OK(store_ingest_end(s, "r-one", &err));
    ASSERT_EQ(env_count(s, "ingest", true), 0);
    ASSERT_EQ(env_count(s, "partial", true), 2);
    ASSERT_TRUE(is_there(s, A, ".part") && is_there(s, A, ".map"));
    ASSERT_OK(store_partial_bytes(s, &all, &err));
    ASSERT_TRUE(all > 0);
    ASSERT_OK(store_stats(s, &stats, &err));
    ASSERT_EQ(stats.partial_layers, 1);
    ASSERT_EQ(stats.partial_bytes, all);
    ASSERT_OK(store_ingest_begin(s, "r-two", 1234, 4321, &two, &err));
    ASSERT_EQ(store_partial_claim(s, "r-two", &a, &bytes, &err), 1);
    ASSERT_EQ(bytes, all);
    ASSERT_EQ(store_partial_claim(s, "r-two", &a, &bytes, &err), 0);
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_OK(fstatat(two, A ".part", &st, AT_SYMLINK_NOFOLLOW));
    ASSERT_EQ(st.st_uid, 1234);
    ASSERT_EQ(st.st_gid, 4321);
    ASSERT_EQ(st.st_mode & 07777, 0600);
    ASSERT_OK(fs_read_file(two, A ".part", 100, &text, NULL, &err));
    ASSERT_STREQ(text, "half");
    ASSERT_OK(store_partial_keep(s, "r-two", true, &err));
    ASSERT_OK(fstatat(s->partial_fd, ENV_KEPT(A, ".map"), &st, AT_SYMLINK_NOFOLLOW));
    ASSERT_EQ(st.st_uid, 0);
    ASSERT_OK(store_ingest_end(s, "r-two", &err));
}

/* Who knows a digest learns nothing of what came from elsewhere, and goes on with nothing of it. */
TEST(partial_is_for_the_same_repository) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    static const char *const origins[] = { "r.example/a", "r.example/b", "r.example/a" };
    char name[3][STORE_INGEST_NAME_MAX];
    const Layer a = layer_a();
    uint64_t bytes;
    Err err = { "" };

    for (unsigned i = 0; i < 3; i++)
        ASSERT_OK(store_ingest_name(name[i], origins[i], &err));
    ASSERT_EQ(strlen(name[0]), STORE_INGEST_NAME_MAX - 1);
    ASSERT_TRUE(!streq(name[0], name[2]));
    for (unsigned i = 0; i < 2; i++) { /* the second time it is found at the start */
        _cleanup_close_ int from = env_ingest(s, name[0]), other = -EBADF, same = -EBADF;

        put(from, A, "half");
        if (i == 0)
            ASSERT_OK(store_partial_keep(s, name[0], true, &err));
        else {
            store_close(s);
            s = env_open(dir);
        }
        other = env_ingest(s, name[1]);
        same = env_ingest(s, name[2]);
        ASSERT_EQ(store_partial_claim(s, name[1], &a, &bytes, &err), 0);
        partial_forget(s, ENV_PULL(name[1]), other, &a);
        ASSERT_EQ(store_partial_claim(s, name[2], &a, &bytes, &err), 1);
        for (unsigned k = 0; k < 3; k++)
            ASSERT_OK(store_ingest_end(s, name[k], &err));
    }
    store_close(s);
}

/* A worker that was taken over chooses names, types and links. */
TEST(partial_takes_nothing_that_is_not_as_it_should_be) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    static const char *const names[] = {
        "x.part",
        "AA000000000000000000000000000000000000000000000000000000000000aa.part",
        "00000000000000000000000000000000000000000000000000000000000000a.part",
        "000000000000000000000000000000000000000000000000000000000000000aa.part",
        A,
        A ".parts",
        A ".part.map",
        A "/map",
        ".part",
        A ".Map",
        "0x000000000000000000000000000000000000000000000000000000000000aa.part",
        " 00000000000000000000000000000000000000000000000000000000000000a.map",
    };
    static const char hex[] = "0123456789abcdef";
    char own[80];
    Err err = { "" };

    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        if (!strchr(names[i], '/'))
            env_write(fd, names[i], "x", 1);
    for (unsigned i = 0; i < 5; i++) { /* good names, bad files */
        for (unsigned k = 0; k < 2; k++) {
            (void)snprintf(own, sizeof(own), "%063d%c.%s", 0, hex[i], k ? "part" : "map");
            if (i == 0)
                ASSERT_OK(symlinkat("/etc/passwd", fd, own));
            else if (i == 1)
                ASSERT_OK(mkdirat(fd, own, 0700));
            else if (i == 2)
                ASSERT_OK(mkfifoat(fd, own, 0600));
            else if (i == 3)
                ASSERT_OK(mknodat(fd, own, S_IFCHR | 0600, 0x103));
            else {
                env_write(fd, own, "x", 1);
                ASSERT_OK(linkat(fd, own, fd, k ? "second" : "third", 0));
            }
        }
    }
    put(fd, B, "good");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", true), 2);
    ASSERT_TRUE(is_there(s, B, ".part"));
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
    ASSERT_ERR(store_partial_keep(s, "../p", true, &err), -EINVAL);
    ASSERT_OK(store_partial_keep(s, "r-gone", true, &err));
}

TEST(partial_halves_are_dropped) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    const Layer a = layer_a();
    uint64_t bytes;
    Err err = { "" };

    env_write(fd, A ".part", "x", 1);
    env_write(fd, B ".map", "x", 1);
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_EQ(store_partial_claim(s, "r-p", &a, &bytes, &err), 0);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

/* Of a worker that still writes nothing is taken. */
TEST(partial_that_is_open_for_writing_is_not_kept) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p"), writer = -EBADF;
    Err err = { "" };

    put(fd, A, "half");
    writer = openat(fd, A ".part", O_WRONLY | O_CLOEXEC);
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

TEST(partial_survives_a_killed_daemon) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p"), odd = -EBADF;
    const Layer a = layer_a();
    const struct timespec sealed[2] = { { .tv_sec = OBJECT_MTIME_SEC },
                                        { .tv_sec = OBJECT_MTIME_SEC } };
    struct stat st;
    uint64_t bytes;
    Err err = { "" };

    put(fd, A, "half");
    ASSERT_OK(fchmodat(fd, A ".part", 0444, 0)); /* it was being committed */
    ASSERT_OK(utimensat(fd, A ".part", sealed, 0));
    env_write(fd, "decoded", "x", 1);
    odd = openat(store_trees_fd(s), "../ingest", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    env_write(odd, "file", "x", 1);
    ASSERT_OK(symlinkat("/", odd, "link"));
    store_close(s);
    s = env_open(dir);
    ASSERT_EQ(env_count(s, "ingest", true), 0);
    ASSERT_EQ(env_count(s, "partial", true), 2);
    odd = safe_close(odd);
    odd = openat(store_trees_fd(s), "../partial", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    env_write(odd, "rubbish", "x", 1);
    ASSERT_OK(symlinkat("/etc/passwd", odd, B ".map"));
    ASSERT_OK(mkdirat(odd, B ".part", 0700));
    store_close(s);
    s = env_open(dir);
    ASSERT_EQ(env_count(s, "partial", true), 2);
    fd = safe_close(fd);
    fd = env_ingest(s, "r-q");
    ASSERT_EQ(store_partial_claim(s, "r-q", &a, &bytes, &err), 1);
    ASSERT_OK(fstatat(fd, A ".part", &st, AT_SYMLINK_NOFOLLOW));
    ASSERT_EQ(st.st_mode & 07777, 0600);
    ASSERT_OK(store_ingest_end(s, "r-q", &err));
    ASSERT_EQ(env_count(s, "partial", true), 0);
    store_close(s);
}

TEST(partial_old_ones_and_too_many_go) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p"), partial = -EBADF;
    struct timespec old[2] = { { .tv_sec = time(NULL) - 8 * 24 * 3600 },
                               { .tv_sec = time(NULL) - 8 * 24 * 3600 } };
    Err err = { "" };

    put(fd, A, "old");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    partial = openat(store_trees_fd(s), "../partial", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_OK(utimensat(partial, ENV_KEPT(A, ".part"), old, 0));
    put(fd, B, "first");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", true), 2);
    ASSERT_TRUE(!is_there(s, A, ".part"));
    old[0].tv_sec = old[1].tv_sec = time(NULL) - 3600;
    ASSERT_OK(utimensat(partial, ENV_KEPT(B, ".part"), old, 0));
    for (unsigned i = 1; i <= 64; i++) {
        char hex[80];
        (void)snprintf(hex, sizeof(hex), "%064x", i);
        put(fd, hex, "x");
    }
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", true), 128);
    ASSERT_TRUE(!is_there(s, B, ".part"));
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
    store_close(s);
}

/* A worker that was taken over fills its folder: no more is moved than would be kept. */
TEST(partial_of_one_pull_is_bounded) {
    enum { N = 200 };
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    Err err = { "" };

    for (unsigned i = 1; i <= N; i++) {
        char hex[80];
        (void)snprintf(hex, sizeof(hex), "%064x", i);
        put(fd, hex, "x");
        (void)snprintf(hex, sizeof(hex), "%064x.part", N + i);
        env_write(fd, hex, "x", 1);
    }
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", false), 2 * 64);
    ASSERT_EQ(env_count(s, "ingest", false), 2 * (N - 64) + N);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

/* One pull ends early, the next begins, until it is killed. */
_noreturn_ static void work_traced(const char *path) {
    Store *s = NULL;
    const Layer a = layer_a();
    uint64_t bytes;
    int one, two;

    if (store_open(&s, path, NULL) < 0)
        _exit(EXIT_FAILURE);
    one = env_ingest(s, "r-one");
    two = env_ingest(s, "r-two");
    if (one < 0 || two < 0)
        _exit(EXIT_FAILURE);
    put(one, A, "half");
    env_trace_me();
    if (store_partial_keep(s, "r-one", true, NULL) < 0 || store_ingest_end(s, "r-one", NULL) < 0 ||
        store_partial_claim(s, "r-two", &a, &bytes, NULL) != 1)
        _exit(EXIT_FAILURE);
    _exit(EXIT_SUCCESS);
}

/* Wherever it was, the next pull gets both files. */
TEST(partial_killed_at_system_calls_one_by_one_it_stays_whole) {
    enum { STEP = 3 };
    STORE_TEST_DIR(dir);
    const char *path = tmpdir_join(dir, "store");
    const Layer a = layer_a();
    unsigned n = 0, rounds = 0;
    uint64_t bytes;
    bool killed = true;
    Err err = { "" };

    store_close(env_open(dir));
    while (killed) {
        pid_t pid = fork();
        _cleanup_close_ int fd = -EBADF;
        Store *s;

        ASSERT_OK(pid);
        if (pid == 0)
            work_traced(path);
        killed = env_kill_at(pid, n);
        s = env_open(dir);
        fd = env_ingest(s, "r-three");
        ASSERT_EQ(store_partial_claim(s, "r-three", &a, &bytes, &err), 1);
        ASSERT_EQ(env_count(s, "ingest", false), 2);
        ASSERT_EQ(env_count(s, "partial", true), 0);
        ASSERT_OK(store_ingest_end(s, "r-three", &err));
        store_close(s);
        rounds++;
        n += STEP;
    }
    printf("killed at %u of %u stops\n", rounds - 1, n);
    ASSERT_TRUE(rounds > 20);
}

TEST(partial_goes_when_the_blob_is_an_object_and_when_room_is_needed) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    Digest d;
    uint64_t freed = 0;
    Err err = { "" };

    digest_of(&d, "12345", 5);
    put(fd, DIGEST_HEX(&d), "123");
    put(fd, A, "half");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", true), 4);
    (void)env_artifact(s, "r-one", (const char *const[][2]){ { "a", "12345" } }, 1);
    ASSERT_EQ(env_count(s, "partial", true), 2);
    ASSERT_TRUE(is_there(s, A, ".part"));
    ASSERT_EQ(store_prune(s, &freed, &err), 1);
    ASSERT_TRUE(freed > 0);
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_EQ(env_count(s, "objects", false), 1);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

/* What a pull brought that nobody should go on with goes; what others brought stays. */
TEST(partial_discard_takes_only_the_content_of_its_own_pull) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int p = env_ingest(s, "r-p"), q = env_ingest(s, "r-q");
    Err err = { "" };

    for (unsigned i = 0; i < 3; i++) {
        LayerEntry *e = xnew(LayerEntry);
        Layer layer;
        *e = env_file(i == 1 ? q : p, i == 2 ? "c" : "ab", i == 2 ? "both" : i ? "of q" : "of p");
        layer = env_raw(e);
        ASSERT_OK(env_commit(s, ENV_PULL(i == 1 ? "r-q" : "r-p"), &layer, e, 1, &err));
        if (i == 2)
            ASSERT_EQ(store_lease_layer(s, ENV_PULL("r-q"), &layer, &err), 1);
        free(layer.media_type);
        free(layer.path);
        layer_entries_free(e, 1);
    }
    ASSERT_EQ(env_count(s, "objects", false), 3);
    ASSERT_OK(store_ingest_discard(s, "r-p", &err));
    ASSERT_EQ(env_count(s, "objects", false), 2);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
    ASSERT_OK(store_ingest_end(s, "r-q", &err));
    ASSERT_EQ(env_count(s, "objects", false), 2);
}
