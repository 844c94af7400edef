/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_echo: a gRPC server with small methods, or a client of one, for
 * tests/integration/test_grpc.py. */
#include "base/log.h"
#include "base/parse.h"
#include "proto/grpc_server.h"
#include "tests/helpers/grpc_wait.h"

#include <signal.h>

enum { QUEUE_BYTES = 256 << 10, STREAM_TURN_USEC = 1000 };

typedef struct Program {
    sd_event *event;
    GrpcServer *server;
    const char *socket;
} Program;

/* A stream that goes on: request "<messages>" gets that many messages "0", "1", … */
typedef struct Counting {
    GrpcCall *call;
    sd_event *event;
    sd_event_source *timer;
    uint64_t next, end;
} Counting;

static void say(const char *what) {
    (void)printf("%s\n", what);
    (void)fflush(stdout);
}

static char *text_of(const uint8_t *request, size_t n) {
    char *text = xcalloc(n + 1, 1);

    if (n > 0)
        memcpy(text, request, n);
    return text;
}

static void handle_echo(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)arg;
    grpc_call_finish(call, request, n);
}

static void handle_fail(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    _cleanup_free_ char *text = text_of(request, n);

    (void)arg;
    grpc_call_fail(call, GRPC_FAILED_PRECONDITION, text);
}

static void on_cancel(GrpcCall *call, void *arg) {
    (void)call, (void)arg;
    say("cancelled");
}

/* Answers never. */
static void handle_hang(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    (void)request, (void)n, (void)arg;
    grpc_call_set_on_cancel(call, on_cancel, NULL);
    say("hangs");
}

typedef struct Delayed {
    GrpcCall *call;
    sd_event_source *timer;
} Delayed;

static int on_delay(sd_event_source *source, uint64_t usec, void *userdata) {
    Delayed *d = userdata;

    (void)source, (void)usec;
    grpc_call_finish(d->call, "late", 4);
    sd_event_source_disable_unref(d->timer);
    free(d);
    return 0;
}

static void on_delayed_cancel(GrpcCall *call, void *arg) {
    Delayed *d = arg;

    (void)call;
    sd_event_source_disable_unref(d->timer);
    free(d);
}

/* Answers after half a second. */
static void handle_late(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    Program *p = arg;
    Delayed *d = xnew(Delayed);

    (void)request, (void)n;
    d->call = call;
    grpc_call_set_on_cancel(call, on_delayed_cancel, d);
    if (loop_timer_after(p->event, &d->timer, USEC_PER_SEC / 2, on_delay, d) < 0)
        abort();
    say("late");
}

static void counting_free(Counting *c) {
    sd_event_source_disable_unref(c->timer);
    free(c);
}

static int on_count(sd_event_source *source, uint64_t usec, void *userdata) {
    Counting *c = userdata;

    (void)source, (void)usec;
    while (c->next < c->end) {
        char text[32];
        int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)c->next++);

        if (grpc_call_send(c->call, text, (size_t)n) > QUEUE_BYTES)
            return loop_timer_after(c->event, &c->timer, STREAM_TURN_USEC, on_count, c);
    }
    grpc_call_finish(c->call, NULL, 0);
    counting_free(c);
    return 0;
}

static void on_count_cancel(GrpcCall *call, void *arg) {
    (void)call;
    counting_free(arg);
    say("cancelled");
}

static void handle_count(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    _cleanup_free_ char *text = text_of(request, n);
    Program *p = arg;
    Counting *c = xnew(Counting);

    *c = (Counting){ .call = call, .event = p->event };
    if (parse_u64(text, &c->end) < 0 || loop_timer_after(p->event, &c->timer, 0, on_count, c) < 0) {
        counting_free(c);
        grpc_call_fail(call, GRPC_INVALID_ARGUMENT, "the request is not a number");
        return;
    }
    grpc_call_set_on_cancel(call, on_count_cancel, c);
}

static void on_shutdown_done(void *arg) {
    Program *p = arg;

    (void)sd_event_exit(p->event, 0);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata) {
    Program *p = userdata;

    (void)source, (void)info;
    say("stopping");
    grpc_server_shutdown(p->server, 5 * USEC_PER_SEC, on_shutdown_done, p);
    return 0;
}

static int serve(Program *p, Err *err) {
    const GrpcMethod methods[] = {
        { "/test.Echo/Echo", false, handle_echo, p },
        { "/test.Echo/Fail", false, handle_fail, p },
        { "/test.Echo/Hang", false, handle_hang, p },
        { "/test.Echo/Late", false, handle_late, p },
        { "/test.Echo/Count", true, handle_count, p },
        { "/test.Echo/HangStream", true, handle_hang, p },
        { NULL, false, NULL, NULL },
    };
    _cleanup_source_ sd_event_source *signal_source = NULL;
    sigset_t mask;
    int r;

    (void)sigemptyset(&mask);
    (void)sigaddset(&mask, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &mask, NULL);
    r = sd_event_add_signal(p->event, &signal_source, SIGTERM, on_signal, p);
    if (r < 0)
        return err_errnum(err, r, "wait for SIGTERM");
    r = grpc_server_new(
        &p->server, &(GrpcServerOptions){ .event = p->event, .name = "echo", .methods = methods },
        err);
    if (r < 0)
        return r;
    r = grpc_server_listen(p->server, p->socket, 0600, err);
    if (r >= 0) {
        say("ready");
        r = sd_event_loop(p->event);
    }
    p->server = grpc_server_free(p->server);
    return r;
}

/* What a client saw. */
typedef struct Seen {
    sd_event *event;
    uint64_t messages, bytes;
    uint64_t cancel_after; /* messages; 0: never */
    GrpcClientCall *call;
} Seen;

static void on_message(void *arg, const uint8_t *message, size_t n) {
    Seen *s = arg;

    (void)message;
    s->messages++;
    s->bytes += n;
    if (s->messages == s->cancel_after) {
        grpc_client_call_cancel(s->call);
        (void)printf("cancelled after %llu\n", (unsigned long long)s->messages);
        (void)sd_event_exit(s->event, 0);
    }
}

static void on_end(void *arg, GrpcCode code, const char *text) {
    Seen *s = arg;

    (void)printf("%s messages=%llu bytes=%llu text=%s\n", status_name(code),
                 (unsigned long long)s->messages, (unsigned long long)s->bytes, text);
    (void)sd_event_exit(s->event, 0);
}

/* call SOCKET PATH REQUEST-BYTES-OR-TEXT TIMEOUT-MS CANCEL-AFTER; "@N" as request: N bytes */
static int call(Program *p, char **argv, Err *err) {
    _cleanup_(grpc_client_freep) GrpcClient *client = NULL;
    _cleanup_free_ char *big = NULL;
    GrpcClientRequest request = { .path = argv[0], .message = argv[1], .n = strlen(argv[1]) };
    Seen seen = { .event = p->event };
    GrpcClientHandlers handlers = { on_message, on_end, &seen };
    uint64_t n;
    int r;

    if (argv[1][0] == '@' && parse_u64(argv[1] + 1, &n) >= 0) {
        request.message = big = xcalloc(n, 1);
        request.n = n;
    }
    r = parse_u64(argv[2], &n);
    request.timeout_usec = n * USEC_PER_MSEC;
    if (r >= 0)
        r = parse_u64(argv[3], &seen.cancel_after);
    if (r < 0)
        return err_errnum(err, r, "read the numbers");
    r = grpc_client_new(&client, p->event, p->socket, err);
    if (r < 0)
        return r;
    r = grpc_client_call(client, &seen.call, &request, &handlers);
    if (r < 0)
        return err_errnum(err, r, "call");
    return sd_event_loop(p->event);
}

/* load SOCKET PATH CALLS: one call after the other on one connection */
static int load(Program *p, char **argv, Err *err) {
    _cleanup_(grpc_client_freep) GrpcClient *client = NULL;
    uint64_t n, start;
    int r = parse_u64(argv[1], &n);

    if (r < 0)
        return err_errnum(err, r, "read %s", argv[1]);
    r = grpc_client_new(&client, p->event, p->socket, err);
    if (r < 0)
        return r;
    start = now_usec();
    for (uint64_t i = 0; i < n; i++) {
        _cleanup_(buf_done) Buf answer = BUF_INIT(1024);
        GrpcClientRequest request = { argv[0], "x", 1, 120 * USEC_PER_SEC };

        r = grpc_wait(client, p->event, &request, &answer, err);
        if (r < 0)
            return r;
    }
    (void)printf("usec per call: %.1f\n", (double)(now_usec() - start) / (double)n);
    return 0;
}

int main(int argc, char **argv) {
    Program p = { .socket = argc > 2 ? argv[2] : NULL };
    Err err = { "" };
    int r = sd_event_new(&p.event);

    if (r < 0)
        return EXIT_FAILURE;
    if (argc == 3 && streq(argv[1], "serve"))
        r = serve(&p, &err);
    else if (argc == 7 && streq(argv[1], "call"))
        r = call(&p, argv + 3, &err);
    else if (argc == 5 && streq(argv[1], "load"))
        r = load(&p, argv + 3, &err);
    else
        r = err_set(&err, -EINVAL,
                    "usage: grpc_echo serve SOCKET | call SOCKET PATH REQUEST "
                    "TIMEOUT-MS CANCEL-AFTER | load SOCKET PATH CALLS");
    if (r < 0)
        (void)fprintf(stderr, "%s: %s\n", strerror(-r), err_text(&err, r));
    sd_event_unref(p.event);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
