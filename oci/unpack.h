/* SPDX-License-Identifier: Apache-2.0 */
/* unpack: a tar stream becomes a list of entries and, for the files, files in the pull's folder. */
#pragma once

#include "cache/store.h"
#include "oci/decode.h"
#include "oci/seen.h"
#include "oci/unpack_file.h"

#include <stdatomic.h>

/* What all layers of a pull may still bring. */
typedef struct UnpackBudget {
    atomic_uint_fast64_t bytes;
    atomic_uint_fast64_t entries;
} UnpackBudget;

/* Takes all of that, or nothing.  Errors: -ENOSPC not so many bytes are left; -E2BIG not so many
 * entries. */
int unpack_take(UnpackBudget *b, uint64_t bytes, uint64_t entries, Err *err) _must_check_;

/* What an attempt took from the budget and wrote: to be given back when it fails. */
typedef struct UnpackUsed {
    uint64_t bytes, entries;
    uint64_t files; /* names were given up to this sequence */
} UnpackUsed;

/* In the middle of a file: all before it is written and told, and another one can go on there. */
typedef struct UnpackPlace {
    DecoderState decoder;
    uint64_t decoded; /* bytes of the tar … */
    uint64_t blob;    /* … and of the blob that they are of */
    bool pax;         /* it has been found to be a pax archive */
    UnpackUsed used;
    LayerEntry entry; /* the file, of which its name is the last that was given … */
    UnpackOpen open;  /* … and how far it is */
} UnpackPlace;

/* For who asks meanwhile. */
typedef struct UnpackNow {
    atomic_uint_fast64_t there; /* bytes of the blob, from its start, about: those of which the
                                   content has its space on disk, as all of the open file has */
} UnpackNow;

/* As much is there at that place. */
uint64_t unpack_there(const UnpackPlace *place);

typedef struct UnpackOptions {
    int dir_fd;       /* where files go, borrowed */
    const char *name; /* the files' names begin with it: "<name>-<sequence>"; borrowed */
    bool image;       /* whiteouts mean something, and symlinks may be absolute */
    Seen *seen;
    UnpackBudget *budget;
    UnpackNow *now;               /* borrowed; may be NULL */
    const atomic_bool *cancelled; /* stop soon; may be NULL */
    const UnpackPlace *from;      /* where the decoder goes on; NULL: at the start.  Borrowed */
    /* One entry, borrowed; names are clean (tarname.h), files are closed.  < 0 ends it. */
    int (*on_entry)(void *arg, const LayerEntry *entry, Err *err);
    /* Now and then, but `place_usec` lie between two; borrowed; may be NULL.  < 0 ends it. */
    int (*on_place)(void *arg, const UnpackPlace *place, Err *err);
    uint64_t place_usec;
    void *arg;
} UnpackOptions;

/* The name for the files of a layer: the first digits of the blob's digest. */
#define UNPACK_NAME_BYTES 8
#define UNPACK_NAME_MAX   (2 * UNPACK_NAME_BYTES + 1)
const char *unpack_name(char buf[static UNPACK_NAME_MAX], const Digest *blob);

/* Reads the whole stream.  Names never reach the kernel as paths; contents go to numbered files,
 * hashed.  Blocks. Errors: -EPROTO malformed, or hostile: absolute or ".." names, links out of the
 * tree, devices, FIFOs, sparse files; -ENOTSUP names that are not UTF-8; -ENOSPC the budget's bytes
 * or the disk; -E2BIG LIMIT_TREE_ENTRIES; -ECANCELED; -EIO; -EAGAIN no thread (writers.h);
 * -EBADMSG the file that it was to go on with is another one; those of the decoder.  Files that
 * were written stay: unpack_discard() removes them. */
int unpack_run(const UnpackOptions *o, Decoder *decoder, UnpackUsed *used, Err *err) _must_check_;
/* What an attempt took of the budget is given back: another one takes it for the same files. */
void unpack_give_back(UnpackBudget *b, const UnpackUsed *used);
/* Removes what a failed attempt wrote and gives back its budget. */
void unpack_discard(const UnpackOptions *o, const UnpackUsed *used);
