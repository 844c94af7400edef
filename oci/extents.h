/* SPDX-License-Identifier: Apache-2.0 */
/* extents: a set of byte ranges, sorted and merged. */
#pragma once

#include "base/macro.h"

typedef struct Extent {
    uint64_t begin, end; /* bytes [begin, end) */
} Extent;

typedef struct Extents {
    Extent *items; /* ascending; none touches another */
    size_t n, cap;
} Extents;

void extents_add(Extents *e, uint64_t begin, uint64_t end);
/* Is every byte of [begin, end) in the set? */
bool extents_cover(const Extents *e, uint64_t begin, uint64_t end);
/* How many bytes from `begin` on, up to `end`, are in the set without a gap? */
uint64_t extents_run(const Extents *e, uint64_t begin, uint64_t end);
/* Takes out what lies at or behind `end`. */
void extents_clip(Extents *e, uint64_t end);
uint64_t extents_bytes(const Extents *e);
/* Makes `to` the same set as `from`. */
void extents_copy(Extents *to, const Extents *from);
void extents_done(Extents *e);
