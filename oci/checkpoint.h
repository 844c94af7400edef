/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint: the file that says how far a tar layer is unpacked: proto/checkpoint.proto.
 *
 * It has CHECKPOINT_SLOTS slots of CHECKPOINT_SLOT_BYTES, so that one of them is whole whenever
 * a worker is killed.  The first is durable: all that it speaks of was made so before.  The others
 * are written in turn, and count as long as the machine was not started anew.  A slot:
 *
 *     0  "MCTARCP1"
 *     8  SHA-256 of what follows
 *    40  u32 length of the message, in this machine's order
 *    44  the message
 *
 * What it says of files is not believed: these are hashed again (oci/restore.h). */
#pragma once

#include "cache/digest.h"
#include "oci/resume.h"
#include "proto/checkpoint.pb-c.h"

#define CHECKPOINT_SLOTS      3
#define CHECKPOINT_SLOT_BYTES (MiB(1) + KiB(256)) /* a chunk of writers.h, and the decoder */

typedef Modelcached__Checkpoint__TarCheckpoint CheckpointMessage;

typedef struct CheckpointOptions {
    int dir_fd;          /* borrowed */
    Digest digest;       /* of the blob */
    uint64_t size;       /* of the blob, bytes */
    unsigned layer;      /* its index */
    const uint8_t *boot; /* RESUME_BOOT_BYTES, borrowed: resume_boot_id() */
} CheckpointOptions;

typedef struct Checkpoint Checkpoint;

/* Nothing is made on disk yet. */
void checkpoint_new(Checkpoint **ret, const CheckpointOptions *options);
/* The file stays. */
Checkpoint *checkpoint_free(Checkpoint *c);
DEFINE_CLEANUP(Checkpoint, checkpoint_free);

/* First: what an earlier worker noted of this blob and layer, the best first; each is freed by
 * checkpoint_message_free(), those that are not there are NULL. */
void checkpoint_load(Checkpoint *c, CheckpointMessage *ret[static CHECKPOINT_SLOTS]);
CheckpointMessage *checkpoint_message_free(CheckpointMessage *m);
DEFINE_CLEANUP(CheckpointMessage, checkpoint_message_free);

/* Notes `m`, of which it sets what CheckpointOptions say, and the sequence.  Blocks.  Errors:
 * -ENOSPC, -EIO, -E2BIG. */
int checkpoint_save(Checkpoint *c, CheckpointMessage *m, Err *err) _must_check_;
/* Makes the last one that was saved here durable, with all that it speaks of; not again until there
 * is another.  Blocks long; for another thread than that of checkpoint_save().  Errors: -ENOENT
 * there is none; -EIO. */
int checkpoint_settle(Checkpoint *c, Err *err) _must_check_;
/* Is there a file? */
bool checkpoint_exists(const Checkpoint *c);
/* Removes it. */
void checkpoint_remove(Checkpoint *c);
