/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_call: a server's calls and the connection they came by; what grpc_server.c needs of them. */
#pragma once

#include "proto/grpc_server.h"
#include "proto/h2.h"

typedef struct GrpcConnection GrpcConnection;

typedef struct GrpcConnectionOptions {
    sd_event *event;
    const char *name;          /* for debug logs */
    const GrpcMethod *methods; /* borrowed */
    int fd;                    /* taken when grpc_connection_new() succeeds */
    void (*on_call)(void *arg, const char *path, GrpcCode code); /* as in GrpcServerOptions */
    void *on_call_arg;
    /* It is over: no call is left.  Frees it, or later. */
    void (*on_end)(GrpcConnection *c, void *arg);
    void *arg;
} GrpcConnectionOptions;

int grpc_connection_new(GrpcConnection **ret, const GrpcConnectionOptions *options, Err *err)
    _must_check_;
/* Cancels the calls that run.  NULL is fine; returns NULL. */
GrpcConnection *grpc_connection_free(GrpcConnection *c);
DEFINE_CLEANUP(GrpcConnection, grpc_connection_free);
/* GOAWAY; ends streams; on_end comes when the running calls have ended. */
void grpc_connection_shutdown(GrpcConnection *c);

/* For the calls of grpc_call.c: what they share. */
extern const H2Handlers grpc_call_handlers;
const GrpcMethod *grpc_connection_find_method(const GrpcConnection *c, const char *path, size_t n);
sd_event *grpc_connection_event(const GrpcConnection *c);
/* The head of the list of its calls, which grpc_call.c links. */
GrpcCall **grpc_connection_calls(GrpcConnection *c);
/* A call has ended; `method` may be NULL. */
void grpc_connection_report(const GrpcConnection *c, const GrpcMethod *method, GrpcCode code);
void grpc_connection_peer(const GrpcConnection *c, uid_t *ret_uid, pid_t *ret_pid);
void grpc_connection_down(void *arg, const char *why);
/* Cancels those of a connection's calls that are server-streaming and run; they end with
 * UNAVAILABLE. */
void grpc_call_end_streams(GrpcCall *first);
/* Calls on_cancel if the handler has the call; frees it. */
GrpcCall *grpc_call_free(GrpcCall *c);
