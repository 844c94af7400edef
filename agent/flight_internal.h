/* SPDX-License-Identifier: Apache-2.0 */
/* flight_internal: the inside of a pull, for flight.c (what it does), flight_layer.c (the layers
 * that come), flight_end.c (what it leaves), flight_share.c (those of others), flight_space.c (what
 * they take on disk) and flight_view.c (how far it is). */
#pragma once

#include "agent/flight.h"
#include "agent/rate.h"
#include "base/parse.h"
#include "csi/backend.h"

typedef struct FlightLayer {
    uint64_t bytes;   /* received, by this pull or the one that has the layer */
    uint64_t resumed; /* of these, found on disk */
    uint64_t claimed; /* on disk since it is ours to fetch, until more comes; of a tar, content */
    uint64_t ahead;   /* bytes to come that have their space there, as our worker says */
    ShareRole role;   /* SHARE_WAIT until it is stored, or ours to fetch */
    bool cached;      /* was in the store */
    bool shared;      /* another pull brought it */
    bool late;        /* ours since the last plan: our worker is not told of it yet */
    bool came;        /* our worker has told all of it */
    bool done;        /* committed */
    bool left_out;    /* the subset does not have it: it does not come */
    size_t same_as;   /* the layer that brings its content; mostly itself */
} FlightLayer;

struct Flight {
    const FlightContext *context;
    FlightDone done;
    void *arg;

    Reference *reference;
    char *reference_text, *platform_text, *origin;
    Platform platform;
    Filter *filter;             /* until the manifest has it */
    CredentialList credentials; /* one or none */
    uint8_t fingerprint[GRANT_BYTES];
    AccessAim aim;
    bool open, late;
    PullOptions *options; /* since flight_start() */

    FlightState state;
    unsigned n_works; /* in the pool's hands */
    bool ending;      /* the last work is queued */
    int r;            /* how it ended */
    Err err;

    Worker *worker;
    bool worker_done; /* it has said so; its process takes a while to end */
    bool worker_ended;
    bool refused;    /* the registry did not let the credentials in, or hides what it has … */
    bool answered;   /* … as it said itself */
    bool died;       /* the worker, and did not say why */
    int unreachable; /* < 0: the registry, for this reason, in worker_err */
    int worker_r;    /* < 0: too early, for this reason; told once nothing is being committed */
    Err worker_err;
    pid_t leaving; /* of the worker that was killed at the end and is to be waited for; or 0 */
    char id[PULL_ID_MAX];
    char ingest[STORE_INGEST_NAME_MAX]; /* name of its folder */
    bool has_folder;
    int ingest_fd;      /* until the worker has it */
    uint64_t file_max;  /* bytes of a file */
    FlightRoom room;    /* when it was looked last */
    uint64_t passed_on; /* bytes of layers by another pull, while the store is asked about them */
    uint64_t content;   /* bytes of the files of layers that came */
    FlightFreed freed;  /* by the end of it */

    Digest given;  /* the artifact; zero until that is known */
    Digest stored; /* under the reference, as a step found; read when that has ended */
    Manifest *manifest;
    IndexChain *index; /* that led to it, or NULL */
    FlightLayer *layers;
    bool planned; /* what follows is known */
    Sharer *sharer;
    size_t n_left_out;
    size_t n_left; /* layers to come, by this pull or another */
    size_t n_own;  /* of these, ours to fetch */
    size_t
        n_waiting; /* the others: another pull has them, or the store is asked whether it did it */
    size_t n_late; /* ours since the last plan */
    size_t n_looked;              /* > 0: for so many of these room is looked for */
    struct LayerBatch *gathered;  /* layers that have come and are not yet committed, or NULL */
    sd_event_source *batch_timer; /* until they have waited enough */
    bool committing;              /* a batch is in the pool's hands */
    unsigned n_alone;             /* batches of one large layer that are being committed */
    size_t n_reported;            /* layers that have come and are not in */
    uint64_t bytes_total, bytes_done, bytes_cached, bytes_resumed, bytes_shared;
    bool wanted;
    WorkerLimits limits;
    DivideLack lack; /* why it has no connection */
    Rate rate;
    uint64_t started_usec;
    char *waiting; /* as the worker says */
};

/* flight.c, for flight_layer.c and flight_share.c. */
StorePull flight_store_pull(const Flight *p); /* borrows */
Grant flight_grant(const Flight *p);          /* the same; since flight_start() */
void flight_submit(Flight *p, PoolRun run, PoolDone done, void *arg);
bool flight_step_ended(Flight *p, int r, const Err *err);
void flight_finish(Flight *p, int r, const Err *err);
void flight_progress(Flight *p, size_t layer, uint64_t bytes, uint64_t resumed);
/* The same of a layer that is ours; `ahead` more have their space there. */
void flight_own_progress(Flight *p, size_t layer, uint64_t bytes, uint64_t resumed, uint64_t ahead);
/* The layer is in: by our worker, or by another pull. */
void flight_layer_in(Flight *p, size_t layer);

/* flight_space.c: is the layer ours to fetch, and not stored yet? */
bool flight_fetches(const Flight *p, size_t layer);
/* What was free when it was looked last, less what the other pulls still have to write. */
uint64_t flight_room_left(const Flight *p);
/* Makes room, once, when what the pull has to write does not fit beside what came in part; then
 * calls `next`, whether it fits or not, unless the pull is over by then. */
void flight_with_room(Flight *p, void (*next)(Flight *p));
/* The same, after a new look at what is free. */
void flight_look_for_room(Flight *p, void (*next)(Flight *p));
/* Bytes that the content of all our layers may have, when it was looked just now: what there is of
 * it, and what is left. */
uint64_t flight_content_max(const Flight *p);

/* flight_layer.c: a layer has come; it is committed, with those that come soon.  Takes the entries.
 */
void flight_commit_layer(Flight *p, size_t layer, LayerEntry *entries, size_t n);
/* The pull is over: no more will come.  What has come serves the next try. */
void flight_commit_rest(Flight *p);

/* flight_end.c: the process of the worker is gone, and its buffers with it. */
void flight_give_memory_back(Flight *p);
/* Once nothing of the pull runs any more, `done` is called: of one that failed when
 * its worker has ended and its folder is gone, else before. */
void flight_settle(Flight *p);

/* flight_share.c: takes all layers of the manifest that has come and that are wanted.  Errors:
 * -E2BIG finding out which takes too long. */
int flight_take_layers(Flight *p, Err *err) _must_check_;
/* Tells the worker to fetch these, too; before FLIGHT_FETCHING nothing, as all are told then. */
void flight_tell_plan(Flight *p, const uint32_t *fetch, size_t n);
