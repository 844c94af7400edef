/* SPDX-License-Identifier: Apache-2.0 */
/* feed: ring buffers in order from the loop to one thread that decodes them; bounded. */
#pragma once

#include "base/ring.h"

typedef struct Feed Feed;

/* At most `max` buffers wait in it.  Errors: -EMFILE, -ENOMEM. */
int feed_new(Feed **ret, sd_event *event, unsigned max, Err *err) _must_check_;
/* Loop.  The thread has ended or never started. */
Feed *feed_free(Feed *f);
DEFINE_CLEANUP(Feed, feed_free);

/* Loop: may another buffer be pushed? */
bool feed_has_room(const Feed *f);
/* Loop: references `b` until the thread is done with it; the unref happens in the loop. */
void feed_push(Feed *f, RingBuffer *b);
/* Loop, once: nothing follows.  r < 0: the stream failed with `why`, and feed_next() says so. */
void feed_end(Feed *f, int r, const Err *why);

/* Thread (a DecodeSource): the bytes of the next buffer, until the next call.  1, 0 at the end, or
 * < 0. */
int feed_next(void *feed, const uint8_t **ret, size_t *ret_n, Err *err);
/* Thread: drops all that comes until the stream ends.  0, or as the stream failed. */
int feed_drain(Feed *f, Err *err) _must_check_;
