/* SPDX-License-Identifier: Apache-2.0 */
/* test_retry: what is tried again, and when; Retry-After. */
#include "oci/retry.h"

#include "tests/unit/test.h"

#define NOW_USEC (784111770ULL * USEC_PER_SEC) /* Sun, 06 Nov 1994 08:49:30 GMT */

TEST(only_trouble_that_may_pass_is_tried_again) {
    static const int transient[] = { -ECONNREFUSED, -ECONNRESET,  -ETIMEDOUT,
                                     -EHOSTUNREACH, -ENETUNREACH, -EPIPE };
    static const int final[] = { 0,       -EPROTO,       -EBADMSG,   -ENOSPC, -ENOENT,
                                 -EACCES, -EKEYREJECTED, -ECANCELED, -EIO };

    for (size_t i = 0; i < ELEMENTSOF(transient); i++)
        ASSERT_TRUE(retry_is_transient(transient[i]));
    for (size_t i = 0; i < ELEMENTSOF(final); i++)
        ASSERT_TRUE(!retry_is_transient(final[i]));
}

TEST(waits_double_and_differ_by_a_quarter) {
    for (unsigned n = 1; n <= 4; n++) {
        uint64_t usec = 500000ULL << (n - 1);

        ASSERT_EQ(retry_backoff_usec(500000, n, 0), usec - usec / 4);
        ASSERT_EQ(retry_backoff_usec(500000, n, UINT32_MAX), usec + usec / 4);
    }
    ASSERT_EQ(retry_backoff_usec(500000, 1000, 0), RETRY_CAP_USEC - RETRY_CAP_USEC / 4);
}

TEST(retry_after) {
    static const struct {
        const char *value, *date;
        int r;
        uint64_t seconds;
    } cases[] = {
        { "0", NULL, 0, 0 },
        { "120", NULL, 0, 120 },
        { "99999999", NULL, 0, 24 * 3600 },
        { "99999999999999999999999", NULL, 0, 24 * 3600 },
        { "Sun, 06 Nov 1994 08:49:37 GMT", NULL, 0, 7 },
        { "Sunday, 06-Nov-94 08:49:37 GMT", NULL, 0, 7 },
        { "Sun Nov  6 08:49:37 1994", NULL, 0, 7 },
        { "Sun, 06 Nov 1994 08:49:20 GMT", NULL, 0, 0 },
        { "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:35 GMT", 0, 2 },
        { "Sun, 06 Nov 1994 08:49:37 GMT", "yesterday", 0, 7 },
        { "Fri, 31 Dec 2099 23:59:59 GMT", NULL, 0, 24 * 3600 },
        { "", NULL, -EINVAL, 0 },
        { "-1", NULL, -EINVAL, 0 },
        { "1.5", NULL, -EINVAL, 0 },
        { "soon", NULL, -EINVAL, 0 },
        { "Sun, 06 Nov 1994 08:49:37 GMT+1", NULL, -EINVAL, 0 },
        { "Sun, 06 Nov 1994 08:49:37", NULL, -EINVAL, 0 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        uint64_t usec = 0;
        int r = retry_after_parse(cases[i].value, cases[i].date, NOW_USEC, &usec);

        if (r != cases[i].r || (r == 0 && usec != cases[i].seconds * USEC_PER_SEC))
            test_fail(__FILE__, __LINE__, "\"%s\": %d, %llu us", cases[i].value, r,
                      (unsigned long long)usec);
    }
}
