/* SPDX-License-Identifier: Apache-2.0 */
/* h2: one HTTP/2 connection that carries gRPC, on the loop; what server and client share over
 * nghttp2. */
#pragma once

#include "base/loop.h"
#include "proto/status.h"

typedef struct H2 H2;
/* Owned by its H2; gone after on_close, h2_stream_reset() and h2_free(). */
typedef struct H2Stream H2Stream;

/* What happens on the connection.  `user` is what belongs to the stream: on_open's result on a
 * server, what h2_stream_open() was given on a client.  All may call any function below, h2_free()
 * too. */
typedef struct H2Handlers {
    /* Server: the peer opens a stream. */
    void *(*on_open)(void *arg, H2Stream *s);
    void (*on_header)(void *user, const char *name, const char *value, size_t n_value);
    /* Server: a block of headers is complete. */
    void (*on_headers)(void *user);
    /* Server: once, when the whole request is here.  Client: each message as it comes. */
    void (*on_message)(void *user, const uint8_t *message, size_t n);
    /* The peer broke the rules or a limit; no more input of the stream is read. */
    void (*on_bad_input)(void *user, GrpcCode code, const char *text);
    /* Last of the stream, with a code of RFC 9113 section 7. */
    void (*on_close)(void *user, uint32_t h2_error);
    /* Last of all; every stream was closed before. */
    void (*on_down)(void *arg, const char *why);
} H2Handlers;

typedef struct H2Options {
    sd_event *event; /* a reference is kept */
    int fd;          /* connected, non-blocking; taken when h2_new() succeeds */
    bool server;
    const H2Handlers *handlers; /* static storage */
    void *arg;
} H2Options;

int h2_new(H2 **ret, const H2Options *options, Err *err) _must_check_;
/* Closes the connection; no handler is called any more.  NULL is fine; returns NULL. */
H2 *h2_free(H2 *h);
DEFINE_CLEANUP(H2, h2_free);

/* Sends GOAWAY: no new streams; the connection goes down when the open ones have closed. */
void h2_goaway(H2 *h);
/* Can a stream be opened: has neither side said GOAWAY? */
bool h2_is_open(const H2 *h);
/* Why it is down, as on_down is told. */
const char *h2_why(const H2 *h);
/* Calls on_close for each stream, and so on until on_down, from the loop. */
void h2_abort(H2 *h, const char *why);

/* Asks the peer for a sign of life, which it gives as soon as its loop runs. */
void h2_ping(H2 *h);
/* Has anything come since it was asked last? */
bool h2_take_heard(H2 *h);

/* Client: starts a call with its one message.  `timeout_usec` 0: none.  Errors: -ENOMEM;
 * -ECONNRESET no new streams. */
typedef struct H2Request {
    const char *path;
    const void *message;
    size_t n;
    uint64_t timeout_usec;
    void *user;
} H2Request;
int h2_stream_open(H2 *h, H2Stream **ret, const H2Request *request) _must_check_;

/* Server: queues one message, after the response headers.  Errors: -ENOMEM. */
int h2_stream_write(H2Stream *s, const void *message, size_t n) _must_check_;
/* Server: ends the stream with a status after what is queued; `text` may be NULL. */
void h2_stream_finish(H2Stream *s, GrpcCode code, const char *text);
/* Server: ends the stream with a bare HTTP status.  Nothing was written before. */
void h2_stream_refuse(H2Stream *s, const char *http_status);
/* Drops what is queued.  Returns false when a part of a message is already out, so that only a
 * reset can end it. */
bool h2_stream_drop_output(H2Stream *s);
/* Bytes that are queued. */
size_t h2_stream_queued(const H2Stream *s);
/* RST_STREAM; no handler is called for the stream any more. */
void h2_stream_reset(H2Stream *s, uint32_t h2_error);
