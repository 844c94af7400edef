/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/partial_tar: how the files of a layer move: beside what others do, and killed
 * anywhere. */
#include "tests/unit/partial_tar_env.h"

#include <pthread.h>
#include <time.h>

/* Of what a daemon was moving when it was killed the start finds what has its checkpoint; while it
 * runs nobody touches it. */
TEST(partial_tar_that_was_moving_is_whole_or_goes) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    static const char *const names[] = { A, C, D };
    uint64_t bytes;
    Err err = { "" };

    for (unsigned i = 0; i < 3; i++) {
        const char *name = i == 2 ? ".gone-0" : MOVING(names[i], "r-p");
        _cleanup_close_ int fd = -EBADF;

        ASSERT_OK(mkdirat(s->partial_fd, name, 0700));
        fd = openat(s->partial_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        put(fd, names[i], "state");
        ASSERT_OK(renameat(fd, CHECKPOINT(names[i]), fd, i == 1 ? "none" : "checkpoint"));
    }
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_OK(store_partial_keep(s, "r-gone", true, &err));
    ASSERT_OK(store_prune(s, NULL, &err));
    ASSERT_EQ(bytes, 0);
    ASSERT_EQ(env_count(s, "partial", true), 3 * (1 + FILES + 2));
    store_close(s);
    s = env_open(dir);
    ASSERT_TRUE(is_kept(s, A));
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
    store_close(s);
}

/* What is dropped under the lock is not there any more; its files go without it. */
TEST(partial_tar_files_go_after_the_layer) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    PartialGone gone = { .s = s };
    uint64_t bytes;
    Digest key;
    Err err = { "" };

    put(fd, A, "state");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_OK(parse_hex(ENV_KEPT(A, ""), 2 * DIGEST_BYTES, key.bytes));
    partial_tar_drop(&gone, &key);
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_EQ(bytes, 0);
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
    partial_gone_done(&gone);
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

typedef struct Other {
    Store *s;
    const char *pull;
    bool claims;
    int r;
    Err err;
} Other;

static void *work(void *arg) {
    Other *o = arg;
    const Layer a = layer_of(A);
    uint64_t bytes;

    o->r = o->claims ? store_partial_claim(o->s, o->pull, &a, &bytes, &o->err)
                     : store_partial_keep(o->s, o->pull, true, &o->err);
    return NULL;
}

/* Starts it; it waits in the middle of the layer, for somebody who has a file of it open. */
static pthread_t start(Other *o) {
    struct stat st;
    pthread_t thread;

    ASSERT_EQ(pthread_create(&thread, NULL, work, o), 0);
    for (unsigned i = 0; i < 5000; i++) {
        if (fstatat(o->s->partial_fd, MOVING(A, o->pull), &st, AT_SYMLINK_NOFOLLOW) == 0)
            return thread;
        (void)usleep(100);
    }
    test_fail(__FILE__, __LINE__, "nothing moves");
}

/* Nobody holds the lock for longer than a rename takes; the writer is waited for a second. */
static void assert_free(Store *s) {
    struct timespec until;

    ASSERT_OK(clock_gettime(CLOCK_REALTIME, &until));
    until.tv_nsec += 300 * 1000 * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    ASSERT_EQ(pthread_mutex_timedlock(&s->partial, &until), 0);
    (void)pthread_mutex_unlock(&s->partial);
}

/* Plans and commits of others do not wait for the many files of a layer, and two that keep the same
 * layer do not mix theirs. */
TEST(partial_tar_is_kept_while_others_work) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int one = env_ingest(s, "r-one"), two = env_ingest(s, "r-two"),
                        three = env_ingest(s, "r-three"), writer = -EBADF;
    Other other = { .s = s, .pull = "r-two" };
    const Layer a = layer_of(A);
    _cleanup_free_ char *text = NULL, *later = NULL;
    pthread_t thread;
    uint64_t bytes;
    Err err = { "" };

    put(one, A, "first");
    env_write(one, FILE_NAME(A, 77), "x", 1);
    put(two, A, "second");
    writer = openat(two, FILE_NAME(A, 2), O_WRONLY | O_CLOEXEC);
    thread = start(&other);
    assert_free(s);
    ASSERT_OK(store_partial_keep(s, "r-one", true, &err));
    ASSERT_TRUE(is_kept(s, A) && is_in(s->partial_fd, MOVING(A, "r-two")));
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_EQ(bytes, (FILES + 3) * 4096);
    ASSERT_EQ(store_partial_claim(s, "r-three", &a, &bytes, &err), 1);
    ASSERT_OK(fs_read_file(three, CHECKPOINT(A), 100, &text, NULL, &err));
    ASSERT_STREQ(text, "first");
    ASSERT_TRUE(is_in(three, FILE_NAME(A, 77)) && is_in(s->partial_fd, MOVING(A, "r-two")));
    writer = safe_close(writer);
    ASSERT_EQ(pthread_join(thread, NULL), 0);
    ASSERT_OK(other.r);
    ASSERT_TRUE(is_kept(s, A));
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
    ASSERT_OK(fs_read_file(s->partial_fd, ENV_KEPT(A, ".tar/checkpoint"), 100, &later, NULL, &err));
    ASSERT_STREQ(later, "second");
    ASSERT_OK(store_ingest_end(s, "r-one", &err));
    ASSERT_OK(store_ingest_end(s, "r-two", &err));
    ASSERT_OK(store_ingest_end(s, "r-three", &err));
}

TEST(partial_tar_is_given_while_others_work) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int one = env_ingest(s, "r-one"), two = env_ingest(s, "r-two"),
                        three = env_ingest(s, "r-three"), writer = -EBADF;
    Other other = { .s = s, .pull = "r-two", .claims = true };
    const Layer a = layer_of(A);
    char path[160];
    pthread_t thread;
    uint64_t bytes;
    Err err = { "" };

    put(one, A, "first");
    put(three, A, "second");
    ASSERT_OK(store_partial_keep(s, "r-one", true, &err));
    (void)snprintf(path, sizeof(path), "%s/%s", ENV_KEPT(A, ".tar"), FILE_NAME(A, 2));
    writer = openat(s->partial_fd, path, O_WRONLY | O_CLOEXEC);
    ASSERT_OK(writer);
    thread = start(&other);
    assert_free(s);
    ASSERT_EQ(store_partial_claim(s, "r-one", &a, &bytes, &err), 0);
    ASSERT_OK(store_partial_keep(s, "r-three", true, &err));
    ASSERT_OK(partial_clear(s, &bytes, &err));
    ASSERT_TRUE(is_in(s->partial_fd, MOVING(A, "r-two")));
    writer = safe_close(writer);
    ASSERT_EQ(pthread_join(thread, NULL), 0);
    ASSERT_EQ(other.r, 1);
    assert_layer(two, A, 0, CHECKPOINT(A));
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_OK(store_ingest_end(s, "r-one", &err));
    ASSERT_OK(store_ingest_end(s, "r-two", &err));
    ASSERT_OK(store_ingest_end(s, "r-three", &err));
}

/* One pull ends early, the next begins, until it is killed. */
_noreturn_ static void work_traced(const char *path) {
    Store *s = NULL;
    uint64_t bytes;
    const Layer a = layer_of(A);
    int one, two;

    if (store_open(&s, path, NULL) < 0)
        _exit(EXIT_FAILURE);
    one = env_ingest(s, "r-one");
    two = env_ingest(s, "r-two");
    if (one < 0 || two < 0)
        _exit(EXIT_FAILURE);
    put(one, A, "state");
    env_trace_me();
    if (store_partial_keep(s, "r-one", true, NULL) < 0 || store_ingest_end(s, "r-one", NULL) < 0 ||
        store_partial_claim(s, "r-two", &a, &bytes, NULL) != 1)
        _exit(EXIT_FAILURE);
    _exit(EXIT_SUCCESS);
}

/* Wherever it was, the next pull gets all of it. */
TEST(partial_tar_killed_at_system_calls_one_by_one_it_stays_whole) {
    enum { STEP = 5 };
    STORE_TEST_DIR(dir);
    const char *path = tmpdir_join(dir, "store");
    const Layer a = layer_of(A);
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
        ASSERT_EQ(env_count(s, "ingest", true), 0);
        fd = env_ingest(s, "r-three");
        ASSERT_EQ(store_partial_claim(s, "r-three", &a, &bytes, &err), 1);
        assert_layer(fd, A, 0, CHECKPOINT(A));
        ASSERT_EQ(env_count(s, "partial", true), 0);
        ASSERT_OK(store_ingest_end(s, "r-three", &err));
        store_close(s);
        rounds++;
        n += STEP;
    }
    printf("killed at %u of %u stops\n", rounds - 1, n);
    ASSERT_TRUE(rounds > 20);
}

/* Room is made, until it is killed. */
_noreturn_ static void prune_traced(const char *path) {
    Store *s = NULL;
    int fd;

    if (store_open(&s, path, NULL) < 0)
        _exit(EXIT_FAILURE);
    fd = env_ingest(s, "r-one");
    put(fd, A, "state");
    if (store_partial_keep(s, "r-one", true, NULL) < 0)
        _exit(EXIT_FAILURE);
    env_trace_me();
    _exit(store_prune(s, NULL, NULL) < 0);
}

/* It is all there, or nothing. */
TEST(partial_tar_killed_while_it_goes_no_half_is_left) {
    enum { STEP = 5 };
    STORE_TEST_DIR(dir);
    const char *path = tmpdir_join(dir, "store");
    unsigned n = 0, rounds = 0, kept = 0;
    bool killed = true;

    store_close(env_open(dir));
    while (killed) {
        pid_t pid = fork();
        Store *s;

        ASSERT_OK(pid);
        if (pid == 0)
            prune_traced(path);
        killed = env_kill_at(pid, n);
        s = env_open(dir);
        kept += is_kept(s, A);
        ASSERT_EQ(env_count(s, "partial", true), is_kept(s, A) ? 1 + FILES + 2 : 0);
        ASSERT_OK(store_prune(s, NULL, NULL));
        store_close(s);
        rounds++;
        n += STEP;
    }
    printf("killed at %u of %u stops, kept %u times\n", rounds - 1, n, kept);
    ASSERT_TRUE(kept > 0 && kept < rounds - 5);
}

/* The layer is whole, and committed, until that is killed. */
_noreturn_ static void commit_traced(const char *path) {
    LayerEntry entries[FILES];
    const Layer a = layer_of(A);
    Store *s = NULL;
    int fd;

    if (store_open(&s, path, NULL) < 0)
        _exit(EXIT_FAILURE);
    fd = env_ingest(s, "r-one");
    put(fd, A, "state");
    for (unsigned i = 0; i < FILES; i++) {
        entries[i] = env_file(-1, FILE_NAME(A, i), "content");
        entries[i].ingest = xstrdup(entries[i].path);
        entries[i].executable = i % 2;
    }
    env_trace_me();
    _exit(env_commit(s, ENV_PULL("r-one"), &a, entries, FILES, &(Err){ "" }) < 0);
}

/* It is stored, or the next pull gets what there is of it, which may be less than there was: what
 * has a name among the objects and no row is removed. */
TEST(partial_tar_killed_while_it_is_committed_nothing_wrong_is_visible) {
    enum { STEP = 5 };
    STORE_TEST_DIR(dir);
    const char *path = tmpdir_join(dir, "store");
    const Layer a = layer_of(A);
    unsigned n = 0, stored = 0, rounds = 0;
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
            commit_traced(path);
        killed = env_kill_at(pid, n);
        s = env_open(dir);
        env_check_invariants(s);
        fd = env_ingest(s, "r-two");
        if (env_has_layer(s, ENV_ORIGIN, &a))
            stored++;
        else
            ASSERT_EQ(store_partial_claim(s, "r-two", &a, &bytes, &err), 1);
        ASSERT_OK(store_ingest_end(s, "r-two", &err));
        if (!killed)
            ASSERT_EQ(env_count(s, "partial", true), 0);
        ASSERT_OK(store_prune(s, NULL, &err));
        store_close(s);
        rounds++;
        n += STEP;
    }
    printf("killed at %u of %u stops, stored %u times\n", rounds - 1, n, stored);
    ASSERT_TRUE(rounds > 10 && stored > 0 && stored < rounds);
}

static double seconds_since(const struct timespec *start) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

/* Every plan asks for the bytes. */
TEST(partial_tar_of_many_files_is_quick) {
    enum { N = 60000 };
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    const Layer a = layer_of(A);
    struct timespec start;
    double keep, count, again, claim;
    uint64_t bytes, same;
    Err err = { "" };

    put(fd, A, "state");
    for (unsigned i = FILES; i < N; i++) {
        _cleanup_close_ int file =
            openat(fd, FILE_NAME(A, i), O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
        ASSERT_OK(file);
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    keep = seconds_since(&start);
    ASSERT_EQ(env_count(s, "partial", false), N + 2);
    ASSERT_EQ(s->n_partial_sizes, 1); /* nobody has to count them under the lock */
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    count = seconds_since(&start);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    ASSERT_OK(store_partial_bytes(s, &same, &err));
    again = seconds_since(&start);
    ASSERT_EQ(bytes, (FILES + 2) * 4096);
    ASSERT_EQ(same, bytes);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    ASSERT_EQ(store_partial_claim(s, "r-p", &a, &bytes, &err), 1);
    claim = seconds_since(&start);
    ASSERT_EQ(env_count(s, "ingest", false), N + 2);
    printf("%d files: kept in %.2f s, counted in %.3f s, again in %.6f s, claimed in %.2f s\n", N,
           keep, count, again, claim);
    ASSERT_TRUE(again < 0.02 && keep < 30 && claim < 30);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}
