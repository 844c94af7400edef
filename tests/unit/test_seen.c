/* SPDX-License-Identifier: Apache-2.0 */
/* test_seen: a content is known once it was brought, until all is forgotten. */
#include "oci/seen.h"

#include "tests/unit/test.h"

static Digest digest_no(size_t i) {
    Digest d = { { (uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16) } };

    return d;
}

TEST(a_content_is_known_once_it_was_brought) {
    _cleanup_(seen_freep) Seen *s = seen_new();
    Digest a = digest_no(1), b = digest_no(2);

    ASSERT_TRUE(!seen_test_and_add(s, &a, false));
    ASSERT_TRUE(seen_test_and_add(s, &a, false));
    ASSERT_TRUE(!seen_test_and_add(s, &a, true)); /* an executable is another object */
    ASSERT_TRUE(!seen_test_and_add(s, &b, false));
    ASSERT_TRUE(seen_test_and_add(s, &a, true));
    seen_clear(s);
    ASSERT_TRUE(!seen_test_and_add(s, &a, false));
    ASSERT_TRUE(!seen_test_and_add(s, &b, false));
}

TEST(many_are_known_and_no_more_than_the_limit) {
    _cleanup_(seen_freep) Seen *s = seen_new();

    for (size_t i = 0; i < SEEN_MAX + 10; i++) {
        Digest d = digest_no(i);
        ASSERT_TRUE(!seen_test_and_add(s, &d, false));
    }
    for (size_t i = 0; i < SEEN_MAX + 10; i++) {
        Digest d = digest_no(i);
        ASSERT_EQ(seen_test_and_add(s, &d, false), i < SEEN_MAX);
    }
}
