/* SPDX-License-Identifier: Apache-2.0 */
/* rate: bytes per second over the last seconds, and how long the rest takes. */
#include "agent/rate.h"
#include "base/parse.h"

void rate_add(Rate *r, uint64_t usec, uint64_t bytes) {
    unsigned last = (r->first + r->n - 1) % RATE_SAMPLES;

    if (r->n > 0 && usec < r->samples[last].usec + RATE_STEP_USEC)
        return;
    if (r->n == RATE_SAMPLES) {
        r->first = (r->first + 1) % RATE_SAMPLES;
        r->n--;
    }
    last = (r->first + r->n++) % RATE_SAMPLES;
    r->samples[last].usec = usec;
    r->samples[last].bytes = bytes;
}

uint64_t rate_get(const Rate *r, uint64_t usec, uint64_t bytes) {
    uint64_t from_usec = r->samples[r->first].usec, from_bytes = r->samples[r->first].bytes;

    if (r->n == 0 || usec < from_usec + RATE_FIRST_USEC || bytes < from_bytes)
        return 0;
    return (uint64_t)((double)(bytes - from_bytes) * (double)USEC_PER_SEC /
                      (double)(usec - from_usec));
}

void rate_text(char *buf, size_t n, uint64_t done, uint64_t total, uint64_t per_second) {
    unsigned percent = total > 0 ? (unsigned)((double)done * 100 / (double)total) : 100;
    uint64_t left = total > done ? total - done : 0;

    if (per_second == 0)
        (void)snprintf(buf, n, "%s of %s (%u %%)", FORMAT_BYTES(done), FORMAT_BYTES(total),
                       percent);
    else
        (void)snprintf(
            buf, n, "%s of %s (%u %%), %s/s, about %s left", FORMAT_BYTES(done),
            FORMAT_BYTES(total), percent, FORMAT_BYTES(per_second),
            FORMAT_DURATION((uint64_t)((double)left / (double)per_second * (double)USEC_PER_SEC)));
}
