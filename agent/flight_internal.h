/* SPDX-License-Identifier: Apache-2.0 */
/* flight_internal: the inside of a pull, for flight.c (what it does) and flight_view.c (how far it
 * is).
 */
#pragma once

#include "agent/flight.h"
#include "agent/flight_work.h"
#include "agent/rate.h"
#include "base/parse.h"

typedef struct FlightLayer {
    uint64_t bytes; /* received */
    bool cached;    /* was in the store */
    bool done;      /* committed */
    size_t same_as; /* the layer that brings its content; mostly itself */
} FlightLayer;

struct Flight {
    const FlightContext *context;
    FlightDone done;
    void *arg;

    Reference *reference;
    char *reference_text, *platform_text;
    Platform platform;
    CredentialList credentials; /* one or none */
    PullOptions *options;       /* since flight_start() */

    FlightState state;
    unsigned n_works; /* in the pool's hands */
    bool ending;      /* the last work is queued */
    int r;            /* how it ended */
    Err err;

    Worker *worker;
    bool worker_ended; /* with success */
    pid_t leaving;     /* of the worker that was killed at the end and is to be waited for; or 0 */
    char ingest[33];   /* name of its folder */
    bool has_folder;
    int ingest_fd; /* until the worker has it */
    uint64_t room; /* bytes that may be written, when it was looked last */

    Manifest *manifest;
    bool has_index;
    Digest index;
    FlightLayer *layers;
    bool planned;    /* what follows is known */
    uint32_t *fetch; /* indexes of the layers to fetch */
    size_t n_fetch, n_done;
    uint64_t bytes_total, bytes_done, bytes_cached;
    Rate rate;
    uint64_t started_usec;
    char *waiting;
};
