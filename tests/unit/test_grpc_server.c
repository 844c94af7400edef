/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of proto/grpc_server.h by raw frames: what a request may be, how a call ends, listening,
 * shutdown. */
#include "tests/unit/raw_h2.h"

#include "base/limits.h"
#include "proto/unix_socket.h"

#include <sys/resource.h>
#include <sys/stat.h>

/* What the methods below saw and keep; reset by start(). */
static struct {
    GrpcCall *call; /* of Keep and Stream, as long as it runs */
    int n_handled, n_cancelled;
    uint64_t deadline_usec;
    uid_t uid;
    pid_t pid;
    bool done; /* grpc_server_shutdown() */
} seen;

static void on_cancel(GrpcCall *call, void *arg) {
    ASSERT_TRUE(call == seen.call && arg == &seen);
    seen.call = NULL;
    seen.n_cancelled++;
}

static void handle_echo(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)arg;
    seen.n_handled++;
    grpc_call_peer(call, &seen.uid, &seen.pid);
    grpc_call_finish(call, request, n);
}

static void handle_fail(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n, (void)arg;
    grpc_call_fail(call, GRPC_NOT_FOUND, "kein Gerät 100%");
}

static void handle_keep(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n, (void)arg;
    seen.call = call;
    seen.deadline_usec = grpc_call_deadline_usec(call);
    grpc_call_set_on_cancel(call, on_cancel, &seen);
}

static void handle_too_big(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    _cleanup_free_ char *big = xcalloc(LIMIT_GRPC_MESSAGE_BYTES + 1, 1);

    (void)request, (void)n, (void)arg;
    grpc_call_finish(call, big, LIMIT_GRPC_MESSAGE_BYTES + 1);
}

static void handle_free_server(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    Raw *r = *(Raw **)arg;

    (void)request, (void)n;
    grpc_call_finish(call, NULL, 0);
    r->server = grpc_server_free(r->server);
}

static Raw *freed_by_handler;

static const GrpcMethod methods[] = {
    { "/t.S/Echo", false, handle_echo, NULL },
    { "/t.S/Fail", false, handle_fail, NULL },
    { "/t.S/Keep", false, handle_keep, NULL },
    { "/t.S/Stream", true, handle_keep, NULL },
    { "/t.S/TooBig", false, handle_too_big, NULL },
    { "/t.S/Free", false, handle_free_server, &freed_by_handler },
    { NULL, false, NULL, NULL },
};

static void start(Raw *r) {
    memset(&seen, 0, sizeof(seen));
    raw_start(r, methods);
}

/* A server with the methods above and a connection to it, as long as the block lasts. */
#define RAW(r)                         \
    _cleanup_(raw_stop) Raw r = { 0 }; \
    start(&r)

TEST(grpc_server_judges_headers) {
    static const struct {
        const char *const headers[14];
        int status, grpc_status;
        const char *message;
    } cases[] = {
        { { ":method", "POST", ":path", "/t.S/Echo", "content-type", "application/grpc", NULL },
          200,
          0,
          "" },
        { { ":method", "POST", ":path", "/t.S/Echo", "content-type", "application/grpc+proto", "te",
            "trailers", ":authority", "/var/lib/x.sock", NULL },
          200,
          0,
          "" },
        { { ":method", "POST", ":path", "/t.S/Echo", "content-type", "application/grpc;x=y",
            "grpc-timeout", "5S", NULL },
          200,
          0,
          "" },
        { { ":method", "GET", ":path", "/t.S/Echo", "content-type", "application/grpc", NULL },
          405,
          -1,
          "" },
        { { ":path", "/t.S/Echo", "content-type", "application/grpc", NULL }, 405, -1, "" },
        { { ":method", "POST", ":path", "/t.S/Echo", "content-type", "text/html", NULL },
          415,
          -1,
          "" },
        { { ":method", "POST", ":path", "/t.S/Echo", "content-type", "application/grpc-web", NULL },
          415,
          -1,
          "" },
        { { ":method", "POST", ":path", "/t.S/Echo", NULL }, 415, -1, "" },
        { { ":method", "POST", ":path", "/t.S/Nope", "content-type", "application/grpc", NULL },
          200,
          GRPC_UNIMPLEMENTED,
          "this server has no method /t.S/Nope" },
        { { ":method", "POST", ":path", "/t.S/Ech", "content-type", "application/grpc", NULL },
          200,
          GRPC_UNIMPLEMENTED,
          "this server has no method /t.S/Ech" },
        { { ":method", "POST", "content-type", "application/grpc", NULL },
          200,
          GRPC_UNIMPLEMENTED,
          "this server has no method%20" },
        { { ":method", "POST", ":path", "/t.S/Echo", "content-type", "application/grpc",
            "grpc-timeout", "5s", NULL },
          200,
          GRPC_INTERNAL,
          "the header grpc-timeout is malformed" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        RAW(r);

        raw_headers(&r, 0, 1, cases[i].headers);
        raw_message(&r, 1, "hi");
        raw_run(&r);
        ASSERT_EQ(r.status, cases[i].status);
        ASSERT_EQ(r.grpc_status, cases[i].grpc_status);
        ASSERT_STREQ(r.message, cases[i].message);
        ASSERT_EQ(r.n_end_streams, 1);
        ASSERT_EQ(seen.n_handled, cases[i].grpc_status == 0);
        raw_request(&r, 0, 3, "/t.S/Echo"); /* and the connection goes on */
        raw_message(&r, 3, "hi");
        raw_run(&r);
        ASSERT_EQ(r.grpc_status, 0);
        ASSERT_MEMEQ(r.data, "\0\0\0\0\2hi", 7);
    }
}

TEST(grpc_server_judges_messages) {
    static const struct {
        const char *bytes;
        size_t n;
        int grpc_status;
    } cases[] = {
        { "\0\0\0\0\0", 5, GRPC_OK },
        { "\0\0\0\0\1x", 6, GRPC_OK },
        { "", 0, GRPC_UNIMPLEMENTED },
        { "\0\0", 2, GRPC_INTERNAL },
        { "\0\0\0\0\2x", 6, GRPC_INTERNAL },
        { "\0\0\0\0\1xy", 7, GRPC_UNIMPLEMENTED },
        { "\0\0\0\0\0\0\0\0\0\0", 10, GRPC_UNIMPLEMENTED },
        { "\1\0\0\0\1x", 6, GRPC_UNIMPLEMENTED },
        { "\2\0\0\0\1x", 6, GRPC_INTERNAL },
        { "\0\1\0\0\1x", 6, GRPC_RESOURCE_EXHAUSTED },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        RAW(r);

        raw_request(&r, 0, 1, "/t.S/Echo");
        for (size_t k = 0; k + 1 < cases[i].n; k++) /* a frame a byte */
            raw_frame(&r, RAW_DATA, 0, 1, cases[i].bytes + k, 1);
        raw_frame(&r, RAW_DATA, RAW_END_STREAM, 1,
                  cases[i].n > 0 ? cases[i].bytes + cases[i].n - 1 : NULL, cases[i].n > 0);
        raw_run(&r);
        ASSERT_EQ(r.grpc_status, cases[i].grpc_status);
        ASSERT_EQ(seen.n_handled, cases[i].grpc_status == GRPC_OK);
        ASSERT_TRUE(!r.closed);
    }
}

TEST(grpc_server_ends_without_waiting_for_the_rest_of_a_bad_request) {
    RAW(r);

    raw_request(&r, 0, 1, "/t.S/Nope");
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_UNIMPLEMENTED);
    ASSERT_EQ(r.reset, NGHTTP2_NO_ERROR);
    raw_request(&r, RAW_END_STREAM, 3, "/t.S/Echo");
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_UNIMPLEMENTED);
    ASSERT_EQ(r.reset, -1);
}

TEST(grpc_server_errors_are_trailers_only) {
    RAW(r);

    raw_request(&r, 0, 1, "/t.S/Fail");
    raw_message(&r, 1, "");
    raw_run(&r);
    ASSERT_EQ(r.status, 200);
    ASSERT_EQ(r.grpc_status, GRPC_NOT_FOUND);
    ASSERT_STREQ(r.message, "kein Ger%C3%A4t 100%25");
    ASSERT_EQ(r.data_bytes, 0);
}

TEST(grpc_server_knows_its_peer) {
    RAW(r);

    raw_request(&r, 0, 1, "/t.S/Echo");
    raw_message(&r, 1, "");
    raw_run(&r);
    ASSERT_EQ(seen.uid, getuid());
    ASSERT_EQ(seen.pid, getpid());
}

TEST(grpc_server_refuses_to_send_what_is_too_big) {
    RAW(r);

    raw_request(&r, 0, 1, "/t.S/TooBig");
    raw_message(&r, 1, "");
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_RESOURCE_EXHAUSTED);
    ASSERT_EQ(r.data_bytes, 0);
}

TEST(grpc_server_enforces_deadlines) {
    uint64_t before = now_usec();
    Raw r;

    start(&r);
    raw_headers(&r, 0, 1,
                (const char *const[]){ ":method", "POST", ":path", "/t.S/Keep", "content-type",
                                       "application/grpc", "grpc-timeout", "50m", NULL });
    raw_message(&r, 1, "");
    raw_run(&r);
    ASSERT_EQ(r.n_end_streams, 0);
    ASSERT_TRUE(seen.deadline_usec >= before + 50000 && seen.deadline_usec < before + 2000000);
    raw_run_for(&r, 300);
    ASSERT_EQ(r.grpc_status, GRPC_DEADLINE_EXCEEDED);
    ASSERT_EQ(seen.n_cancelled, 1);
    raw_stop(&r);
    ASSERT_EQ(seen.n_cancelled, 1);
}

TEST(grpc_server_deadlines_hold_for_a_request_that_does_not_come) {
    RAW(r);

    raw_headers(&r, 0, 1,
                (const char *const[]){ ":method", "POST", ":path", "/t.S/Echo", "content-type",
                                       "application/grpc", "grpc-timeout", "20m", NULL });
    raw_run_for(&r, 200);
    ASSERT_EQ(r.grpc_status, GRPC_DEADLINE_EXCEEDED);
    ASSERT_EQ(seen.n_handled, 0);
}

TEST(grpc_server_without_a_deadline_has_none) {
    Raw r;

    start(&r);
    raw_request(&r, 0, 1, "/t.S/Keep");
    raw_message(&r, 1, "");
    raw_run(&r);
    ASSERT_TRUE(seen.deadline_usec == UINT64_MAX);
    grpc_call_finish(seen.call, "later", 5);
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_OK);
    ASSERT_MEMEQ(r.data + 5, "later", 5);
    raw_stop(&r);
    ASSERT_EQ(seen.n_cancelled, 0);
}

TEST(grpc_server_hears_of_a_cancel) {
    uint8_t cancel[4] = { 0, 0, 0, NGHTTP2_CANCEL };
    RAW(r);

    raw_request(&r, 0, 1, "/t.S/Keep");
    raw_message(&r, 1, "");
    raw_run(&r);
    raw_frame(&r, RAW_RST, 0, 1, cancel, 4);
    raw_run(&r);
    ASSERT_EQ(seen.n_cancelled, 1);
}

TEST(grpc_server_reports_what_a_slow_reader_leaves) {
    static const char message[1000];
    size_t queued = 0;
    Raw r;

    start(&r); /* the raw peer gives no window beyond the first 65535 bytes */
    raw_request(&r, 0, 1, "/t.S/Stream");
    raw_message(&r, 1, "");
    raw_run(&r);
    for (int i = 0; i < 100; i++)
        queued = grpc_call_send(seen.call, message, sizeof(message));
    ASSERT_EQ(queued, 100 * 1005);
    raw_run(&r);
    ASSERT_EQ(r.data_bytes, 65535);
    ASSERT_EQ(grpc_call_queued(seen.call), 100 * 1005 - 65535);
    grpc_call_finish(seen.call, NULL, 0);
    raw_frame(&r, RAW_WINDOW, 0, 0, "\0\1\0\0", 4);
    raw_frame(&r, RAW_WINDOW, 0, 1, "\0\1\0\0", 4);
    raw_run(&r);
    ASSERT_EQ(r.data_bytes, 100 * 1005 - 65535);
    ASSERT_EQ(r.grpc_status, GRPC_OK);
    raw_stop(&r);
}

TEST(grpc_server_a_deadline_ends_what_nobody_reads) {
    static const char message[1000];
    RAW(r);

    raw_headers(&r, 0, 1,
                (const char *const[]){ ":method", "POST", ":path", "/t.S/Stream", "content-type",
                                       "application/grpc", "grpc-timeout", "50m", NULL });
    raw_message(&r, 1, "");
    raw_run(&r);
    for (int i = 0; i < 100; i++)
        (void)grpc_call_send(seen.call, message, sizeof(message));
    grpc_call_finish(seen.call, NULL, 0);
    raw_run_for(&r, 300);
    ASSERT_EQ(r.reset, NGHTTP2_CANCEL);
    ASSERT_EQ(seen.n_cancelled, 0); /* the method had ended it */
}

static void on_done(void *arg) {
    *(bool *)arg = true;
}

TEST(grpc_server_shutdown_lets_running_calls_end) {
    RAW(r);

    raw_request(&r, 0, 1, "/t.S/Keep");
    raw_message(&r, 1, "");
    raw_run(&r);
    grpc_server_shutdown(r.server, 10 * USEC_PER_SEC, on_done, &seen.done);
    raw_run(&r);
    ASSERT_EQ(r.goaway, NGHTTP2_NO_ERROR);
    ASSERT_TRUE(!seen.done && !r.closed);
    raw_request(&r, 0, 3, "/t.S/Echo"); /* too late */
    raw_message(&r, 3, "");
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, -1);
    grpc_call_finish(seen.call, "x", 1);
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_OK);
    ASSERT_TRUE(seen.done && r.closed);
    ASSERT_EQ(seen.n_handled, 0);
}

TEST(grpc_server_shutdown_ends_streams_at_once) {
    Raw r;

    start(&r);
    raw_request(&r, 0, 1, "/t.S/Stream");
    raw_message(&r, 1, "");
    raw_run(&r);
    (void)grpc_call_send(seen.call, "last words", 10);
    grpc_server_shutdown(r.server, 10 * USEC_PER_SEC, on_done, &seen.done);
    ASSERT_EQ(seen.n_cancelled, 1);
    raw_run(&r);
    ASSERT_EQ(r.grpc_status, GRPC_UNAVAILABLE);
    ASSERT_STRSTR(r.message, "stopping");
    ASSERT_TRUE(seen.done && r.closed);
    raw_stop(&r);
}

TEST(grpc_server_shutdown_has_an_end) {
    Raw r;

    start(&r);
    raw_request(&r, 0, 1, "/t.S/Keep");
    raw_message(&r, 1, "");
    raw_run(&r);
    grpc_server_shutdown(r.server, 30000, on_done, &seen.done);
    raw_run_for(&r, 300);
    ASSERT_TRUE(seen.done);
    ASSERT_EQ(seen.n_cancelled, 0);
    raw_stop(&r);
    ASSERT_EQ(seen.n_cancelled, 1);
}

TEST(grpc_server_can_be_freed_by_a_handler) {
    RAW(r);

    freed_by_handler = &r;
    raw_request(&r, 0, 1, "/t.S/Free");
    raw_message(&r, 1, "");
    raw_request(&r, 0, 3, "/t.S/Echo");
    raw_message(&r, 3, "");
    raw_run(&r);
    ASSERT_TRUE(r.closed && !r.server);
    ASSERT_EQ(seen.n_handled, 0);
}

TEST(grpc_server_listens_on_several_sockets_and_removes_them) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    struct stat st;
    Err err = { "" };
    Raw r;

    start(&r);
    ASSERT_OK(grpc_server_listen(r.server, tmpdir_join(dir, "a"), 0600, &err));
    ASSERT_OK(grpc_server_listen(r.server, tmpdir_join(dir, "b"), 0660, &err));
    ASSERT_ERR(grpc_server_listen(r.server, tmpdir_join(dir, "a"), 0600, &err), -EADDRINUSE);
    ASSERT_OK(lstat(tmpdir_join(dir, "b"), &st));
    ASSERT_EQ(st.st_mode & 07777, 0660);
    raw_stop(&r);
    ASSERT_EQ(tmpdir_count(dir), 0);
}

TEST(grpc_server_takes_no_more_connections_than_the_limit) {
    int fds[LIMIT_GRPC_CONNECTIONS][2];
    struct rlimit files;
    Err err = { "" };
    Raw r;

    ASSERT_OK(getrlimit(RLIMIT_NOFILE, &files));
    files.rlim_cur = files.rlim_max; /* both ends are ours */
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &files));
    start(&r); /* one connection */
    for (int i = 0; i < LIMIT_GRPC_CONNECTIONS; i++) {
        ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds[i]));
        ASSERT_ERR(grpc_server_adopt(r.server, fds[i][0], &err),
                   i < LIMIT_GRPC_CONNECTIONS - 1 ? 0 : -EBUSY);
    }
    safe_close(fds[0][1]); /* one goes, one may come */
    raw_run(&r);
    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds[0]));
    ASSERT_OK(grpc_server_adopt(r.server, fds[0][0], &err));
    for (int i = 0; i < LIMIT_GRPC_CONNECTIONS; i++)
        safe_close(fds[i][1]);
    raw_stop(&r);
}

TEST(grpc_server_waits_when_there_are_no_descriptors) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    struct rlimit old, none;
    int fd, r_set, turns = 0;
    bool accepted;
    uint64_t begin;
    RAW(r);

    ASSERT_OK(grpc_server_listen(r.server, tmpdir_join(dir, "s"), 0600, NULL));
    fd = unix_connect(tmpdir_join(dir, "s"), NULL);
    ASSERT_OK(fd);
    ASSERT_OK(getrlimit(RLIMIT_NOFILE, &old));
    none = (struct rlimit){ 0, old.rlim_max };
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &none));
    begin = now_usec();
    while (now_usec() < begin + 50000) {
        (void)sd_event_run(r.event, 10000);
        turns++;
    }
    r_set = setrlimit(RLIMIT_NOFILE, &old);
    ASSERT_OK(r_set);
    ASSERT_TRUE(turns < 20); /* it does not spin */
    while (sd_event_run(r.event, 200000) > 0)
        ;
    accepted = recv(fd, &(char){ 0 }, 1, MSG_DONTWAIT) == 1; /* of its SETTINGS */
    ASSERT_TRUE(accepted);
    safe_close(fd);
}
