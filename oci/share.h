/* SPDX-License-Identifier: Apache-2.0 */
/* share: how much of what is left of a blob one connection takes, so that all end together. */
#pragma once

#include "base/macro.h"

/* Another connection of the blob. */
typedef struct ShareOther {
    uint64_t left; /* bytes of its range that did not come yet; 0: it has none, and will ask */
    uint64_t rate; /* bytes a second; 0: not known, as fast as ours */
} ShareOther;

/* Bytes that a connection takes of the `rest`, which nobody was asked for yet; 0 to `rest`.  `rate`
 * is what it may expect, bytes a second (0: not known, then all count as equal), `hash_rate` that
 * of the hash (0: not known).
 *
 * Each range costs a round trip, so it is as long as it can be without ending after the others,
 * when those take of the rest what they have time for.  But bytes are hashed in order: it ends
 * earlier by what the hash needs for the bytes behind it, though it is at least half as long. */
uint64_t share_take(uint64_t rest, uint64_t rate, uint64_t hash_rate, const ShareOther *others,
                    size_t n);
