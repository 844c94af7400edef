/* SPDX-License-Identifier: Apache-2.0 */
/* test_seen: which contents count as brought, by whom. */
#include "oci/seen.h"
#include "tests/unit/test.h"

static Digest numbered(uint32_t n) {
    Digest d;

    digest_of(&d, &n, sizeof(n));
    return d;
}

TEST(a_content_is_known_to_its_attempt_and_after_that_to_all) {
    _cleanup_(seen_freep) Seen *s = seen_new();
    Digest a = numbered(1);

    ASSERT_TRUE(!seen_test_and_add(s, 1, &a, false));
    ASSERT_TRUE(seen_test_and_add(s, 1, &a, false));
    ASSERT_TRUE(!seen_test_and_add(s, 1, &a, true));  /* an executable is another object */
    ASSERT_TRUE(!seen_test_and_add(s, 2, &a, false)); /* 1 may still fail */
    seen_commit(s, 1);
    ASSERT_TRUE(seen_test_and_add(s, 3, &a, false));
}

TEST(what_a_failed_attempt_brought_is_forgotten) {
    _cleanup_(seen_freep) Seen *s = seen_new();
    Digest a = numbered(1), b = numbered(2);

    ASSERT_TRUE(!seen_test_and_add(s, 1, &a, false));
    seen_commit(s, 1);
    ASSERT_TRUE(!seen_test_and_add(s, 2, &b, false));
    seen_forget(s, 2);
    ASSERT_TRUE(seen_test_and_add(s, 3, &a, false));
    ASSERT_TRUE(!seen_test_and_add(s, 3, &b, false));
}

TEST(beyond_the_cap_nothing_new_is_known) {
    _cleanup_(seen_freep) Seen *s = seen_new();

    for (uint32_t i = 0; i < SEEN_MAX + 100; i++) {
        Digest d = numbered(i);
        ASSERT_TRUE(!seen_test_and_add(s, 1, &d, false));
    }
    for (uint32_t i = 0; i < SEEN_MAX + 100; i += 50) {
        Digest d = numbered(i);
        ASSERT_EQ(seen_test_and_add(s, 1, &d, false), i < SEEN_MAX);
    }
}
