/* SPDX-License-Identifier: Apache-2.0 */
/* warm: reads the files of mounted volumes into the page cache (the attribute warm), one volume
 * after the other, in one thread that has the lowest priority for the disk and the processor.
 *
 * Reading is what does it: measured on Linux 6.18, one readahead(2) or POSIX_FADV_WILLNEED brings
 * at most 8 MiB, whatever it is asked for, and in pieces both cost what reading costs. */
#pragma once

#include "base/pool.h"
#include "cache/store.h"

typedef struct Warmer Warmer;

/* What became of a volume.  Not called for one that was unpublished meanwhile. */
typedef void (*WarmerDone)(void *arg, const Volume *volume, int r, const char *sentence);

typedef struct WarmerOptions {
    sd_event *event;           /* a reference is kept */
    Store *store;              /* borrowed */
    uint64_t bytes_per_second; /* 0: no limit */
    uint64_t (*room)(void);    /* bytes that the page cache may take; any thread */
    WarmerDone done;           /* on the loop; r as below */
    void *arg;
} WarmerOptions;

void warmer_new(Warmer **ret, const WarmerOptions *options);
/* Ends what runs.  NULL is fine; returns NULL. */
Warmer *warmer_free(Warmer *w);
DEFINE_CLEANUP(Warmer, warmer_free);

/* Reads what the volume shows, once it is its turn; returns at once.  To `done`: 0; -ENOMEM there
 * is not memory enough for all of it, or not any more; others as open(2), read(2). */
void warmer_add(Warmer *w, const Volume *volume);
/* The volume goes: nothing more is read for it. */
void warmer_stop(Warmer *w, const char *volume_id, const char *target);
