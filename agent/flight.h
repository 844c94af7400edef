/* SPDX-License-Identifier: Apache-2.0 */
/* flight: one pull, an artifact on its way into the store: a worker fetches, the store commits,
 * layer by layer. */
#pragma once

#include "agent/pull_options.h"
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

/* What all pulls share; borrowed, outlives them. */
typedef struct FlightContext {
    sd_event *event;
    Store *store;
    Pool *pool;
    const char *worker_program;
    /* Bytes that all running pulls together still have to fetch. */
    uint64_t (*promised)(void *arg);
    void *arg;
} FlightContext;

typedef struct FlightRequest {
    const Reference *reference;   /* copied */
    const char *platform;         /* "linux/amd64"; copied */
    const Credential *credential; /* NULL: none; copied, and wiped at the end */
} FlightRequest;

/* Called once, on the loop, last: the pull may be freed in it (or later). */
typedef void (*FlightDone)(void *arg, Flight *p, int r, const Err *err);

/* Errors: -EINVAL the platform. */
int flight_new(Flight **ret, const FlightContext *context, const FlightRequest *request,
               FlightDone done, void *arg, Err *err) _must_check_;
void flight_start(Flight *p, PullOptions *options);
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
} FlightLayerView;

/* How far it is; pointers are borrowed until the loop goes on. */
typedef struct FlightView {
    FlightState state;
    const char *reference;
    const Manifest *manifest; /* NULL until resolved */
    uint64_t bytes_done, bytes_total, bytes_cached, rate, elapsed_usec;
    unsigned layers_done, layers_total;
    const char *waiting; /* "" or a sentence */
} FlightView;
void flight_view(const Flight *p, FlightView *ret);
FlightLayerView flight_view_layer(const Flight *p, size_t i);
/* "resolving", "3.2 GiB of 14.0 GiB (23 %), 412 MiB/s, about 27 s left" */
void flight_text(const Flight *p, char *buf, size_t n);
