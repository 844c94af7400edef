/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/listing and cache/artifact: references, listings, manifests as they were stored.
 */
#include "tests/unit/store_env.h"

#define ONE ((const char *const[][2]){ { "b/c", "12345" }, { "a", "1" } })
#define TWO ((const char *const[][2]){ { "x", "22" } })

TEST(references_are_kept_by_platform) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2), two = env_artifact(s, "two", TWO, 1), d;
    Err err;

    ASSERT_OK(store_set_reference(s, "r", "linux/amd64", &one, &err));
    ASSERT_OK(store_set_reference(s, "r", "linux/arm64", &two, &err));
    ASSERT_OK(store_resolve(s, "r", "linux/amd64", NULL, &d, &err));
    ASSERT_TRUE(digest_equal(&d, &one));
    ASSERT_OK(store_resolve(s, "r", "linux/arm64", NULL, &d, &err));
    ASSERT_TRUE(digest_equal(&d, &two));
    ASSERT_ERR(store_resolve(s, "r", "linux/riscv64", NULL, &d, &err), -ENOENT);
    ASSERT_ERR(store_resolve(s, "nothing", "linux/amd64", NULL, &d, &err), -ENOENT);
    /* The tag moves to a manifest without an index: good for all platforms. */
    ASSERT_OK(store_set_reference(s, "r", NULL, &two, &err));
    ASSERT_OK(store_resolve(s, "r", "linux/amd64", NULL, &d, &err));
    ASSERT_TRUE(digest_equal(&d, &two));
    /* And back. */
    ASSERT_OK(store_set_reference(s, "r", "linux/amd64", &one, &err));
    ASSERT_ERR(store_resolve(s, "r", "linux/arm64", NULL, &d, &err), -ENOENT);
    d.bytes[0]++;
    ASSERT_ERR(store_set_reference(s, "r", NULL, &d, &err), -ENOENT);
}

TEST(listing_tells_sizes_references_and_use) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2), two = env_artifact(s, "two", TWO, 1);
    Volume v = { .volume_id = (char[]){ "v" }, .target = (char[]){ "/t" }, .manifest = two };
    ArtifactInfo *list, info = { 0 };
    size_t n;
    Err err;

    ASSERT_OK(store_set_reference(s, "alias", "linux/amd64", &one, &err));
    ASSERT_OK(store_volume_add(s, &v, &err));
    ASSERT_OK(store_list(s, &list, &n, &err));
    ASSERT_EQ(n, 2);
    ASSERT_TRUE(digest_equal(&list[0].digest, &one));
    ASSERT_EQ(list[0].n_references, 2);
    ASSERT_STREQ(list[0].references[0], "alias");
    ASSERT_STREQ(list[0].family, "modelpack");
    ASSERT_EQ(list[0].bytes, 6);
    ASSERT_EQ(list[0].unique_bytes, 6);
    ASSERT_EQ(list[0].files, 2);
    ASSERT_EQ(list[0].volumes, 0);
    ASSERT_TRUE(list[0].complete);
    ASSERT_EQ(list[1].volumes, 1);
    int64_t used = list[0].used_usec;
    artifact_info_array_free(list, n);
    ASSERT_OK(store_touch(s, &one, &err));
    ASSERT_OK(store_inspect(s, &one, &info, &err));
    ASSERT_TRUE(info.used_usec > used && info.created_usec <= used);
    artifact_info_clear(&info);
    one.bytes[0]++;
    ASSERT_ERR(store_touch(s, &one, &err), -ENOENT);
    ASSERT_ERR(store_inspect(s, &one, &info, &err), -ENOENT);
}

TEST(manifest_and_files_come_back) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest one = env_artifact(s, "one", ONE, 2);
    _cleanup_(manifest_freep) Manifest *m = NULL, *none = NULL;
    LayerEntry *files;
    size_t n;
    Err err;

    ASSERT_OK(store_manifest(s, &one, &m, &err));
    ASSERT_EQ(m->n_bytes, 3);
    ASSERT_MEMEQ(m->bytes, "one", 3);
    ASSERT_EQ(m->n_layers, 2);
    ASSERT_STREQ(m->layers[0].path, "b/c");
    ASSERT_EQ(m->layers[0].size, 5);
    ASSERT_EQ(m->layers[0].kind, LAYER_KIND_RAW);
    ASSERT_STREQ(m->artifact_type, NULL);
    ASSERT_OK(store_files(s, &one, &files, &n, &err));
    ASSERT_EQ(n, 3);
    ASSERT_STREQ(files[0].path, "a");
    ASSERT_STREQ(files[1].path, "b");
    ASSERT_EQ(files[1].type, ENTRY_TYPE_DIRECTORY);
    ASSERT_STREQ(files[2].path, "b/c");
    ASSERT_EQ(files[2].size, 5);
    layer_entries_free(files, n);
    one.bytes[0]++;
    ASSERT_ERR(store_manifest(s, &one, &none, &err), -ENOENT);
    ASSERT_ERR(store_files(s, &one, &files, &n, &err), -ENOENT);
}
