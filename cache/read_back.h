/* SPDX-License-Identifier: Apache-2.0 */
/* read_back: hashes what lies on the disk, past the page cache, which belongs to the workloads. */
#pragma once

#include "cache/digest.h"

/* The memory for it; used by one thread at a time. */
typedef struct ReadBack ReadBack;

/* So many bytes more were hashed; < 0 ends it. */
typedef int (*ReadBackProgress)(void *arg, uint64_t n);

/* `progress` may be NULL.  Error: -ENOMEM. */
int read_back_new(ReadBack **ret, ReadBackProgress progress, void *arg, Err *err) _must_check_;
ReadBack *read_back_free(ReadBack *b);
DEFINE_CLEANUP(ReadBack, read_back_free);

/* Opens the file for read_back_hash(), `direct`: by O_DIRECT where that is possible (small files
 * that were just written are read more quickly without).  The fd, or -errno. */
int read_back_open(int dir_fd, const char *name, bool direct) _must_check_;
/* Adds the file's first `max` bytes, or as many as there are, to `hasher`; `*ret_n` says how many
 * that were, also after an error.  -errno of read(2), or of `progress`. */
int read_back_hash(ReadBack *b, int fd, uint64_t max, Hasher *hasher, uint64_t *ret_n) _must_check_;
