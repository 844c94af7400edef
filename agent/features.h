/* SPDX-License-Identifier: Apache-2.0 */
/* features: what confines pull workers on this kernel, learned once at start from a worker that
 * only confines itself. */
#pragma once

#include "agent/pull_options.h"
#include "agent/worker.h"
#include "base/pool.h"

typedef struct FeatureProbe FeatureProbe;

typedef struct FeatureProbeOptions {
    sd_event *event;
    Store *store; /* borrowed; the worker gets a folder as a pull does */
    Pool *pool;   /* borrowed */
    Standby *standby;
    const PullOptions *pull;
    FeatureList *list; /* borrowed; filled */
    /* Once: r < 0 when no worker can run. */
    void (*done)(void *arg, int r);
    void *arg;
} FeatureProbeOptions;

/* Says in one line of the log what is missing.  Blocks for a mkdir(2): for a start.  Errors: as
 * worker_new(), store_ingest_begin(); `done` is not called then. */
int feature_probe_new(FeatureProbe **ret, const FeatureProbeOptions *options) _must_check_;
FeatureProbe *feature_probe_free(FeatureProbe *p);
DEFINE_CLEANUP(FeatureProbe, feature_probe_free);

/* "landlock (not in this kernel), seccomp (…)": the inactive ones, or NULL when there is none.  The
 * caller frees it. */
char *feature_list_missing(const FeatureList *list) _must_check_;
