/* SPDX-License-Identifier: Apache-2.0 */
/* retry: what is tried again after a failure, and when. */
#include "oci/retry.h"

#include "base/parse.h"

#include <sys/random.h>
#include <time.h>

bool retry_is_transient(int r) {
    return r == -ECONNREFUSED || r == -ECONNRESET || r == -ETIMEDOUT || r == -EHOSTUNREACH ||
           r == -ENETUNREACH || r == -EPIPE;
}

uint64_t retry_backoff_usec(uint64_t first_usec, unsigned n, uint32_t random) {
    uint64_t usec = MIN(first_usec << (MIN(n, 16U) - 1), (uint64_t)RETRY_CAP_USEC);

    return usec - usec / 4 + usec / 2 * (random >> 8) / (UINT32_MAX >> 8);
}

uint32_t retry_random(void) {
    uint32_t random = 0;

    (void)!getrandom(&random, sizeof(random), GRND_NONBLOCK); /* without it all wait equally long */
    return random;
}

/* RFC 9110, 5.6.7. */
static int parse_date(const char *text, int64_t *ret_seconds) {
    static const char *const formats[] = { "%a, %d %b %Y %H:%M:%S GMT", "%a, %d-%b-%y %H:%M:%S GMT",
                                           "%a %b %d %H:%M:%S %Y" };

    for (size_t i = 0; i < ELEMENTSOF(formats); i++) {
        struct tm tm = { 0 };
        const char *end = strptime(text, formats[i], &tm);

        if (end && !*end) {
            *ret_seconds = timegm(&tm);
            return 0;
        }
    }
    return -EINVAL;
}

int retry_after_parse(const char *value, const char *date, uint64_t now_usec, uint64_t *ret_usec) {
    int64_t then, now;
    uint64_t seconds;
    int r = parse_u64(value, &seconds);

    if (r == -ERANGE)
        seconds = UINT64_MAX;
    if (r == -EINVAL) {
        if (parse_date(value, &then) < 0)
            return -EINVAL;
        if (!date || parse_date(date, &now) < 0)
            now = (int64_t)(now_usec / USEC_PER_SEC);
        seconds = then > now ? (uint64_t)(then - now) : 0;
    }
    *ret_usec = MIN(seconds, RETRY_AFTER_MAX_USEC / USEC_PER_SEC) * USEC_PER_SEC;
    return 0;
}
