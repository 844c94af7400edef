/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of proto/h2.h by raw frames: pings, floods, limits, half-closed and vanished peers. */
#include "base/limits.h"
#include "tests/unit/raw_h2.h"

static void handle_echo(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)arg;
    grpc_call_finish(call, request, n);
}

static void on_cancel(GrpcCall *call, void *arg) {
    (void)call;
    (*(int *)arg)++;
}

static void handle_hang(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n;
    grpc_call_set_on_cancel(call, on_cancel, arg);
}

static int n_cancelled; /* of handle_hang; reset by each test */

static const GrpcMethod methods[] = {
    { "/t/Echo", false, handle_echo, NULL },
    { "/t/Hang", false, handle_hang, &n_cancelled },
    { NULL, false, NULL, NULL },
};

TEST(h2_answers_settings_and_pings) {
    Raw r;

    raw_start(&r, methods);
    ASSERT_EQ(r.n_settings_acks, 1);
    for (int i = 0; i < 100; i++)
        raw_frame(&r, RAW_PING, 0, 0, "12345678", 8);
    raw_run(&r);
    ASSERT_EQ(r.n_pings, 100);
    ASSERT_TRUE(!r.closed);
    raw_stop(&r);
}

TEST(h2_closes_on_what_is_not_http2) {
    static const char *const inputs[] = { "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                                          "PRI * HTTP/2.0\r\n\r\nXX",
                                          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" };

    for (size_t i = 0; i < ELEMENTSOF(inputs); i++) {
        int fds[2];
        Raw r;

        raw_start(&r, methods);
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds));
        ASSERT_OK(grpc_server_adopt(r.server, fds[0], NULL));
        safe_close(r.fd);
        r.fd = fds[1];
        raw_write(&r, inputs[i], strlen(inputs[i]) + 1);
        raw_run(&r);
        ASSERT_TRUE(r.closed);
        raw_stop(&r);
    }
}

TEST(h2_a_ping_flood_that_reads_no_answers_is_not_buffered) {
    bool stopped = false;
    Raw r;

    raw_start(&r, methods);
    for (int i = 0; i < 200000 && !stopped; i++) {
        uint8_t frame[17] = { 0, 0, 8, RAW_PING };
        ssize_t n = send(r.fd, frame, sizeof(frame), MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN)
            stopped = sd_event_run(r.event, 1000) <= 0; /* it reads no more */
        else if (n < 0)
            stopped = true; /* it closed */
    }
    ASSERT_TRUE(stopped);
    raw_stop(&r);
}

TEST(h2_rapid_reset_ends_the_connection) {
    uint8_t cancel[4] = { 0, 0, 0, 8 };
    Raw r;

    n_cancelled = 0;
    raw_start(&r, methods);
    for (uint32_t i = 0; i < 2000; i++) {
        raw_request(&r, 0, 2 * i + 1, "/t/Hang");
        raw_message(&r, 2 * i + 1, "x");
        raw_frame(&r, RAW_RST, 0, 2 * i + 1, cancel, 4);
    }
    raw_run(&r);
    ASSERT_TRUE(r.closed);
    ASSERT_EQ(r.goaway, NGHTTP2_ENHANCE_YOUR_CALM);
    ASSERT_TRUE(n_cancelled >= 200 && n_cancelled < 600);
    raw_stop(&r);
}

TEST(h2_provoked_resets_end_the_connection_too) {
    uint8_t zero[4] = { 0 };
    Raw r;

    n_cancelled = 0;
    raw_start(&r, methods);
    for (uint32_t i = 0; i < 2000; i++) {
        raw_request(&r, 0, 2 * i + 1, "/t/Hang");
        raw_message(&r, 2 * i + 1, "x");
        raw_frame(&r, RAW_WINDOW, 0, 2 * i + 1, zero, 4); /* a stream error: the server resets */
    }
    raw_run(&r);
    ASSERT_TRUE(r.closed);
    ASSERT_TRUE(n_cancelled < 2000);
    raw_stop(&r);
}

TEST(h2_continuation_flood_ends_the_connection) {
    uint8_t block[64];
    Raw r;
    size_t n = raw_hpack(block, (const char *const[]){ "x", "y", NULL });

    raw_start(&r, methods);
    raw_frame(&r, RAW_HEADERS, 0, 1, block, n);
    for (int i = 0; i < 10000; i++)
        raw_frame(&r, RAW_CONTINUATION, 0, 1, block, n);
    raw_run(&r);
    ASSERT_TRUE(r.closed);
    raw_stop(&r);
}

TEST(h2_long_headers_are_refused) {
    static char value[120];
    const char *pairs[600];
    static uint8_t block[100000];
    size_t n_pairs = 0, n, sent = 0;
    Raw r;

    memset(value, 'v', sizeof(value) - 1);
    pairs[n_pairs++] = ":method", pairs[n_pairs++] = "POST";
    pairs[n_pairs++] = ":path", pairs[n_pairs++] = "/t/Echo";
    while (n_pairs < 598)
        pairs[n_pairs++] = value, pairs[n_pairs++] = value;
    pairs[n_pairs] = NULL;
    n = raw_hpack(block, pairs);
    ASSERT_TRUE(n > LIMIT_GRPC_HEADER_BYTES);
    raw_start(&r, methods);
    for (int type = RAW_HEADERS; sent < n; type = RAW_CONTINUATION) {
        size_t k = MIN(n - sent, (size_t)16384);

        raw_frame(&r, type, sent + k == n ? RAW_END_HEADERS : 0, 1, block + sent, k);
        sent += k;
    }
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_RESOURCE_EXHAUSTED);
    ASSERT_TRUE(!r.closed);
    raw_request(&r, 0, 3, "/t/Echo"); /* the connection goes on */
    raw_message(&r, 3, "hi");
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_OK);
    raw_stop(&r);
}

TEST(h2_an_hpack_bomb_ends_the_connection) {
    static uint8_t block[16384];
    size_t n = 0;
    Raw r;

    raw_start(&r, methods);
    block[n++] = 0x40; /* a literal of 3900 bytes into the dynamic table … */
    block[n++] = 1;
    block[n++] = 'x';
    block[n++] = 0x7f;
    block[n++] = 0xbd;
    block[n++] = 0x1d;
    memset(block + n, 'v', 127 + 0x3d + (0x1d << 7));
    n += 127 + 0x3d + (0x1d << 7);
    while (n < sizeof(block))
        block[n++] = 0x80 | 62; /* … and then each byte is that header again */
    raw_frame(&r, RAW_HEADERS, RAW_END_HEADERS, 1, block, n);
    raw_run(&r);
    ASSERT_TRUE(r.closed);
    raw_stop(&r);
}

TEST(h2_streams_beyond_the_limit_end_the_connection) {
    Raw r;

    n_cancelled = 0;
    raw_start(&r, methods);
    for (uint32_t i = 0; i < LIMIT_GRPC_STREAMS; i++) {
        raw_request(&r, 0, 2 * i + 1, "/t/Hang");
        raw_message(&r, 2 * i + 1, "x");
    }
    raw_run(&r);
    ASSERT_EQ(r.reset, -1);
    raw_request(&r, 0, 2 * LIMIT_GRPC_STREAMS + 1, "/t/Hang");
    raw_run(&r);
    /* The peer has acknowledged the limit: RFC 9113 section 5.1.2 lets us end the connection. */
    ASSERT_EQ(r.goaway, NGHTTP2_PROTOCOL_ERROR);
    ASSERT_TRUE(r.closed);
    ASSERT_EQ(n_cancelled, LIMIT_GRPC_STREAMS);
    raw_stop(&r);
}

TEST(h2_refuses_streams_of_a_peer_that_does_not_know_the_limit) {
    int fds[2];
    Raw r;

    n_cancelled = 0;
    raw_start(&r, methods);
    safe_close(r.fd);
    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds));
    ASSERT_OK(grpc_server_adopt(r.server, fds[0], NULL));
    r.fd = fds[1];
    raw_write(&r, RAW_PREFACE, strlen(RAW_PREFACE));
    raw_frame(&r, RAW_SETTINGS, 0, 0, NULL, 0);
    for (uint32_t i = 0; i < 3 * LIMIT_GRPC_STREAMS; i++) { /* and no ACK of the server's */
        raw_request(&r, 0, 2 * i + 1, "/t/Hang");
        if (i < LIMIT_GRPC_STREAMS)
            raw_message(&r, 2 * i + 1, "x");
    }
    raw_run(&r);
    ASSERT_EQ(r.reset, NGHTTP2_REFUSED_STREAM);
    ASSERT_TRUE(!r.closed);
    raw_stop(&r);
    ASSERT_EQ(n_cancelled, LIMIT_GRPC_STREAMS);
}

TEST(h2_a_half_closed_peer_gets_its_answer) {
    Raw r;

    raw_start(&r, methods);
    raw_request(&r, 0, 1, "/t/Echo");
    raw_message(&r, 1, "hi");
    ASSERT_OK(shutdown(r.fd, SHUT_WR));
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_OK);
    ASSERT_MEMEQ(r.data, "\0\0\0\0\2hi", 7);
    ASSERT_TRUE(r.closed);
    raw_stop(&r);
}

TEST(h2_a_half_closed_peer_with_half_a_request_is_not_waited_for) {
    Raw r;

    raw_start(&r, methods);
    raw_request(&r, 0, 1, "/t/Echo");
    raw_frame(&r, RAW_DATA, 0, 1, "\0\0\0\0", 4);
    ASSERT_OK(shutdown(r.fd, SHUT_WR));
    raw_run(&r);
    ASSERT_TRUE(r.closed);
    raw_stop(&r);
}

TEST(h2_a_peer_that_vanishes_cancels_its_calls) {
    Raw r;

    n_cancelled = 0;
    raw_start(&r, methods);
    for (uint32_t i = 0; i < 3; i++) {
        raw_request(&r, 0, 2 * i + 1, "/t/Hang");
        raw_message(&r, 2 * i + 1, "x");
    }
    raw_run(&r);
    ASSERT_EQ(n_cancelled, 0);
    r.fd = safe_close(r.fd);
    for (int i = 0; i < 10; i++)
        ASSERT_OK(sd_event_run(r.event, 1000));
    ASSERT_EQ(n_cancelled, 3);
    raw_stop(&r);
    ASSERT_EQ(n_cancelled, 3);
}

TEST(h2_keeps_incomplete_messages_of_one_connection_below_a_limit) {
    static uint8_t payload[16384];
    bool refused = false;
    Raw r;

    raw_start(&r, methods);
    for (uint32_t stream = 0; stream < 6 && !refused; stream++) {
        uint32_t id = 2 * stream + 1;

        raw_request(&r, 0, id, "/t/Echo");
        raw_frame(&r, RAW_DATA, 0, id, "\0\1\0\0\0", 5); /* 16 MiB are promised, all but one sent */
        for (int i = 0; i < 1023 && !refused; i++) {
            raw_frame(&r, RAW_DATA, 0, id, payload, sizeof(payload));
            if (i % 32 == 31) {
                raw_run_for(&r, 0);
                refused = r.grpc_status == GRPC_RESOURCE_EXHAUSTED;
            }
        }
        ASSERT_TRUE(!refused || stream >= 4);
    }
    ASSERT_TRUE(refused);
    raw_stop(&r);
}
