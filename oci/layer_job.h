/* SPDX-License-Identifier: Apache-2.0 */
/* layer_job: one attempt at one layer: a raw blob becomes a file, a tar becomes files and a list of
 * entries. */
#pragma once

#include "oci/fetch.h"
#include "oci/manifest.h"
#include "oci/turn.h"
#include "oci/unpack.h"

typedef struct LayerJob LayerJob;

/* Once, last; what the attempt opened is closed, and what a failed one wrote is gone, unless the
 * failure passes and another worker can go on with it (restore.h).  It may free the job. */
typedef void (*LayerJobDone)(void *arg, int r, const Err *err);

/* All pointers are borrowed and outlive the pools. */
typedef struct LayerJobOptions {
    const FetchContext *context;
    Pool *decoders; /* one thread for each tar layer in flight: they wait for the network there */
    const ManifestLayer *layer;
    unsigned index; /* of the layer */
    bool image;
    unsigned queue; /* buffers that may wait for the decoder */
    int dir_fd;
    bool anew; /* see fetch.h; nothing that is there counts for a tar either */
    UnpackBudget *budget;
    Turn *large; /* windows above LIMIT_ZSTD_COMMON_WINDOW_LOG are for the layer that has it */
    void (*on_trouble)(void *arg, const char *text); /* see fetch.h */
    LayerJobDone done;
    void *arg;
} LayerJobOptions;

/* The file of a raw layer: "<64 hex digits>.part"; its map is ".map". */
#define LAYER_JOB_NAME_MAX (DIGEST_HEX_MAX + 8)
const char *layer_job_file(char buf[static LAYER_JOB_NAME_MAX], const Digest *digest,
                           const char *suffix);

/* `done` gets what fetch.h, decode.h and unpack.h say; with -EBUSY see layer_job_is_refused(). */
int layer_job_new(LayerJob **ret, const LayerJobOptions *options, Err *err) _must_check_;
/* Cancels; `done` is not called; what there is of a tar stays when another worker can go on with
 * it, else it goes when the threads are done with it.  NULL is fine; returns NULL. */
LayerJob *layer_job_free(LayerJob *j);
DEFINE_CLEANUP(LayerJob, layer_job_free);
void layer_job_wake(LayerJob *j);
uint64_t layer_job_bytes(const LayerJob *j);
uint64_t layer_job_resumed(const LayerJob *j);
/* How many of the blob's bytes that are to come have their space on disk: of a raw layer all, once
 * it has a file; of a tar about those of files that are not proved yet, and of the one that is
 * being written. */
uint64_t layer_job_ahead(const LayerJob *j);
/* See fetch_is_resting(). */
bool layer_job_is_resting(const LayerJob *j);
/* In `done`: see fetch_is_composed(). */
bool layer_job_is_composed(const LayerJob *j);
/* Of a tar layer: did it go on where another worker was? */
bool layer_job_is_restored(const LayerJob *j);
/* In `done`, of a tar layer: it needs `large`, which another layer has.  Nothing is wrong: when it
 * has it, another job goes on with what there is. */
bool layer_job_is_refused(const LayerJob *j);
/* In `done`, of one that is refused: how many of the blob's bytes that job will find. */
uint64_t layer_job_kept(const LayerJob *j);
/* What it has of the budget: it stays so until unpack_give_back(). */
UnpackUsed layer_job_used(const LayerJob *j);
/* Of a tar layer that is done: the messages with its entries (entry_log.h); the caller closes the
 * file. */
int layer_job_take_entries(LayerJob *j, uint64_t *ret_bytes);
