/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_server: a gRPC server on unix sockets: listens, keeps its connections, shuts down in order.
 */
#include "proto/grpc_server.h"

#include "base/limits.h"
#include "base/log.h"
#include "proto/grpc_call.h"
#include "proto/unix_socket.h"

#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    ACCEPTS_A_TURN = 16,
    ACCEPT_PAUSE_USEC = 100000, /* when there are no descriptors left */
};

typedef struct Listener Listener;
struct Listener {
    GrpcServer *server;
    Listener *next;
    UnixListener *socket;
    sd_event_source *io;
    sd_event_source *pause; /* switches `io` on again */
};

struct GrpcServer {
    GrpcServerOptions options; /* its event: a reference */
    char *name;
    Listener *listeners;
    GrpcConnection *connections[LIMIT_GRPC_CONNECTIONS]; /* the first n_connections */
    size_t n_connections;
    sd_event_source *shutdown_timer;
    void (*done)(void *arg); /* of grpc_server_shutdown() */
    void *done_arg;
    bool shutting_down;
};

int grpc_server_new(GrpcServer **ret, const GrpcServerOptions *options, Err *err) {
    GrpcServer *s = xnew(GrpcServer);

    (void)err;
    s->options = *options;
    s->options.event = sd_event_ref(options->event);
    s->name = xstrdup(options->name ? options->name : "grpc");
    *ret = s;
    return 0;
}

static Listener *listener_free(Listener *l) {
    if (!l)
        return NULL;
    sd_event_source_disable_unref(l->io);
    sd_event_source_disable_unref(l->pause);
    unix_listener_free(l->socket);
    free(l);
    return NULL;
}
DEFINE_CLEANUP(Listener, listener_free);

void grpc_server_unlisten(GrpcServer *s) {
    while (s->listeners) {
        Listener *l = s->listeners;

        s->listeners = l->next;
        listener_free(l);
    }
}

bool grpc_server_is_reachable(const GrpcServer *s) {
    for (const Listener *l = s->listeners; l; l = l->next)
        if (!unix_listener_is_there(l->socket))
            return false;
    return s->listeners;
}

GrpcServer *grpc_server_free(GrpcServer *s) {
    if (!s)
        return NULL;
    grpc_server_unlisten(s);
    while (s->n_connections > 0) {
        GrpcConnection *c = s->connections[--s->n_connections];

        grpc_connection_free(c);
    }
    sd_event_source_disable_unref(s->shutdown_timer);
    sd_event_unref(s->options.event);
    free(s->name);
    free(s);
    return NULL;
}

/* From the loop: all calls have ended, or the time is over. */
static int on_shutdown_timer(sd_event_source *source, uint64_t usec, void *userdata) {
    GrpcServer *s = userdata;
    void (*done)(void *arg) = TAKE_PTR(s->done);

    (void)source, (void)usec;
    if (done)
        done(s->done_arg); /* may free the server */
    return 0;
}

static void server_done_after(GrpcServer *s, uint64_t usec) {
    if (loop_timer_after(s->options.event, &s->shutdown_timer, usec, on_shutdown_timer, s) < 0)
        (void)on_shutdown_timer(NULL, 0, s); /* out of memory: rather now than never */
}

static void on_connection_end(GrpcConnection *c, void *arg) {
    GrpcServer *s = arg;

    for (size_t i = 0; i < s->n_connections; i++)
        if (s->connections[i] == c) {
            s->connections[i] = s->connections[--s->n_connections];
            break;
        }
    grpc_connection_free(c);
    if (s->shutting_down && s->n_connections == 0)
        server_done_after(s, 0);
}

int grpc_server_adopt(GrpcServer *s, int fd, Err *err) {
    _cleanup_close_ int taken = fd;
    GrpcConnection *c;
    int r;

    if (s->n_connections == LIMIT_GRPC_CONNECTIONS)
        return err_set(err, -EBUSY, "%d connections are open; close some", LIMIT_GRPC_CONNECTIONS);
    r = grpc_connection_new(&c,
                            &(GrpcConnectionOptions){ .event = s->options.event,
                                                      .name = s->name,
                                                      .methods = s->options.methods,
                                                      .fd = fd,
                                                      .on_call = s->options.on_call,
                                                      .on_call_arg = s->options.arg,
                                                      .on_end = on_connection_end,
                                                      .arg = s },
                            err);
    if (r < 0)
        return r;
    (void)TAKE_FD(taken);
    s->connections[s->n_connections++] = c;
    return 0;
}

static int on_pause_end(sd_event_source *source, uint64_t usec, void *userdata) {
    Listener *l = userdata;

    (void)source, (void)usec;
    return sd_event_source_set_enabled(l->io, SD_EVENT_ON);
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
    Listener *l = userdata;

    (void)source, (void)revents;
    for (int i = 0; i < ACCEPTS_A_TURN; i++) {
        int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        Err err = { "" };

        if (peer >= 0) {
            int r = grpc_server_adopt(l->server, peer, &err);

            if (r < 0)
                log_debug("%s: refused a connection: %s", l->server->name, err_text(&err, r));
            continue;
        }
        if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
            return 0;
        /* Out of descriptors or memory: the loop would spin. */
        log_debug("%s: accept: %s", l->server->name, strerror(errno));
        if (loop_timer_after(l->server->options.event, &l->pause, ACCEPT_PAUSE_USEC, on_pause_end,
                             l) >= 0)
            (void)sd_event_source_set_enabled(l->io, SD_EVENT_OFF); /* fails for no valid source */
        return 0;
    }
    return 0;
}

int grpc_server_listen(GrpcServer *s, const char *path, mode_t mode, Err *err) {
    _cleanup_(listener_freep) Listener *l = xnew(Listener);
    int r;

    l->server = s;
    r = unix_listener_new(&l->socket, path, mode, err);
    if (r < 0)
        return r;
    r = sd_event_add_io(s->options.event, &l->io, unix_listener_fd(l->socket), EPOLLIN, on_connect,
                        l);
    if (r < 0)
        return err_errnum(err, r, "watch the socket %s", path);
    /* Made now, because it needs a descriptor itself. */
    r = loop_timer_after(s->options.event, &l->pause, UINT64_MAX, on_pause_end, l);
    if (r < 0)
        return err_errnum(err, r, "make a timer for the socket %s", path);
    l->next = s->listeners;
    s->listeners = TAKE_PTR(l);
    return 0;
}

void grpc_server_shutdown(GrpcServer *s, uint64_t usec, void (*done)(void *arg), void *arg) {
    s->shutting_down = true;
    s->done = done;
    s->done_arg = arg;
    grpc_server_unlisten(s);
    for (size_t i = 0; i < s->n_connections; i++)
        grpc_connection_shutdown(s->connections[i]);
    server_done_after(s, s->n_connections == 0 ? 0 : usec);
}
