/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/gc: removal takes what nobody else uses, and nothing that somebody does. */
#include "tests/unit/store_env.h"

#include <pthread.h>

#define ONE ((const char *const[][2]){ { "shared", "12345" }, { "own", "1" } })
#define TWO ((const char *const[][2]){ { "shared", "12345" }, { "mine", "22" } })

TEST(remove_takes_what_nobody_else_uses) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2), two = env_artifact(s, "two", TWO, 2), d;
    _cleanup_free_ char *shared = NULL;
    uint64_t freed = 0;
    Err err;

    ASSERT_OK(store_remove(s, "one", NULL, NULL, &freed, &err));
    ASSERT_EQ(freed, 1);
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 0);
    ASSERT_ERR(store_resolve(s, "one", NULL, NULL, &d, &err), -ENOENT);
    shared = env_read(s, &two, "shared");
    ASSERT_STREQ(shared, "12345");
    ASSERT_EQ(env_count(s, "objects", false), 2);
    ASSERT_EQ(env_count(s, "trees", false), 2);
    ASSERT_OK(store_remove(s, NULL, NULL, &two, &freed, &err));
    ASSERT_EQ(freed, 7);
    ASSERT_EQ(env_count(s, "objects", false), 0);
    ASSERT_EQ(env_count(s, "trees", true), 0);
    ASSERT_ERR(store_remove(s, NULL, NULL, &two, &freed, &err), -ENOENT);
    ASSERT_ERR(store_remove(s, "two", NULL, NULL, &freed, &err), -ENOENT);
}

TEST(remove_of_one_reference_of_two_keeps_the_artifact) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2);
    uint64_t freed = 77;
    Err err;

    ASSERT_OK(store_set_reference(s, "alias", "linux/arm64", &one, &err));
    ASSERT_OK(store_remove(s, "one", NULL, NULL, &freed, &err));
    ASSERT_EQ(freed, 0);
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 1);
    ASSERT_OK(store_remove(s, "alias", NULL, NULL, &freed, &err));
    ASSERT_EQ(freed, 6);
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 0);
}

TEST(remove_of_one_platform_keeps_the_others) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2), two = env_artifact(s, "two", TWO, 2), d;
    Err err;

    ASSERT_OK(store_set_reference(s, "name", "linux/arm64", &one, &err));
    ASSERT_OK(store_set_reference(s, "name", "linux/amd64", &two, &err));
    ASSERT_ERR(store_remove(s, "name", "linux/s390x", NULL, NULL, &err), -ENOENT);
    ASSERT_STRSTR(err.text, "name for linux/s390x");
    ASSERT_OK(store_remove(s, "name", "linux/arm64", NULL, NULL, &err));
    ASSERT_ERR(store_resolve(s, "name", "linux/arm64", NULL, &d, &err), -ENOENT);
    ASSERT_OK(store_resolve(s, "name", "linux/amd64", NULL, &d, &err));
    ASSERT_OK(store_remove(s, "one", "linux/s390x", NULL, NULL, &err)); /* good for every one */
    ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 0);
    ASSERT_EQ(store_has_manifest(s, &two, ENV_ORIGIN, &err), 1);
}

TEST(remove_refuses_what_a_volume_uses) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Volume v = { .volume_id = (char[]){ "v" }, .target = (char[]){ "/t" } };
    Err err;

    v.manifest = env_artifact(s, "one", ONE, 2);
    ASSERT_OK(store_volume_add(s, &v, &err));
    ASSERT_ERR(store_remove(s, "one", NULL, NULL, NULL, &err), -EBUSY);
    ASSERT_STRSTR(err.text, "in use by 1 volume");
    ASSERT_ERR(store_remove(s, NULL, NULL, &v.manifest, NULL, &err), -EBUSY);
    ASSERT_OK(store_resolve(s, "one", NULL, NULL, &v.manifest, &err));
    ASSERT_OK(store_volume_remove(s, "v", "/t", &err));
    ASSERT_OK(store_remove(s, "one", NULL, NULL, NULL, &err));
}

TEST(remove_and_prune_leave_what_a_pull_holds) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry raw = env_file(-1, "shared", "12345"), *tar = xnew_n(LayerEntry, 2);
    Layer layer = env_raw(&raw), tar_layer = env_tar("t");
    uint64_t freed;
    Err err;

    (void)env_artifact(s, "one", ONE, 2);
    tar[0] = env_file(fd, "x", "xxx");
    tar[1] = env_entry(ENTRY_TYPE_DIRECTORY, "d", NULL);
    ASSERT_OK(env_commit(s, ENV_PULL("p"), &tar_layer, tar, 2, &err));
    ASSERT_EQ(store_lease_layer(s, ENV_PULL("p"), &layer, &err), 1);
    ASSERT_OK(store_remove(s, "one", NULL, NULL, &freed, &err));
    ASSERT_EQ(freed, 1);
    ASSERT_EQ(store_prune(s, &freed, &err), 0);
    ASSERT_EQ(freed, 0);
    ASSERT_EQ(env_has_layer(s, ENV_ORIGIN, &layer), 1);
    ASSERT_EQ(env_has_layer(s, ENV_ORIGIN, &tar_layer), 1);
    ASSERT_OK(store_ingest_end(s, "p", &err));
    ASSERT_EQ(store_prune(s, &freed, &err), 1);
    ASSERT_EQ(freed, 8);
    ASSERT_EQ(env_has_layer(s, ENV_ORIGIN, &layer), 0);
    ASSERT_EQ(env_has_layer(s, ENV_ORIGIN, &tar_layer), 0);
    ASSERT_EQ(store_lease_layer(s, ENV_PULL("p"), &tar_layer, &err), 0);
    ASSERT_EQ(env_count(s, "objects", false), 0);
    layer_entries_free(tar, 2);
    free(raw.path);
    free(layer.path);
    free(layer.media_type);
    free(tar_layer.media_type);
}

static void commit_one(Store *s, const char *pull, const char *path, const char *text) {
    _cleanup_close_ int fd = env_ingest(s, pull);
    LayerEntry *e = xnew(LayerEntry);
    Layer layer;
    Err err;

    *e = env_file(fd, path, text);
    layer = env_raw(e);
    ASSERT_OK(env_commit(s, ENV_PULL(pull), &layer, e, 1, &err));
    layer_entries_free(e, 1);
    free(layer.media_type);
    free(layer.path);
}

TEST(discard_takes_what_the_pull_brought_and_nothing_of_others) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Err err;

    (void)env_artifact(s, "one", ONE, 2);
    commit_one(s, "interrupted", "weights", "1234567");
    ASSERT_OK(store_ingest_end(s, "interrupted", &err)); /* its next try finds the layer */
    commit_one(s, "running", "held", "333");
    commit_one(s, "failed", "bad", "4444");
    {
        LayerEntry shared = env_file(-EBADF, "shared", "12345"),
                   held = env_file(-EBADF, "h", "333");
        Layer a = env_raw(&shared), b = env_raw(&held);

        ASSERT_EQ(store_lease_layer(s, ENV_PULL("failed"), &a, &err), 1);
        ASSERT_EQ(store_lease_layer(s, ENV_PULL("failed"), &b, &err), 1);
        free(shared.path);
        free(held.path);
        free(a.media_type);
        free(a.path);
        free(b.media_type);
        free(b.path);
    }
    ASSERT_EQ(env_count(s, "objects", false), 5);
    ASSERT_OK(store_ingest_discard(s, "failed", &err));
    ASSERT_OK(store_ingest_end(s, "failed", &err));
    ASSERT_EQ(env_count(s, "objects", false), 4);
    ASSERT_EQ(env_count(s, "ingest", true), 1);
    ASSERT_OK(store_ingest_discard(s, "running", &err));
    ASSERT_EQ(env_count(s, "objects", false), 3);
    ASSERT_OK(store_ingest_discard(s, "never was", &err));
}

TEST(tar_layers_are_shared_and_go_with_the_last_user) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry *e = xnew(LayerEntry);
    Layer first = env_tar("t"), second = env_tar("t"), probe = { .kind = LAYER_KIND_TAR };
    _cleanup_(manifest_freep) Manifest *a = NULL, *b = NULL;
    Err err;

    *e = env_file(fd, "x", "xxx");
    probe.digest = first.digest;
    ASSERT_OK(env_commit(s, ENV_PULL("p"), &first, e, 1, &err));
    layer_entries_free(e, 1);
    second.path = xstrdup("elsewhere");
    a = env_manifest("a", &first, 1);
    b = env_manifest("b", &second, 1);
    ASSERT_OK(store_commit_manifest(s, a, ENV_ORIGIN, "a", &err));
    ASSERT_OK(store_commit_manifest(s, b, ENV_ORIGIN, "b", &err));
    ASSERT_OK(store_ingest_end(s, "p", &err));
    ASSERT_OK(store_remove(s, "a", NULL, NULL, NULL, &err));
    ASSERT_EQ(env_has_layer(s, ENV_ORIGIN, &probe), 1);
    ASSERT_OK(store_remove(s, "b", NULL, NULL, NULL, &err));
    ASSERT_EQ(env_has_layer(s, ENV_ORIGIN, &probe), 0);
    ASSERT_EQ(env_count(s, "objects", false), 0);
}

enum { THREADS = 4, ROUNDS = 40, NAMES = 6 };

typedef struct Worker {
    Store *s;
    unsigned number;
    int r;
    Err err;
} Worker;

/* Pulls artifacts that share files with those of the other threads; names collide as well. */
static int pull_one(Worker *w, unsigned i) {
    char pull[32], name[32], content[2][32];
    LayerEntry *raw = xnew(LayerEntry), *tar = xnew(LayerEntry);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    _cleanup_close_ int fd = -EBADF;
    Layer layers[2];
    int r;

    (void)snprintf(pull, sizeof(pull), "pull-%u-%u", w->number, i);
    (void)snprintf(name, sizeof(name), "artifact-%u", i % NAMES);
    (void)snprintf(content[0], sizeof(content[0]), "content %u", i % NAMES / 2);
    (void)snprintf(content[1], sizeof(content[1]), "content %u", i % NAMES / 3);
    fd = env_ingest(w->s, pull);
    *raw = env_file(fd, "a", content[0]);
    *tar = env_file(fd, "b", content[1]);
    layers[0] = env_raw(raw);
    layers[1] = env_tar(content[1]);
    m = env_manifest(name, layers, 2);
    r = env_commit(w->s, ENV_PULL(pull), &layers[0], raw, 1, &w->err);
    if (r >= 0)
        r = env_commit(w->s, ENV_PULL(pull), &layers[1], tar, 1, &w->err);
    if (r >= 0)
        r = store_commit_manifest(w->s, m, ENV_ORIGIN, name, &w->err);
    layer_entries_free(raw, 1);
    layer_entries_free(tar, 1);
    if (store_ingest_end(w->s, pull, NULL) < 0)
        return -EIO;
    return r;
}

static void *pull_many(void *arg) {
    Worker *w = arg;

    for (unsigned i = 0; w->r >= 0 && i < ROUNDS; i++)
        w->r = pull_one(w, i + w->number);
    return NULL;
}

static void *remove_many(void *arg) {
    Worker *w = arg;

    for (unsigned i = 0; i < ROUNDS; i++) {
        char name[32];

        (void)snprintf(name, sizeof(name), "artifact-%u", (i * 5) % NAMES);
        (void)!store_remove(w->s, name, NULL, NULL, NULL, NULL); /* absent at times */
        if (i % 8 == 0)
            w->r = MIN(w->r, store_prune(w->s, NULL, &w->err));
        if (i % 16 == 0)
            w->r = MIN(w->r, store_verify(w->s, NULL, NULL, &w->err));
    }
    return NULL;
}

TEST(pulls_and_removals_at_the_same_time) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    Worker workers[THREADS];
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (Worker){ .s = s, .number = i };
        ASSERT_EQ(pthread_create(&threads[i], NULL, i == 0 ? remove_many : pull_many, &workers[i]),
                  0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        ASSERT_EQ(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        if (workers[i].r < 0)
            test_fail(__FILE__, __LINE__, "thread %u: %d %s", i, workers[i].r, workers[i].err.text);
    }
    env_check_invariants(s);
    store_close(s);
    s = env_open(dir);
    env_check_invariants(s);
    store_close(s);
}

static void *prune(void *arg) {
    Err err = { "" };
    int r = store_prune(arg, NULL, &err);

    return r < 0 ? arg : NULL;
}

/* What came in part may take long to go: nobody who names objects or builds trees waits for it. */
TEST(prune_waits_for_partial_layers_without_the_content) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    pthread_mutex_t *partial = mutex_lock(&s->partial);
    pthread_t thread;
    void *failed = NULL;

    ASSERT_EQ(pthread_create(&thread, NULL, prune, s), 0);
    for (unsigned i = 0; i < 20; i++) {
        (void)usleep(10000);
        ASSERT_EQ(pthread_rwlock_tryrdlock(&s->content), 0);
        (void)pthread_rwlock_unlock(&s->content);
    }
    mutex_unlockp(&partial);
    ASSERT_EQ(pthread_join(thread, &failed), 0);
    ASSERT_TRUE(!failed);
}
