/* SPDX-License-Identifier: Apache-2.0 */
/* resume: the map beside a partial blob: which bytes of it were written.
 *
 * A map is two slots of RESUME_SLOT_BYTES, written in turn, so that one of them is whole whatever
 * happens; the one with the higher sequence counts.  A slot, numbers little-endian:
 *
 *     0  "MCRESUM1"
 *     8  SHA-256 of bytes 40 to 4095
 *    40  u64 sequence
 *    48  u64 size of the blob
 *    56  its SHA-256
 *    88  boot id, 16 bytes
 *   104  u32 number of durable extents, u32 number of others
 *   112  extents, durable ones first: u64 begin, u64 end
 *
 * Extents that were made durable by fdatasync(2) count after any end; the others as long as the
 * machine was not started anew.  Nothing that a map says is believed: what lies on disk goes
 * through the hash again. */
#pragma once

#include "base/err.h"
#include "cache/digest.h"
#include "oci/extents.h"

#define RESUME_SLOT_BYTES 4096
#define RESUME_MAP_BYTES  (2 * RESUME_SLOT_BYTES)
#define RESUME_EXTENTS    249U /* in a slot */
#define RESUME_BOOT_BYTES 16

typedef struct ResumeMap {
    Digest digest;
    uint64_t size;
    uint8_t boot[RESUME_BOOT_BYTES];
    uint64_t sequence;
    Extents durable, written; /* `written` holds those that are durable, too */
} ResumeMap;

/* The slot goes to offset (sequence % 2) * RESUME_SLOT_BYTES.  Extents that do not fit are left
 * out. */
void resume_encode(const ResumeMap *m, uint8_t ret[static RESUME_SLOT_BYTES]);
/* Reads the `n` bytes of a map for the blob, size and boot that `m` names; fills in its sequence
 * and what of the blob is there (`written`).  Error: -ENOENT no slot is whole and about this blob.
 */
int resume_decode(ResumeMap *m, const uint8_t *data, size_t n) _must_check_;
void resume_map_done(ResumeMap *m);
/* This machine's since it was started; zeros when it cannot be read.  Opens a file. */
void resume_boot_id(uint8_t ret[static RESUME_BOOT_BYTES]);
