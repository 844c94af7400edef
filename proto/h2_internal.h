/* SPDX-License-Identifier: Apache-2.0 */
/* h2_internal: what h2.c (the connection) and h2_stream.c (its streams) share. */
#pragma once

#include "proto/grpc_frame.h"
#include "proto/h2.h"

#include <nghttp2/nghttp2.h>

struct H2 {
    sd_event *event;
    sd_event_source *io;
    sd_event_source *kick; /* sends what was submitted outside of a callback */
    nghttp2_session *session;
    const H2Handlers *handlers;
    void *arg;
    H2Stream *streams;
    Buf pending;       /* frames that the socket did not take */
    size_t held_bytes; /* of requests that are not complete */
    int fd;
    uint32_t events; /* that `io` waits for */
    uint64_t resets_left, resets_usec;
    bool server;
    bool busy; /* in a callback of the loop, which ends with h2_leave() */
    bool dead; /* h2_free() was called */
    bool is_down;
    bool failed; /* goes down with the next h2_leave() */
    bool read_closed, write_closed;
    bool goaway_sent, goaway_received;
    bool heard; /* since h2_take_heard() */
    char why[160];
};

/* A message that waits to be sent. */
typedef struct H2Block H2Block;
struct H2Block {
    H2Block *next;
    size_t n;
    uint8_t data[]; /* with its prefix */
};

struct H2Stream {
    H2 *h2;
    H2Stream *prev, *next;
    void *user; /* NULL: nobody listens any more */
    int32_t id;
    GrpcReader reader;
    size_t header_bytes;
    H2Block *first, *last;
    size_t sent;   /* of the first block */
    size_t queued; /* bytes that are not sent, of all blocks */
    GrpcCode code; /* server: of the trailers */
    char *text;    /* server: of the trailers, encoded; NULL: none */
    bool started;  /* server: the response headers are submitted */
    bool finished; /* nothing more is queued */
    bool deferred; /* nghttp2 waits for h2_resume */
    bool request_complete;
    bool input_ignored;
};

void h2_set_callbacks(nghttp2_session_callbacks *callbacks);
/* The connection goes down when the running callback of the loop ends. */
void h2_fail(H2 *h, const char *why);
/* Sends soon. */
void h2_kick(H2 *h);
/* Fails the connection when too many streams are reset. */
void h2_count_reset(H2 *h);
/* on_close, then frees. */
void h2_stream_close(H2Stream *s, uint32_t h2_error);
/* The peer sends nothing any more: resets the streams whose requests are not complete. */
void h2_streams_end_input(H2 *h);
H2Stream *h2_stream_new(H2 *h, void *user);
H2Stream *h2_stream_free(H2Stream *s);
