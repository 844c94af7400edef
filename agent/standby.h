/* SPDX-License-Identifier: Apache-2.0 */
/* standby: a worker's process that waits for its job, so that a pull which follows another need not
 * wait for the start of one: of the 22 ms of a small pull or a check, the dynamic linker takes 8.
 */
#pragma once

#include "agent/worker_spawn.h"
#include "base/loop.h"

typedef struct Standby Standby;

/* Of workers of `program`, copied; a reference to `event` is kept; SIGCHLD must be blocked. */
void standby_new(Standby **ret, sd_event *event, const char *program);
/* Ends the process that waits, and waits for its end.  NULL is fine; returns NULL. */
Standby *standby_free(Standby *s);
DEFINE_CLEANUP(Standby, standby_free);

typedef struct StandbyPlan {
    uint64_t after_usec;   /* not to be in the way of what goes on now */
    uint64_t keep_usec;    /* it is ended when nobody has taken it for so long; 0: none is kept */
    bool tls;              /* the next pull is likely to need it … */
    uint64_t memory_bytes; /* … and so many bytes of buffers; 0: none … */
    uint64_t fill_bytes;   /* … of which so many have pages */
} StandbyPlan;
/* A pull may follow: starts a process, or keeps the one that waits. */
void standby_prepare(Standby *s, const StandbyPlan *plan);
/* Gives the one that waits (1), or a new one (0).  The one that waited may be about to end: killed,
 * it is alive for a while.  Errors: those of worker_spawn(). */
int standby_take(Standby *s, WorkerProcess *ret, Err *err) _must_check_;
