/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/commit_manifest and cache/checkout: layers become a tree of hard links. */
#include "cache/checkout.h"
#include "cache/object.h"
#include "tests/unit/store_env.h"

#include <signal.h>
#include <sys/resource.h>
#include <time.h>

static int commit_tar(Store *s, const char *pull, const Layer *layer, LayerEntry *entries, size_t n,
                      Err *err) {
    int r = env_commit(s, ENV_PULL(pull), layer, entries, n, err);

    layer_entries_free(entries, n);
    return r;
}

/* Blocks on disk of the store, as du(1) counts: each inode once. */
static uint64_t object_bytes(Store *s) {
    StoreStats stats;
    Err err;

    ASSERT_OK(store_stats(s, &stats, &err));
    return stats.bytes;
}

TEST(commit_manifest_builds_the_tree) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry *raw = xnew(LayerEntry), *low = xnew_n(LayerEntry, 4), *high = xnew_n(LayerEntry, 3);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    _cleanup_free_ char *a = NULL, *gone = NULL, *link = NULL, *weights = NULL, *path = NULL;
    Layer layers[3];
    struct stat st;
    Err err = { "" };

    raw[0] = env_file(fd, "big/model.safetensors", "WEIGHTS");
    low[0] = env_file(fd, "a", "old");
    low[1] = env_file(fd, "gone", "gone");
    low[2] = env_entry(ENTRY_TYPE_HARDLINK, "same", "gone");
    low[3] = env_entry(ENTRY_TYPE_SYMLINK, "link", "sub/tool");
    high[0] = env_entry(ENTRY_TYPE_WHITEOUT, "gone", NULL);
    high[1] = env_file(fd, "sub/tool", "#!");
    high[1].executable = true;
    high[2] = env_file(-1, "a", "new");
    high[2].ingest = xstrdup("a2");
    env_write(fd, "a2", "new", 3);
    layers[0] = env_raw(raw);
    layers[1] = env_tar("low");
    layers[2] = env_tar("high");
    layers[1].path = xstrdup("root");
    layers[2].path = xstrdup("root");
    ASSERT_OK(commit_tar(s, "p", &layers[0], raw, 1, &err));
    ASSERT_OK(commit_tar(s, "p", &layers[1], low, 4, &err));
    m = env_manifest("m", layers, 3);
    ASSERT_ERR(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err), -ENOENT);
    ASSERT_STRSTR(err.text, "layer 3 of 3");
    ASSERT_EQ(store_has_manifest(s, &m->digest, ENV_ORIGIN, &err), 0);
    ASSERT_OK(commit_tar(s, "p", &layers[2], high, 3, &err));
    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err));
    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err));
    ASSERT_EQ(store_has_manifest(s, &m->digest, ENV_ORIGIN, &err), 1);

    a = env_read(s, &m->digest, "root/a");
    gone = env_read(s, &m->digest, "root/gone");
    link = env_read(s, &m->digest, "root/link");
    weights = env_read(s, &m->digest, "big/model.safetensors");
    ASSERT_STREQ(a, "new");
    ASSERT_STREQ(gone, NULL);
    ASSERT_STREQ(weights, "WEIGHTS");
    path = env_tree_path(s, &m->digest, "root/same");
    ASSERT_OK(lstat(path, &st));
    ASSERT_EQ(st.st_nlink, 2);
    ASSERT_EQ(st.st_mode, S_IFREG | 0444);
    free(path);
    path = env_tree_path(s, &m->digest, "root/sub");
    ASSERT_OK(lstat(path, &st));
    ASSERT_EQ(st.st_mode, S_IFDIR | 0555);
    ASSERT_EQ(st.st_mtim.tv_sec, 1);
    free(path);
    path = env_tree_path(s, &m->digest, NULL);
    ASSERT_OK(lstat(path, &st));
    ASSERT_EQ(st.st_mode, S_IFDIR | 0555);
    ASSERT_EQ(env_count(s, "trees", true), 1 + 8);
}

TEST(commit_manifest_checks_its_bytes_and_paths) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry *one = xnew(LayerEntry), *two = xnew(LayerEntry);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    Layer layers[2];
    Err err;

    *one = env_file(fd, "a", "1");
    *two = env_file(fd, "a/b", "2");
    layers[0] = env_raw(one);
    layers[1] = env_raw(two);
    ASSERT_OK(commit_tar(s, "p", &layers[0], one, 1, &err));
    ASSERT_OK(commit_tar(s, "p", &layers[1], two, 1, &err));
    m = env_manifest("m", layers, 2);
    ASSERT_ERR(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err), -EPROTO);
    ASSERT_STRSTR(err.text, "beneath a file");
    m->bytes[0] ^= 1;
    ASSERT_ERR(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err), -EBADMSG);
    m->n_bytes = 64U << 20;
    ASSERT_ERR(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err), -E2BIG);
    ASSERT_EQ(env_count(s, "trees", true), 0);
}

/* A manifest "m" with one raw layer, as a pull of `origin` brings it; `text`: bytes of the file,
 * whose digest is that of "good". */
static int pull_one(Store *s, const char *origin, const char *text, Digest *ret, Err *err) {
    const StorePull pull = { "pull", origin };
    _cleanup_close_ int fd = env_ingest(s, "pull");
    LayerEntry *e = xnew(LayerEntry);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    Layer layer;
    int r;

    *e = env_file(fd, "file", "good");
    env_write(fd, e->ingest, text, 4);
    layer = env_raw(e);
    r = env_commit(s, &pull, &layer, e, 1, err);
    layer_entries_free(e, 1);
    m = env_manifest("m", &layer, 1);
    *ret = m->digest;
    if (r >= 0)
        r = store_commit_manifest(s, m, origin, origin, err);
    ASSERT_OK(store_ingest_end(s, "pull", err));
    return r;
}

TEST(commit_manifest_of_another_repository_with_the_same_content) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest d, found;
    Err err = { "" };

    ASSERT_OK(pull_one(s, "one", "good", &d, &err));
    ASSERT_EQ(store_has_manifest(s, &d, "one", &err), 1);
    ASSERT_EQ(store_has_manifest(s, &d, "two", &err), 0);
    ASSERT_OK(pull_one(s, "two", "good", &d, &err));
    ASSERT_EQ(store_has_manifest(s, &d, "one", &err), 1);
    ASSERT_EQ(store_has_manifest(s, &d, "two", &err), 1);
    ASSERT_OK(store_resolve(s, "two", NULL, NULL, &found, &err));
    ASSERT_OK(store_remove(s, NULL, NULL, &d, NULL, &err));
    ASSERT_EQ(store_has_manifest(s, &d, "two", &err), 0);
    env_check_invariants(s);
}

TEST(commit_manifest_mends_what_another_repository_lied_about) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_free_ char *evil = NULL, *good = NULL;
    Digest d;
    Volume v = { .volume_id = (char *)"v", .target = (char *)"/t", .reference = (char *)"evil" };
    Err err = { "" };

    ASSERT_OK(pull_one(s, "evil", "EVIL", &d, &err));
    v.manifest = d;
    ASSERT_OK(store_volume_add(s, &v, &err));
    evil = env_read(s, &d, "file");
    ASSERT_STREQ(evil, "EVIL");
    ASSERT_OK(pull_one(s, "good", "good", &d, &err));
    good = env_read(s, &d, "file");
    ASSERT_STREQ(good, "good");
    env_check_invariants(s);
}

TEST(commit_manifest_refuses_other_layers_of_another_repository) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "p");
    const StorePull evil = { "p", "evil" };
    LayerEntry *e = xnew(LayerEntry);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    Layer layer;
    Digest d;
    Err err = { "" };

    *e = env_file(fd, "file", "mine");
    layer = env_raw(e);
    ASSERT_OK(env_commit(s, &evil, &layer, e, 1, &err));
    layer_entries_free(e, 1);
    m = env_manifest("m", &layer, 1);
    /* Whoever comes second is refused, also when the content was damaged meanwhile. */
    ASSERT_OK(pull_one(s, "good", "good", &d, &err));
    ASSERT_ERR(store_commit_manifest(s, m, "evil", "evil", &err), -EBADMSG);
    ASSERT_STRSTR(err.text, "another repository gave this node other content");
    ASSERT_EQ(store_has_manifest(s, &d, "evil", &err), 0);
    {
        _cleanup_free_ char *path = env_tree_path(s, &d, "file");
        ASSERT_OK(truncate(path, 1));
    }
    ASSERT_EQ(store_verify(s, NULL, NULL, &err), 1);
    ASSERT_EQ(store_has_manifest(s, &d, "good", &err), 0);
    ASSERT_ERR(store_commit_manifest(s, m, "evil", "evil", &err), -EBADMSG);
    ASSERT_OK(pull_one(s, "good", "good", &d, &err));
    ASSERT_EQ(store_has_manifest(s, &d, "good", &err), 1);
    /* It goes only with the manifest. */
    ASSERT_OK(store_remove(s, NULL, NULL, &d, NULL, &err));
    ASSERT_OK(store_commit_manifest(s, m, "evil", "evil", &err));
    ASSERT_ERR(pull_one(s, "good", "good", &d, &err), -EBADMSG);
    ASSERT_OK(store_ingest_end(s, "p", &err));
}

/* No file may grow: the index fails after the tree was built. */
TEST(commit_manifest_that_the_index_cannot_take_leaves_no_tree) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry *e = xnew(LayerEntry);
    Layer layer;
    _cleanup_(manifest_freep) Manifest *m = NULL;
    struct rlimit old, none;
    Err err;
    int r;

    *e = env_file(fd, "file", "text");
    layer = env_raw(e);
    ASSERT_OK(env_commit(s, ENV_PULL("p"), &layer, e, 1, &err));
    layer_entries_free(e, 1);
    m = env_manifest("m", &layer, 1);
    (void)signal(SIGXFSZ, SIG_IGN);
    ASSERT_OK(getrlimit(RLIMIT_FSIZE, &old));
    none = (struct rlimit){ .rlim_cur = 1, .rlim_max = old.rlim_max };
    ASSERT_OK(setrlimit(RLIMIT_FSIZE, &none));
    r = store_commit_manifest(s, m, ENV_ORIGIN, "ref", &err);
    ASSERT_OK(setrlimit(RLIMIT_FSIZE, &old));
    ASSERT_TRUE(r < 0);
    ASSERT_STRSTR(err.text, "index");
    ASSERT_EQ(env_count(s, "trees", true), 0);
    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "ref", &err));
    ASSERT_EQ(store_has_manifest(s, &m->digest, ENV_ORIGIN, &err), 1);
}

TEST(artifacts_that_share_most_cost_little_more) {
    enum { FILES = 10, SIZE = 1000 };
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    char text[FILES + 1][SIZE + 1];
    const char *files[FILES][2];
    ArtifactInfo info = { 0 };
    Digest first, second;
    Err err;

    for (size_t i = 0; i <= FILES; i++) {
        memset(text[i], 'a' + (int)i, SIZE);
        text[i][SIZE] = '\0';
    }
    static const char *const names[FILES] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" };
    for (size_t i = 0; i < FILES; i++) {
        files[i][0] = names[i];
        files[i][1] = text[i];
    }
    first = env_artifact(s, "one", files, FILES);
    ASSERT_EQ(object_bytes(s), FILES * SIZE);
    files[FILES - 1][1] = text[FILES];
    second = env_artifact(s, "two", files, FILES);
    ASSERT_EQ(object_bytes(s), (FILES + 1) * SIZE);
    ASSERT_TRUE(!digest_equal(&first, &second));
    ASSERT_OK(store_inspect(s, &second, &info, &err));
    ASSERT_EQ(info.bytes, FILES * SIZE);
    ASSERT_EQ(info.unique_bytes, SIZE);
    ASSERT_EQ(info.files, FILES);
    artifact_info_clear(&info);
}

TEST(checkout_goes_beyond_the_limit_of_hard_links) {
    enum { N = 65100 };
    STORE_TEST_DIR(dir);
    LayerEntry *entries = xnew_n(LayerEntry, N);
    _cleanup_close_ int objects = -EBADF, tree = -EBADF;
    _cleanup_free_ char *shard = NULL, *text = NULL;
    struct stat st;
    Err err;

    for (size_t i = 0; i < N; i++) {
        entries[i] = env_file(-1, "x", "init");
        free(entries[i].path);
        entries[i].path = xasprintf("f%05zu", i);
    }
    ASSERT_OK(mkdirat(tmpdir_fd(dir), "objects", 0700));
    ASSERT_OK(mkdirat(tmpdir_fd(dir), "tree", 0700));
    objects = openat(tmpdir_fd(dir), "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    tree = openat(tmpdir_fd(dir), "tree", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    shard = xstrndup(OBJECT_NAME(&entries[0].digest, false), 2);
    ASSERT_OK(mkdirat(objects, shard, 0700));
    env_write(objects, OBJECT_NAME(&entries[0].digest, false), "init", 4);
    ASSERT_OK(checkout_build(objects, tree, entries, N, &err));
    ASSERT_OK(fstatat(objects, OBJECT_NAME(&entries[0].digest, false), &st, 0));
    if (st.st_nlink < N) {
        ASSERT_OK(fstatat(tree, "f65099", &st, 0));
        ASSERT_TRUE(st.st_nlink < 65000);
        ASSERT_EQ(st.st_mode, S_IFREG | 0444);
    }
    ASSERT_OK(fs_read_file(tree, "f65099", 100, &text, NULL, &err));
    ASSERT_STREQ(text, "init");
    layer_entries_free(entries, N);
}

TEST(tree_of_twenty_thousand_files_takes_seconds) {
    enum { N = 20000 };
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry *entries = xnew_n(LayerEntry, N);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    Layer layer = env_tar("many");
    struct timespec start, middle, end;
    Err err;

    for (size_t i = 0; i < N; i++) {
        char text[32];
        _cleanup_free_ char *path = xasprintf("d%zu/e%zu/f%zu", i % 7, i % 91, i);

        (void)snprintf(text, sizeof(text), "%zu", i);
        entries[i] = env_file(fd, path, text);
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    ASSERT_OK(commit_tar(s, "p", &layer, entries, N, &err));
    (void)clock_gettime(CLOCK_MONOTONIC, &middle);
    m = env_manifest("m", &layer, 1);
    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err));
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%d files: layer %.1f s, tree %.1f s\n", N,
           (double)(middle.tv_sec - start.tv_sec) + (double)(middle.tv_nsec - start.tv_nsec) / 1e9,
           (double)(end.tv_sec - middle.tv_sec) + (double)(end.tv_nsec - middle.tv_nsec) / 1e9);
    ASSERT_TRUE(end.tv_sec - start.tv_sec < 30); /* sanitizers, a shared machine */
}

/* Of "m", with the raw files a.json and b.bin and a tar with t/c.json and t/d.bin, what `include`
 * means; without b.bin when `whole` is false. */
static Manifest *subset_parts(Store *s, const char *pull, bool whole, const char *include) {
    _cleanup_close_ int fd = env_ingest(s, pull);
    LayerEntry *files = xnew_n(LayerEntry, 2), *tar = xnew_n(LayerEntry, 2);
    Layer layers[3];
    Manifest *m;
    Err err = { "" };

    files[0] = env_file(fd, "a.json", "raw json");
    files[1] = env_file(fd, "b.bin", "raw bin");
    tar[0] = env_file(fd, "t/c.json", "tar json");
    tar[1] = env_file(fd, "t/d.bin", "tar bin");
    layers[0] = env_raw(&files[0]);
    layers[1] = env_raw(&files[1]);
    layers[2] = env_tar("tar");
    ASSERT_OK(env_commit(s, ENV_PULL(pull), &layers[0], &files[0], 1, &err));
    if (whole)
        ASSERT_OK(env_commit(s, ENV_PULL(pull), &layers[1], &files[1], 1, &err));
    ASSERT_OK(env_commit(s, ENV_PULL(pull), &layers[2], tar, 2, &err));
    layer_entries_free(files, 2);
    layer_entries_free(tar, 2);
    m = env_manifest("m", layers, 3);
    ASSERT_OK(filter_parse(&m->filter, include, NULL, &err));
    return m;
}

TEST(commit_manifest_of_a_subset) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_(manifest_freep) Manifest *m = subset_parts(s, "p", false, "*.json");
    _cleanup_(filter_freep) Filter *other = NULL;
    Digest key, found;
    LayerEntry *entries;
    ArtifactInfo info;
    size_t n;
    Err err = { "" };

    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err));
    ASSERT_OK(store_ingest_end(s, "p", &err));
    manifest_key(m, &key);
    ASSERT_EQ(env_count(s, "trees", true), 4); /* the tree, a.json, t, t/c.json */
    ASSERT_EQ(store_has_manifest(s, &key, ENV_ORIGIN, &err), 1);
    ASSERT_EQ(store_has_manifest(s, &m->digest, ENV_ORIGIN, &err), 0);
    ASSERT_EQ(store_resolve(s, "r", NULL, m->filter, &found, &err), 0);
    ASSERT_TRUE(digest_equal(&found, &key));
    ASSERT_ERR(store_resolve(s, "r", NULL, NULL, &found, &err), -ENOENT);
    ASSERT_OK(filter_parse(&other, "*.bin", NULL, &err));
    ASSERT_ERR(store_resolve(s, "r", NULL, other, &found, &err), -ENOENT);
    ASSERT_ERR(store_make_subset(s, &m->digest, other, &found, &err), -ENOENT);
    ASSERT_OK(store_inspect(s, &key, &info, &err));
    ASSERT_EQ(info.bytes, strlen("raw json") + strlen("tar json")); /* of what is shown */
    ASSERT_EQ(info.unique_bytes, info.bytes + strlen("tar bin"));
    ASSERT_EQ(info.files, 2);
    artifact_info_clear(&info);
    ASSERT_OK(store_files(s, &key, &entries, &n, &err));
    ASSERT_EQ(n, 3);
    layer_entries_free(entries, n);
    env_check_invariants(s);
    s = store_close(s);
    s = env_open(dir); /* recovery knows it */
    ASSERT_EQ(store_recovered(s)->trees_removed, 0);
    ASSERT_EQ(store_resolve(s, "r", NULL, m->filter, &found, &err), 0);
    ASSERT_ERR(store_remove(s, NULL, NULL, &m->digest, NULL, &err), -ENOENT);
    ASSERT_OK(store_remove(s, NULL, NULL, &key, NULL, &err));
    ASSERT_EQ(env_count(s, "objects", false), 0);
    ASSERT_EQ(env_count(s, "trees", true), 0);
}

TEST(commit_manifest_makes_a_subset_of_the_whole) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_(manifest_freep) Manifest *m = subset_parts(s, "p", true, NULL);
    _cleanup_(filter_freep) Filter *json = NULL, *none = NULL;
    Digest key, found;
    Err err = { "" };

    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err));
    ASSERT_OK(store_ingest_end(s, "p", &err));
    ASSERT_OK(filter_parse(&json, "*.json", NULL, &err));
    ASSERT_OK(filter_parse(&none, "*.gguf", NULL, &err));
    ASSERT_EQ(store_resolve(s, "r", NULL, json, &found, &err), 1);
    ASSERT_TRUE(digest_equal(&found, &m->digest));
    for (int i = 0; i < 2; i++)
        ASSERT_OK(store_make_subset(s, &found, json, &key, &err));
    ASSERT_EQ(store_has_manifest(s, &key, ENV_ORIGIN, &err), 1);
    ASSERT_OK(store_set_reference(s, "r", NULL, &key, &err));
    ASSERT_EQ(store_resolve(s, "r", NULL, json, &found, &err), 0);
    ASSERT_EQ(store_resolve(s, "r", NULL, NULL, &found, &err), 0);
    ASSERT_TRUE(digest_equal(&found, &m->digest));
    ASSERT_ERR(store_make_subset(s, &m->digest, none, &key, &err), -EINVAL);
    ASSERT_STRSTR(err.text, "leave no file");
    /* The whole goes alone, and with it what the subset does not need: b.bin. */
    ASSERT_OK(store_remove(s, NULL, NULL, &m->digest, NULL, &err));
    ASSERT_EQ(store_resolve(s, "r", NULL, json, &found, &err), 0);
    ASSERT_EQ(env_count(s, "objects", false), 3);
    env_check_invariants(s);
    ASSERT_OK(store_remove(s, "r", NULL, NULL, NULL, &err));
    ASSERT_ERR(store_resolve(s, "r", NULL, json, &found, &err), -ENOENT);
    ASSERT_EQ(env_count(s, "objects", false), 0);
    env_check_invariants(s);
}

/* Also where the digest that is given becomes the one that is found. */
TEST(commit_manifest_makes_a_subset_for_all_origins_of_the_whole) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_(filter_freep) Filter *f = NULL;
    Digest d;
    Err err = { "" };

    ASSERT_OK(pull_one(s, "one", "good", &d, &err));
    ASSERT_OK(pull_one(s, "two", "good", &d, &err));
    ASSERT_OK(filter_parse(&f, "file", NULL, &err));
    ASSERT_OK(store_make_subset(s, &d, f, &d, &err));
    ASSERT_EQ(store_has_manifest(s, &d, "one", &err), 1);
    ASSERT_EQ(store_has_manifest(s, &d, "two", &err), 1);
    env_check_invariants(s);
}

/* The reference means another manifest: what it named before loses the name, all of it. */
TEST(commit_manifest_moves_a_reference_with_its_subsets) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    _cleanup_(manifest_freep) Manifest *m = subset_parts(s, "p", false, "*.json");
    Digest key, found, other;
    Err err = { "" };

    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err));
    ASSERT_OK(store_ingest_end(s, "p", &err));
    manifest_key(m, &key);
    other = env_artifact(s, "other", (const char *const[][2]){ { "x.json", "x" } }, 1);
    ASSERT_OK(store_set_reference(s, "r", NULL, &other, &err));
    ASSERT_EQ(store_resolve(s, "r", NULL, m->filter, &found, &err), 1);
    ASSERT_TRUE(digest_equal(&found, &other));
    ASSERT_OK(store_remove(s, NULL, NULL, &key, NULL, &err));
    ASSERT_OK(store_resolve(s, "r", NULL, NULL, &found, &err));
    env_check_invariants(s);
}
