/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_server: a gRPC server on unix sockets: bytes in, bytes out, on the loop. */
#pragma once

#include "base/loop.h"
#include "proto/status.h"

typedef struct GrpcServer GrpcServer;
typedef struct GrpcCall GrpcCall;

/* One method.  `handle` is called on the loop with the whole request message (borrowed for the time
 * of the call; keep a copy or unpack it).  It must, now or later, end the call exactly once with
 * grpc_call_finish() or grpc_call_fail(). */
typedef struct GrpcMethod {
    const char *path; /* "/csi.v1.Node/NodePublishVolume" */
    bool server_streaming;
    void (*handle)(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
    void *arg;
} GrpcMethod;

typedef struct GrpcServerOptions {
    sd_event *event;           /* a reference is kept */
    const char *name;          /* for debug logs: "csi", "control" */
    const GrpcMethod *methods; /* borrowed; ends with an entry whose path is NULL */
    /* A call has ended, for counting: answered, failed, or (CANCELLED, DEADLINE_EXCEEDED) taken
     * away.  `path`: of its method, NULL when there is none such.  Calls nothing of the server. May
     * be NULL. */
    void (*on_call)(void *arg, const char *path, GrpcCode code);
    void *arg;
} GrpcServerOptions;

int grpc_server_new(GrpcServer **ret, const GrpcServerOptions *options, Err *err) _must_check_;
/* Listens on the socket `path` with `mode`; a stale socket (nobody answers) is replaced, a living
 * one is -EADDRINUSE.  The socket is removed again by grpc_server_free().  Errors: -EADDRINUSE,
 * -ENAMETOOLONG (108 bytes), as bind(2). */
int grpc_server_listen(GrpcServer *s, const char *path, mode_t mode, Err *err) _must_check_;
/* Are all its sockets where they were made?  Without any it is not reachable. */
bool grpc_server_is_reachable(const GrpcServer *s);
/* Listens no longer, and removes its sockets; connections stay, and it may listen again. */
void grpc_server_unlisten(GrpcServer *s);
/* Serves `fd`, a connected stream socket, which it takes in any case.  Errors: -EBUSY
 * LIMIT_GRPC_CONNECTIONS are open; -ENOMEM; as getsockopt(2). */
int grpc_server_adopt(GrpcServer *s, int fd, Err *err) _must_check_;
/* Sends GOAWAY, takes no more calls, and calls `done` when the running ones have ended or after
 * `usec`.  Server-streaming calls may never end by themselves: they are cancelled (on_cancel) and
 * end with UNAVAILABLE at once. */
void grpc_server_shutdown(GrpcServer *s, uint64_t usec, void (*done)(void *arg), void *arg);
/* Ends everything; calls that run are cancelled (their on_cancel is called).  NULL is fine; returns
 * NULL. */
GrpcServer *grpc_server_free(GrpcServer *s);
DEFINE_CLEANUP(GrpcServer, grpc_server_free);

/* A call lives until it is finished or failed.  When the client cancels, its deadline passes, or
 * the connection ends first, `on_cancel` is called once and the call is gone after it returns: the
 * handler must forget it and must not finish it. */
void grpc_call_set_on_cancel(GrpcCall *c, void (*on_cancel)(GrpcCall *c, void *arg), void *arg);
/* Monotonic deadline from grpc-timeout; UINT64_MAX: none. */
uint64_t grpc_call_deadline_usec(const GrpcCall *c);
/* Peer of the connection (SO_PEERCRED). */
void grpc_call_peer(const GrpcCall *c, uid_t *ret_uid, pid_t *ret_pid);
/* Server-streaming only: queues one message.  Returns the bytes that are queued and not yet sent,
 * so that a producer can wait; -ECANCELED never (see on_cancel). */
size_t grpc_call_send(GrpcCall *c, const void *message, size_t n);
/* The bytes that are queued and not yet sent. */
size_t grpc_call_queued(const GrpcCall *c);
/* Unary: `message` is the answer.  Streaming: message NULL, 0.  Frees the call. */
void grpc_call_finish(GrpcCall *c, const void *message, size_t n);
/* Ends with a status and a sentence; no message is sent (trailers only).
 * Frees the call. */
void grpc_call_fail(GrpcCall *c, GrpcCode code, const char *text);
