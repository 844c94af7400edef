/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_client: a gRPC client on one unix socket connection, on the loop; a blocking form for
 * command lines. */
#pragma once

#include "base/buf.h"
#include "base/loop.h"
#include "proto/status.h"

typedef struct GrpcClient GrpcClient;
typedef struct GrpcClientCall GrpcClientCall;

/* Connects to the unix socket `path`.  Errors: -ENOENT, -ECONNREFUSED, -EACCES. */
int grpc_client_new(GrpcClient **ret, sd_event *event, const char *path, Err *err) _must_check_;
GrpcClient *grpc_client_free(GrpcClient *c); /* calls that run end with GRPC_CANCELLED first */
DEFINE_CLEANUP(GrpcClient, grpc_client_free);

/* Calls `on_silent` once when the server, asked by PING every `usec`, gives no sign of life for so
 * long: its process hangs or is stopped.  A server that works at an answer gives them, so calls may
 * take their time.  The client may be freed there.  Errors: -ENOMEM. */
int grpc_client_watch(GrpcClient *c, uint64_t usec, void (*on_silent)(void *arg), void *arg)
    _must_check_;

typedef struct GrpcClientHandlers {
    void (*on_message)(void *arg, const uint8_t *message,
                       size_t n); /* borrowed; unary: at most once */
    void (*on_end)(void *arg, GrpcCode code,
                   const char *text); /* exactly once, last; the call is gone after it */
    void *arg;
} GrpcClientHandlers;

typedef struct GrpcClientRequest {
    const char *path; /* "/modelcached.control.Control/Pull" */
    const void *message;
    size_t n;
    uint64_t timeout_usec; /* sent as grpc-timeout and kept here too; 0: none */
} GrpcClientRequest;

/* Starts a call; `request` and what it points to are copied.  `ret` may be NULL when it is never
 * cancelled. */
int grpc_client_call(GrpcClient *c, GrpcClientCall **ret, const GrpcClientRequest *request,
                     const GrpcClientHandlers *handlers) _must_check_;
/* RST_STREAM(CANCEL); on_end is not called any more.  Returns NULL. */
GrpcClientCall *grpc_client_call_cancel(GrpcClientCall *call);

/* Blocking, for command lines: runs the client's loop until a unary call has ended and appends the
 * answer to `ret_message`.  Errors: status_to_errno() of the call's status, with its text; -E2BIG;
 * as grpc_client_call(). */
int grpc_client_call_wait(GrpcClient *c, const GrpcClientRequest *request, Buf *ret_message,
                          Err *err) _must_check_;
