/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of csi/patience: the time of a volume is counted over all its tries. */
#include "csi/patience.h"
#include "tests/unit/test.h"

TEST(patience_counts_from_the_first_try) {
    _cleanup_(patience_freep) Patience *p = patience_new();
    const VolumeKey a = { "a", "/t" }, b = { "a", "/u" }, c = { "c", "/t" };

    ASSERT_EQ(patience_until(p, &a, 10, 100), 110);
    ASSERT_EQ(patience_until(p, &a, 10, 200), 110);
    ASSERT_EQ(patience_until(p, &a, 30, 200), 130);
    ASSERT_EQ(patience_until(p, &b, 10, 200), 210);
    ASSERT_EQ(patience_until(p, &c, 10, 300), 310);
    patience_forget(p, &b);
    ASSERT_EQ(patience_until(p, &b, 10, 400), 410);
    ASSERT_EQ(patience_until(p, &a, 10, 400), 110);
    patience_forget(p, &(VolumeKey){ "nobody", "/t" });
}

TEST(patience_forgets_who_does_not_come_again) {
    _cleanup_(patience_freep) Patience *p = patience_new();
    const VolumeKey a = { "a", "/t" }, b = { "b", "/u" };

    ASSERT_EQ(patience_until(p, &a, 10, 100), 110);
    ASSERT_EQ(patience_until(p, &b, 10, 100 + PATIENCE_FORGET_USEC / 2),
              110 + PATIENCE_FORGET_USEC / 2);
    ASSERT_EQ(patience_until(p, &b, 10, 100 + PATIENCE_FORGET_USEC),
              110 + PATIENCE_FORGET_USEC / 2);
    ASSERT_EQ(patience_until(p, &a, 10, 101 + PATIENCE_FORGET_USEC), 111 + PATIENCE_FORGET_USEC);
}
