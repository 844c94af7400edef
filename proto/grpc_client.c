/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_client: a gRPC client on one unix socket connection, on the loop; a blocking form for
 * command lines. */
#include "proto/grpc_client.h"

#include "base/limits.h"
#include "proto/grpc_frame.h"
#include "proto/h2.h"
#include "proto/unix_socket.h"

#include <nghttp2/nghttp2.h>

#define WATCH_LATE_USEC USEC_PER_SEC

enum { STATUS_UNKNOWN = -1 };

struct GrpcClientCall {
    GrpcClient *client;
    GrpcClientCall *prev, *next; /* of the client */
    H2Stream *stream;            /* NULL: closed already */
    GrpcClientHandlers handlers;
    sd_event_source *timer;
    int http_status; /* 0: not here yet */
    bool is_grpc;    /* the content type says so */
    int grpc_status; /* STATUS_UNKNOWN: not here yet */
    char *text;      /* grpc-message, decoded */
};

struct GrpcClient {
    sd_event *event;
    H2 *h2;
    char *path;
    GrpcClientCall *calls;
    sd_event_source *watch;
    uint64_t watch_usec;
    void (*on_silent)(void *arg);
    void *on_silent_arg;
    bool freeing;
};

static GrpcClientCall *call_free(GrpcClientCall *call) {
    if (!call)
        return NULL;
    if (call->prev)
        call->prev->next = call->next;
    else
        call->client->calls = call->next;
    if (call->next)
        call->next->prev = call->prev;
    if (call->stream)
        h2_stream_reset(call->stream, NGHTTP2_CANCEL);
    sd_event_source_disable_unref(call->timer);
    free(call->text);
    free(call);
    return NULL;
}

GrpcClientCall *grpc_client_call_cancel(GrpcClientCall *call) {
    return call_free(call);
}

/* The only caller of on_end. */
static void call_end(GrpcClientCall *call, GrpcCode code, const char *text) {
    GrpcClientHandlers handlers = call->handlers;
    _cleanup_free_ char *copy = xstrdup(text);

    call_free(call);
    handlers.on_end(handlers.arg, code, copy);
}

static void on_header(void *user, const char *name, const char *value, size_t n) {
    GrpcClientCall *call = user;

    if (streq(name, ":status"))
        call->http_status = atoi(value); /* nghttp2 lets only three digits through */
    else if (streq(name, "content-type"))
        call->is_grpc = startswith(value, "application/grpc") != NULL;
    else if (streq(name, "grpc-status")) {
        bool valid = n > 0 && n <= 3 && strspn(value, "0123456789") == n;

        call->grpc_status = valid ? atoi(value) : (int)GRPC_UNKNOWN;
    } else if (streq(name, "grpc-message")) {
        free(call->text);
        call->text = grpc_message_decode(value, n);
    }
}

static void on_message(void *user, const uint8_t *message, size_t n) {
    GrpcClientCall *call = user;

    if (call->http_status == 200 && call->is_grpc && call->handlers.on_message)
        call->handlers.on_message(call->handlers.arg, message, n);
}

static void on_bad_input(void *user, GrpcCode code, const char *text) {
    call_end(user, code, text);
}

/* grpc/doc/http-grpc-status-mapping.md */
static GrpcCode code_of_http(int status) {
    switch (status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

/* grpc/doc/PROTOCOL-HTTP2.md, "Errors". */
static GrpcCode code_of_h2(uint32_t h2_error) {
    switch (h2_error) {
    case NGHTTP2_REFUSED_STREAM:
        return GRPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return GRPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return GRPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return GRPC_PERMISSION_DENIED;
    default:
        return GRPC_INTERNAL;
    }
}

static void on_close(void *user, uint32_t h2_error) {
    GrpcClientCall *call = user;
    char text[256];

    call->stream = NULL;
    if (call->grpc_status != STATUS_UNKNOWN) {
        GrpcCode code = call->grpc_status <= (int)GRPC_UNAUTHENTICATED ? (GrpcCode)call->grpc_status
                                                                       : GRPC_UNKNOWN;

        call_end(call, code, call->text ? call->text : "");
        return;
    }
    if (call->http_status != 0 && (call->http_status != 200 || !call->is_grpc)) {
        (void)snprintf(text, sizeof(text), "%s answered with HTTP status %d, which is not gRPC",
                       call->client->path, call->http_status);
        call_end(call, code_of_http(call->http_status), text);
        return;
    }
    if (h2_error == NGHTTP2_REFUSED_STREAM)
        (void)snprintf(text, sizeof(text), "the connection to %s ended: %s", call->client->path,
                       h2_why(call->client->h2));
    else if (h2_error == NGHTTP2_NO_ERROR)
        (void)snprintf(text, sizeof(text), "%s ended the call without a status",
                       call->client->path);
    else
        (void)snprintf(text, sizeof(text), "%s reset the call: %s", call->client->path,
                       nghttp2_http2_strerror(h2_error));
    call_end(call, code_of_h2(h2_error), text);
}

static void on_down(void *arg, const char *why) {
    (void)arg, (void)why; /* each call was told; new ones are refused */
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata) {
    GrpcClientCall *call = userdata;
    char text[160];

    (void)source, (void)usec;
    (void)snprintf(text, sizeof(text), "%s did not answer in time", call->client->path);
    call_end(call, GRPC_DEADLINE_EXCEEDED, text);
    return 0;
}

static const H2Handlers handlers_h2 = {
    .on_header = on_header,
    .on_message = on_message,
    .on_bad_input = on_bad_input,
    .on_close = on_close,
    .on_down = on_down,
};

int grpc_client_new(GrpcClient **ret, sd_event *event, const char *path, Err *err) {
    _cleanup_(grpc_client_freep) GrpcClient *c = xnew(GrpcClient);
    _cleanup_close_ int fd = -EBADF;
    int r;

    c->event = sd_event_ref(event);
    c->path = xstrdup(path);
    fd = unix_connect(path, err);
    if (fd < 0)
        return fd;
    r = h2_new(&c->h2, &(H2Options){ .event = event, .fd = fd, .handlers = &handlers_h2, .arg = c },
               err);
    if (r < 0)
        return r;
    (void)TAKE_FD(fd);
    *ret = TAKE_PTR(c);
    return 0;
}

GrpcClient *grpc_client_free(GrpcClient *c) {
    if (!c || c->freeing)
        return NULL;
    c->freeing = true; /* an on_end below may try again */
    while (c->calls)
        call_end(c->calls, GRPC_CANCELLED, "the call was cancelled");
    h2_free(c->h2);
    sd_event_source_disable_unref(c->watch);
    sd_event_unref(c->event);
    free(c->path);
    free(c);
    return NULL;
}

static int on_watch(sd_event_source *source, uint64_t usec, void *userdata) {
    GrpcClient *c = userdata;
    /* Then it was us who stood still, in a write to a pipe that is full for example, and what came
     * meanwhile is not read yet. */
    bool late = now_usec() - usec > WATCH_LATE_USEC;

    (void)source;
    if (!h2_take_heard(c->h2) && !late) {
        c->on_silent(c->on_silent_arg);
        return 0;
    }
    h2_ping(c->h2);
    return loop_timer_after(c->event, &c->watch, c->watch_usec, on_watch, c);
}

int grpc_client_watch(GrpcClient *c, uint64_t usec, void (*on_silent)(void *arg), void *arg) {
    c->watch_usec = usec;
    c->on_silent = on_silent;
    c->on_silent_arg = arg;
    h2_ping(c->h2);
    return loop_timer_after(c->event, &c->watch, usec, on_watch, c);
}

int grpc_client_call(GrpcClient *c, GrpcClientCall **ret, const GrpcClientRequest *request,
                     const GrpcClientHandlers *handlers) {
    GrpcClientCall *call;
    int r;

    if (c->freeing || !h2_is_open(c->h2))
        return -ECONNRESET;
    if (request->n > LIMIT_GRPC_MESSAGE_BYTES)
        return -E2BIG;
    call = xnew(GrpcClientCall);
    *call = (GrpcClientCall){
        .client = c,
        .next = c->calls,
        .handlers = *handlers,
        .grpc_status = STATUS_UNKNOWN,
    };
    if (call->next)
        call->next->prev = call;
    c->calls = call;
    r = h2_stream_open(c->h2, &call->stream,
                       &(H2Request){ .path = request->path,
                                     .message = request->message,
                                     .n = request->n,
                                     .timeout_usec = request->timeout_usec,
                                     .user = call });
    if (r >= 0 && request->timeout_usec > 0)
        r = loop_timer_after(c->event, &call->timer, request->timeout_usec, on_deadline, call);
    if (r < 0) {
        call_free(call);
        return r;
    }
    if (ret)
        *ret = call;
    return 0;
}

/* What grpc_client_call_wait() waits for. */
typedef struct Waiting {
    Buf *message;
    Err *err;
    int r; /* of the message, then of the call */
    bool ended;
} Waiting;

static void wait_on_message(void *arg, const uint8_t *message, size_t n) {
    Waiting *w = arg;

    if (w->r >= 0)
        w->r = buf_append(w->message, message, n);
    if (w->r < 0)
        err_errnum(w->err, w->r, "take an answer of %zu bytes", n);
}

static void wait_on_end(void *arg, GrpcCode code, const char *text) {
    Waiting *w = arg;

    w->ended = true;
    if (code != GRPC_OK)
        w->r =
            err_set(w->err, status_to_errno(code), "%s", isempty(text) ? status_name(code) : text);
}

int grpc_client_call_wait(GrpcClient *c, const GrpcClientRequest *request, Buf *ret_message,
                          Err *err) {
    Waiting w = { .message = ret_message, .err = err };
    GrpcClientHandlers handlers = { wait_on_message, wait_on_end, &w };
    GrpcClientCall *call;
    int r = grpc_client_call(c, &call, request, &handlers);

    if (r < 0)
        return err_errnum(err, r, "call %s at %s", request->path, c->path);
    while (!w.ended) {
        r = sd_event_run(c->event, UINT64_MAX);
        if (r < 0) {
            grpc_client_call_cancel(call);
            return err_errnum(err, r, "wait for the answer of %s", c->path);
        }
    }
    return w.r;
}
