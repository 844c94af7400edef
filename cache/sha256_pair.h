/* SPDX-License-Identifier: Apache-2.0 */
/* sha256_pair: two SHA-256 at once on one core.
 *
 * The rounds of one hash wait for each other: each needs the result of the one before, four cycles
 * later, and a core could begin one every second cycle.  So two hashes whose rounds take turns are
 * done in little more than the time of one.  No library of Debian 12 does that for a hash that goes
 * on (OpenSSL has it, but for TLS records only and for itself). */
#pragma once

#include "base/macro.h"

#define SHA256_BLOCK_BYTES 64
#define SHA256_WORDS       8

/* Does this processor have the instructions? */
bool sha256_pair_supported(void);
/* Adds `n_blocks` blocks of `data[i]` to the hash value `words[i]` (FIPS 180-4, 6.2.2), for both.
 * Only where it is supported. */
void sha256_pair(uint32_t *const words[2], const uint8_t *const data[2], size_t n_blocks);
