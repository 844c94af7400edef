/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/partial_tar: what is kept of a tar layer that was being unpacked, and who gets it.
 */
#include "tests/unit/partial_tar_env.h"

#include <sys/wait.h>
#include <time.h>

TEST(partial_tar_goes_from_one_pull_to_the_next) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int one = env_ingest(s, "r-one"), two = -EBADF, kept = -EBADF;
    _cleanup_free_ char *text = NULL;
    const Layer a = layer_of(A);
    uint64_t bytes = 0, all = 0;
    struct stat st;
    Err err = { "" };

    put(one, A, "state");
    env_write(one, "other", "x", 1);
    ASSERT_OK(store_partial_keep(s, "r-one", true, &err));
    ASSERT_OK(store_ingest_end(s, "r-one", &err));
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
    ASSERT_OK(fstatat(s->partial_fd, ENV_KEPT(A, ".tar"), &st, AT_SYMLINK_NOFOLLOW));
    ASSERT_EQ(st.st_mode & 07777, 0700);
    ASSERT_EQ(st.st_uid, 0);
    kept = openat(s->partial_fd, ENV_KEPT(A, ".tar"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_layer(kept, A, 0, "checkpoint");
    ASSERT_OK(store_partial_bytes(s, &all, &err));
    ASSERT_EQ(all, (FILES + 2) * 4096);
    ASSERT_OK(store_ingest_begin(s, "r-two", 1234, 4321, &two, &err));
    ASSERT_EQ(store_partial_claim(s, "r-two", &(Layer){ .digest = a.digest }, &bytes, &err), 0);
    ASSERT_EQ(store_partial_claim(s, "x-two", &a, &bytes, &err), -ENOENT);
    ASSERT_EQ(store_partial_claim(s, "r-two", &a, &bytes, &err), 1);
    ASSERT_EQ(bytes, all);
    ASSERT_EQ(store_partial_claim(s, "r-two", &a, &bytes, &err), 0);
    ASSERT_EQ(env_count(s, "partial", true), 0);
    assert_layer(two, A, 1234, CHECKPOINT(A));
    ASSERT_OK(fs_read_file(two, CHECKPOINT(A), 100, &text, NULL, &err));
    ASSERT_STREQ(text, "state");
    ASSERT_OK(store_partial_bytes(s, &all, &err));
    ASSERT_EQ(all, 0);
    env_write(two, FILE_NAME(A, FILES), "more", 4);
    ASSERT_OK(store_partial_keep(s, "r-two", true, &err));
    ASSERT_TRUE(is_kept(s, A));
    ASSERT_OK(store_partial_bytes(s, &all, &err));
    ASSERT_EQ(all, (FILES + 3) * 4096);
    ASSERT_OK(store_ingest_end(s, "r-two", &err));
}

/* What another pull had of it is replaced, as a whole. */
TEST(partial_tar_the_last_one_is_kept) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int one = env_ingest(s, "r-one"), two = env_ingest(s, "r-two");
    const Layer a = layer_of(A);
    _cleanup_free_ char *text = NULL;
    uint64_t bytes;
    Err err = { "" };

    put(one, A, "first");
    env_write(one, FILE_NAME(A, 77), "x", 1);
    put(two, A, "second");
    ASSERT_OK(store_partial_keep(s, "r-one", true, &err));
    ASSERT_EQ(env_count(s, "partial", false), FILES + 3);
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_OK(store_partial_keep(s, "r-two", true, &err));
    ASSERT_EQ(env_count(s, "partial", false), FILES + 2);
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_EQ(bytes, (FILES + 2) * 4096);
    ASSERT_EQ(store_partial_claim(s, "r-one", &a, &bytes, &err), 1);
    ASSERT_OK(fs_read_file(one, CHECKPOINT(A), 100, &text, NULL, &err));
    ASSERT_STREQ(text, "second");
    ASSERT_OK(store_ingest_end(s, "r-one", &err));
    ASSERT_OK(store_ingest_end(s, "r-two", &err));
}

TEST(partial_tar_several_in_one_folder) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p"), other = -EBADF, same = -EBADF;
    const Layer a = layer_of(A);
    uint64_t bytes;
    Err err = { "" };

    put(fd, A, "state");
    put(fd, C, "state");
    env_write(fd, B ".part", "half", 4);
    env_write(fd, B ".map", "map", 3);
    env_write(fd, FILE_NAME("00000000000000dd", 1), "of a layer that has no checkpoint", 33);
    store_close(s); /* it is killed */
    s = env_open(dir);
    ASSERT_EQ(env_count(s, "ingest", true), 0);
    ASSERT_TRUE(is_kept(s, A) && is_kept(s, C));
    ASSERT_EQ(env_count(s, "partial", false), 2 * (FILES + 2) + 2);
    other = env_ingest(s, "s-p");
    same = env_ingest(s, "r-q");
    ASSERT_EQ(store_partial_claim(s, "s-p", &a, &bytes, &err), 0);
    ASSERT_EQ(store_partial_claim(s, "r-q", &a, &bytes, &err), 1);
    assert_layer(same, A, 0, CHECKPOINT(A));
    ASSERT_TRUE(!is_in(same, CHECKPOINT(C)) && !is_in(same, FILE_NAME(C, 0)) && is_kept(s, C));
    ASSERT_OK(store_ingest_end(s, "s-p", &err));
    ASSERT_OK(store_ingest_end(s, "r-q", &err));
    store_close(s);
}

/* Nobody can tell whose the files are: none is kept; and none is given to a folder that has some.
 */
TEST(partial_tar_layers_whose_files_have_the_same_names_do_not_mix) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int p = env_ingest(s, "r-p"), q = env_ingest(s, "r-q");
    const Layer a = layer_of(A), b = layer_of(B);
    uint64_t bytes;
    Err err = { "" };

    put(p, A, "a");
    put(p, B, "b");
    put(p, C, "c");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", false), FILES + 2);
    ASSERT_TRUE(is_kept(s, C));
    ASSERT_OK(unlinkat(p, CHECKPOINT(B), 0));
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    put(p, B, "b");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_TRUE(is_kept(s, A) && is_kept(s, B));
    ASSERT_EQ(store_partial_claim(s, "r-q", &a, &bytes, &err), 1);
    ASSERT_EQ(store_partial_claim(s, "r-q", &b, &bytes, &err), 0);
    ASSERT_TRUE(is_kept(s, B));
    assert_layer(q, A, 0, CHECKPOINT(A));
    ASSERT_TRUE(!is_in(q, CHECKPOINT(B)));
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
    ASSERT_OK(store_ingest_end(s, "r-q", &err));
}

/* Wherever it comes to that, nothing is replaced, and nothing stays. */
TEST(partial_tar_that_cannot_be_given_goes) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    const Layer b = layer_of(B);
    uint64_t bytes;
    Err err = { "" };

    for (unsigned i = 0; i < FILES; i++) {
        _cleanup_close_ int p = env_ingest(s, "r-p"), q = -EBADF;

        put(p, B, "state");
        ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
        ASSERT_OK(store_ingest_end(s, "r-p", &err));
        q = env_ingest(s, "r-q");
        env_write(q, "other", "x", 1);
        env_write(q, FILE_NAME(B, i), "in the way", 10);
        ASSERT_ERR(store_partial_claim(s, "r-q", &b, &bytes, &err), -EEXIST);
        ASSERT_STRSTR(err.text, "giving what was unpacked of layer sha256:" B " to a pull failed");
        ASSERT_EQ(env_count(s, "ingest", false), 1);
        ASSERT_EQ(env_count(s, "partial", true), 0);
        ASSERT_OK(store_ingest_end(s, "r-q", &err));
    }
}

/* A worker that was taken over chooses names, types, modes and links. */
TEST(partial_tar_takes_no_file_that_is_not_as_it_should_be) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p"), kept = -EBADF;
    static const char *const names[] = {
        TAG "-",
        TAG "-x",
        TAG "-1x",
        TAG "-entriesx",
        TAG "-entrie",
        TAG "-+1",
        TAG "1-1",
        TAG "_1",
        TAG "-123456789012345678901",
        TAG,
        TAG "-1-1",
        "00000000000000AA-1",
        "0000000000000aa-1",
    };
    Err err = { "" };

    put(fd, A, "state");
    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        env_write(fd, names[i], "x", 1);
    env_write(fd, TAG "-15", "x", 1);
    ASSERT_OK(fchmodat(fd, TAG "-15", 06777, 0));
    env_write(fd, TAG "-16", "x", 1);
    ASSERT_OK(fchmodat(fd, TAG "-16", 0466, 0));
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2 + 2);
    ASSERT_TRUE(is_kept(s, A));
    kept = openat(s->partial_fd, ENV_KEPT(A, ".tar"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_file(kept, TAG "-15", 0, 0755);
    assert_file(kept, TAG "-16", 0, 0444);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

/* Puts something else in the place of `name`. */
static void replace(int fd, const char *name, unsigned how) {
    ASSERT_OK(unlinkat(fd, name, 0));
    if (how == 0)
        ASSERT_OK(symlinkat("/etc/passwd", fd, name));
    else if (how == 1)
        ASSERT_OK(mkdirat(fd, name, 0700));
    else if (how == 2)
        ASSERT_OK(mkfifoat(fd, name, 0600));
    else if (how == 3)
        ASSERT_OK(mknodat(fd, name, S_IFCHR | 0600, 0x103));
    else {
        env_write(fd, name, "x", 1);
        ASSERT_OK(linkat(fd, name, fd, "second", 0));
    }
}

/* Without its notes, or one of its files, a layer is worth nothing. */
TEST(partial_tar_is_not_kept_by_halves) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Err err = { "" };

    for (unsigned i = 0; i < 15; i++) {
        const char *names[] = { LIST(A), CHECKPOINT(A), FILE_NAME(A, FILES - 1) };
        _cleanup_close_ int fd = env_ingest(s, "r-p");

        put(fd, A, "state");
        put(fd, C, "state");
        replace(fd, names[i % 3], i / 3);
        ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
        ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
        ASSERT_TRUE(is_kept(s, C));
        ASSERT_OK(store_ingest_end(s, "r-p", &err));
    }
}

/* Whoever still writes is waited for, but not for each file anew. */
TEST(partial_tar_that_is_being_written_is_not_kept) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    struct timespec start, end;
    Err err = { "" };

    for (unsigned i = 0; i < 3; i++) {
        _cleanup_close_ int fd = env_ingest(s, "r-p"), first = -EBADF, second = -EBADF;
        const char *name = i == 0 ? LIST(A) : i == 1 ? CHECKPOINT(A) : FILE_NAME(A, 1);

        put(fd, A, "state");
        put(fd, C, "state");
        put(fd, D, "state");
        first = openat(fd, name, O_WRONLY | O_CLOEXEC);
        second = openat(fd, FILE_NAME(C, 2), O_WRONLY | O_CLOEXEC);
        (void)clock_gettime(CLOCK_MONOTONIC, &start);
        ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
        (void)clock_gettime(CLOCK_MONOTONIC, &end);
        ASSERT_TRUE((end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000 <
                    1900);
        ASSERT_TRUE(is_kept(s, D));
        ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
        ASSERT_OK(store_ingest_end(s, "r-p", &err));
    }
}

TEST(partial_tar_of_a_writer_that_ends_is_kept) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    int ready[2], status;
    Err err = { "" };
    char byte;
    pid_t pid;

    put(fd, A, "state");
    ASSERT_OK(pipe2(ready, O_CLOEXEC));
    pid = fork();
    ASSERT_OK(pid);
    if (pid == 0) {
        if (openat(fd, LIST(A), O_WRONLY) < 0 || write(ready[1], "", 1) != 1)
            _exit(EXIT_FAILURE);
        (void)usleep(200000);
        env_write(fd, FILE_NAME(A, FILES), "what it wrote last", 18);
        _exit(EXIT_SUCCESS);
    }
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_TRUE(is_kept(s, A));
    ASSERT_EQ(env_count(s, "partial", false), FILES + 3);
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

TEST(partial_tar_counts_as_one_and_goes_like_a_blob) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    const struct timespec old[2] = { { .tv_sec = time(NULL) - 8 * 24 * 3600 },
                                     { .tv_sec = time(NULL) - 8 * 24 * 3600 } },
                          hour[2] = { { .tv_sec = time(NULL) - 3600 },
                                      { .tv_sec = time(NULL) - 3600 } };
    const Layer a = layer_of(A);
    uint64_t bytes = 0, freed = 0;
    Err err = { "" };

    put(fd, A, "state");
    put(fd, C, "state");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_OK(utimensat(s->partial_fd, ENV_KEPT(A, ".tar"), old, 0));
    ASSERT_OK(utimensat(s->partial_fd, ENV_KEPT(C, ".tar"), hour, 0));
    for (unsigned i = 1; i <= 63; i++) {
        char name[80];
        (void)snprintf(name, sizeof(name), "%064x.part", i);
        env_write(fd, name, "x", 1);
        (void)snprintf(name, sizeof(name), "%064x.map", i);
        env_write(fd, name, "x", 1);
    }
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_TRUE(!is_kept(s, A) && is_kept(s, C));
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2 + 2 * 63);
    put(fd, A, "state");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_TRUE(is_kept(s, A) && !is_kept(s, C));
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_EQ(bytes, (FILES + 2 + 2 * 63) * 4096);
    partial_forget(s, ENV_PULL("r-p"), fd, &a);
    ASSERT_EQ(env_count(s, "partial", true), 2 * 63);
    put(fd, A, "state");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_OK(store_prune(s, &freed, &err));
    ASSERT_EQ(freed, bytes);
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_EQ(s->n_partial_sizes, 0);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

TEST(partial_tar_only_the_newest_few_are_kept) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Err err = { "" };

    for (unsigned i = 0; i < PARTIAL_TARS + 2; i++) {
        const struct timespec then[2] = { { .tv_sec = time(NULL) - 100 + i },
                                          { .tv_sec = time(NULL) - 100 + i } };
        _cleanup_close_ int fd = env_ingest(s, "r-p");
        char hex[80];

        (void)snprintf(hex, sizeof(hex), "%016x%048x", i, i);
        put(fd, hex, "state");
        ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
        ASSERT_OK(utimensat(s->partial_fd, ENV_KEPT(hex, ".tar"), then, 0));
        ASSERT_OK(store_ingest_end(s, "r-p", &err));
    }
    for (unsigned i = 0; i < PARTIAL_TARS + 2; i++) {
        char hex[80];

        (void)snprintf(hex, sizeof(hex), "%016x%048x", i, i);
        ASSERT_EQ(is_kept(s, hex), i >= 2);
    }
}

/* Inodes are finite. */
TEST(partial_tar_of_too_many_files_is_not_kept) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p");
    Err err = { "" };

    put(fd, C, "state");
    put(fd, A, "state"); /* and its list */
    for (unsigned i = FILES; i < PARTIAL_TAR_FILES; i++) {
        _cleanup_close_ int file =
            openat(fd, FILE_NAME(A, i), O_WRONLY | O_CREAT | O_CLOEXEC, 0444);
        ASSERT_OK(file);
    }
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_TRUE(is_kept(s, C));
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

/* A daemon that was killed had begun to keep it: what it takes is counted again. */
TEST(partial_tar_that_was_kept_by_halves_is_counted_as_a_whole) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "r-p"), kept = -EBADF;
    uint64_t bytes;
    Err err = { "" };

    put(fd, A, "state");
    ASSERT_OK(mkdirat(s->partial_fd, MOVING(A, "r-p"), 0700));
    kept = openat(s->partial_fd, MOVING(A, "r-p"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_OK(renameat(fd, FILE_NAME(A, 0), kept, FILE_NAME(A, 0)));
    ASSERT_OK(renameat(fd, LIST(A), kept, LIST(A)));
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_EQ(bytes, 0);
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_TRUE(is_kept(s, A));
    ASSERT_OK(store_partial_bytes(s, &bytes, &err));
    ASSERT_EQ(bytes, (FILES + 2) * 4096);
    ASSERT_OK(store_ingest_end(s, "r-p", &err));
}

/* Whatever is found in partial/: no symlink is followed, and what is not whole goes. */
TEST(partial_tar_start_removes_what_is_not_whole) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    const char *outside = tmpdir_join(dir, "outside");
    _cleanup_close_ int fd = env_ingest(s, "r-p"), out = -EBADF;
    const Layer a = layer_of(A);
    uint64_t bytes;
    Err err = { "" };

    ASSERT_OK(mkdir(outside, 0700));
    out = open(outside, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    env_write(out, "checkpoint", "x", 1);
    env_write(out, FILE_NAME(A, 0), "x", 1);
    ASSERT_OK(symlinkat(outside, s->partial_fd, ENV_KEPT(A, ".tar")));
    ASSERT_EQ(store_partial_claim(s, "r-p", &a, &bytes, &err), 0);
    partial_forget(s, ENV_PULL("r-p"), fd, &a);
    ASSERT_EQ(env_count(s, "partial", true), 0);
    ASSERT_OK(symlinkat(outside, s->partial_fd, ENV_KEPT(A, ".tar")));
    put(fd, A, "state");
    ASSERT_OK(store_partial_keep(s, "r-p", true, &err));
    ASSERT_TRUE(is_kept(s, A));
    ASSERT_OK(symlinkat(outside, s->partial_fd, B ".tar"));
    env_write(s->partial_fd, C ".tar", "x", 1);
    ASSERT_OK(mkdirat(s->partial_fd, TAG, 0700));
    ASSERT_OK(mkdirat(s->partial_fd, C ".part", 0700));
    ASSERT_OK(mkdirat(s->partial_fd, ENV_KEPT(C, ".tar"), 0700));
    ASSERT_OK(symlinkat("/etc/passwd", s->partial_fd, ENV_KEPT(C, ".tar/checkpoint")));
    store_close(s);
    s = env_open(dir);
    ASSERT_TRUE(is_kept(s, A));
    ASSERT_EQ(env_count(s, "partial", true), 1 + FILES + 2);
    ASSERT_TRUE(is_in(out, "checkpoint") && is_in(out, FILE_NAME(A, 0)));
    store_close(s);
}
