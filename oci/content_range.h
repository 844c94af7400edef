/* SPDX-License-Identifier: Apache-2.0 */
/* content_range: the Content-Range of a 206 answer (RFC 9110, 14.4). */
#pragma once

#include "base/macro.h"

typedef struct ContentRange {
    uint64_t begin, end; /* bytes [begin, end) */
    uint64_t total;      /* CONTENT_RANGE_UNKNOWN: "*" */
} ContentRange;

#define CONTENT_RANGE_UNKNOWN UINT64_MAX

/* "bytes 0-99/1000" or "bytes 0-99/" and a star, and nothing else.  Error: -EINVAL, also when it
 * contradicts itself. */
int content_range_parse(const char *value, ContentRange *ret) _must_check_;
