/* SPDX-License-Identifier: Apache-2.0 */
/* test_share: how much of the rest one connection takes. */
#include "oci/share.h"
#include "tests/unit/test.h"

#define RATE MiB(50) /* a second */

TEST(share_alone_takes_all) {
    ASSERT_EQ(share_take(MiB(80), RATE, 0, NULL, 0), MiB(80));
    ASSERT_EQ(share_take(MiB(80), 0, 0, NULL, 0), MiB(80));
    ASSERT_EQ(share_take(0, RATE, GiB(1), NULL, 0), 0);
}

TEST(share_is_equal_where_nobody_is_busy) {
    ShareOther others[3] = { 0 };

    ASSERT_EQ(share_take(MiB(80), 0, 0, others, 3), MiB(20));
    ASSERT_EQ(share_take(MiB(80), RATE, 0, others, 3), MiB(20));
}

TEST(share_leaves_less_to_those_that_are_busy) {
    ShareOther others[] = { { .left = MiB(10) }, { .left = MiB(30) } };

    /* all end after 40 MiB each: 80 + 10 + 30 in three parts */
    ASSERT_EQ(share_take(MiB(80), RATE, 0, others, 2), MiB(40));
}

TEST(share_counts_on_nobody_who_is_busy_for_longer) {
    ShareOther others[] = { { .left = MiB(10) }, { .left = MiB(200) } };

    ASSERT_EQ(share_take(MiB(80), RATE, 0, others, 2), MiB(45));
    others[0].left = MiB(90);
    ASSERT_EQ(share_take(MiB(80), RATE, 0, others, 2), MiB(80));
}

TEST(share_of_a_slow_one_is_small) {
    ShareOther others[] = { { .rate = RATE * 3 } };

    ASSERT_EQ(share_take(MiB(80), RATE, 0, others, 1), MiB(20));
    others[0].rate = RATE / 3;
    ASSERT_EQ(share_take(MiB(80), RATE, 0, others, 1), MiB(60));
}

/* Bytes are hashed in order: with 60 MiB behind them, which take the hash 0.1 s, ours have to be
 * there 0.1 s before the last ones. */
TEST(share_ends_before_those_that_are_hashed_after_it) {
    ShareOther others[2] = { 0 };
    uint64_t take = share_take(MiB(90), RATE, MiB(600), others, 2), behind = MiB(90) - take;
    double early = (double)behind / (double)MiB(600), end = (double)MiB(30) / (double)RATE;

    ASSERT_TRUE(take < MiB(30) && take > MiB(20));
    ASSERT_TRUE((double)take / (double)RATE - (end - early) < 1e-6);
    ASSERT_TRUE((end - early) - (double)take / (double)RATE < 1e-6);
}

TEST(share_is_at_least_half_when_the_hash_has_too_much_to_do) {
    ShareOther others[7] = { 0 };

    ASSERT_EQ(share_take(MiB(80), RATE, RATE + 1, others, 7), MiB(5));
}

TEST(share_of_a_slow_hash_is_that_of_the_network) {
    ShareOther others[3] = { 0 };

    ASSERT_EQ(share_take(MiB(80), RATE, RATE, others, 3), MiB(20));
}
