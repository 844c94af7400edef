/* SPDX-License-Identifier: Apache-2.0 */
/* endpoint: a socket of ours in a folder of the kubelet's, which stays: it is made when the folder
 * comes, and made again when somebody removed it or the folder. */
#pragma once

#include "proto/grpc_server.h"

typedef struct Endpoint Endpoint;

typedef struct EndpointOptions {
    sd_event *event;       /* a reference is kept */
    GrpcServer *server;    /* borrowed; listens nowhere else, and is freed after the endpoint */
    const char *path;      /* clean absolute */
    const char *what;      /* begins sentences: "the CSI socket (csi.endpoint)"; static */
    bool make_directory;   /* the last directory is ours to make (0750) */
    const Endpoint *after; /* borrowed: that one has to be there first; NULL: none */
} EndpointOptions;

/* Listens on `path` with mode 0600, or waits for its directory, and says so.  Errors: as
 * grpc_server_listen(), but not -ENOENT. */
int endpoint_new(Endpoint **ret, const EndpointOptions *options, Err *err) _must_check_;
/* Keeps the socket no longer; the server removes it.  NULL is fine; returns NULL. */
Endpoint *endpoint_free(Endpoint *e);
DEFINE_CLEANUP(Endpoint, endpoint_free);

bool endpoint_is_there(const Endpoint *e);
