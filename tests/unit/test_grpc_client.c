/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of proto/grpc_client.h: against our server on the same loop, and against a server that
 * misbehaves. */
#include "proto/grpc_client.h"

#include "base/limits.h"
#include "proto/grpc_server.h"
#include "proto/unix_socket.h"
#include "tests/unit/test.h"

#include <sys/socket.h>

enum { BIG = 16 << 20, MANY = 10000 };

/* A server, a client, and what the call of the test saw. */
typedef struct Pair {
    TmpDir *dir;
    sd_event *event;
    GrpcServer *server;
    GrpcClient *client;
    GrpcCall *kept; /* by the server */
    int n_cancelled;
} Pair;

typedef struct Seen {
    int n_messages, n_ends;
    size_t bytes;
    GrpcCode code;
    char text[256];
    GrpcClientCall *call;
    GrpcClient **free_at_end; /* NULL: none */
    int cancel_after;
} Seen;

static void on_message(void *arg, const uint8_t *message, size_t n) {
    Seen *s = arg;

    for (size_t i = 0; i < n; i += 4096)
        ASSERT_EQ(message[i], 'm');
    ASSERT_EQ(s->n_ends, 0);
    s->bytes += n;
    if (++s->n_messages == s->cancel_after)
        s->call = grpc_client_call_cancel(s->call);
}

static void on_end(void *arg, GrpcCode code, const char *text) {
    Seen *s = arg;

    s->n_ends++;
    s->code = code;
    (void)snprintf(s->text, sizeof(s->text), "%s", text);
    if (s->free_at_end)
        *s->free_at_end = grpc_client_free(*s->free_at_end);
}

static void handle_echo(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)arg;
    grpc_call_finish(call, request, n);
}

static void handle_fail(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n, (void)arg;
    grpc_call_fail(call, GRPC_DATA_LOSS, "ungültig: 50%\nweg");
}

static void handle_many(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n, (void)arg;
    for (int i = 0; i < MANY; i++)
        (void)grpc_call_send(call, "mmmmm", 5);
    grpc_call_finish(call, NULL, 0);
}

static void handle_none(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n, (void)arg;
    grpc_call_finish(call, NULL, 0);
}

static void on_cancel(GrpcCall *call, void *arg) {
    Pair *p = arg;

    (void)call;
    p->kept = NULL;
    p->n_cancelled++;
}

static void handle_keep(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    Pair *p = arg;

    (void)request, (void)n;
    p->kept = call;
    grpc_call_set_on_cancel(call, on_cancel, p);
}

static GrpcMethod methods[] = {
    { "/t/Echo", false, handle_echo, NULL }, { "/t/Fail", false, handle_fail, NULL },
    { "/t/Many", true, handle_many, NULL },  { "/t/None", true, handle_none, NULL },
    { "/t/Keep", false, handle_keep, NULL }, { NULL, false, NULL, NULL },
};

static void pair_start(Pair *p) {
    const char *path;

    *p = (Pair){ .dir = tmpdir_new() };
    path = tmpdir_join(p->dir, "s");
    methods[4].arg = p;
    ASSERT_OK(sd_event_new(&p->event));
    ASSERT_OK(grpc_server_new(
        &p->server, &(GrpcServerOptions){ .event = p->event, .name = "t", .methods = methods },
        NULL));
    ASSERT_OK(grpc_server_listen(p->server, path, 0600, NULL));
    ASSERT_OK(grpc_client_new(&p->client, p->event, path, NULL));
}

static void pair_stop(Pair *p) {
    grpc_client_free(p->client);
    grpc_server_free(p->server);
    sd_event_unref(p->event);
    tmpdir_free(p->dir);
}

static void run(sd_event *event, uint64_t idle_msec) {
    while (sd_event_run(event, idle_msec * USEC_PER_MSEC) > 0)
        ;
}

static int call(Pair *p, Seen *seen, const char *path, const char *text, uint64_t timeout_usec) {
    return grpc_client_call(p->client, &seen->call,
                            &(GrpcClientRequest){ path, text, strlen(text), timeout_usec },
                            &(GrpcClientHandlers){ on_message, on_end, seen });
}

/* Until the call has ended. */
static void finish(Pair *p, const Seen *seen) {
    for (int i = 0; i < 100000 && seen->n_ends == 0; i++)
        ASSERT_OK(sd_event_run(p->event, 5 * USEC_PER_SEC));
    ASSERT_EQ(seen->n_ends, 1);
}

TEST(grpc_client_gets_answers_and_errors) {
    static const struct {
        const char *path;
        int n_messages;
        size_t bytes;
        GrpcCode code;
        const char *text;
    } cases[] = {
        { "/t/Echo", 1, 4, GRPC_OK, "" },
        { "/t/Many", MANY, (size_t)5 * MANY, GRPC_OK, "" },
        { "/t/None", 0, 0, GRPC_OK, "" },
        { "/t/Fail", 0, 0, GRPC_DATA_LOSS, "ungültig: 50%\nweg" },
        { "/t/Nope", 0, 0, GRPC_UNIMPLEMENTED, "this server has no method /t/Nope" },
    };
    Pair p;

    pair_start(&p);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Seen seen = { 0 };

        ASSERT_OK(call(&p, &seen, cases[i].path, "mmmm", 10 * USEC_PER_SEC));
        finish(&p, &seen);
        ASSERT_EQ(seen.n_messages, cases[i].n_messages);
        ASSERT_EQ(seen.bytes, cases[i].bytes);
        ASSERT_EQ(seen.code, cases[i].code);
        ASSERT_STREQ(seen.text, cases[i].text);
    }
    pair_stop(&p);
}

TEST(grpc_client_and_server_move_the_biggest_message) {
    _cleanup_free_ char *big = xcalloc(BIG + 1, 1);
    Seen seen = { 0 };
    Pair p;

    pair_start(&p);
    memset(big, 'm', BIG);
    ASSERT_OK(call(&p, &seen, "/t/Echo", big, 30 * USEC_PER_SEC));
    finish(&p, &seen);
    ASSERT_EQ(seen.code, GRPC_OK);
    ASSERT_EQ(seen.bytes, BIG);
    big[BIG] = 'm';
    ASSERT_ERR(grpc_client_call(p.client, NULL, &(GrpcClientRequest){ "/t/Echo", big, BIG + 1, 0 },
                                &(GrpcClientHandlers){ on_message, on_end, &seen }),
               -E2BIG);
    pair_stop(&p);
}

TEST(grpc_client_runs_more_calls_than_the_server_takes_at_once) {
    enum { CALLS = 1000 };
    static Seen seen[CALLS];
    Pair p;

    memset(seen, 0, sizeof(seen));
    pair_start(&p);
    for (int i = 0; i < CALLS; i++)
        ASSERT_OK(call(&p, &seen[i], "/t/Echo", "m", 0));
    run(p.event, 50);
    for (int i = 0; i < CALLS; i++) {
        ASSERT_EQ(seen[i].n_ends, 1);
        ASSERT_EQ(seen[i].code, GRPC_OK);
        ASSERT_EQ(seen[i].n_messages, 1);
    }
    pair_stop(&p);
}

TEST(grpc_client_cancels) {
    Seen seen = { 0 }, stream = { .cancel_after = 3 };
    Pair p;

    pair_start(&p);
    ASSERT_OK(call(&p, &seen, "/t/Keep", "", 0));
    run(p.event, 10);
    ASSERT_TRUE(p.kept);
    grpc_client_call_cancel(seen.call);
    run(p.event, 10);
    ASSERT_EQ(p.n_cancelled, 1);
    ASSERT_EQ(seen.n_ends, 0);
    ASSERT_OK(call(&p, &stream, "/t/Many", "", 0)); /* cancelled by its own on_message */
    run(p.event, 10);
    ASSERT_EQ(stream.n_messages, 3);
    ASSERT_EQ(stream.n_ends, 0);
    ASSERT_OK(call(&p, &seen, "/t/Keep", "", 0)); /* before it was sent */
    grpc_client_call_cancel(seen.call);
    run(p.event, 10);
    ASSERT_EQ(p.n_cancelled, 1);
    pair_stop(&p);
}

TEST(grpc_client_enforces_deadlines) {
    Seen seen = { 0 };
    Pair p;

    pair_start(&p);
    ASSERT_OK(call(&p, &seen, "/t/Keep", "", 30000));
    finish(&p, &seen);
    ASSERT_EQ(seen.code, GRPC_DEADLINE_EXCEEDED);
    run(p.event, 50);
    ASSERT_EQ(p.n_cancelled, 1);
    pair_stop(&p);
}

TEST(grpc_client_free_ends_its_calls) {
    Seen seen[2] = { 0 };
    Pair p;

    pair_start(&p);
    ASSERT_OK(call(&p, &seen[0], "/t/Keep", "", 0));
    run(p.event, 10);
    ASSERT_OK(call(&p, &seen[1], "/t/Echo", "", 0));
    p.client = grpc_client_free(p.client);
    for (int i = 0; i < 2; i++) {
        ASSERT_EQ(seen[i].n_ends, 1);
        ASSERT_EQ(seen[i].code, GRPC_CANCELLED);
    }
    run(p.event, 10);
    ASSERT_EQ(p.n_cancelled, 1);
    pair_stop(&p);
}

TEST(grpc_client_can_be_freed_by_its_own_callback) {
    Seen seen[2] = { 0 };
    Pair p;

    pair_start(&p);
    seen[0].free_at_end = seen[1].free_at_end = &p.client;
    ASSERT_OK(call(&p, &seen[0], "/t/Echo", "m", 0));
    ASSERT_OK(call(&p, &seen[1], "/t/Keep", "", 0));
    run(p.event, 10);
    ASSERT_EQ(seen[0].code, GRPC_OK);
    ASSERT_EQ(seen[1].code, GRPC_CANCELLED);
    ASSERT_TRUE(!p.client);
    pair_stop(&p);
}

TEST(grpc_client_survives_the_server) {
    Seen seen = { 0 };
    Pair p;

    pair_start(&p);
    ASSERT_OK(call(&p, &seen, "/t/Keep", "", 0));
    run(p.event, 10);
    p.server = grpc_server_free(p.server);
    finish(&p, &seen);
    ASSERT_EQ(seen.code, GRPC_UNAVAILABLE);
    ASSERT_STRSTR(seen.text, "ended");
    ASSERT_ERR(call(&p, &seen, "/t/Echo", "", 0), -ECONNRESET);
    pair_stop(&p);
}

static void on_done(void *arg) {
    *(bool *)arg = true;
}

TEST(grpc_client_finishes_calls_after_goaway) {
    Seen seen = { 0 };
    bool done = false;
    Pair p;

    pair_start(&p);
    ASSERT_OK(call(&p, &seen, "/t/Keep", "", 0));
    run(p.event, 10);
    grpc_server_shutdown(p.server, 10 * USEC_PER_SEC, on_done, &done);
    run(p.event, 10);
    ASSERT_ERR(call(&p, &(Seen){ 0 }, "/t/Echo", "", 0), -ECONNRESET);
    grpc_call_finish(p.kept, "m", 1);
    finish(&p, &seen);
    ASSERT_EQ(seen.code, GRPC_OK);
    run(p.event, 10);
    ASSERT_TRUE(done);
    pair_stop(&p);
}

static void on_silent(void *arg) {
    GrpcClient **c = arg;

    *c = grpc_client_free(*c);
}

TEST(grpc_client_watches_for_life) {
    enum { WATCH_MSEC = 200 };
    Seen seen = { 0 };
    uint64_t end;
    Pair p;

    /* A server that works at its answer is alive. */
    pair_start(&p);
    ASSERT_OK(call(&p, &seen, "/t/Keep", "", 0));
    ASSERT_OK(grpc_client_watch(p.client, WATCH_MSEC * USEC_PER_MSEC, on_silent, &p.client));
    for (end = now_usec() + 5 * WATCH_MSEC * USEC_PER_MSEC; now_usec() < end;)
        ASSERT_OK(sd_event_run(p.event, WATCH_MSEC * USEC_PER_MSEC));
    ASSERT_TRUE(p.client);
    ASSERT_EQ(seen.n_ends, 0);
    pair_stop(&p);
    ASSERT_EQ(seen.n_ends, 1);
}

TEST(grpc_client_notices_a_server_that_stands_still) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    UnixListener *listener = NULL;
    GrpcClient *client = NULL;
    sd_event *event = NULL;
    Seen seen = { 0 };

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(unix_listener_new(&listener, tmpdir_join(dir, "s"), 0600, NULL)); /* accepts none */
    ASSERT_OK(grpc_client_new(&client, event, tmpdir_join(dir, "s"), NULL));
    ASSERT_OK(grpc_client_watch(client, 50 * USEC_PER_MSEC, on_silent, &client));
    ASSERT_OK(grpc_client_call(client, NULL, &(GrpcClientRequest){ "/t/Echo", "", 0, 0 },
                               &(GrpcClientHandlers){ on_message, on_end, &seen }));
    for (int i = 0; i < 100 && client; i++)
        ASSERT_OK(sd_event_run(event, USEC_PER_SEC));
    ASSERT_TRUE(!client);
    ASSERT_EQ(seen.code, GRPC_CANCELLED);
    unix_listener_free(listener);
    sd_event_unref(event);
}

TEST(grpc_client_new_says_why_not) {
    _cleanup_event_ sd_event *event = NULL;
    GrpcClient *c = NULL;
    Err err = { "" };

    ASSERT_OK(sd_event_new(&event));
    ASSERT_ERR(grpc_client_new(&c, event, "/nonexistent/s", &err), -ENOENT);
    ASSERT_STRSTR(err.text, "/nonexistent/s");
    ASSERT_TRUE(!c && !grpc_client_free(NULL));
}

/* What a server may wrongly answer, as frames for stream 1 after its SETTINGS. */
TEST(grpc_client_judges_a_server) {
#define SETTINGS   "\0\0\0\4\0\0\0\0\0"
#define STATUS_200 "\x88"
#define GRPC       \
    "\x0f\x10\x10" \
    "application/grpc" /* content-type, of the static table */
    static const struct {
        const char *bytes;
        size_t n;
        GrpcCode code;
        const char *text;
    } cases[] = {
        { "HTTP/1.1 400 Bad\r\n\r\n", 20, GRPC_UNAVAILABLE, "ended" },
        { SETTINGS, 9, GRPC_UNAVAILABLE, "closed by the peer" },
        /* 200 without gRPC */
        { SETTINGS "\0\0\1\1\5\0\0\0\1" STATUS_200, 19, GRPC_UNKNOWN, "HTTP status 200" },
        /* 404 */
        { SETTINGS "\0\0\1\1\5\0\0\0\1\x8d", 19, GRPC_UNIMPLEMENTED, "HTTP status 404" },
        /* gRPC without a status */
        { SETTINGS "\0\0\x14\1\5\0\0\0\1" STATUS_200 GRPC, 38, GRPC_INTERNAL, "without a status" },
        /* half a message */
        { SETTINGS "\0\0\x14\1\4\0\0\0\1" STATUS_200 GRPC "\0\0\6\0\1\0\0\0\1\0\0\0\0\2x", 53,
          GRPC_INTERNAL, "middle of a message" },
        /* a compressed message */
        { SETTINGS "\0\0\x14\1\4\0\0\0\1" STATUS_200 GRPC "\0\0\6\0\1\0\0\0\1\1\0\0\0\1x", 53,
          GRPC_UNIMPLEMENTED, "compressed" },
        /* a message of 4 GiB */
        { SETTINGS "\0\0\x14\1\4\0\0\0\1" STATUS_200 GRPC "\0\0\6\0\1\0\0\0\1\0\xff\xff\xff\xffx",
          53, GRPC_RESOURCE_EXHAUSTED, "16 MiB" },
        /* RST_STREAM(REFUSED_STREAM), (CANCEL) */
        { SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\7", 22, GRPC_UNAVAILABLE, "" },
        { SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\x8", 22, GRPC_CANCELLED, "reset" },
        /* GOAWAY with no stream processed */
        { SETTINGS "\0\0\x8\7\0\0\0\0\0\0\0\0\0\0\0\0\0", 26, GRPC_UNAVAILABLE, "" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
        _cleanup_(unix_listener_freep) UnixListener *l = NULL;
        Pair p = { 0 };
        Seen seen = { 0 };
        int fd;

        ASSERT_OK(unix_listener_new(&l, tmpdir_join(dir, "s"), 0600, NULL));
        ASSERT_OK(sd_event_new(&p.event));
        ASSERT_OK(grpc_client_new(&p.client, p.event, tmpdir_join(dir, "s"), NULL));
        ASSERT_OK(call(&p, &seen, "/t/Echo", "m", 0));
        fd = accept4(unix_listener_fd(l), NULL, NULL, SOCK_CLOEXEC);
        ASSERT_OK(fd);
        run(p.event, 5);
        ASSERT_EQ(send(fd, cases[i].bytes, cases[i].n, MSG_NOSIGNAL), cases[i].n);
        ASSERT_OK(shutdown(fd, SHUT_WR));
        finish(&p, &seen);
        ASSERT_EQ(seen.code, cases[i].code);
        ASSERT_STRSTR(seen.text, cases[i].text);
        ASSERT_EQ(seen.n_messages, 0);
        grpc_client_free(p.client);
        sd_event_unref(p.event);
        safe_close(fd);
    }
}
