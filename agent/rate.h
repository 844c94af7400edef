/* SPDX-License-Identifier: Apache-2.0 */
/* rate: bytes per second over the last seconds, and how long the rest takes. */
#pragma once

#include "base/macro.h"

#define RATE_SAMPLES    12
#define RATE_STEP_USEC  (500 * USEC_PER_MSEC)
#define RATE_FIRST_USEC USEC_PER_SEC /* before, it is not known: the first bytes say little */

/* Zero-initialise. */
typedef struct Rate {
    struct {
        uint64_t usec, bytes;
    } samples[RATE_SAMPLES]; /* a ring: about the last five seconds */
    unsigned first, n;
} Rate;

/* `bytes` were done in all at the monotonic time `usec`. */
void rate_add(Rate *r, uint64_t usec, uint64_t bytes);
/* Bytes per second at `usec`; 0 while too little is known. */
uint64_t rate_get(const Rate *r, uint64_t usec, uint64_t bytes);
/* "3.2 GiB of 14.0 GiB (23 %), 412 MiB/s, about 27 s left" */
void rate_text(char *buf, size_t n, uint64_t done, uint64_t total, uint64_t per_second);
