/* SPDX-License-Identifier: Apache-2.0 */
/* h2_stream: one stream of a connection: what waits to be sent, and how it ends. */
#include "base/limits.h"
#include "proto/h2_internal.h"

#define HEADER(n, v)                                               \
    (nghttp2_nv) {                                                 \
        .name = (uint8_t *)(uintptr_t)(n), .namelen = strlen(n),   \
        .value = (uint8_t *)(uintptr_t)(v), .valuelen = strlen(v), \
        .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME                      \
    }

enum { STATUS_BYTES = 12 };

H2Stream *h2_stream_new(H2 *h, void *user) {
    H2Stream *s = xnew(H2Stream);

    *s = (H2Stream){
        .h2 = h,
        .user = user,
        .next = h->streams,
        .reader = GRPC_READER_INIT(LIMIT_GRPC_MESSAGE_BYTES),
    };
    if (s->next)
        s->next->prev = s;
    h->streams = s;
    return s;
}

/* Drops the blocks from `*first` on. */
static void blocks_free(H2Stream *s, H2Block **first) {
    while (*first) {
        H2Block *block = *first;

        *first = block->next;
        s->queued -= block->n;
        free(block);
    }
}

H2Stream *h2_stream_free(H2Stream *s) {
    if (!s)
        return NULL;
    if (s->prev)
        s->prev->next = s->next;
    else
        s->h2->streams = s->next;
    if (s->next)
        s->next->prev = s->prev;
    blocks_free(s, &s->first);
    s->h2->held_bytes -= s->reader.body.len;
    grpc_reader_done(&s->reader);
    free(s->text);
    free(s);
    return NULL;
}

void h2_stream_close(H2Stream *s, uint32_t h2_error) {
    H2 *h = s->h2;
    void *user = TAKE_PTR(s->user);

    (void)nghttp2_session_set_stream_user_data(h->session, s->id, NULL); /* may be gone already */
    h2_stream_free(s);
    if (user && !h->dead)
        h->handlers->on_close(user, h2_error);
}

void h2_stream_reset(H2Stream *s, uint32_t h2_error) {
    s->user = NULL;
    s->input_ignored = true;
    blocks_free(s, &s->first);
    s->sent = 0;
    /* Without memory the stream stays until the connection ends. */
    (void)nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, h2_error);
    h2_kick(s->h2);
}

void h2_streams_end_input(H2 *h) {
    for (H2Stream *s = h->streams; s; s = s->next)
        if (!s->request_complete)
            (void)nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
}

/* Queues `n` bytes with their prefix. */
static int stream_queue(H2Stream *s, const void *message, size_t n) {
    H2Block *block = malloc(sizeof(H2Block) + GRPC_PREFIX_BYTES + n);

    if (!block)
        return -ENOMEM;
    block->next = NULL;
    block->n = GRPC_PREFIX_BYTES + n;
    grpc_prefix_write(block->data, n);
    if (n > 0)
        memcpy(block->data + GRPC_PREFIX_BYTES, message, n);
    if (s->first)
        s->last->next = block;
    else
        s->first = block;
    s->last = block;
    s->queued += block->n;
    return 0;
}

size_t h2_stream_queued(const H2Stream *s) {
    return s->queued - s->sent;
}

bool h2_stream_drop_output(H2Stream *s) {
    if (s->sent > 0)
        return false;
    blocks_free(s, &s->first);
    return true;
}

/* Fills `nv` with grpc-status and perhaps grpc-message; returns how many. */
static size_t status_headers(const H2Stream *s, char status[static STATUS_BYTES],
                             nghttp2_nv nv[static 2]) {
    (void)snprintf(status, STATUS_BYTES, "%u", (unsigned)s->code);
    nv[0] = HEADER("grpc-status", status);
    if (!s->text)
        return 1;
    nv[1] = HEADER("grpc-message", s->text);
    return 2;
}

/* After the last byte of a response. */
static int submit_trailers(H2Stream *s) {
    char status[STATUS_BYTES];
    nghttp2_nv nv[2];
    size_t n = status_headers(s, status, nv);

    return nghttp2_submit_trailer(s->h2->session, s->id, nv, n);
}

/* Copies up to `length` queued bytes. */
static size_t stream_take(H2Stream *s, uint8_t *to, size_t length) {
    size_t n = 0;

    while (n < length && s->first) {
        size_t k = MIN(length - n, s->first->n - s->sent);

        memcpy(to + n, s->first->data + s->sent, k);
        n += k;
        s->sent += k;
        if (s->sent == s->first->n) {
            H2Block *block = s->first;

            s->first = block->next;
            s->queued -= block->n;
            s->sent = 0;
            free(block);
        }
    }
    return n;
}

static SIGNATURE_OF(nghttp2_data_source_read_callback) on_read;

/* The payload of the next DATA frame. */
static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length,
                       uint32_t *flags, nghttp2_data_source *source, void *userdata) {
    H2Stream *s = source->ptr;
    size_t n;

    (void)session, (void)id, (void)userdata;
    n = stream_take(s, buf, length);
    if (s->first || !s->finished) {
        s->deferred = n == 0;
        return n > 0 ? (ssize_t)n : NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (s->h2->server) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (submit_trailers(s) != 0)
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets the stream */
    }
    return (ssize_t)n;
}

/* There is something new for on_read(). */
static void stream_resume(H2Stream *s) {
    if (s->deferred) {
        s->deferred = false;
        /* Fails only for a stream that is closing. */
        (void)nghttp2_session_resume_data(s->h2->session, s->id);
    }
    h2_kick(s->h2);
}

/* Submits the response headers; DATA and trailers follow as they come. */
static void stream_start(H2Stream *s) {
    nghttp2_nv nv[] = {
        HEADER(":status", "200"),
        HEADER("content-type", "application/grpc"),
    };
    nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_read };

    s->started = true;
    if (nghttp2_submit_response(s->h2->session, s->id, nv, ELEMENTSOF(nv), &provider) != 0)
        (void)nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id,
                                        NGHTTP2_INTERNAL_ERROR);
}

int h2_stream_write(H2Stream *s, const void *message, size_t n) {
    int r = stream_queue(s, message, n);

    if (r < 0)
        return r;
    if (!s->started)
        stream_start(s);
    stream_resume(s);
    return 0;
}

/* One HEADERS frame that ends the stream. */
static void stream_end_at_once(H2Stream *s, const nghttp2_nv *nv, size_t n) {
    s->started = true;
    s->finished = true;
    if (nghttp2_submit_response(s->h2->session, s->id, nv, n, NULL) != 0)
        (void)nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id,
                                        NGHTTP2_INTERNAL_ERROR);
    h2_kick(s->h2);
}

void h2_stream_finish(H2Stream *s, GrpcCode code, const char *text) {
    char status[STATUS_BYTES];
    nghttp2_nv nv[4];

    assert(!s->finished);
    s->input_ignored = true;
    s->code = code;
    s->text = isempty(text) ? NULL : grpc_message_encode(text);
    if (!s->started && code != GRPC_OK) {
        nv[0] = HEADER(":status", "200");
        nv[1] = HEADER("content-type", "application/grpc");
        stream_end_at_once(s, nv, 2 + status_headers(s, status, nv + 2));
        return;
    }
    s->finished = true;
    if (!s->started)
        stream_start(s);
    stream_resume(s);
}

void h2_stream_refuse(H2Stream *s, const char *http_status) {
    nghttp2_nv nv = HEADER(":status", http_status);

    assert(!s->started);
    s->input_ignored = true;
    stream_end_at_once(s, &nv, 1);
}

int h2_stream_open(H2 *h, H2Stream **ret, const H2Request *request) {
    char timeout[GRPC_TIMEOUT_MAX];
    nghttp2_nv nv[] = {
        HEADER(":method", "POST"),
        HEADER(":scheme", "http"),
        HEADER(":path", request->path),
        HEADER(":authority", "localhost"),
        HEADER("te", "trailers"),
        HEADER("content-type", "application/grpc"),
        HEADER("user-agent", "modelcached"),
        HEADER("grpc-timeout", grpc_timeout_format(timeout, request->timeout_usec)),
    };
    size_t n = ELEMENTSOF(nv) - (request->timeout_usec == 0);
    nghttp2_data_provider provider = { .read_callback = on_read };
    H2Stream *s;

    if (!h2_is_open(h))
        return -ECONNRESET;
    s = h2_stream_new(h, request->user);
    s->finished = true;
    provider.source.ptr = s;
    if (stream_queue(s, request->message, request->n) >= 0)
        s->id = nghttp2_submit_request(h->session, NULL, nv, n, &provider, s);
    if (s->id <= 0) {
        h2_stream_free(s);
        return -ENOMEM;
    }
    h2_kick(h);
    *ret = s;
    return 0;
}
