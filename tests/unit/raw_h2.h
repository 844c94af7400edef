/* SPDX-License-Identifier: Apache-2.0 */
/* raw_h2: a peer that writes HTTP/2 frames by hand to a gRPC server on a socketpair, and reads what
 * comes back. */
#pragma once

#include "base/buf.h"
#include "proto/grpc_server.h"
#include "tests/unit/test.h"

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>

#define RAW_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

enum {
    RAW_DATA = 0,
    RAW_HEADERS = 1,
    RAW_RST = 3,
    RAW_SETTINGS = 4,
    RAW_PING = 6,
    RAW_GOAWAY = 7,
    RAW_WINDOW = 8,
    RAW_CONTINUATION = 9
};
enum { RAW_END_STREAM = 1, RAW_ACK = 1, RAW_END_HEADERS = 4 };

typedef struct Raw {
    sd_event *event;
    GrpcServer *server;
    int fd;
    Buf in; /* frames not looked at yet */
    nghttp2_hd_inflater *inflater;
    bool closed;
    /* Of the last raw_run(), for all streams. */
    int status;         /* :status */
    int grpc_status;    /* -1: none */
    char message[8192]; /* grpc-message */
    size_t data_bytes, n_end_streams, n_pings, n_settings_acks;
    uint8_t data[64];        /* the first bytes of DATA */
    long long reset, goaway; /* -1: none */
} Raw;

static inline void raw_write(Raw *r, const void *data, size_t n) {
    const uint8_t *p = data;

    for (int turns = 0; n > 0 && turns < 10000; turns++) {
        ssize_t k = send(r->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (k > 0) {
            p += k;
            n -= (size_t)k;
        } else if (errno != EAGAIN)
            return; /* the server closed; the test will see it */
        else
            (void)sd_event_run(r->event, 1000);
    }
}

static inline void raw_frame(Raw *r, int type, int flags, uint32_t id, const void *payload,
                             size_t n) {
    uint8_t head[9] = { (uint8_t)(n >> 16),  (uint8_t)(n >> 8),  (uint8_t)n,
                        (uint8_t)type,       (uint8_t)flags,     (uint8_t)(id >> 24),
                        (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id };

    raw_write(r, head, sizeof(head));
    raw_write(r, payload, n);
}

/* "name: value" lines, HPACK literals without indexing; returns the bytes. */
static inline size_t raw_hpack(uint8_t *to, const char *const *names_and_values) {
    size_t n = 0;

    for (size_t i = 0; names_and_values[i]; i += 2) {
        to[n++] = 0;
        for (size_t k = 0; k < 2; k++) {
            size_t length = strlen(names_and_values[i + k]);

            ASSERT_TRUE(length < 127);
            to[n++] = (uint8_t)length;
            memcpy(to + n, names_and_values[i + k], length);
            n += length;
        }
    }
    return n;
}

static inline void raw_headers(Raw *r, int flags, uint32_t id,
                               const char *const *names_and_values) {
    uint8_t block[2048];
    size_t n = raw_hpack(block, names_and_values);

    raw_frame(r, RAW_HEADERS, flags | RAW_END_HEADERS, id, block, n);
}

static inline void raw_request(Raw *r, int flags, uint32_t id, const char *path) {
    raw_headers(r, flags, id,
                (const char *const[]){ ":method", "POST", ":scheme", "http", ":path", path,
                                       "content-type", "application/grpc", NULL });
}

/* One whole message in one frame that ends the stream. */
static inline void raw_message(Raw *r, uint32_t id, const char *text) {
    uint8_t payload[256] = { 0 };
    size_t n = strlen(text);

    payload[4] = (uint8_t)n;
    memcpy(payload + 5, text, n);
    raw_frame(r, RAW_DATA, RAW_END_STREAM, id, payload, n + 5);
}

static inline void raw_read_headers(Raw *r, const uint8_t *p, size_t n) {
    for (;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t k = nghttp2_hd_inflate_hd2(r->inflater, &nv, &flags, p, n, 1);

        ASSERT_OK(k);
        p += k;
        n -= (size_t)k;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            if (streq((char *)nv.name, ":status"))
                r->status = atoi((char *)nv.value);
            else if (streq((char *)nv.name, "grpc-status"))
                r->grpc_status = atoi((char *)nv.value);
            else if (streq((char *)nv.name, "grpc-message"))
                (void)snprintf(r->message, sizeof(r->message), "%s", (char *)nv.value);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL)
            break;
    }
    (void)nghttp2_hd_inflate_end_headers(r->inflater);
}

static inline uint32_t raw_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void raw_read_frame(Raw *r, const uint8_t *p, size_t n) {
    const uint8_t *payload = p + 9;

    if ((p[3] == RAW_DATA || p[3] == RAW_HEADERS) && (p[4] & RAW_END_STREAM))
        r->n_end_streams++;
    if (p[3] == RAW_HEADERS)
        raw_read_headers(r, payload, n);
    else if (p[3] == RAW_DATA) {
        if (r->data_bytes < sizeof(r->data))
            memcpy(r->data + r->data_bytes, payload, MIN(n, sizeof(r->data) - r->data_bytes));
        r->data_bytes += n;
    } else if (p[3] == RAW_RST)
        r->reset = raw_u32(payload);
    else if (p[3] == RAW_GOAWAY)
        r->goaway = raw_u32(payload + 4);
    else if (p[3] == RAW_PING && (p[4] & RAW_ACK))
        r->n_pings++;
    else if (p[3] == RAW_SETTINGS && (p[4] & RAW_ACK))
        r->n_settings_acks++;
}

/* Runs the loop until nothing happens for `idle_msec`, and reads what the server sent. */
static inline void raw_run_for(Raw *r, uint64_t idle_msec) {
    bool quiet = false;

    r->status = 0;
    r->grpc_status = -1;
    r->message[0] = '\0';
    r->data_bytes = r->n_end_streams = r->n_pings = r->n_settings_acks = 0;
    r->reset = r->goaway = -1;
    while (!quiet) {
        uint8_t *to;
        ssize_t n;

        quiet = sd_event_run(r->event, idle_msec * USEC_PER_MSEC) <= 0;
        ASSERT_OK(buf_reserve(&r->in, 65536, &to));
        n = recv(r->fd, to, 65536, MSG_DONTWAIT);
        r->closed = r->closed || n == 0 || (n < 0 && errno != EAGAIN);
        if (n > 0) {
            r->in.len += (size_t)n;
            quiet = false;
        }
        while (r->in.len >= 9) {
            size_t length = raw_u32(r->in.data) >> 8;

            if (r->in.len < 9 + length)
                break;
            raw_read_frame(r, r->in.data, length);
            buf_consume(&r->in, 9 + length);
        }
    }
}

static inline void raw_run(Raw *r) {
    raw_run_for(r, 5);
}

/* A server with `methods` and a connection to it, preface and SETTINGS exchanged. */
static inline void raw_start(Raw *r, const GrpcMethod *methods) {
    int fds[2];

    *r = (Raw){ .in = BUF_INIT(MiB(32)), .fd = -EBADF };
    ASSERT_OK(sd_event_new(&r->event));
    ASSERT_OK(grpc_server_new(
        &r->server, &(GrpcServerOptions){ .event = r->event, .name = "test", .methods = methods },
        NULL));
    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds));
    ASSERT_OK(grpc_server_adopt(r->server, fds[0], NULL));
    r->fd = fds[1];
    ASSERT_OK(nghttp2_hd_inflate_new(&r->inflater));
    raw_write(r, RAW_PREFACE, strlen(RAW_PREFACE));
    raw_frame(r, RAW_SETTINGS, 0, 0, NULL, 0);
    raw_frame(r, RAW_SETTINGS, RAW_ACK, 0, NULL, 0);
    raw_run(r);
}

static inline void raw_stop(Raw *r) {
    grpc_server_free(r->server);
    safe_close(r->fd);
    nghttp2_hd_inflate_del(r->inflater);
    buf_done(&r->in);
    sd_event_unref(r->event);
}
