/* SPDX-License-Identifier: Apache-2.0 */
/* control: the daemon's side of proto/control.proto, for cache-ctl. */
#pragma once

#include "agent/event_log.h"
#include "agent/health.h"
#include "agent/puller.h"
#include "csi/volume.h"

typedef struct Control Control;

/* What the daemon says of itself; all borrowed, for as long as the control lives. */
typedef struct ControlOptions {
    sd_event *event;
    const Backend *backend;
    Pool *checks; /* checks of the store, which take long, run here */
    Puller *puller;
    Volumes *volumes;
    EventLog *events;
    const Config *config;
    const FeatureList *features; /* filled later, on the loop */
    const Health *health;        /* the same */
    Metrics *metrics;
    const char *mount_detail; /* why not the best way to mount; NULL */
} ControlOptions;

/* Serves on config->control_socket, 0660; its directory is made (0755) when it is absent.  Errors:
 * as grpc_server_listen(), mkdir(2). */
int control_new(Control **ret, const ControlOptions *options, Err *err) _must_check_;
/* Takes no more calls, lets running ones end for at most `usec`. */
void control_stop(Control *c, uint64_t usec, void (*done)(void *arg), void *arg);
/* Cancels all calls; pool_free() afterwards ends what still runs for them.  NULL is fine; returns
 * NULL. */
Control *control_free(Control *c);
DEFINE_CLEANUP(Control, control_free);
