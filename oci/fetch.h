/* SPDX-License-Identifier: Apache-2.0 */
/* fetch: one blob: ranges or one stream -> ring buffers -> SHA-256 in order, and a file or a
 * decoder; goes on after broken connections, and after what an earlier pull left. */
#pragma once

#include "oci/feed.h"
#include "oci/registry.h"
#include "oci/resume.h"
#include "oci/traffic.h"

typedef struct Fetch Fetch;

/* Once, last; nothing of the fetch is in flight any more, and the file is closed.  The callback may
 * free the Fetch. */
typedef void (*FetchDone)(void *arg, int r, const Err *err);

/* What holds for all fetches of a pull.  Everything is borrowed and outlives the Fetch, and after
 * fetch_free() the ring and the pool. */
typedef struct FetchContext {
    sd_event *event;
    Registry *registry;
    Traffic *traffic;
    Ring *ring;
    Pool *pool;               /* hashes, opens */
    unsigned n_buffers;       /* of the ring, that may be used now; it may rise */
    unsigned reserve;         /* buffers that only the next piece of a blob may take: at least as
                                 many as fetches may still run at once; it may fall, and rise by no
                                 more than n_buffers does */
    uint64_t range_min_bytes; /* ranges over several connections from this size on; 0: never */
    bool page_cache;          /* write through the page cache */
    uint8_t boot[RESUME_BOOT_BYTES];
} FetchContext;

typedef struct FetchOptions {
    const FetchContext *context; /* borrowed */
    Digest digest;               /* of the blob */
    uint64_t size;               /* of the blob, bytes */
    const uint8_t *data;         /* the blob itself, when the manifest embeds it */
    Feed *feed;                  /* where the buffers go … */
    FeedMark from;    /* … from there on: after whole buffers.  Or NULL: to a file … */
    int dir_fd;       /* … in this directory … */
    const char *name; /* … of this name … */
    const char *map;  /* … with its resume map of this name */
    bool anew;        /* nothing that is there counts, and no ranges: one stream */
    /* A connection failed, and what is done about it; a sentence. */
    void (*on_trouble)(void *arg, const char *text);
    FetchDone done;
    void *arg;
} FetchOptions;

/* Begins.  `done` gets: 0; -EBADMSG digest or size differ; -ENOSPC; -EIO; those of registry.h, the
 * transient ones only when it is time to give up (traffic.h).  The feed's end is told only when the
 * digest is proved, else the failure is.  What a failed fetch received to a file stays with its
 * map, unless the digest differs or the disk is full. */
int fetch_new(Fetch **ret, const FetchOptions *options, Err *err) _must_check_;
/* Cancels; `done` is not called.  NULL is fine; returns NULL. */
Fetch *fetch_free(Fetch *f);
DEFINE_CLEANUP(Fetch, fetch_free);
/* Buffers, connections, bandwidth or room in the feed became free, or there are fewer of them. */
void fetch_wake(Fetch *f);
/* Bytes of the blob that are there, those found on disk included … */
uint64_t fetch_bytes(const Fetch *f);
/* … which are so many. */
uint64_t fetch_resumed(const Fetch *f);
/* Does a file have the disk space of all of it, before its bytes are there? */
bool fetch_has_space(const Fetch *f);
/* Does it wait after a failure, before it asks for more? */
bool fetch_is_resting(const Fetch *f);
/* Did it come in more than one answer, or in part from disk?  (In `done`; then a wrong digest may
 * be the fault of that.) */
bool fetch_is_composed(const Fetch *f);
