/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/check: damage is found, forgotten, and repaired by the next pull. */
#include "cache/object.h"
#include "tests/unit/store_env.h"

#define ONE ((const char *const[][2]){ { "a", "12345" }, { "b", "1" } })
#define TWO ((const char *const[][2]){ { "c", "333" } })

typedef struct Seen {
    int n_bad, n_incomplete, n_progress;
    char sentence[512];
    Digest digest;
    int answer;
} Seen;

static int on_progress(void *arg, uint64_t objects, uint64_t n_objects, uint64_t bytes,
                       uint64_t n_bytes) {
    Seen *seen = arg;

    ASSERT_TRUE(objects <= n_objects && bytes <= n_bytes);
    seen->n_progress++;
    return seen->answer;
}

static void on_bad(void *arg, const Digest *object, const char *sentence) {
    Seen *seen = arg;

    seen->n_bad++;
    seen->digest = *object;
    (void)snprintf(seen->sentence, sizeof(seen->sentence), "%s", sentence);
}

static void on_incomplete(void *arg, const Digest *manifest, const char *sentence) {
    Seen *seen = arg;

    seen->n_incomplete++;
    seen->digest = *manifest;
    (void)snprintf(seen->sentence, sizeof(seen->sentence), "%s", sentence);
}

static char *object_path(const Store *s, const char *content, Digest *ret) {
    digest_of(ret, content, strlen(content));
    return xasprintf("%s/objects/%s", store_path(s), OBJECT_NAME(ret, false));
}

/* Writes into the file itself, as a disk would rot it. */
static void damage(const char *path, const char *text) {
    _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
    ASSERT_OK(fd);
    ASSERT_OK(pwrite(fd, text, strlen(text), 0));
    ASSERT_OK(fsync(fd));
}

TEST(verify_of_a_good_store_finds_nothing) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Seen seen = { 0 };
    VerifyHandlers handlers = { on_progress, on_bad, on_incomplete, &seen };
    Digest one = env_artifact(s, "one", ONE, 2), none = one;
    Err err;

    ASSERT_EQ(store_verify(s, NULL, &handlers, &err), 0);
    ASSERT_EQ(store_verify(s, &one, &handlers, &err), 0);
    ASSERT_EQ(store_verify(s, &one, NULL, &err), 0);
    ASSERT_EQ(seen.n_progress, 2);
    none.bytes[0]++;
    ASSERT_ERR(store_verify(s, &none, NULL, &err), -ENOENT);
    seen.answer = -ECANCELED;
    ASSERT_ERR(store_verify(s, &one, &handlers, &err), -ECANCELED);
}

TEST(verify_finds_each_kind_of_damage_and_a_pull_repairs_it) {
    static const char *const words[] = { "changed on disk", "more than", "only 2 bytes",
                                         "missing" };

    for (size_t i = 0; i < ELEMENTSOF(words); i++) {
        STORE_TEST_DIR(dir);
        _cleanup_(store_closep) Store *s = env_open(dir);
        Seen seen = { 0 };
        VerifyHandlers handlers = { NULL, on_bad, on_incomplete, &seen };
        Digest one = env_artifact(s, "one", ONE, 2), two = env_artifact(s, "two", TWO, 1), d;
        _cleanup_free_ char *path = object_path(s, "12345", &d),
                            *tree = env_tree_path(s, &one, NULL), *text = NULL;
        Err err;

        if (i == 3)
            ASSERT_OK(unlink(path));
        else if (i == 2)
            ASSERT_OK(truncate(path, 2));
        else
            damage(path, i == 0 ? "X" : "123456");
        ASSERT_EQ(store_verify(s, &two, &handlers, &err), 0);
        ASSERT_EQ(store_verify(s, NULL, &handlers, &err), 1);
        ASSERT_EQ(seen.n_bad, 1);
        ASSERT_TRUE(digest_equal(&seen.digest, &d));
        ASSERT_STRSTR(seen.sentence, words[i]);
        ASSERT_EQ(store_has_manifest(s, &one, ENV_ORIGIN, &err), 0);
        ASSERT_EQ(store_has_manifest(s, &two, ENV_ORIGIN, &err), 1);
        ASSERT_ERR(store_resolve(s, "one", NULL, NULL, &d, &err), -ENOENT);
        ASSERT_EQ(access(path, F_OK), -1);
        ASSERT_EQ(access(tree, F_OK), -1);
        /* It is said again until a pull mends it. */
        ASSERT_EQ(seen.n_incomplete, 0);
        ASSERT_EQ(store_verify(s, &one, &handlers, &err), 1);
        ASSERT_EQ(store_verify(s, NULL, &handlers, &err), 1);
        ASSERT_EQ(store_verify(s, &two, &handlers, &err), 0);
        ASSERT_EQ(seen.n_bad, 1);
        ASSERT_EQ(seen.n_incomplete, 2);
        ASSERT_TRUE(digest_equal(&seen.digest, &one));
        ASSERT_STRSTR(seen.sentence, "is incomplete, it lacks ");
        ASSERT_STRSTR(seen.sentence, ": cache-ctl pull one ");
        (void)env_artifact(s, "one", ONE, 2);
        ASSERT_EQ(store_verify(s, NULL, &handlers, &err), 0);
        text = env_read(s, &one, "a");
        ASSERT_STREQ(text, "12345");
    }
}

TEST(verify_keeps_a_tree_that_a_volume_shows_and_a_pull_mends_it) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Volume v = { .volume_id = (char[]){ "v" }, .target = (char[]){ "/t" } };
    _cleanup_free_ char *path = NULL, *tree = NULL, *before = NULL, *after = NULL;
    struct stat first, second;
    ArtifactInfo info = { 0 };
    Digest d;
    Err err;

    v.manifest = env_artifact(s, "one", ONE, 2);
    ASSERT_OK(store_volume_add(s, &v, &err));
    path = object_path(s, "12345", &d);
    damage(path, "X");
    ASSERT_EQ(store_verify(s, NULL, NULL, &err), 1);
    before = env_read(s, &v.manifest, "a");
    ASSERT_STREQ(before, "X2345");
    ASSERT_OK(store_inspect(s, &v.manifest, &info, &err));
    ASSERT_TRUE(!info.complete);
    artifact_info_clear(&info);
    tree = env_tree_path(s, &v.manifest, NULL);
    ASSERT_OK(stat(tree, &first));
    (void)env_artifact(s, "one", ONE, 2);
    ASSERT_OK(stat(tree, &second));
    ASSERT_EQ(first.st_ino, second.st_ino);
    after = env_read(s, &v.manifest, "a");
    ASSERT_STREQ(after, "12345");
    ASSERT_EQ(store_has_manifest(s, &v.manifest, ENV_ORIGIN, &err), 1);
    ASSERT_EQ(env_count(s, "trees", true), 3);
    /* Without a pull, the tree goes with the last volume. */
    damage(path, "X");
    ASSERT_EQ(store_verify(s, NULL, NULL, &err), 1);
    ASSERT_OK(stat(tree, &second));
    ASSERT_OK(store_volume_remove(s, "v", "/t", &err));
    ASSERT_EQ(stat(tree, &second), -1);
    ASSERT_OK(store_remove(s, "one", NULL, NULL, NULL, &err));
    ASSERT_EQ(env_count(s, "objects", false), 0);
}
