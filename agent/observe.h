/* SPDX-License-Identifier: Apache-2.0 */
/* observe: /metrics, /healthz and /readyz, and the values that are only looked at for them. */
#pragma once

#include "agent/health.h"
#include "agent/puller.h"

typedef struct Observe Observe;

typedef struct ObserveOptions {
    sd_event *event; /* a reference is kept; the others are borrowed */
    Store *store;
    Pool *pool; /* free it before this */
    const Puller *puller;
    Health *health; /* its metrics_address is where to listen; "": nowhere */
    Metrics *metrics;
} ObserveOptions;

/* Listens.  When the address cannot be had, volumes matter more: it is said, in the log and in
 * health->metrics_trouble, and tried again. */
void observe_new(Observe **ret, const ObserveOptions *options);
/* NULL is fine; returns NULL. */
Observe *observe_free(Observe *o);
DEFINE_CLEANUP(Observe, observe_free);
