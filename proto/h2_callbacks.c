/* SPDX-License-Identifier: Apache-2.0 */
/* h2_callbacks: what nghttp2 reports, and how it becomes headers, messages and ends for the
 * handlers. */
#include "base/limits.h"
#include "proto/h2_internal.h"

enum {
    HEADER_OVERHEAD = 32,  /* RFC 9113 section 6.5.2 counts so */
    HEADER_PATIENCE = 4,   /* times the limit; then the connection ends */
    HELD_BYTES = 64 << 20, /* of incomplete messages on one connection */
};

/* Makes nghttp2 stop when nobody listens any more. */
static int go_on(const H2 *h) {
    return h->dead || h->failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static bool listens(const H2Stream *s) {
    return s && s->user && !s->h2->dead;
}

static void bad_input(H2Stream *s, GrpcCode code, const char *text) {
    s->input_ignored = true;
    s->h2->held_bytes -= s->reader.body.len;
    s->reader.body.len = 0;
    grpc_reader_done(&s->reader);
    if (listens(s))
        s->h2->handlers->on_bad_input(s->user, code, text);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *userdata) {
    H2 *h = userdata;
    H2Stream *s;

    if (!h->server || h->dead || frame->hd.type != NGHTTP2_HEADERS ||
        frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return go_on(h);
    s = h2_stream_new(h, NULL);
    s->id = frame->hd.stream_id;
    if (nghttp2_session_set_stream_user_data(session, s->id, s) != 0) {
        h2_stream_free(s);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    s->user = h->handlers->on_open(h->arg, s);
    return go_on(h);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *userdata) {
    H2 *h = userdata;
    H2Stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    nghttp2_vec n = nghttp2_rcbuf_get_buf(name), v = nghttp2_rcbuf_get_buf(value);

    (void)flags;
    if (!s || h->dead)
        return go_on(h);
    s->header_bytes += n.len + v.len + HEADER_OVERHEAD;
    if (s->header_bytes > HEADER_PATIENCE * LIMIT_GRPC_HEADER_BYTES) {
        h2_fail(h, "the peer sends headers without end");
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (s->header_bytes > LIMIT_GRPC_HEADER_BYTES) {
        if (!s->input_ignored)
            bad_input(s, GRPC_RESOURCE_EXHAUSTED, "the headers are longer than 64 KiB");
    } else if (!s->input_ignored && listens(s) && strlen((const char *)n.base) == n.len)
        h->handlers->on_header(s->user, (const char *)n.base, (const char *)v.base, v.len);
    return go_on(h);
}

/* Reads what `s` got of messages. */
static void stream_feed(H2Stream *s, const uint8_t *data, size_t n) {
    H2 *h = s->h2;

    while (n > 0 && !s->input_ignored && listens(s)) {
        size_t before = s->reader.body.len;
        int r;

        if (s->request_complete) {
            bad_input(s, GRPC_UNIMPLEMENTED, "the request has more than one message");
            return;
        }
        r = grpc_reader_push(&s->reader, &data, &n);
        h->held_bytes += s->reader.body.len - before;
        if (r == -E2BIG)
            bad_input(s, GRPC_RESOURCE_EXHAUSTED, "the message is longer than 16 MiB");
        else if (h->held_bytes > HELD_BYTES)
            bad_input(s, GRPC_RESOURCE_EXHAUSTED,
                      "the messages that wait on this connection are longer than 64 MiB");
        else if (r == -ENOTSUP)
            bad_input(s, GRPC_UNIMPLEMENTED,
                      "the message is compressed and compression is not supported; send it plain");
        else if (r < 0)
            bad_input(s, GRPC_INTERNAL, "the framing of the message is broken");
        else if (r > 0 && h->server)
            s->request_complete = true; /* handed over when the peer has ended its side */
        else if (r > 0) {
            Buf *body = &s->reader.body;

            h->held_bytes -= body->len;
            h->handlers->on_message(s->user, body->data, body->len);
            if (h->dead)
                return;
            grpc_reader_next(&s->reader);
        }
    }
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                   size_t n, void *userdata) {
    H2 *h = userdata;
    H2Stream *s = nghttp2_session_get_stream_user_data(session, id);

    (void)flags;
    if (s && !h->dead)
        stream_feed(s, data, n);
    return go_on(h);
}

/* The peer has ended its side of the stream. */
static void stream_input_end(H2Stream *s) {
    H2 *h = s->h2;
    Buf *body = &s->reader.body;

    if (s->input_ignored || !listens(s))
        return;
    if (h->server && s->request_complete) {
        Buf message = *body;

        /* The handler may end the stream, and the connection. */
        h->held_bytes -= message.len;
        *body = BUF_INIT(message.max);
        h->handlers->on_message(s->user, message.data, message.len);
        buf_done(&message);
    } else if (h->server && grpc_reader_is_empty(&s->reader))
        bad_input(s, GRPC_UNIMPLEMENTED, "the request has no message");
    else if (h->server)
        bad_input(s, GRPC_INTERNAL, "the request ended before its message did");
    else if (!grpc_reader_is_empty(&s->reader))
        bad_input(s, GRPC_INTERNAL, "the answer ended in the middle of a message");
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *userdata) {
    H2 *h = userdata;
    H2Stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    bool carries = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;

    if (h->dead)
        return go_on(h);
    if (frame->hd.type == NGHTTP2_RST_STREAM && h->server)
        h2_count_reset(h);
    else if (frame->hd.type == NGHTTP2_GOAWAY)
        h->goaway_received = true;
    else if (frame->hd.type == NGHTTP2_HEADERS && h->server && listens(s) && !s->input_ignored)
        h->handlers->on_headers(s->user);
    if (h->dead)
        return go_on(h);
    if (carries && s && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        stream_input_end(s);
    return go_on(h);
}

/* Did the peer's fault make us reset a stream? */
static bool provoked(uint32_t h2_error) {
    return h2_error != NGHTTP2_NO_ERROR && h2_error != NGHTTP2_CANCEL &&
           h2_error != NGHTTP2_REFUSED_STREAM;
}

static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *userdata) {
    H2 *h = userdata;

    if (!h->server)
        return 0;
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        if (provoked(frame->rst_stream.error_code))
            h2_count_reset(h);
    } else if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
               nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id) == 0)
        /* RFC 9113 section 8.1: the answer is complete, the rest of the request is not wanted. */
        (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                        NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t h2_error,
                           void *userdata) {
    H2 *h = userdata;
    H2Stream *s = nghttp2_session_get_stream_user_data(session, id);

    if (s)
        h2_stream_close(s, h2_error);
    return go_on(h);
}

void h2_set_callbacks(nghttp2_session_callbacks *callbacks) {
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}
