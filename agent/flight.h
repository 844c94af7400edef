/* SPDX-License-Identifier: Apache-2.0 */
/* flight: one pull, an artifact on its way into the store: a worker fetches, the store commits,
 * layer by layer. */
#pragma once

#include "agent/divide.h"
#include "agent/flight_work.h"
#include "agent/metrics.h"
#include "agent/pull_options.h"
#include "agent/share.h"
#include "agent/worker.h"
#include "base/pool.h"
#include "oci/ref.h"

typedef struct Flight Flight;

/* The same numbers as PullState of control.proto. */
typedef enum FlightState {
    FLIGHT_QUEUED,     /* waits for its turn */
    FLIGHT_RESOLVING,  /* the worker asks the registry for the manifest */
    FLIGHT_FETCHING,   /* layers come, and are committed one by one */
    FLIGHT_COMMITTING, /* all layers are in; the tree is made */
    FLIGHT_DONE,       /* over, well or not */
    FLIGHT_STATE_COUNT,
} FlightState;
const char *flight_state_name(FlightState s);

/* The workers of all pulls, until their processes have ended. */
typedef struct FlightWorkers {
    uint64_t memory;         /* bytes of buffers that they may use … */
    unsigned n;              /* … so many of them, which have some */
    struct Leftover *ending; /* those of pulls that went well; flight_end.c */
    bool closing;            /* no others are added: the loop is about to end */
} FlightWorkers;

/* What all pulls share; borrowed, outlives them. */
typedef struct FlightContext {
    sd_event *event;
    Store *store;
    Pool *pool;
    Standby *standby;
    Shares *shares;
    Metrics *metrics; /* NULL: nothing is counted */
    FlightWorkers *workers;
    /* Bytes that all running pulls but one together still have to write. */
    uint64_t (*promised)(void *arg, const Flight *except);
    /* A pull needs more or less than before: look at all limits again.  May be called from within
     * any function below, and from within those of other pulls. */
    void (*changed)(void *arg);
    void *arg;
} FlightContext;

typedef struct FlightRequest {
    const char *id;             /* of the pull that it is another try of, copied; NULL: a new one */
    const Reference *reference; /* copied */
    const char *platform;       /* "linux/amd64"; copied */
    const Filter *filter;       /* what of it is wanted; NULL: all; copied */
    const Credential *credential; /* NULL: none; copied, and wiped at the end */
    const uint8_t *fingerprint;   /* of the credential, GRANT_BYTES; copied */
    AccessAim aim;
    bool open;   /* when the registry cannot be reached, what is stored is given: few tries */
    bool late;   /* nothing is fetched: -ETIMEDOUT when the store lacks something */
    bool wanted; /* somebody waits for it */
} FlightRequest;

/* Called once, on the loop, last: the pull may be freed in it (or later). */
typedef void (*FlightDone)(void *arg, Flight *p, int r, const Err *err);

/* Errors: -EINVAL the platform. */
int flight_new(Flight **ret, const FlightContext *context, const FlightRequest *request,
               FlightDone done, void *arg, Err *err) _must_check_;
/* 16 hex digits, random: by it a pull is found in the log of both processes and in the history.
 * Borrowed. */
const char *flight_id(const Flight *p);
void flight_start(Flight *p, PullOptions *options);
/* Somebody waits for it from now on. */
void flight_want(Flight *p);
/* Does somebody wait for it?  If so, that stays. */
bool flight_is_asked_for(const Flight *p);
/* Does somebody wait for it, or, now, for a layer that it fetches? */
bool flight_is_wanted(const Flight *p);
/* Does it wait for its turn, and is not over for want of time? */
bool flight_is_queued(const Flight *p);
/* Has its worker blobs to fetch? */
bool flight_is_fetching(const Flight *p);
/* Does it do nothing but wait for layers of other pulls? */
bool flight_is_idle(const Flight *p);
/* That it may use now. */
unsigned flight_connections(const Flight *p);
uint64_t flight_memory(const Flight *p);
/* That it could use; since flight_start(). */
uint64_t flight_memory_max(const Flight *p);
/* Borrowed. */
const Reference *flight_reference(const Flight *p);
/* Once it is done: did the registry say that the credentials are not let in (401, 403)? */
bool flight_is_refused(const Flight *p);
/* Bytes that it still has to write: its own layers, less what came, was left by an earlier pull, or
 * has its space on disk already. */
uint64_t flight_promised(const Flight *p);
/* Once it is done: what was dropped when it found no space, so that another try may succeed. */
FlightFreed flight_freed(const Flight *p);

/* What it may use; to be set once it was started, before the loop goes on, and at any time.  Memory
 * never falls.  `lack`: why it gets no connection. */
void flight_set_limits(Flight *p, const WorkerLimits *limits, DivideLack lack);
/* Threads of the pool wait for the workers of pulls that went well, and no more the loop: at a
 * stop, once workers->closing is set. */
void flight_end_workers(const FlightContext *c);
/* Ends it with an error; `done` is called once all works have ended.  Queued ones are ended at
 * once. */
void flight_cancel(Flight *p, int r, const Err *err);
/* Only before flight_start() or once it is done.  NULL is fine; returns NULL. */
Flight *flight_free(Flight *p);
DEFINE_CLEANUP(Flight, flight_free);

typedef struct FlightLayerView {
    const Layer *layer;
    uint64_t bytes;
    bool cached, done;
    bool left_out; /* nobody wants it */
} FlightLayerView;

#define FLIGHT_WAITING_MAX 640
/* How far it is; pointers are borrowed until the loop goes on. */
typedef struct FlightView {
    FlightState state;
    const char *id, *reference;
    const Manifest *manifest; /* NULL until resolved */
    const Digest *artifact;   /* that it gives, as the store knows it; NULL until that is known */
    const Digest *digest;     /* of its manifest, for people; NULL until that is known */
    uint64_t bytes_done, bytes_total, bytes_cached, rate, elapsed_usec;
    uint64_t bytes_resumed;             /* of bytes_done: left by an earlier try */
    uint64_t bytes_shared;              /* of bytes_cached, in the end: another pull brought them */
    unsigned layers_done, layers_total; /* of those that are wanted */
    bool background;
    char waiting[FLIGHT_WAITING_MAX]; /* "" or a sentence */
} FlightView;
void flight_view(const Flight *p, FlightView *ret);
FlightLayerView flight_view_layer(const Flight *p, size_t i);
/* "resolving", "3.2 GiB of 14.0 GiB (23 %), 412 MiB/s, about 27 s left" */
void flight_text(const Flight *p, char *buf, size_t n);
