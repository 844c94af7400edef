/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_wait: a gRPC call that blocks, for tests. */
#pragma once

#include "proto/grpc_client.h"

typedef struct GrpcWait {
    Buf *message;
    Err *err;
    int r; /* of the message, then of the call */
    bool ended;
} GrpcWait;

static inline void grpc_wait_on_message(void *arg, const uint8_t *message, size_t n) {
    GrpcWait *w = arg;

    if (w->r >= 0)
        w->r = buf_append(w->message, message, n);
    if (w->r < 0)
        (void)err_errnum(w->err, w->r, "take an answer of %zu bytes", n);
}

static inline void grpc_wait_on_end(void *arg, GrpcCode code, const char *text) {
    GrpcWait *w = arg;

    w->ended = true;
    if (code != GRPC_OK)
        w->r =
            err_set(w->err, status_to_errno(code), "%s", isempty(text) ? status_name(code) : text);
}

/* Runs the client's loop until a unary call has ended, and appends the answer to `ret`.  Errors:
 * status_to_errno() of the call's status, with its text; those of grpc_client_call(). */
static inline int grpc_wait(GrpcClient *c, sd_event *event, const GrpcClientRequest *request,
                            Buf *ret, Err *err) {
    GrpcWait w = { .message = ret, .err = err };
    GrpcClientHandlers handlers = { grpc_wait_on_message, grpc_wait_on_end, &w };
    int r = grpc_client_call(c, NULL, request, &handlers);

    if (r < 0)
        return err_errnum(err, r, "call %s", request->path);
    while (!w.ended)
        if ((r = sd_event_run(event, UINT64_MAX)) < 0)
            return err_errnum(err, r, "wait for the answer of %s", request->path);
    return w.r;
}
