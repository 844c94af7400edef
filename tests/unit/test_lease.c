/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/lease: records of volumes. */
#include "tests/unit/store_env.h"

#define FILES ((const char *const[][2]){ { "a", "1" } })

static Volume volume(const char *id, const char *target, const Digest *d) {
    return (Volume){ .volume_id = xstrdup(id),
                     .target = xstrdup(target),
                     .reference = xstrdup("r"),
                     .sub_path = NULL,
                     .parameters = xstrdup("p=1"),
                     .pod_namespace = xstrdup("prod"),
                     .pod_name = xstrdup("web-0"),
                     .manifest = *d,
                     .exec = true };
}

TEST(volumes_are_recorded_and_survive_a_restart) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    Digest d = env_artifact(s, "one", FILES, 1);
    _cleanup_(volume_clear) Volume v = volume("v", "/t", &d), got = { 0 };
    Volume *list;
    size_t n;
    Err err;

    ASSERT_EQ(store_volume_add(s, &v, &err), 0);
    ASSERT_EQ(store_volume_add(s, &v, &err), 1);
    store_close(s);
    s = env_open(dir);
    ASSERT_OK(store_volume_get(s, "v", "/t", &got, &err));
    ASSERT_STREQ(got.volume_id, "v");
    ASSERT_STREQ(got.target, "/t");
    ASSERT_STREQ(got.reference, "r");
    ASSERT_STREQ(got.parameters, "p=1");
    ASSERT_STREQ(got.sub_path, NULL);
    ASSERT_STREQ(got.pod_namespace, "prod");
    ASSERT_STREQ(got.pod_name, "web-0");
    ASSERT_TRUE(got.exec && !got.multi_node && got.created_usec > 0);
    ASSERT_TRUE(digest_equal(&got.manifest, &d));
    volume_clear(&got);
    ASSERT_OK(store_volume_get(s, "v", NULL, &got, &err));
    ASSERT_ERR(store_volume_get(s, "w", NULL, &got, &err), -ENOENT);
    ASSERT_ERR(store_volume_get(s, "v", "/other", &got, &err), -ENOENT);
    ASSERT_OK(store_volume_list(s, &list, &n, &err));
    ASSERT_EQ(n, 1);
    volume_array_free(list, n);
    ASSERT_OK(store_volume_remove(s, "v", "/t", &err));
    ASSERT_OK(store_volume_remove(s, "v", "/t", &err));
    ASSERT_OK(store_volume_list(s, &list, &n, &err));
    ASSERT_EQ(n, 0);
    volume_array_free(list, n);
    store_close(s);
}

TEST(volumes_that_contradict_are_refused) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest d = env_artifact(s, "one", FILES, 1), other;
    _cleanup_(volume_clear) Volume v = volume("v", "/t", &d), w = volume("v", "/u", &d);
    Err err;

    digest_of(&other, "other", 5);
    v.manifest = other;
    ASSERT_ERR(store_volume_add(s, &v, &err), -ENOENT);
    v.manifest = d;
    ASSERT_OK(store_volume_add(s, &v, &err));
    ASSERT_ERR(store_volume_add(s, &w, &err), -EBUSY);
    w.multi_node = true;
    ASSERT_ERR(store_volume_add(s, &w, &err), -EBUSY); /* the first one is not */
    xfree_and_strdup(&v.parameters, "p=2");
    ASSERT_ERR(store_volume_add(s, &v, &err), -EEXIST);
    ASSERT_OK(store_volume_remove(s, "v", "/t", &err));
    v.multi_node = true;
    ASSERT_EQ(store_volume_add(s, &w, &err), 0);
    ASSERT_EQ(store_volume_add(s, &v, &err), 0);
    ASSERT_OK(store_volume_remove(s, "v", NULL, &err));
    ASSERT_ERR(store_volume_get(s, "v", NULL, &v, &err), -ENOENT);
}

TEST(volumes_are_removed_together) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest d = env_artifact(s, "one", FILES, 1);
    Volume v[] = { volume("a", "/a", &d), volume("b", "/b", &d), volume("c", "/c", &d) };
    const Volume gone[] = { v[0], { .volume_id = v[1].volume_id, .target = v[0].target }, v[2] };
    Volume *list;
    size_t n;
    Err err;

    for (size_t i = 0; i < ELEMENTSOF(v); i++)
        ASSERT_OK(store_volume_add(s, &v[i], &err));
    ASSERT_OK(store_volumes_remove(s, gone, ELEMENTSOF(gone), &err));
    ASSERT_OK(store_volume_list(s, &list, &n, &err));
    ASSERT_EQ(n, 1); /* "b" is not at that target */
    ASSERT_STREQ(list[0].volume_id, "b");
    volume_array_free(list, n);
    for (size_t i = 0; i < ELEMENTSOF(v); i++)
        volume_clear(&v[i]);
}
