/* SPDX-License-Identifier: Apache-2.0 */
/* share: how much of what is left of a blob one connection takes, so that all end together. */
#include "oci/share.h"

#include <float.h>

static double rate_of(const ShareOther *other, uint64_t rate) {
    if (rate == 0)
        return 1;
    return (double)(other->rate > 0 ? other->rate : rate);
}

/* When the rest is done, in seconds, if all take part that are done with their ranges until
 * `until`. */
static double end_of(uint64_t rest, uint64_t rate, const ShareOther *others, size_t n,
                     double until) {
    double bytes = (double)rest, rates = rate > 0 ? (double)rate : 1;

    for (size_t i = 0; i < n; i++) {
        double r = rate_of(&others[i], rate);

        if ((double)others[i].left > until * r)
            continue;
        bytes += (double)others[i].left;
        rates += r;
    }
    return bytes / rates;
}

uint64_t share_take(uint64_t rest, uint64_t rate, uint64_t hash_rate, const ShareOther *others,
                    size_t n) {
    double own = rate > 0 ? (double)rate : 1, hash = (double)hash_rate;
    double end = DBL_MAX, before, take;

    /* Who is busy for longer takes no part, which makes the end earlier: at most `n` times. */
    do {
        before = end;
        end = end_of(rest, rate, others, n, before);
    } while (end < before);
    take = end * own;
    if (rate > 0 && hash_rate > rate) /* take / own = end - (rest - take) / hash */
        take = MAX((end - (double)rest / hash) / (1 / own - 1 / hash), take / 2);
    return MIN((uint64_t)take, rest);
}
