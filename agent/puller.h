/* SPDX-License-Identifier: Apache-2.0 */
/* puller: the queue of pulls: who asks for what, one pull for all that ask for the same, a few at a
 * time. */
#pragma once

#include "agent/flight.h"
#include "csi/backend.h"

typedef struct Puller Puller;

typedef struct PullerOptions {
    sd_event *event;      /* a reference is kept; SIGCHLD must be blocked */
    Store *store;         /* borrowed; outlives the pool */
    Pool *pool;           /* looks into the store; borrowed; free it before the puller */
    Pool *bulk;           /* the same for the works of pulls, which take long; free it before
                             `pool` */
    Standby *standby;     /* borrowed; outlives the puller */
    PullOptions *options; /* a reference is kept */
    /* A pull began, was joined, succeeded, failed; for the history.  Strings are borrowed. */
    void (*on_event)(void *arg, const StoreEvent *event);
    void *arg;
    Metrics *metrics; /* borrowed; NULL: nothing is counted */
} PullerOptions;

void puller_new(Puller **ret, const PullerOptions *options);
/* For pulls that begin from now on. */
void puller_set_options(Puller *p, PullOptions *options);
/* Makes the artifact of a request be in the store, as EnsureRequest's policy says:
 *   IfNotPresent, Never   look in the store first;
 *   Always                asks the registry which manifest it is, and fetches what is missing;
 *   a digest that is stored needs no registry, whatever the policy.
 * But what is stored is given only to whom its registry let pull from the repository (access.check
 * of the configuration); it is asked, also with Never, when that is not remembered, and refuses
 * with -EKEYREJECTED or -EACCES, or hides it with -ENOENT.
 * Each call tries anew; failures are not remembered.  `done` is never called from within.
 * Errors: -EINVAL the platform; -ECANCELED the daemon is stopping. */
int puller_ensure(Puller *p, EnsureTicket **ret, const EnsureRequest *request, EnsureDone done,
                  void *done_arg, Err *err) _must_check_;
EnsureTicket *puller_ticket_free(EnsureTicket *t);
void puller_ticket_text(const EnsureTicket *t, char *buf, size_t n);
/* The pull behind the ticket, or NULL while the store is asked, or when it knew.  Borrowed; also
 * within `done`. */
const Flight *puller_ticket_pull(const EnsureTicket *t);
/* Its id, or "". */
const char *puller_ticket_pull_id(const EnsureTicket *t);

/* The pulls that run or wait, oldest first; borrowed until the loop goes on. */
size_t puller_count(const Puller *p);
const Flight *puller_get(const Puller *p, size_t i);

/* Bytes of buffers that all workers may use now, also those that are ending. */
uint64_t puller_memory(const Puller *p);

/* Unless a pull runs or waits, a worker stands by for the next one after `after_usec`, if the
 * configuration says so.  (Beside pulls it would only be more memory.) */
void puller_prepare_standby(const Puller *p, uint64_t after_usec);

/* Takes no more requests, ends all pulls with -ECANCELED; `done` is called once none is left; what
 * good ones leave ends with pool_free(). */
void puller_stop(Puller *p, void (*done)(void *arg), void *arg);
/* After pool_free().  Tickets that are still out may be freed later.  NULL is fine; returns NULL.
 */
Puller *puller_free(Puller *p);
DEFINE_CLEANUP(Puller, puller_free);
