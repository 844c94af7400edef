/* SPDX-License-Identifier: Apache-2.0 */
/* partial_tar: tar layers that were unpacked in part; inner part of partial.
 *
 * In the folder of a pull a layer whose blob has the digest D has the files
 * "<first 16 hex digits of D>-<number>" (content), "<the same>-entries" and the checkpoint
 * "<D>.tar", without which the others are worth nothing.  In partial/ they are in a directory
 * "<key>.tar", where the checkpoint is "checkpoint".
 *
 * There may be very many: they move without the lock, in a directory that is the pull's alone,
 * "<key>.of-<16 hex digits for its folder>", which gets the other name, or comes of it, under the
 * lock.  The checkpoint comes last when a layer is kept, and leaves first when it is given to a
 * pull: so in partial/ it is only where the whole layer is.  After a crash in between the folder
 * has it, and the start, which keeps what is in folders, goes on in the same directory; or the
 * directory has it, and the start gives it its name.  What is dropped is called ".gone-<number>"
 * until its files are removed. */
#pragma once

#include "cache/partial_move.h"
#include "cache/store_internal.h"

#define PARTIAL_MAX       64     /* layers, raw ones too; the oldest go */
#define PARTIAL_TARS      8      /* of these, tars; the same */
#define PARTIAL_TAR_FILES 100000 /* of a layer; one with more is not kept: inodes are finite */

#define PARTIAL_MOVING_MAX (PARTIAL_NAME_MAX + sizeof("of-") + 16)
/* A layer of the folder of a pull. */
typedef struct PartialTar {
    Digest blob, key;
    char moving[PARTIAL_MOVING_MAX]; /* the directory, while its files move */
    size_t n_files;
    bool excused; /* partial_tries_excuse() */
    bool left;    /* it is not kept */
} PartialTar;

/* Directories that were dropped under the lock; they go when it is not held any more. */
typedef struct PartialGone {
    Store *s;
    uint64_t *numbers;
    size_t n, cap;
} PartialGone;
void partial_gone_done(PartialGone *g);

/* `ingest` is the name of the folder. */
void partial_tar_init(PartialTar *ret, const char *ingest, const Digest *blob, const Digest *key);

/* Keeps the layers of the folder that `m` moves from, whose checkpoints were found there; `m` moves
 * to partial/.  No two have the same blob.  One of which a file is not as it should be, or is being
 * written, is not kept, as a whole. */
int partial_tar_keep(Store *s, PartialMove *m, PartialTar *layers, size_t n, Err *err) _must_check_;
/* Moves the layer into the folder that `m` moves to, which need not say from where.  1, or 0 when
 * there is none; after a failure nothing of it is in either place.  Errors: those of
 * partial_tries_begin() and partial_move(). */
int partial_tar_claim(Store *s, PartialMove *m, const PartialTar *layer, Err *err) _must_check_;
/* At the start, once all folders have been looked at: what a killed daemon was moving is whole, or
 * goes; so does what it was dropping. */
int partial_tar_recover(Store *s, Err *err) _must_check_;
/* Is it the name of a directory that moves, or goes?  The others leave it alone. */
bool partial_tar_is_passing(const char *name);

/* For those who hold the lock. */

/* Is it whole?  Then `ret_time` is when it was kept. */
bool partial_tar_is_whole(const Store *s, const Digest *key, struct timespec *ret_time);
/* What it takes on disk.  The files are counted when it is kept, and when the daemon was started
 * again. */
uint64_t partial_tar_bytes(Store *s, const Digest *key);
/* It is not there any more; what fails then is tried again by the next start. */
void partial_tar_drop(PartialGone *g, const Digest *key);
