/* SPDX-License-Identifier: Apache-2.0 */
/* retry: what is tried again after a failure, and when. */
#pragma once

#include "base/err.h"

#define RETRY_CAP_USEC (30 * USEC_PER_SEC)

/* May the same work when it is tried again?  (-ECONNREFUSED, -ECONNRESET, -ETIMEDOUT and the like.)
 */
bool retry_is_transient(int r);
/* The wait before try `n` (1: the first again): doubled each time up to RETRY_CAP_USEC, with up to
 * a quarter more or less by `random`. */
uint64_t retry_backoff_usec(uint64_t first_usec, unsigned n, uint32_t random);
/* 32 random bits; when the kernel has none yet, the same for all. */
uint32_t retry_random(void);

/* The value of Retry-After (RFC 9110, 10.2.3): seconds, or one of the three forms of a date, which
 * is compared with the answer's own `date` (its Date header), or with `now_usec` of our clock when
 * that is NULL or malformed.  At most RETRY_AFTER_MAX_USEC.  Error: -EINVAL. */
#define RETRY_AFTER_MAX_USEC (24 * 3600 * USEC_PER_SEC)
int retry_after_parse(const char *value, const char *date, uint64_t now_usec, uint64_t *ret_usec)
    _must_check_;
