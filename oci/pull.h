/* SPDX-License-Identifier: Apache-2.0 */
/* pull: one pull in the worker, from a reference to the last layer: what to say to the daemon, and
 * when. */
#pragma once

#include "oci/channel.h"
#include "oci/registry.h"
#include "oci/resume.h"

typedef struct Pull Pull;
typedef struct Ring Ring;
typedef struct Pool Pool;

/* All borrowed. */
typedef struct PullOptions {
    sd_event *event;
    const Modelcached__Worker__Job *job;
    Channel *channel;
    Registry *registry;
    Ring *ring;
    Pool *pool;
    Pool *decoders;
    int dir_fd;
    unsigned connections; /* at once at most */
    unsigned transfers;   /* layers at once at most; fewer than the ring has buffers */
    unsigned n_buffers;   /* of the ring, which the daemon may limit */
    uint8_t boot[RESUME_BOOT_BYTES];
    unsigned n_decoders; /* threads of `decoders` */
    uint64_t retry_usec; /* first wait after a failure that may pass */
    /* Once, last: Done or Failed is in the channel. */
    void (*done)(void *arg, int r);
    void *arg;
} PullOptions;

/* Begins; all is told by the channel.  Errors: -EINVAL the job makes no sense. */
int pull_new(Pull **ret, const PullOptions *options, Err *err) _must_check_;
/* Cancels what goes on; threads may still be at work on it. */
void pull_cancel(Pull *p);
/* After pull_cancel(), and after the ring and the pools are gone.  NULL is fine; returns NULL. */
Pull *pull_free(Pull *p);
DEFINE_CLEANUP(Pull, pull_free);
/* The daemon sent this. */
void pull_on_message(Pull *p, const Modelcached__Worker__ToWorker *message);
