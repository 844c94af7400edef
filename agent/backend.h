/* SPDX-License-Identifier: Apache-2.0 */
/* backend: csi/backend.h on the puller and the history. */
#pragma once

#include "agent/event_log.h"
#include "agent/puller.h"

/* What the functions of the Backend work on; all borrowed. */
typedef struct BackendParts {
    Puller *puller;
    EventLog *events;
    Metrics *metrics; /* NULL: nothing is counted */
} BackendParts;

/* Fills the functions of `b`; the rest is the caller's.  `parts` is borrowed for as long as `b` is
 * used. */
void backend_init(Backend *b, BackendParts *parts);
