/* SPDX-License-Identifier: Apache-2.0 */
/* fetch: one attempt at one blob: body -> ring buffers -> SHA-256 in order, and a file or a
 * decoder. */
#pragma once

#include "oci/feed.h"
#include "oci/registry.h"

typedef struct Fetch Fetch;

/* Once, last; nothing of the attempt is in flight any more, and the file is closed (0) or gone (<
 * 0).  The callback may free the Fetch. */
typedef void (*FetchDone)(void *arg, int r, const Err *err);

/* Everything is borrowed and outlives the Fetch, and after fetch_free() the ring and the pool. */
typedef struct FetchOptions {
    Registry *registry;
    Ring *ring;
    Pool *pool;          /* hashes, opens */
    Digest digest;       /* of the blob */
    uint64_t size;       /* of the blob, bytes */
    const uint8_t *data; /* the blob itself, when the manifest embeds it */
    Feed *feed;          /* where the buffers go; or NULL: to a file … */
    int dir_fd;          /* … in this directory */
    const char *name;    /* … of this name, new */
    FetchDone done;
    void *arg;
} FetchOptions;

/* Begins.  `done` gets: 0; -EBADMSG digest or size differ; -ENOSPC; -EIO; those of registry.h.  The
 * feed's end is told only when the digest is proved, else the failure is. */
int fetch_new(Fetch **ret, const FetchOptions *options, Err *err) _must_check_;
/* Cancels; `done` is not called; the file goes when the writes in flight have ended.  NULL is fine;
 * returns NULL. */
Fetch *fetch_free(Fetch *f);
DEFINE_CLEANUP(Fetch, fetch_free);
/* Ring buffers became free, or the feed has room: goes on when it waits for that. */
void fetch_wake(Fetch *f);
/* Bytes of the blob received so far. */
uint64_t fetch_bytes(const Fetch *f);
