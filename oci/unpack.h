/* SPDX-License-Identifier: Apache-2.0 */
/* unpack: a tar stream becomes a list of entries and, for the files, files in the pull's folder. */
#pragma once

#include "cache/store.h"
#include "oci/decode.h"
#include "oci/seen.h"

#include <stdatomic.h>

/* What all layers of a pull may still bring. */
typedef struct UnpackBudget {
    atomic_uint_fast64_t bytes;
    atomic_uint_fast64_t entries;
} UnpackBudget;

typedef struct UnpackOptions {
    int dir_fd;     /* where files go, borrowed */
    unsigned layer; /* the files' names begin with it: "<layer>-<sequence>" */
    bool image;     /* whiteouts mean something, and symlinks may be absolute */
    Seen *seen;
    UnpackBudget *budget;
    const atomic_bool *cancelled; /* stop soon; may be NULL */
    /* One entry, borrowed; names are clean (tarname.h), files are closed.  < 0 ends it. */
    int (*on_entry)(void *arg, const LayerEntry *entry, Err *err);
    void *arg;
} UnpackOptions;

/* What an attempt took from the budget and wrote: to be given back when it fails. */
typedef struct UnpackUsed {
    uint64_t bytes, entries;
    uint64_t files; /* names were given up to this sequence */
} UnpackUsed;

/* Reads the whole stream.  Names never reach the kernel as paths; contents go to numbered files,
 * hashed.  Blocks. Errors: -EPROTO malformed, or hostile: absolute or ".." names, links out of the
 * tree, devices, FIFOs, sparse files; -ENOTSUP names that are not UTF-8; -ENOSPC the budget's bytes
 * or the disk; -E2BIG LIMIT_TREE_ENTRIES; -ECANCELED; -EIO; -EAGAIN no thread (writers.h); those of
 * the decoder.  Files that were written stay: unpack_discard() removes them. */
int unpack_run(const UnpackOptions *o, Decoder *decoder, UnpackUsed *used, Err *err) _must_check_;
/* Removes what a failed attempt wrote and gives back its budget. */
void unpack_discard(const UnpackOptions *o, const UnpackUsed *used);
