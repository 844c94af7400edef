/* SPDX-License-Identifier: Apache-2.0 */
/* event_log: the history: each event goes to the store, to our log, and to those who follow. */
#pragma once

#include "base/pool.h"
#include "cache/store.h"

typedef struct EventLog EventLog;
typedef struct EventFollower EventFollower;

/* Both are borrowed; free the log after the pool. */
void event_log_new(EventLog **ret, Store *store, Pool *pool);
EventLog *event_log_free(EventLog *l); /* followers must be gone */
DEFINE_CLEANUP(EventLog, event_log_free);

/* Copies the event (id and time are set here), says it once in the log, stores it.  A type that
 * ends with "failed" or "bad" is a warning. */
void event_log_add(EventLog *l, const StoreEvent *event);

/* `on_event` is called on the loop for each event once it is stored, in order of ids. */
EventFollower *event_log_follow(EventLog *l, void (*on_event)(void *arg, const StoreEvent *e),
                                void *arg);
EventFollower *event_follower_free(EventFollower *f);
