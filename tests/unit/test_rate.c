/* SPDX-License-Identifier: Apache-2.0 */
/* test_rate: bytes per second over a window that moves, and the sentence. */
#include "agent/rate.h"
#include "tests/unit/test.h"

TEST(rate_is_unknown_at_first) {
    Rate r = { 0 };

    ASSERT_EQ(rate_get(&r, 1000, 0), 0);
    rate_add(&r, 1000, 0);
    ASSERT_EQ(rate_get(&r, 1100, 500), 0);
    ASSERT_EQ(rate_get(&r, USEC_PER_SEC, 500), 0);
    ASSERT_EQ(rate_get(&r, 1000 + USEC_PER_SEC, 500), 500);
}

TEST(rate_forgets_what_is_long_ago) {
    Rate r = { 0 };
    uint64_t usec = 0, bytes = 0;

    for (unsigned i = 0; i < 20; i++, usec += RATE_STEP_USEC, bytes += 500)
        rate_add(&r, usec, bytes);
    ASSERT_EQ(rate_get(&r, usec, bytes), 1000);
    for (unsigned i = 0; i < 20; i++, usec += RATE_STEP_USEC)
        rate_add(&r, usec, bytes); /* nothing moves */
    ASSERT_EQ(rate_get(&r, usec, bytes), 0);
}

TEST(rate_takes_one_sample_a_step) {
    Rate r = { 0 };

    for (uint64_t usec = 0; usec < 10 * RATE_STEP_USEC; usec += 1000)
        rate_add(&r, usec, usec);
    ASSERT_EQ(r.n, 10);
    ASSERT_EQ(rate_get(&r, 10 * RATE_STEP_USEC, 10 * RATE_STEP_USEC), USEC_PER_SEC);
}

TEST(rate_bytes_that_went_back) {
    Rate r = { 0 };

    rate_add(&r, 0, 1000);
    ASSERT_EQ(rate_get(&r, USEC_PER_SEC, 500), 0);
}

TEST(rate_sentences) {
    char text[200];

    rate_text(text, sizeof(text), GiB(3), GiB(14), MiB(400));
    ASSERT_STREQ(text, "3 GiB of 14 GiB (21 %), 400 MiB/s, about 28 s left");
    rate_text(text, sizeof(text), 0, 0, 0);
    ASSERT_STREQ(text, "0 B of 0 B (100 %)");
    rate_text(text, sizeof(text), 10, 20, 0);
    ASSERT_STREQ(text, "10 B of 20 B (50 %)");
}
