/* SPDX-License-Identifier: Apache-2.0 */
/* test_extents: compared with a plain array of flags. */
#include "oci/extents.h"

#include "tests/unit/test.h"

#define N 64

static void check(const Extents *e, const bool *flags) {
    uint64_t n = 0;

    for (uint64_t i = 0; i < N; i++) {
        uint64_t run = 0;
        n += flags[i];
        ASSERT_EQ(extents_cover(e, i, i + 1), flags[i]);
        while (i + run < N && flags[i + run])
            run++;
        ASSERT_EQ(extents_run(e, i, N), run);
    }
    ASSERT_EQ(extents_bytes(e), n);
    for (size_t i = 1; i < e->n; i++)
        ASSERT_TRUE(e->items[i - 1].end < e->items[i].begin);
}

TEST(extents_merge_in_any_order) {
    unsigned seed = 1;

    for (int round = 0; round < 200; round++) {
        bool flags[N] = { false };
        Extents e = { 0 }, copy = { 0 };

        for (int i = 0; i < 20; i++) {
            uint64_t begin = (uint64_t)rand_r(&seed) % N, end = (uint64_t)rand_r(&seed) % (N + 1);
            extents_add(&e, begin, end);
            for (uint64_t k = begin; k < end; k++)
                flags[k] = true;
            check(&e, flags);
        }
        extents_copy(&copy, &e);
        extents_clip(&e, N / 2);
        check(&copy, flags);
        memset(flags + N / 2, 0, N / 2);
        check(&e, flags);
        ASSERT_TRUE(extents_cover(&e, 3, 3));
        extents_done(&e);
        extents_done(&copy);
    }
}
