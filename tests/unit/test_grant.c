/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/grant: who was let in, for how long, and what is forgotten with what. */
#include "tests/unit/store_env.h"

#define FILES ((const char *const[][2]){ { "a", "1" } })
#define HOUR  ((int64_t)(3600 * USEC_PER_SEC))

static const uint8_t nobody[GRANT_BYTES], alice[GRANT_BYTES] = { 1 }, bob[GRANT_BYTES] = { 2 };

static Grant grant(const char *origin, const uint8_t *fingerprint) {
    return (Grant){ origin, fingerprint, (uint64_t)HOUR };
}

static void add(Store *s, const char *origin, const uint8_t *fingerprint) {
    Grant g = grant(origin, fingerprint);
    Err err = { "" };

    if (store_grant_add(s, &g, NULL, &err) < 0)
        test_fail(__FILE__, __LINE__, "%s", err.text);
}

static int has(Store *s, const char *origin, const uint8_t *fingerprint) {
    Grant g = grant(origin, fingerprint);
    Err err = { "" };

    return store_grant_has(s, &g, &err);
}

static int64_t number(Store *s, const char *sql) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int64_t n = -1;
    Err err = { "" };

    ASSERT_EQ(index_get(ix, &n, &err, sql, ""), 1);
    return n;
}

static void move_clock(Store *s, int64_t usec) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    Err err = { "" };

    ASSERT_OK(index_run(ix, &err, "UPDATE grants SET checked_usec = checked_usec - ?", "i", usec));
}

TEST(grants_are_of_one_credential_and_one_repository) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Grant g = grant("r.example/a", alice);
    Err err = { "" };

    ASSERT_EQ(has(s, "r.example/a", alice), 0);
    add(s, "r.example/a", alice);
    add(s, "r.example/a", alice);
    ASSERT_EQ(has(s, "r.example/a", alice), 1);
    ASSERT_EQ(has(s, "r.example/a", bob), 0);
    ASSERT_EQ(has(s, "r.example/a", nobody), 0);
    ASSERT_EQ(has(s, "r.example/b", alice), 0);
    ASSERT_EQ(has(s, "r.example/a/b", alice), 0);
    ASSERT_EQ(has(s, "other.example/a", alice), 0);
    ASSERT_OK(store_grant_remove(s, &g, false, &err));
    ASSERT_OK(store_grant_remove(s, &g, false, &err));
    ASSERT_EQ(has(s, "r.example/a", alice), 0);
}

TEST(grants_of_nobody_end_alone_or_with_another) {
    for (int with = 0; with < 2; with++) {
        STORE_TEST_DIR(dir);
        _cleanup_(store_closep) Store *s = env_open(dir);
        Grant g = grant("r.example/a", alice);
        Err err = { "" };

        add(s, "r.example/a", alice);
        add(s, "r.example/a", nobody);
        add(s, "r.example/b", nobody);
        ASSERT_OK(store_grant_remove(s, &g, with, &err));
        ASSERT_EQ(has(s, "r.example/a", nobody), !with);
        ASSERT_EQ(has(s, "r.example/b", nobody), 1);
        g.fingerprint = nobody;
        ASSERT_OK(store_grant_remove(s, &g, with, &err));
        ASSERT_EQ(has(s, "r.example/a", alice), 0);
    }
}

TEST(grants_of_nobody_are_everybodys) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);

    add(s, "r.example/open", nobody);
    ASSERT_EQ(has(s, "r.example/open", nobody), 1);
    ASSERT_EQ(has(s, "r.example/open", alice), 1);
    ASSERT_EQ(has(s, "r.example/closed", alice), 0);
}

TEST(grants_end) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);

    add(s, "r.example/a", alice);
    move_clock(s, HOUR - 60 * (int64_t)USEC_PER_SEC);
    ASSERT_EQ(has(s, "r.example/a", alice), 1);
    move_clock(s, 61 * (int64_t)USEC_PER_SEC);
    ASSERT_EQ(has(s, "r.example/a", alice), 0);
    add(s, "r.example/b", bob); /* takes the old one with it */
    ASSERT_EQ(number(s, "SELECT count(*) FROM grants"), 1);
    move_clock(s, -HOUR); /* from a clock that was wrong */
    ASSERT_EQ(has(s, "r.example/b", bob), 0);
}

TEST(grants_of_a_repository_are_bounded_and_the_newest_stay) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    uint8_t somebody[GRANT_BYTES] = { 9 };

    add(s, "r.example/other", alice);
    for (unsigned i = 0; i < 101; i++) {
        somebody[1] = (uint8_t)i;
        add(s, "r.example/a", somebody);
        move_clock(s, 1);
    }
    ASSERT_EQ(number(s, "SELECT count(*) FROM grants WHERE origin = 'r.example/a'"), 100);
    ASSERT_EQ(has(s, "r.example/a", somebody), 1);
    somebody[1] = 0;
    ASSERT_EQ(has(s, "r.example/a", somebody), 0);
    ASSERT_EQ(has(s, "r.example/other", alice), 1);
}

TEST(grants_survive_a_restart_but_not_the_loss_of_their_key) {
    STORE_TEST_DIR(dir);
    Store *s = env_open(dir);
    Grant g = grant("r.example/a", alice);
    int fd;

    add(s, g.origin, g.fingerprint);
    s = store_close(s);
    s = env_open(dir);
    ASSERT_EQ(has(s, g.origin, g.fingerprint), 1);
    ASSERT_OK(unlinkat(s->fd, "grants.key", 0));
    s = store_close(s);
    s = env_open(dir);
    ASSERT_EQ(has(s, g.origin, g.fingerprint), 0);
    add(s, g.origin, g.fingerprint);
    fd = openat(s->fd, "grants.key", O_WRONLY | O_TRUNC | O_CLOEXEC);
    ASSERT_OK(ftruncate(fd, 5));
    safe_close(fd);
    s = store_close(s);
    s = env_open(dir);
    ASSERT_EQ(has(s, g.origin, g.fingerprint), 0);
    s = store_close(s);
}

TEST(grants_hold_no_fingerprint_and_differ_from_store_to_store) {
    STORE_TEST_DIR(one);
    STORE_TEST_DIR(two);
    _cleanup_(store_closep) Store *s = env_open(one), *t = env_open(two);
    _cleanup_(index_releasep) Index *ix = NULL;
    int64_t n;
    Err err = { "" };

    add(s, "r.example/a", alice);
    add(t, "r.example/a", alice);
    ASSERT_TRUE(memcmp(s->grant_key, t->grant_key, GRANT_BYTES) != 0);
    ix = index_acquire(s->index);
    ASSERT_EQ(index_get(ix, &n, &err, "SELECT count(*) FROM grants WHERE credential = ?", "b",
                        alice, sizeof(alice)),
              1);
    ASSERT_EQ(n, 0);
}

TEST(grants_go_with_the_last_artifact_of_their_repository) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest d = env_artifact(s, "one", FILES, 1), e = env_artifact(s, "two", FILES, 1);
    Err err = { "" };

    add(s, ENV_ORIGIN, alice);
    ASSERT_OK(store_remove(s, NULL, NULL, &d, NULL, &err));
    ASSERT_EQ(has(s, ENV_ORIGIN, alice), 1);
    ASSERT_OK(store_remove(s, NULL, NULL, &e, NULL, &err));
    ASSERT_EQ(has(s, ENV_ORIGIN, alice), 0);
}

TEST(grants_come_with_their_reference_or_not_at_all) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest d = env_artifact(s, "one", FILES, 1), other, got;
    GrantReference r = { "r.example/model:x", "linux/amd64", &other };
    Grant g = grant(ENV_ORIGIN, alice);
    Err err = { "" };

    digest_of(&other, "other", 5);
    ASSERT_ERR(store_grant_add(s, &g, &r, &err), -ENOENT);
    ASSERT_EQ(has(s, ENV_ORIGIN, alice), 0);
    r.manifest = &d;
    ASSERT_OK(store_grant_add(s, &g, &r, &err));
    ASSERT_EQ(has(s, ENV_ORIGIN, alice), 1);
    ASSERT_OK(store_resolve(s, r.text, r.platform, NULL, &got, &err));
    ASSERT_TRUE(digest_equal(&got, &d));
}
