/* SPDX-License-Identifier: Apache-2.0 */
/* pull_internal: what the parts of pull share: the states (pull.c), the manifest (pull_resolve.c),
 * the layers (pull_layers.c), their large zstd windows (pull_large.c). */
#pragma once

#include "base/limits.h"
#include "oci/layer_job.h"
#include "oci/pull.h"

#define PULL_GIVE_UP_USEC  (300 * USEC_PER_SEC) /* when the job does not say */
#define PULL_PROGRESS_USEC (200 * USEC_PER_MSEC)
#define PULL_ALIVE_USEC    (10 * USEC_PER_SEC) /* the daemon's patience is 60 s (agent/worker.c) */

typedef enum PullState {
    PULL_INIT,    /* nothing happened yet */
    PULL_RESOLVE, /* asks for the manifest, over indexes */
    PULL_PLAN,    /* Resolved was sent; waits for the daemon's Plan */
    PULL_LAYERS,  /* fetches */
    PULL_ENDED,   /* Done or Failed was sent */
    PULL_STATE_COUNT,
} PullState;

typedef enum PullLayerState {
    PULL_LAYER_SKIPPED, /* not in the plan */
    PULL_LAYER_WAITING, /* for its turn */
    PULL_LAYER_RUNNING,
    PULL_LAYER_PARKED, /* has run, and waits for `large` */
    PULL_LAYER_DONE,   /* LayerDone was sent */
} PullLayerState;

typedef struct PullLayer {
    Pull *pull;
    unsigned index;
    const ManifestLayer *layer; /* borrowed from the manifest */
    PullLayerState state;
    LayerJob *job;
    bool anew;                 /* what came the last time was wrong */
    uint64_t bytes, resumed;   /* that are there … */
    uint64_t told, told_ahead; /* … and what the daemon knows of it */
    uint64_t kept;             /* of one that was parked: what was there then … */
    uint64_t own;              /* … of which so many bytes had come in this pull */
    UnpackUsed used;           /* of the budget; of one that is parked */
    char *trouble;             /* a connection failed, and it waits for another one; or NULL … */
    uint64_t trouble_bytes;    /* … and so many bytes were there when it last rested */
} PullLayer;

struct Pull {
    PullOptions o;
    PullState state;
    sd_event_source *alive; /* says that we are, while the daemon hears nothing else */
    char *waiting;          /* what it or a layer waits for, as the daemon knows; or NULL */
    Traffic *traffic;
    FetchContext context;

    /* The manifest. */
    RegistryRequest *request;
    sd_event_source *timer; /* asks again */
    char *asked;            /* tag or digest */
    bool answered;          /* the registry itself says why it was no manifest */
    unsigned tries, depth;  /* failed tries of `asked`; indexes passed */
    Digest asked_digest[LIMIT_INDEX_DEPTH + 1]; /* indexes passed: none twice */
    ProtobufCBinaryData indexes[LIMIT_INDEX_DEPTH];
    size_t indexes_bytes;
    uint64_t asked_size; /* as the index says; UINT64_MAX: not known */
    uint8_t *bytes;
    size_t n_bytes;
    Digest digest;
    ManifestDoc *manifest;
    char *platform; /* chosen from an index, or NULL */

    /* The layers. */
    PullLayer *layers; /* as many as the manifest has */
    PullLayer **order; /* those of the plan, large first */
    size_t n_order, n_done;
    size_t first, past; /* in `order`: all before the one are done, none from the other on was
                         * started; of thousands, only a few are looked at */
    bool more;          /* another plan follows */
    unsigned n_running, n_decoding, n_parked;
    Turn large; /* which layer may have a large zstd window */
    UnpackBudget budget;
    uint64_t content_max; /* bytes that the budget has had, by the plans so far */
    sd_event_source *progress;
};

/* Moves on; asserts that the state may follow; starts its work. */
void pull_goto(Pull *p, PullState state);
/* The one end: sends Done (0) or Failed, calls `done`.  Later calls do nothing. */
void pull_finish(Pull *p, int r, const Err *err);
/* Tells how far these layers are, and `waiting`. */
void pull_say_progress(Pull *p, Modelcached__Worker__LayerProgress **layers, size_t n);
/* Says what it waits for. */
void pull_say_waiting(Pull *p, const char *why);

int pull_enter_resolve(Pull *p, Err *err) _must_check_;
int pull_enter_plan(Pull *p, Err *err) _must_check_;
int pull_enter_layers(Pull *p, Err *err) _must_check_;
/* Takes the daemon's plan, the first or another.  Errors: -EPROTO it names layers that there are
 * not; -ENOSPC. */
int pull_take_plan(Pull *p, const Modelcached__Worker__Plan *plan, Err *err) _must_check_;
/* So many of the ring's buffers may be in use, unless it were more already. */
void pull_use_buffers(Pull *p, unsigned n);
/* Starts what may run now; ends the pull when nothing is left. */
void pull_fill(Pull *p);
/* Buffers or traffic became free. */
void pull_wake(Pull *p);
/* Cancels all layers. */
void pull_stop_layers(Pull *p);

/* The layer's job was refused `large`: it waits for that. */
void pull_large_park(PullLayer *l);
/* The layer's job has ended: `large` goes to one that waits for it. */
void pull_large_pass(const PullLayer *l);
/* The layer that has waited for `large`, and is to run before others; or NULL. */
PullLayer *pull_large_next(const Pull *p);
/* Which layer waits for it, and for which one, and how many others do; NULL: none does.  The caller
 * frees it. */
char *pull_large_describe(const Pull *p, size_t *ret_others);
