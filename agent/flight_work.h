/* SPDX-License-Identifier: Apache-2.0 */
/* flight_work: the blocking steps of a pull, each for a thread of the pool: they know the store and
 * no Flight. */
#pragma once

#include "cache/store.h"

/* Room for content: free space that may be used at all, and the sentence when it is too little. */
uint64_t flight_room(Store *s);
/* -ENOSPC "needs 14.0 GiB, 3.1 GiB free in /var/lib/modelcached; …" when `need` does not fit into
 * `room`. */
int flight_check_room(Store *s, uint64_t need, uint64_t room, Err *err) _must_check_;

/* Makes the pull's folder for an unprivileged worker: nobody when we are root.  Returns its fd. */
int flight_make_folder(Store *s, const char *name, int *ret_fd, Err *err) _must_check_;

typedef struct FlightPlan {
    const Manifest *manifest;
    const Digest *index; /* that led to it, or NULL */
    const Digest *want;  /* of the reference, or NULL */
    const char *reference, *platform;
    const char *ingest; /* the pull: stored layers are leased for it */
    bool *cached;       /* out: of each layer: in the store, or the same as an earlier one */
    size_t *same_as;    /* out: the earlier layer with the same content, or the layer itself */
    uint64_t room;      /* out: bytes that may be written */
} FlightPlan;
/* Checks the manifest's digest, and finds out what the store lacks.  Returns 1 when it lacks
 * nothing: the reference then points at the manifest.  Errors: -EBADMSG another digest; those of
 * the store. */
int flight_make_plan(Store *s, FlightPlan *plan, Err *err) _must_check_;

/* Commits the manifest and points the reference at it. */
int flight_commit(Store *s, const Manifest *m, const char *reference, const char *platform,
                  Err *err) _must_check_;
