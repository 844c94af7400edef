/* SPDX-License-Identifier: Apache-2.0 */
/* pull_setup: what a job needs from the host: made before the sandbox closes, or behind it. */
#pragma once

#include "base/ring.h"
#include "oci/channel.h"
#include "oci/registry.h"
#include "oci/resume.h"
#include "oci/sandbox.h"
#include "proto/worker.pb-c.h"

typedef struct PullSetup {
    sd_event *event;
    Trust *trust;      /* read ahead; or NULL */
    RingMemory memory; /* mapped ahead, until there is a ring; or nothing */
    Registry *registry;
    Credential *credentials; /* what the registry borrows from; the strings are the job's */
    Ring *ring;
    Pool *pool, *decoders;
    unsigned connections; /* transfers at once at most */
    unsigned transfers;   /* layers at once */
    unsigned n_decoders, n_buffers;
    uint8_t boot[RESUME_BOOT_BYTES];
    bool ring_active; /* io_uring */
    char ring_detail[160];
    SandboxState features[SANDBOX_FEATURE_COUNT];
} PullSetup;

/* How the memory of a job is cut up: a power of two a buffer, at least PULL_BUFFERS_MIN of them. */
#define PULL_BUFFERS_MIN 4
void pull_setup_buffers(uint64_t memory_bytes, size_t *ret_buffer_bytes, unsigned *ret_n);

/* What every job needs, and buffers, of which no more are filled once the job has come to `c`:
 * there may be time for it before that. */
void pull_setup_ahead(PullSetup *s, const Modelcached__Worker__Ahead *ahead, const Channel *c);
/* What opens files or would be refused later; then the sandbox; then the threads, which inherit it.
 * The job is borrowed until pull_setup_done().  A probe has no registry. Errors: -EINVAL the job;
 * those of registry.h, ring.h, sandbox.h. */
int pull_setup(PullSetup *s, const Modelcached__Worker__Job *job, int dir_fd, Err *err)
    _must_check_;
/* Waits for what is in flight, then frees all. */
void pull_setup_done(PullSetup *s);
