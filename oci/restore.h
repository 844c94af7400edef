/* SPDX-License-Identifier: Apache-2.0 */
/* restore: finds and proves what an earlier worker has unpacked of a tar layer; and notes it for a
 * later one. */
#pragma once

#include "oci/checkpoint.h"
#include "oci/entry_log.h"
#include "oci/feed.h"
#include "oci/unpack.h"

typedef struct RestoreOptions {
    Checkpoint *checkpoint;
    int dir_fd;
    const char *name;    /* of the layer's files: unpack_name() */
    unsigned layer;      /* its index */
    size_t buffer_bytes; /* a stream goes on after whole buffers only */
    Seen *seen;
    const atomic_bool *cancelled;
    atomic_uint_fast64_t *proved; /* for who asks meanwhile: bytes of the blob, about … */
    UnpackNow *now;               /* … and what is there, when all of it is proved */
} RestoreOptions;

/* What there is. */
typedef struct Restored {
    CheckpointMessage *message; /* the others borrow from it */
    EntryLog *log;              /* goes on behind what is there */
    EntryLogMark list;
    bool complete;   /* nothing is left to do; what follows `used` says nothing */
    UnpackUsed used; /* bytes of the files that are there, and entries of the list */
    FeedMark mark;
    uint64_t skip;
    UnpackPlace place;
} Restored;

/* 1 something is there: its files and its list are what they were, and `seen` knows the contents; 0
 * nothing is, or it was of no use and is removed.  Blocks long: it reads all files back.  Errors:
 * -ECANCELED, -ENOMEM. */
int restore_layer(Restored *ret, const RestoreOptions *o, Err *err) _must_check_;
void restored_done(Restored *r);

/* Where an unpacking worker is. */
typedef struct RestorePlace {
    const UnpackPlace *unpack;
    FeedMark mark; /* the place is `skip` bytes behind it */
    uint64_t skip;
    EntryLogMark list;
} RestorePlace;

/* Errors: those of checkpoint_save(). */
int restore_note(Checkpoint *c, const RestorePlace *place, Err *err) _must_check_;
/* The layer is proved and unpacked, with that list. */
int restore_note_complete(Checkpoint *c, const EntryLogMark *list, Err *err) _must_check_;
