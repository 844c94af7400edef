/* SPDX-License-Identifier: Apache-2.0 */
/* service: what the handlers of the CSI methods share. */
#pragma once

#include "csi/target.h"
#include "csi/volume.h"
#include "proto/grpc_server.h"

#include "proto/csi.pb-c.h"

typedef struct CsiService {
    sd_event *event; /* a reference; the others are borrowed, but for the strings and `roots` */
    const Backend *backend;
    Volumes *volumes;
    TargetRoots *roots;
    char *driver, *version;
} CsiService;

/* Handlers of GrpcMethod; `arg` is the CsiService. */
void identity_get_plugin_info(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
void identity_get_plugin_capabilities(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
void identity_probe(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
void node_publish_volume(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
void node_unpublish_volume(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
void node_get_volume_stats(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
void node_get_capabilities(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
void node_get_info(GrpcCall *call, const uint8_t *request, size_t n, void *arg);

/* Ends a call with a message, or with the status and sentence of `r`. */
void service_answer(GrpcCall *call, const ProtobufCMessage *message);
void service_fail(GrpcCall *call, int r, const Err *err);
/* Checks what publish, unpublish and stats have in common. */
int service_check_volume_id(const char *volume_id, Err *err) _must_check_;
