/* SPDX-License-Identifier: Apache-2.0 */
/* flight_work: the blocking steps of a pull, each for a thread of the pool: they know the store and
 * no Flight. */
#pragma once

#include "agent/access.h"
#include "agent/chain.h"

/* Room for content: free space that may be used at all; and the sentence when it is too little. */
typedef struct FlightRoom {
    uint64_t bytes; /* with … */
    uint64_t
        partial; /* … that of what came in part, which gives way, and has to before it is used */
} FlightRoom;
FlightRoom flight_room(Store *s);
/* All that the store's file system could ever give: no file of a pull is larger, whatever room it
 * gets later. */
uint64_t flight_file_max(Store *s);
/* -ENOSPC "needs 14.0 GiB, 3.1 GiB free in /var/lib/modelcached; …" when `need` does not fit into
 * `room`. */
int flight_check_room(Store *s, uint64_t need, uint64_t room, Err *err) _must_check_;

/* Says of -ENOSPC that it is inodes that are missing, when it is; returns `r`. */
int flight_explain_space(Store *s, int r, Err *err);

/* What was dropped to make room. */
typedef struct FlightFreed {
    bool some;      /* it may be inodes only, or what nobody has counted */
    uint64_t bytes; /* that are known */
} FlightFreed;
/* Drops what only serves another try. */
FlightFreed flight_make_room(Store *s);

/* 1: the layer is stored, and leased by the pull.  0: it is not; with `ret_claimed` the pull
 * fetches it, and gets what an earlier one has left of it, which takes so many bytes on disk.
 * `id`: of the pull. */
int flight_look_up(Store *s, const StorePull *pull, const char *id, const Layer *layer,
                   uint64_t *ret_claimed, Err *err) _must_check_;

/* Makes the pull's folder for an unprivileged worker: nobody when we are root; what only serves
 * another try gives way for it.  Returns its fd. */
int flight_make_folder(Store *s, const char *name, int *ret_fd, Err *err) _must_check_;

typedef struct FlightPlan {
    const Manifest *manifest;
    const IndexChain *index; /* that led to it, or NULL */
    const Reference *reference;
    const char *text, *platform; /* the reference's text */
    AccessAim aim;
    bool late;         /* nothing is fetched any more */
    Grant grant;       /* what is remembered once the registry let us in */
    StorePull pull;    /* stored layers are leased for it */
    const char *id;    /* of it */
    const bool *ask;   /* of each layer: whether to look */
    bool *cached;      /* out: of each of these: in the store */
    uint64_t *claimed; /* out: of each of the others: on disk, left by an earlier pull */
    FlightRoom room;   /* out: for the rest */
    Digest given;      /* out: what the store has, when it lacks nothing */
} FlightPlan;
/* Checks the manifest's digest, and finds out what the store lacks.  Returns 1 when it lacks
 * nothing: the reference then points at `given`.  Errors: -EBADMSG another digest; -ENOENT nothing
 * is stored, and nothing may be fetched; -ETIMEDOUT it is not stored, and it is late; those of the
 * store. */
int flight_make_plan(Store *s, FlightPlan *plan, Err *err) _must_check_;

/* The registry did not let the credentials in, as `r` says: what was remembered of them is wrong.
 * So is what was remembered of nobody, when it was `answered` by the registry itself and the
 * credentials are not at fault (401).  That it does not know the name (-ENOENT) says nothing when
 * nothing is stored under it: it may be a slip. */
void flight_refused(Store *s, const Grant *grant, const AccessName *name, int r, bool answered);

/* The pull `ingest` has failed with `result`: what can serve another try is kept, its folder goes.
 * `died`: its worker did, and did not say why.  `ret_freed`: because there was no space. */
int flight_failed(Store *s, const char *ingest, int result, bool died, FlightFreed *ret_freed,
                  Err *err) _must_check_;

/* Commits the manifest, points the reference at it, and remembers the grant. */
int flight_commit(Store *s, const Manifest *m, const Grant *grant, const char *reference,
                  const char *platform, Err *err) _must_check_;
