/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_call: one call at a server: judges its headers, hands it to its method, ends it exactly
 * once. */
#include "proto/grpc_call.h"

#include "base/limits.h"
#include "proto/grpc_frame.h"

#include <nghttp2/nghttp2.h>

enum { PATH_SHOWN = 100 };

/* A call begins in RECEIVING, and ends in ENDED unless it is cut off. */
typedef enum CallState {
    CALL_RECEIVING, /* headers and request come in */
    CALL_RUNNING,   /* its method has it */
    CALL_ENDED,     /* what is queued still goes out */
} CallState;

struct GrpcCall {
    GrpcConnection *connection;
    GrpcCall *prev, *next; /* of the connection */
    H2Stream *stream;
    CallState state;
    const GrpcMethod *method;  /* NULL: unknown */
    char path[PATH_SHOWN + 1]; /* for the sentence, when it is unknown */
    bool is_post, is_grpc, bad_timeout, judged;
    uint64_t timeout_usec; /* UINT64_MAX: none */
    uint64_t deadline_usec;
    sd_event_source *timer;
    const char *broken; /* why the answer that the method gave cannot be sent; NULL: it can */
    void (*on_cancel)(GrpcCall *c, void *arg);
    void *on_cancel_arg;
};

/* The handler loses the call; `code` is what became of it. */
static void call_cancelled(GrpcCall *c, GrpcCode code) {
    bool ran = c->state == CALL_RUNNING;

    c->state = CALL_ENDED;
    if (ran)
        grpc_connection_report(c->connection, c->method, code);
    if (ran && c->on_cancel)
        c->on_cancel(c, c->on_cancel_arg);
}

GrpcCall *grpc_call_free(GrpcCall *c) {
    if (!c)
        return NULL;
    if (c->prev)
        c->prev->next = c->next;
    else
        *grpc_connection_calls(c->connection) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    call_cancelled(c, GRPC_CANCELLED);
    sd_event_source_disable_unref(c->timer);
    free(c);
    return NULL;
}

/* Ends it by the server's own decision. */
static void call_end(GrpcCall *c, GrpcCode code, const char *text) {
    c->state = CALL_ENDED;
    grpc_connection_report(c->connection, c->method, code);
    h2_stream_finish(c->stream, code, text);
}

void grpc_call_end_streams(GrpcCall *first) {
    for (GrpcCall *c = first; c; c = c->next)
        if (c->state == CALL_RUNNING && c->method->server_streaming) {
            call_cancelled(c, GRPC_UNAVAILABLE);
            h2_stream_finish(c->stream, GRPC_UNAVAILABLE, "the daemon is stopping");
        }
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
    GrpcCall *c = userdata;
    H2Stream *stream = c->stream;
    bool over = c->state == CALL_ENDED;

    (void)source, (void)usec;
    call_cancelled(c, GRPC_DEADLINE_EXCEEDED);
    if (!over && h2_stream_drop_output(stream))
        h2_stream_finish(stream, GRPC_DEADLINE_EXCEEDED, "the deadline of the call has passed");
    else { /* a part of a message is out, or nobody reads the answer */
        h2_stream_reset(stream, NGHTTP2_CANCEL);
        grpc_call_free(c);
    }
    return 0;
}

static void *on_open(void *arg, H2Stream *stream) {
    GrpcCall **calls = grpc_connection_calls(arg);
    GrpcCall *c = xnew(GrpcCall);

    *c = (GrpcCall){
        .connection = arg,
        .next = *calls,
        .stream = stream,
        .timeout_usec = UINT64_MAX,
        .deadline_usec = UINT64_MAX,
    };
    if (c->next)
        c->next->prev = c;
    return *calls = c;
}

/* "application/grpc", "application/grpc+proto", "application/grpc;…" */
static bool is_grpc_type(const char *value) {
    const char *rest = startswith(value, "application/grpc");

    return rest && (*rest == '\0' || *rest == '+' || *rest == ';');
}

static void on_header(void *user, const char *name, const char *value, size_t n) {
    GrpcCall *c = user;

    if (c->judged) /* trailers of the client */
        return;
    if (streq(name, ":method"))
        c->is_post = streq(value, "POST");
    else if (streq(name, ":path")) {
        c->method = grpc_connection_find_method(c->connection, value, n);
        if (!c->method)
            (void)snprintf(c->path, sizeof(c->path), "%s", value); /* cut; it is for reading */
    } else if (streq(name, "content-type"))
        c->is_grpc = is_grpc_type(value);
    else if (streq(name, "grpc-timeout"))
        c->bad_timeout = grpc_timeout_parse(value, n, &c->timeout_usec) < 0;
}

static void call_start_deadline(GrpcCall *c) {
    if (c->timeout_usec == UINT64_MAX)
        return;
    c->deadline_usec = now_usec() + c->timeout_usec;
    if (loop_timer_after(grpc_connection_event(c->connection), &c->timer, c->timeout_usec,
                         on_deadline, c) < 0)
        call_end(c, GRPC_RESOURCE_EXHAUSTED, "no timer for the deadline could be made");
}

static void on_headers(void *user) {
    GrpcCall *c = user;

    if (c->judged)
        return;
    c->judged = true;
    if (!c->is_post || !c->is_grpc) {
        c->state = CALL_ENDED;
        h2_stream_refuse(c->stream, c->is_post ? "415" : "405");
    } else if (!c->method) {
        char text[PATH_SHOWN + 64];

        (void)snprintf(text, sizeof(text), "this server has no method %s", c->path);
        call_end(c, GRPC_UNIMPLEMENTED, text);
    } else if (c->bad_timeout)
        call_end(c, GRPC_INTERNAL, "the header grpc-timeout is malformed");
    else
        call_start_deadline(c);
}

static void on_message(void *user, const uint8_t *message, size_t n) {
    GrpcCall *c = user;

    assert(c->state == CALL_RECEIVING);
    c->state = CALL_RUNNING;
    c->method->handle(c, message, n, c->method->arg); /* may free all there is */
}

static void on_bad_input(void *user, GrpcCode code, const char *text) {
    GrpcCall *c = user;

    c->judged = true;
    if (c->state == CALL_RECEIVING)
        call_end(c, code, text);
}

static void on_close(void *user, uint32_t h2_error) {
    (void)h2_error;
    grpc_call_free(user);
}

const H2Handlers grpc_call_handlers = {
    .on_open = on_open,
    .on_header = on_header,
    .on_headers = on_headers,
    .on_message = on_message,
    .on_bad_input = on_bad_input,
    .on_close = on_close,
    .on_down = grpc_connection_down,
};

void grpc_call_set_on_cancel(GrpcCall *c, void (*on_cancel)(GrpcCall *c, void *arg), void *arg) {
    assert(c->state == CALL_RUNNING);
    c->on_cancel = on_cancel;
    c->on_cancel_arg = arg;
}

uint64_t grpc_call_deadline_usec(const GrpcCall *c) {
    return c->deadline_usec;
}

void grpc_call_peer(const GrpcCall *c, uid_t *ret_uid, pid_t *ret_pid) {
    grpc_connection_peer(c->connection, ret_uid, ret_pid);
}

static void call_write(GrpcCall *c, const void *message, size_t n) {
    if (n > LIMIT_GRPC_MESSAGE_BYTES)
        c->broken = "the answer is longer than 16 MiB; ask for less";
    if (!c->broken && h2_stream_write(c->stream, message, n) < 0)
        c->broken = "no memory for the answer";
}

size_t grpc_call_send(GrpcCall *c, const void *message, size_t n) {
    assert(c->state == CALL_RUNNING && c->method->server_streaming);
    call_write(c, message, n);
    return h2_stream_queued(c->stream);
}

size_t grpc_call_queued(const GrpcCall *c) {
    return h2_stream_queued(c->stream);
}

void grpc_call_finish(GrpcCall *c, const void *message, size_t n) {
    assert(c->state == CALL_RUNNING);
    if (!c->method->server_streaming)
        call_write(c, message, n);
    if (c->broken)
        call_end(c, GRPC_RESOURCE_EXHAUSTED, c->broken);
    else
        call_end(c, GRPC_OK, NULL);
}

void grpc_call_fail(GrpcCall *c, GrpcCode code, const char *text) {
    assert(c->state == CALL_RUNNING);
    assert(code != GRPC_OK);
    call_end(c, code, isempty(text) ? status_name(code) : text);
}
