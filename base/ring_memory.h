/* SPDX-License-Identifier: Apache-2.0 */
/* ring_memory: the memory of a ring's buffers, which may be there before the ring. */
#pragma once

#include "base/err.h"

typedef struct RingMemory {
    uint8_t *mapped; /* one mapping, or NULL; and in it … */
    size_t mapped_bytes;
    uint8_t *data; /* … `bytes`, from the start of a huge page on */
    size_t bytes;
} RingMemory;

/* Maps `n` times `each` bytes; they get their pages when they are first used.  Errors: -ENOMEM. */
int ring_memory_map(RingMemory *ret, unsigned n, size_t each, Err *err) _must_check_;
/* Gives `bytes` of it, from `from` on, their pages now: 0.1 ms a MiB, or 2 in a virtual machine
 * that has to get them from its host. */
void ring_memory_fill(RingMemory *m, size_t from, size_t bytes);
void ring_memory_done(RingMemory *m);
