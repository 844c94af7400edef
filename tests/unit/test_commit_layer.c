/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/commit_layer and cache/object: what a worker left becomes objects, or is refused.
 */
#include "cache/object.h"
#include "tests/unit/store_env.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* A store with one pull. */
typedef struct Env {
    Store *s;
    int fd;
} Env;

static void env_done(Env *env) {
    Err err;

    safe_close(env->fd);
    if (env->s && store_ingest_end(env->s, "p", &err) < 0)
        test_fail(__FILE__, __LINE__, "store_ingest_end: %s", err.text);
    store_close(env->s);
}

#define PULL(dir, env)                                              \
    STORE_TEST_DIR(dir);                                            \
    _cleanup_(env_done) Env env = { .s = env_open(dir), .fd = -1 }; \
    env.fd = env_ingest(env.s, "p")

static int commit_raw(Env *env, LayerEntry *e, Err *err) {
    Layer layer = env_raw(e);
    int r = env_commit(env->s, ENV_PULL("p"), &layer, e, 1, err);

    if (r >= 0 && env_has_layer(env->s, ENV_ORIGIN, &layer) != 1)
        test_fail(__FILE__, __LINE__, "the committed layer is not stored");
    free(layer.media_type);
    free(layer.path);
    return r;
}

static int commit_tar(Env *env, const char *name, LayerEntry *entries, size_t n, Err *err) {
    Layer layer = env_tar(name);
    int r = env_commit(env->s, ENV_PULL("p"), &layer, entries, n, err);

    if (env_has_layer(env->s, ENV_ORIGIN, &layer) != (r >= 0))
        test_fail(__FILE__, __LINE__, "has_layer is not what commit said (%d: %s)", r, err->text);
    free(layer.media_type);
    return r;
}

static void entry_done(LayerEntry *e) {
    free(e->path);
    free(e->target);
    free(e->ingest);
}

TEST(commit_raw_makes_a_normal_object) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "weights", "HELLO");
    _cleanup_free_ char *path = xasprintf("store/objects/%s", OBJECT_NAME(&e.digest, false));
    struct stat st;
    Err err;

    ASSERT_OK(commit_raw(&env, &e, &err));
    ASSERT_OK(fstatat(tmpdir_fd(dir), path, &st, 0));
    ASSERT_EQ(st.st_mode, S_IFREG | 0444);
    ASSERT_EQ(st.st_uid + st.st_gid, 0);
    ASSERT_EQ(st.st_mtim.tv_sec, 1);
    ASSERT_EQ(st.st_nlink, 1);
    ASSERT_EQ(env_count(env.s, "ingest", false), 0);
}

TEST(commit_twice_keeps_the_object_and_drops_the_copy) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "weights", "HELLO");
    _cleanup_free_ char *path = xasprintf("store/objects/%s", OBJECT_NAME(&e.digest, false));
    struct stat before, after;
    Err err;

    ASSERT_OK(commit_raw(&env, &e, &err));
    ASSERT_OK(fstatat(tmpdir_fd(dir), path, &before, 0));
    env_write(env.fd, e.ingest, "HELLO", 5);
    ASSERT_OK(commit_raw(&env, &e, &err));
    ASSERT_OK(fstatat(tmpdir_fd(dir), path, &after, 0));
    ASSERT_EQ(before.st_ino, after.st_ino);
    ASSERT_EQ(env_count(env.s, "ingest", false), 0);
}

TEST(commit_executable_is_another_object) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "tool", "#!/bin/sh\n"), x = e;
    Err err;
    struct stat st;

    x.executable = true;
    x.ingest = NULL;
    ASSERT_ERR(commit_raw(&env, &x, &err), -EPROTO); /* there is no other variant yet */
    ASSERT_STRSTR(err.text, "no file came with");
    ASSERT_OK(commit_raw(&env, &e, &err));
    ASSERT_OK(commit_raw(&env, &x, &err));
    x = (LayerEntry){ 0 };
    ASSERT_EQ(env_count(env.s, "objects", false), 2);
    _cleanup_free_ char *path = xasprintf("store/objects/%s", OBJECT_NAME(&e.digest, true));
    ASSERT_OK(fstatat(tmpdir_fd(dir), path, &st, 0));
    ASSERT_EQ(st.st_mode, S_IFREG | 0555);
    ASSERT_EQ(st.st_size, 10);
}

TEST(commit_tar_shares_objects) {
    PULL(dir, env);
    LayerEntry *entries = xnew_n(LayerEntry, 6);
    Err err = { "" };

    entries[0] = env_entry(ENTRY_TYPE_DIRECTORY, "d", NULL);
    entries[1] = env_file(env.fd, "d/a", "same");
    entries[2] = env_file(env.fd, "d/b", "same"); /* its own copy of the same content */
    entries[3] = env_file(-1, "d/c", "same");     /* comes with another entry */
    entries[4] = env_file(-1, "d/x", "same");     /* and as a program */
    entries[4].executable = true;
    entries[5] = env_entry(ENTRY_TYPE_SYMLINK, "d/l", "a");
    ASSERT_OK(commit_tar(&env, "layer", entries, 6, &err));
    ASSERT_OK(commit_tar(&env, "layer", entries, 6, &err));
    ASSERT_EQ(env_count(env.s, "objects", false), 2);
    ASSERT_EQ(env_count(env.s, "ingest", false), 0);
    layer_entries_free(entries, 6);
}

TEST(commit_of_many_files_syncs_at_once) {
    enum { N = 5000 };
    PULL(dir, env);
    LayerEntry *entries = xnew_n(LayerEntry, N);
    Err err = { "" };

    for (size_t i = 0; i < N; i++) {
        char text[32];
        _cleanup_free_ char *path = xasprintf("d%zu/f%zu", i % 10, i);

        (void)snprintf(text, sizeof(text), "content %zu", i);
        entries[i] = env_file(env.fd, path, text);
    }
    ASSERT_OK(commit_tar(&env, "layer", entries, N, &err));
    ASSERT_EQ(env_count(env.s, "objects", false), N);
    ASSERT_EQ(env_count(env.s, "ingest", false), 0);
    layer_entries_free(entries, N);
}

TEST(commit_refuses_entries_that_are_not_as_they_must_be) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    LayerEntry two[2] = { e, e }, bad = e;
    Layer layer = { .kind = LAYER_KIND_RAW, .digest = e.digest, .size = 5, .path = e.path };
    Layer tar = { .kind = LAYER_KIND_TAR, .digest = e.digest, .size = 5 };
    Err err;

    ASSERT_ERR(env_commit(env.s, ENV_PULL("p"), &layer, two, 2, &err), -EPROTO);
    ASSERT_ERR(env_commit(env.s, ENV_PULL("p"), &layer, two, 0, &err), -EPROTO);
    bad.size = 6;
    ASSERT_ERR(env_commit(env.s, ENV_PULL("p"), &layer, &bad, 1, &err), -EPROTO);
    bad = e;
    bad.digest.bytes[0]++;
    ASSERT_ERR(env_commit(env.s, ENV_PULL("p"), &layer, &bad, 1, &err), -EPROTO);
    bad = e;
    bad.type = ENTRY_TYPE_DIRECTORY;
    ASSERT_ERR(env_commit(env.s, ENV_PULL("p"), &layer, &bad, 1, &err), -EPROTO);
    bad = e;
    bad.path = xstrdup("../f");
    ASSERT_ERR(env_commit(env.s, ENV_PULL("p"), &tar, &bad, 1, &err), -EPROTO);
    free(bad.path);
    two[1].size = 4;
    ASSERT_ERR(env_commit(env.s, ENV_PULL("p"), &tar, two, 2, &err), -EPROTO);
    ASSERT_STRSTR(err.text, "two different sizes");
    ASSERT_ERR(env_commit(env.s, ENV_PULL("nobody"), &layer, &e, 1, &err), -ENOENT);
    ASSERT_ERR(env_commit(env.s, ENV_PULL("../p"), &layer, &e, 1, &err), -EINVAL);
    ASSERT_EQ(env_count(env.s, "objects", false), 0);
    ASSERT_OK(commit_raw(&env, &e, &err));
}

TEST(commit_refuses_files_that_are_not_plain) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    Err err;

    /* Another size. */
    env_write(env.fd, "f", "HELL", 4);
    ASSERT_ERR(commit_raw(&env, &e, &err), -EBADMSG);
    /* Absent. */
    (void)unlinkat(env.fd, "f", 0);
    ASSERT_ERR(commit_raw(&env, &e, &err), -ENOENT);
    /* A symlink, also one that stays beneath. */
    env_write(env.fd, "other", "HELLO", 5);
    ASSERT_OK(symlinkat("other", env.fd, "f"));
    ASSERT_ERR(commit_raw(&env, &e, &err), -EPROTO);
    ASSERT_OK(unlinkat(env.fd, "other", 0));
    /* A FIFO: must not block. */
    (void)unlinkat(env.fd, "f", 0);
    ASSERT_OK(mkfifoat(env.fd, "f", 0600));
    ASSERT_ERR(commit_raw(&env, &e, &err), -EPROTO);
    /* A directory. */
    (void)unlinkat(env.fd, "f", 0);
    ASSERT_OK(mkdirat(env.fd, "f", 0700));
    ASSERT_ERR(commit_raw(&env, &e, &err), -EPROTO);
    ASSERT_OK(unlinkat(env.fd, "f", AT_REMOVEDIR));
    /* Two names. */
    env_write(env.fd, "f", "HELLO", 5);
    ASSERT_OK(linkat(env.fd, "f", env.fd, "g", 0));
    ASSERT_ERR(commit_raw(&env, &e, &err), -EPROTO);
    /* Names that lead elsewhere. */
    free(e.ingest);
    e.ingest = xstrdup("../p/g");
    ASSERT_ERR(commit_raw(&env, &e, &err), -EPROTO);
    ASSERT_EQ(env_count(env.s, "objects", false), 0);
}

TEST(commit_refuses_a_file_that_is_open_for_writing) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    _cleanup_close_ int fd = openat(env.fd, "f", O_RDWR | O_CLOEXEC);
    void *map;
    Err err;

    ASSERT_OK(fd);
    ASSERT_ERR(commit_raw(&env, &e, &err), -EBUSY);
    ASSERT_STRSTR(err.text, "open for writing");
    (void)close(TAKE_FD(fd));
    /* A writable mapping without any descriptor. */
    env_write(env.fd, "f", "HELLO", 5);
    fd = openat(env.fd, "f", O_RDWR | O_CLOEXEC);
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ASSERT_TRUE(map != MAP_FAILED);
    (void)close(TAKE_FD(fd));
    ASSERT_ERR(commit_raw(&env, &e, &err), -EBUSY);
    ASSERT_OK(munmap(map, 4096));
    ASSERT_EQ(env_count(env.s, "objects", false), 0);
    env_write(env.fd, "f", "HELLO", 5);
    ASSERT_OK(commit_raw(&env, &e, &err));
}

/* Who opens a file for writing while we hold a lease makes the kernel send a signal; it must not
 * kill. */
TEST(commit_survives_writers_that_come_and_go) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    pid_t pid = fork();
    int status;
    Err err;

    ASSERT_OK(pid);
    if (pid == 0)
        for (;;)
            safe_close(openat(env.fd, "f", O_RDWR | O_CLOEXEC));
    for (int i = 0; i < 200; i++) {
        int r = commit_raw(&env, &e, &err);

        ASSERT_TRUE(r == 0 || r == -EBUSY);
        env_write(env.fd, "f", "HELLO", 5);
    }
    ASSERT_OK(kill(pid, SIGKILL));
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
}

/* The file belongs to a worker without rights: after the commit it can't touch the content. */
TEST(commit_takes_the_file_from_its_worker) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    int status;
    pid_t pid;
    Err err;

    ASSERT_OK(fchown(env.fd, 65534, 65534));
    ASSERT_OK(fchownat(env.fd, "f", 65534, 65534, 0));
    ASSERT_OK(commit_raw(&env, &e, &err));
    pid = fork();
    ASSERT_OK(pid);
    if (pid == 0) {
        _cleanup_free_ char *path = xasprintf("store/objects/%s", OBJECT_NAME(&e.digest, false));

        if (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0)
            _exit(2);
        _exit(openat(env.fd, "f", O_RDWR) >= 0 || openat(tmpdir_fd(dir), path, O_RDONLY) >= 0);
    }
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_EQ(status, 0);
}

TEST(object_publish_sees_an_exchanged_file) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    ObjectFile f = { .dir_fd = env.fd, .name = "f", .size = 5 };
    _cleanup_(tmpdir_freep) TmpDir *objects = tmpdir_new();
    char shard[3] = { 0 };
    Err err;

    memcpy(shard, OBJECT_NAME(&e.digest, false), 2);
    ASSERT_OK(mkdirat(tmpdir_fd(objects), shard, 0700));
    ASSERT_OK(object_seal(&f, true, &err));
    ASSERT_OK(unlinkat(env.fd, "f", 0));
    env_write(env.fd, "f", "WORLD", 5);
    ASSERT_ERR(object_publish(&f, tmpdir_fd(objects), &e.digest, &err), -EPROTO);
    ASSERT_ERR(faccessat(tmpdir_fd(objects), OBJECT_NAME(&e.digest, false), F_OK, 0), -1);
    ASSERT_STRSTR(err.text, "exchanged");
}

TEST(commit_replaces_an_object_that_no_row_knows) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    _cleanup_free_ char *path = xasprintf("store/objects/%s", OBJECT_NAME(&e.digest, false)),
                        *text = NULL;
    Err err;

    env_write(tmpdir_fd(dir), path, "", 0); /* as after a power cut */
    ASSERT_OK(commit_raw(&env, &e, &err));
    ASSERT_OK(fs_read_file(tmpdir_fd(dir), path, 100, &text, NULL, &err));
    ASSERT_STREQ(text, "HELLO");
    /* With a row, but truncated since. */
    ASSERT_OK(truncate(tmpdir_join(dir, path), 2));
    env_write(env.fd, "f", "HELLO", 5);
    ASSERT_OK(commit_raw(&env, &e, &err));
    free(text);
    text = NULL;
    ASSERT_OK(fs_read_file(tmpdir_fd(dir), path, 100, &text, NULL, &err));
    ASSERT_STREQ(text, "HELLO");
}

/* A pull of another repository. */
#define OTHER(name) (&(const StorePull){ "p", "r.example/" name })

static char *read_object(const TmpDir *dir, const LayerEntry *e) {
    _cleanup_free_ char *path =
        xasprintf("store/objects/%s", OBJECT_NAME(&e->digest, e->executable));
    char *text = NULL;

    return fs_read_file(tmpdir_fd(dir), path, 100, &text, NULL, NULL) < 0 ? NULL : text;
}

static void write_object(const TmpDir *dir, const LayerEntry *e, const char *text) {
    _cleanup_free_ char *path =
        xasprintf("store/objects/%s", OBJECT_NAME(&e->digest, e->executable));

    env_write(tmpdir_fd(dir), path, text, strlen(text));
}

/* Commits the raw layer of the file, whose bytes are `text`; the layer is not stored for the
 * repository before. */
static int commit_bytes(Env *env, const StorePull *pull, LayerEntry *e, const char *text,
                        Err *err) {
    Layer layer = env_raw(e);
    int r;

    env_write(env->fd, e->ingest, text, strlen(text));
    r = env_commit(env->s, pull, &layer, e, 1, err);
    if (r >= 0 && env_has_layer(env->s, pull->origin, &layer) != 1)
        test_fail(__FILE__, __LINE__, "the committed layer is not stored");
    if (env_has_layer(env->s, "r.example/nobody", &layer) != 0)
        test_fail(__FILE__, __LINE__, "a repository has a layer that it never gave");
    free(layer.media_type);
    free(layer.path);
    return r;
}

TEST(commit_of_another_repository_replaces_an_object_that_lies) {
    for (int x = 0; x < 2; x++) {
        PULL(dir, env);
        _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "weights", "HELLO");
        _cleanup_free_ char *evil = NULL, *good = NULL;
        Err err;

        e.executable = x;
        ASSERT_OK(commit_bytes(&env, OTHER("evil"), &e, "WRONG", &err));
        evil = read_object(dir, &e);
        ASSERT_STREQ(evil, "WRONG");
        ASSERT_OK(commit_bytes(&env, OTHER("good"), &e, "HELLO", &err));
        good = read_object(dir, &e);
        ASSERT_STREQ(good, "HELLO");
        ASSERT_EQ(env_count(env.s, "objects", false), 1);
    }
}

TEST(commit_hashes_what_another_repository_brought_once) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "weights", "HELLO");
    _cleanup_free_ char *same = NULL, *proved = NULL;
    Err err;

    /* Of the same one: believed. */
    ASSERT_OK(commit_bytes(&env, OTHER("one"), &e, "HELLO", &err));
    write_object(dir, &e, "AAAAA");
    ASSERT_OK(commit_bytes(&env, OTHER("one"), &e, "HELLO", &err));
    same = read_object(dir, &e);
    ASSERT_STREQ(same, "AAAAA");
    /* Of another one: hashed, and then proved for all. */
    write_object(dir, &e, "HELLO");
    ASSERT_OK(commit_bytes(&env, OTHER("two"), &e, "EVIL!", &err)); /* its own copy goes */
    write_object(dir, &e, "BBBBB");
    ASSERT_OK(commit_bytes(&env, OTHER("three"), &e, "HELLO", &err));
    proved = read_object(dir, &e);
    ASSERT_STREQ(proved, "BBBBB");
}

TEST(commit_of_another_repository_cannot_change_a_size) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "weights", "HELLO");
    _cleanup_free_ char *first = NULL, *second = NULL;
    Err err;

    ASSERT_OK(commit_bytes(&env, OTHER("one"), &e, "HELLO", &err));
    e.size = 4;
    ASSERT_ERR(commit_bytes(&env, OTHER("evil"), &e, "EVIL", &err), -EPROTO);
    ASSERT_STRSTR(err.text, "has 5 bytes, not 4");
    first = read_object(dir, &e);
    ASSERT_STREQ(first, "HELLO");
    /* The other way round: the one that lies goes. */
    ASSERT_OK(store_prune(env.s, NULL, &err));
    e.digest.bytes[5] ^= 1;
    ASSERT_OK(commit_bytes(&env, OTHER("evil"), &e, "EVIL", &err));
    e.size = 5;
    ASSERT_OK(commit_bytes(&env, OTHER("one"), &e, "HELLO", &err));
    second = read_object(dir, &e);
    ASSERT_STREQ(second, "HELLO");
}

/* One of two pulls that bring the same object at the same time. */
typedef struct Racer {
    Store *s;
    StorePull pull;
    LayerEntry entry;
    int r;
    Err err;
} Racer;

static void *race(void *arg) {
    Racer *x = arg;
    Layer layer = env_raw(&x->entry);

    x->r = env_commit(x->s, &x->pull, &layer, &x->entry, 1, &x->err);
    free(layer.media_type);
    free(layer.path);
    return NULL;
}

TEST(commit_at_the_same_time_as_one_that_lies) {
    PULL(dir, env);
    _cleanup_close_ int other = env_ingest(env.s, "q");
    Err err;

    for (int i = 0; i < 60; i++) {
        _cleanup_free_ char *text = xasprintf("HELLO %d", i), *stored = NULL;
        Racer good = { .s = env.s, .pull = { "p", "r.example/good" } },
              evil = { .s = env.s, .pull = { "q", "r.example/evil" } };
        pthread_t thread;

        good.entry = env_file(env.fd, "f", text);
        evil.entry = env_file(other, "f", text);
        env_write(other, "f", "WRONG !!", strlen(text));
        ASSERT_EQ(pthread_create(&thread, NULL, race, &evil), 0);
        (void)race(&good);
        ASSERT_EQ(pthread_join(thread, NULL), 0);
        if (good.r < 0)
            test_fail(__FILE__, __LINE__, "round %d: %s", i, good.err.text);
        ASSERT_OK(evil.r);
        stored = read_object(dir, &good.entry);
        ASSERT_STREQ(stored, text);
        entry_done(&good.entry);
        entry_done(&evil.entry);
    }
    ASSERT_OK(store_ingest_end(env.s, "q", &err));
}

TEST(commit_of_a_tar_layer_is_of_its_repository) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", "HELLO");
    Layer layer = env_tar("layer");
    Err err;

    env_write(env.fd, "f", "WRONG", 5);
    ASSERT_OK(env_commit(env.s, OTHER("evil"), &layer, &e, 1, &err));
    ASSERT_EQ(env_has_layer(env.s, "r.example/good", &layer), 0);
    ASSERT_EQ(store_lease_layer(env.s, OTHER("good"), &layer, &err), 0);
    env_write(env.fd, "f", "HELLO", 5);
    ASSERT_OK(env_commit(env.s, OTHER("good"), &layer, &e, 1, &err));
    ASSERT_EQ(store_lease_layer(env.s, OTHER("good"), &layer, &err), 1);
    ASSERT_EQ(env_has_layer(env.s, "r.example/evil", &layer), 0); /* it lost its file */
    free(layer.media_type);
}

TEST(object_names_are_parsed_strictly) {
    Digest d, back;
    bool exec;

    digest_of(&d, "x", 1);
    for (int x = 0; x < 2; x++) {
        const char *name = OBJECT_NAME(&d, x != 0);

        ASSERT_OK(object_name_parse(d.bytes[0], name + 3, &back, &exec));
        ASSERT_TRUE(digest_equal(&d, &back));
        ASSERT_EQ(exec, x);
    }
    static const char *const bad[] = {
        "",
        ".x",
        "abc",
        "new",
        "0000000000000000000000000000000000000000000000000000000000000g",
        "00000000000000000000000000000000000000000000000000000000000000.y",
        "00000000000000000000000000000000000000000000000000000000000000.x.new"
    };
    for (size_t i = 0; i < ELEMENTSOF(bad); i++)
        ASSERT_ERR(object_name_parse(0, bad[i], &back, &exec), -EINVAL);
}

static void note(int dir_fd, const Layer *layer, const char *suffix) {
    _cleanup_free_ char *name = xasprintf("%s%s", DIGEST_HEX(&layer->digest), suffix);

    env_write(dir_fd, name, "notes", 5);
}

/* What serves to go on with a layer goes when the layer is in, or its files are gone: nothing is to
 * be kept of it. */
TEST(commit_ends_what_is_kept_of_the_layer) {
    PULL(dir, env);
    const Layer other = { .digest = { .bytes = { 1 } } };
    Err err = { "" };

    for (unsigned i = 0; i < 4; i++) { /* raw and tar; it gets in or not */
        const char *notes = i % 2 ? ".tar" : ".map";
        _cleanup_(entry_done) LayerEntry e = env_file(env.fd, "f", i % 2 ? "tar" : "raw");
        Layer layer = i % 2 ? env_tar("tar") : env_raw(&e);

        note(env.fd, &layer, notes);
        if (i % 2 == 0)
            note(env.fd, &layer, ".part");
        ASSERT_OK(store_partial_keep(env.s, "p", true, &err));
        ASSERT_EQ(env_count(env.s, "partial", false), i % 2 ? 1 : 2);
        note(env.fd, &layer, notes);
        note(env.fd, &other, ".map");
        note(env.fd, &other, ".tar");
        if (i < 2)
            env_write(env.fd, "f", "longer than it says", 19);
        ASSERT_EQ(env_commit(env.s, ENV_PULL("p"), &layer, &e, 1, &err), i < 2 ? -EBADMSG : 0);
        ASSERT_EQ(env_count(env.s, "ingest", false), 2);       /* the notes of the other one */
        ASSERT_OK(store_partial_keep(env.s, "p", true, &err)); /* of which a checkpoint is kept */
        ASSERT_EQ(env_count(env.s, "partial", false), (i < 2 ? (i % 2 ? 1 : 2) : 0) + 1);
        ASSERT_OK(store_prune(env.s, NULL, &err));
        free(layer.media_type);
        free(layer.path);
    }
}

/* Raw layers that are committed together: "p" is their pull. */
enum { BATCH = 40 }; /* more than are synced one by one */

typedef struct Batch {
    LayerEntry entries[BATCH];
    Layer layers[BATCH];
    LayerCommit commits[BATCH];
} Batch;

static void batch_make(Batch *b, int dir_fd) {
    for (size_t i = 0; i < BATCH; i++) {
        _cleanup_free_ char *name = xasprintf("file-%zu", i), *text = xasprintf("content %zu", i);

        b->entries[i] = env_file(dir_fd, name, text);
        b->layers[i] = env_raw(&b->entries[i]);
        b->commits[i] =
            (LayerCommit){ .layer = &b->layers[i], .entries = &b->entries[i], .n_entries = 1 };
    }
}

static void batch_done(Batch *b) {
    for (size_t i = 0; i < BATCH; i++) {
        entry_done(&b->entries[i]);
        free(b->layers[i].media_type);
        free(b->layers[i].path);
    }
}

/* What is committed is what was said. */
static void batch_check(Store *s, const Batch *b, int n_bad) {
    int bad = 0;

    for (size_t i = 0; i < BATCH; i++) {
        bad += b->commits[i].r < 0;
        if (env_has_layer(s, ENV_ORIGIN, &b->layers[i]) != (b->commits[i].r >= 0))
            test_fail(__FILE__, __LINE__, "layer %zu: %d: %s", i, b->commits[i].r,
                      b->commits[i].err.text);
    }
    ASSERT_EQ(bad, n_bad);
    ASSERT_EQ(env_count(s, "objects", false), BATCH - n_bad);
}

TEST(commit_of_a_batch) {
    PULL(dir, env);
    _cleanup_(batch_done) Batch b;

    batch_make(&b, env.fd);
    store_commit_layers(env.s, ENV_PULL("p"), b.commits, BATCH);
    batch_check(env.s, &b, 0);
    ASSERT_EQ(env_count(env.s, "ingest", false), 0);
    store_commit_layers(env.s, ENV_PULL("p"), b.commits, BATCH); /* all is there */
    batch_check(env.s, &b, 0);
}

/* Each is found at another step: of the entries, of the files, when they are named. */
TEST(commit_of_a_batch_keeps_out_only_those_that_are_bad) {
    PULL(dir, env);
    _cleanup_(batch_done) Batch b;
    _cleanup_close_ int writer = -EBADF;

    batch_make(&b, env.fd);
    b.entries[3].type = ENTRY_TYPE_SYMLINK;
    env_write(env.fd, b.entries[7].ingest, "longer than it says", 19);
    ASSERT_OK(unlinkat(env.fd, b.entries[BATCH - 1].ingest, 0));
    writer = openat(env.fd, b.entries[20].ingest, O_WRONLY | O_CLOEXEC);
    ASSERT_OK(writer);
    free(b.entries[30].ingest);
    b.entries[30].ingest = NULL;
    store_commit_layers(env.s, ENV_PULL("p"), b.commits, BATCH);
    batch_check(env.s, &b, 5);
    ASSERT_ERR(b.commits[3].r, -EPROTO);
    ASSERT_STRSTR(b.commits[3].err.text, b.entries[3].path);
    ASSERT_ERR(b.commits[7].r, -EBADMSG);
    ASSERT_STRSTR(b.commits[7].err.text, b.entries[7].ingest);
    ASSERT_ERR(b.commits[20].r, -EBUSY);
    ASSERT_ERR(b.commits[30].r, -EPROTO);
    ASSERT_STRSTR(b.commits[30].err.text, "no file came with object");
    ASSERT_ERR(b.commits[BATCH - 1].r, -ENOENT);
}

TEST(commit_of_a_batch_whose_layers_share_objects) {
    PULL(dir, env);
    _cleanup_(entry_done) LayerEntry raw = env_file(env.fd, "raw", "same"),
                                     none = env_file(-1, "none", "same"),
                                     copy = env_file(env.fd, "copy", "same"),
                                     wrong = env_file(env.fd, "wrong", "same");
    Layer layers[] = { env_raw(&raw), env_tar("none"), env_tar("copy"), env_tar("wrong") };
    LayerCommit commits[] = { { .layer = &layers[0], .entries = &raw, .n_entries = 1 },
                              { .layer = &layers[1], .entries = &none, .n_entries = 1 },
                              { .layer = &layers[2], .entries = &copy, .n_entries = 1 },
                              { .layer = &layers[3], .entries = &wrong, .n_entries = 1 } };

    none.executable = true; /* made of what another layer brings */
    wrong.size = 5;
    store_commit_layers(env.s, ENV_PULL("p"), commits, ELEMENTSOF(commits));
    for (size_t i = 0; i < 3; i++) {
        if (commits[i].r < 0)
            test_fail(__FILE__, __LINE__, "layer %zu: %s", i, commits[i].err.text);
        ASSERT_EQ(env_has_layer(env.s, ENV_ORIGIN, &layers[i]), 1);
    }
    ASSERT_ERR(commits[3].r, -EPROTO);
    ASSERT_EQ(env_has_layer(env.s, ENV_ORIGIN, &layers[3]), 0);
    ASSERT_EQ(env_count(env.s, "objects", false), 2);
    for (size_t i = 0; i < ELEMENTSOF(layers); i++)
        free(layers[i].media_type);
    free(layers[0].path);
}

TEST(commit_of_a_batch_without_a_folder_fails_for_each) {
    PULL(dir, env);
    _cleanup_(batch_done) Batch b;

    batch_make(&b, env.fd);
    store_commit_layers(env.s, ENV_PULL("nobody"), b.commits, BATCH);
    batch_check(env.s, &b, BATCH);
    ASSERT_ERR(b.commits[BATCH - 1].r, -ENOENT);
}
