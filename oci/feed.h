/* SPDX-License-Identifier: Apache-2.0 */
/* feed: ring buffers in order from the loop to one thread that decodes them; bounded. */
#pragma once

#include "base/ring.h"
#include "cache/digest.h"

typedef struct Feed Feed;

/* A place in the stream: so many bytes, and their hash. */
typedef struct FeedMark {
    uint64_t offset;
    HasherState hash;
} FeedMark;

/* At most `max` buffers wait in it.  Errors: -EMFILE, -ENOMEM. */
int feed_new(Feed **ret, sd_event *event, unsigned max, Err *err) _must_check_;
/* Loop, before the first buffer: the stream begins there. */
void feed_begin(Feed *f, const FeedMark *at);
/* Loop.  The thread has ended or never started. */
Feed *feed_free(Feed *f);
DEFINE_CLEANUP(Feed, feed_free);

/* Loop: may another buffer be pushed? */
bool feed_has_room(const Feed *f);
/* Loop: references `b` until the thread is done with it; the unref happens in the loop. */
void feed_push(Feed *f, RingBuffer *b);
/* Loop: the next of the buffers is hashed, and all up to it hash to that (if it is whole blocks of
 * the hash: only the last one is not). */
void feed_hashed(Feed *f, const HasherState *hash);
/* Loop, once: nothing follows.  r < 0: the stream failed with `why`, and feed_next() says so. */
void feed_end(Feed *f, int r, const Err *why);

/* Thread (a DecodeSource): the bytes of the next buffer, until the next call.  1, 0 at the end, or
 * < 0. */
int feed_next(void *feed, const uint8_t **ret, size_t *ret_n, Err *err);
/* Thread: of all bytes that feed_next() gave, the last `left` are not used: the place before them
 * is `*ret_skip` bytes behind the mark.  Waits until all before the mark is hashed.  Errors: as the
 * stream failed; -EAGAIN its hash cannot be saved there. */
int feed_mark(Feed *f, size_t left, FeedMark *ret, uint64_t *ret_skip, Err *err) _must_check_;
/* Thread: drops all that comes until the stream ends.  0, or as the stream failed. */
int feed_drain(Feed *f, Err *err) _must_check_;
