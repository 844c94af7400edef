/* SPDX-License-Identifier: Apache-2.0 */
/* test_pull: what is tried again, and when; whole pulls are in tests/integration/test_worker.py. */
#include "oci/pull.h"

#include "tests/unit/test.h"

TEST(only_trouble_that_may_pass_is_tried_again) {
    static const int transient[] = { -ECONNREFUSED, -ECONNRESET,  -ETIMEDOUT,
                                     -EHOSTUNREACH, -ENETUNREACH, -EPIPE };
    static const int final[] = { 0,       -EPROTO,       -EBADMSG,   -ENOSPC, -ENOENT,
                                 -EACCES, -EKEYREJECTED, -ECANCELED, -EIO };

    for (size_t i = 0; i < ELEMENTSOF(transient); i++)
        ASSERT_TRUE(pull_is_transient(transient[i]));
    for (size_t i = 0; i < ELEMENTSOF(final); i++)
        ASSERT_TRUE(!pull_is_transient(final[i]));
}

TEST(waits_double_and_differ_by_a_quarter) {
    for (unsigned n = 1; n <= 4; n++) {
        uint64_t usec = 500000ULL << (n - 1);

        ASSERT_EQ(pull_retry_usec(500000, n, 0), usec - usec / 4);
        ASSERT_EQ(pull_retry_usec(500000, n, UINT32_MAX), usec + usec / 4);
    }
    ASSERT_TRUE(pull_retry_usec(500000, 1000, UINT32_MAX) < 1000 * USEC_PER_SEC);
}
