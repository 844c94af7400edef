/* SPDX-License-Identifier: Apache-2.0 */
/* report: what is said and counted of pulls: events with the pull's id and who caused it, metrics.
 */
#pragma once

#include "agent/askers.h"
#include "agent/flight.h"

/* Whom to tell; all borrowed. */
typedef struct Report {
    void (*on_event)(void *arg, const StoreEvent *event);
    void *arg;
    Metrics *metrics;
} Report;

/* `cause`: the volume that the pull began for.  */
void report_started(const Report *r, const Flight *pull, const Asker *cause);
/* Another volume waits for the pull from now on. */
void report_joined(const Report *r, const Flight *pull, const Asker *asker);
/* There was no space, but some could be made; another try follows. */
void report_retry(const Report *r, const Flight *pull, const Asker *cause);
void report_ended(const Report *r, const Flight *pull, const Asker *cause, int result,
                  const Err *err);
