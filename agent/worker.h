/* SPDX-License-Identifier: Apache-2.0 */
/* worker: one process modelcached-pull: started, spoken to over its socket, ended with its owner.
 */
#pragma once

#include "agent/inbox.h"
#include "agent/metrics.h"
#include "agent/standby.h"
#include "base/loop.h"
#include "proto/worker.pb-c.h"

typedef struct Worker Worker;

typedef struct WorkerHandlers {
    InboxHandlers inbox; /* none may free the worker */
    /* Once, last, when the process has ended: r = 0 it did all (or, a probe, said hello); else why
     * not: its own error, -EPROTO "the pull worker broke its protocol", -EIO it crashed or was
     * killed, -ETIMEDOUT it was silent too long.  May free the worker. */
    void (*on_end)(void *arg, int r, const Err *err);
    void *arg; /* of on_end; the inbox has its own */
} WorkerHandlers;

typedef struct WorkerOptions {
    sd_event *event;        /* a reference is kept; SIGCHLD must be blocked */
    Standby *standby;       /* starts it; borrowed, outlives it */
    const char *label;      /* for log lines: the reference; copied */
    const char *pull;       /* the same: the id of the pull; NULL: none */
    Metrics *metrics;       /* borrowed; NULL: nothing is counted */
    int ingest_fd;          /* its folder, borrowed */
    uint64_t patience_usec; /* silence that ends it; 0: 30 s for the first word, then 60 s */
    const Modelcached__Worker__Job
        *job; /* borrowed for the call; the copy is wiped once it is sent */
    WorkerHandlers handlers;
} WorkerOptions;

/* The worker beside this program (build tree), or in MC_LIBEXECDIR.  The caller frees it. */
char *worker_find_program(void) _must_check_;

/* Starts it, or takes the one that stands by, and gives it its job and its folder.  Errors: those
 * of worker_spawn(). */
int worker_new(Worker **ret, const WorkerOptions *options, Err *err) _must_check_;
/* What inbox_plan() and inbox_raise_room() take. */
typedef struct WorkerPlan {
    const uint32_t *fetch;
    size_t n;
    bool more;
    uint64_t content_max_bytes;
} WorkerPlan;
/* Answers on_resolved; may be called later, and, after one with `more`, again. */
void worker_plan(Worker *w, const WorkerPlan *plan);
/* What it may use. */
typedef struct WorkerLimits {
    unsigned connections;      /* that fetch blobs; 0: none for now */
    uint64_t bytes_per_second; /* 0: no limit */
    uint64_t memory_bytes;     /* of its buffers, that may be in use; it never falls */
    bool background; /* its disk accesses come after those of everybody else, and are few at once */
} WorkerLimits;
/* As both the job and worker_limits() tell them. */
void worker_limits_message(Modelcached__Worker__Limits *ret, const WorkerLimits *limits);
/* From now on; those to begin with are in the job. */
void worker_limits(Worker *w, const WorkerLimits *limits);
/* Within on_end: as inbox_was_answered(). */
bool worker_was_answered(const Worker *w);
/* Within on_end, of one that failed: did it say why itself?  Else it crashed, was killed, or had to
 * be. */
bool worker_said_why(const Worker *w);
/* Kills it if it still runs; no callback after it.  NULL is fine.  Returns its pid when it is still
 * to be waited for, else 0. */
pid_t worker_release(Worker *w) _must_check_;
/* Waits for it; 0 is fine.  Blocks (the kernel needs some 50 ms to give back 128 MiB of registered
 * buffers): for a thread of a pool. */
void worker_wait(pid_t pid);
/* Both at once.  Returns NULL. */
Worker *worker_free(Worker *w);
DEFINE_CLEANUP(Worker, worker_free);
pid_t worker_pid(const Worker *w);
