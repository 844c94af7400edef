/* SPDX-License-Identifier: Apache-2.0 */
/* content_range: the Content-Range of a 206 answer (RFC 9110, 14.4). */
#include "oci/content_range.h"

#include "base/parse.h"

#include <strings.h>

/* The digits at `*s`, which moves behind them; they must end with `stop`. */
static int take_number(const char **s, char stop, uint64_t *ret) {
    char digits[24];
    size_t n = strspn(*s, "0123456789");

    if (n == 0 || n >= sizeof(digits) || (*s)[n] != stop)
        return -EINVAL;
    memcpy(digits, *s, n);
    digits[n] = 0;
    *s += n + (stop != 0);
    return parse_u64(digits, ret) < 0 ? -EINVAL : 0;
}

int content_range_parse(const char *value, ContentRange *ret) {
    ContentRange c;
    uint64_t last;

    if (strncasecmp(value, "bytes ", 6) != 0)
        return -EINVAL;
    value += 6;
    if (take_number(&value, '-', &c.begin) < 0 || take_number(&value, '/', &last) < 0)
        return -EINVAL;
    if (streq(value, "*"))
        c.total = CONTENT_RANGE_UNKNOWN;
    else if (take_number(&value, 0, &c.total) < 0 || c.total == CONTENT_RANGE_UNKNOWN)
        return -EINVAL;
    if (last == UINT64_MAX || c.begin > last ||
        (c.total != CONTENT_RANGE_UNKNOWN && last >= c.total))
        return -EINVAL;
    c.end = last + 1;
    *ret = c;
    return 0;
}
