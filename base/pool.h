/* SPDX-License-Identifier: Apache-2.0 */
/* pool: worker threads for what may block; results come back to the loop. */
#pragma once

#include "base/loop.h"

typedef struct Pool Pool;

/* Runs in a worker thread; may block.  Its result (and sentence) is handed to `done`. */
typedef int (*PoolRun)(void *arg, Err *err);
/* Runs in the loop's thread, exactly once for every work that was accepted. */
typedef void (*PoolDone)(void *arg, int r, const Err *err);

/* `n_threads` threads on `event` (a reference is kept).  Errors: -EAGAIN, -EMFILE, -ENOMEM. */
int pool_new(Pool **ret, sd_event *event, unsigned n_threads, Err *err) _must_check_;
/* Queues a work, first in first out.  `arg` belongs to the work until `done` was called. */
void pool_submit(Pool *p, PoolRun run, PoolDone done, void *arg);
/* A Strand runs its works one after the other, in order, on any thread: for an ordered hash.  Freed
 * only when idle. */
typedef struct PoolStrand PoolStrand;
PoolStrand *pool_strand_new(Pool *p);
void pool_strand_submit(PoolStrand *s, PoolRun run, PoolDone done, void *arg);
/* For works of which two cost less together than one after the other.  `run_pair` stands for the
 * `run` of two, of different strands, with results of 0; NULL: each runs alone.  While there is
 * another strand that had such works, each waits 2 ms at most for one of them, but not when its own
 * strand is behind, and those that came while one waited in vain do so no longer than that one. */
typedef void (*PoolRunPair)(void *const args[2]);
void pool_strand_submit_pairable(PoolStrand *s, PoolRun run, PoolRunPair run_pair, PoolDone done,
                                 void *arg);
PoolStrand *pool_strand_free(PoolStrand *s);
/* Waits for what runs and what is queued (also by a done), calls every `done`, ends the threads.
 * Not from within a done. NULL is fine; returns NULL. */
Pool *pool_free(Pool *p);
DEFINE_CLEANUP(Pool, pool_free);
