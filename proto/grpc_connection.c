/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_connection: one connection of a server: whose it is, its calls, its end. */
#include "base/log.h"
#include "proto/grpc_call.h"

#include <sys/socket.h>

struct GrpcConnection {
    GrpcConnectionOptions options;
    H2 *h2;
    GrpcCall *calls;
    struct ucred peer;
};

int grpc_connection_new(GrpcConnection **ret, const GrpcConnectionOptions *options, Err *err) {
    _cleanup_(grpc_connection_freep) GrpcConnection *c = xnew(GrpcConnection);
    socklen_t n = sizeof(c->peer);
    int r;

    c->options = *options;
    if (getsockopt(options->fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &n) < 0)
        return err_errno(err, "ask whose a connection of the %s socket is", options->name);
    r = h2_new(&c->h2,
               &(H2Options){ .event = options->event,
                             .fd = options->fd,
                             .server = true,
                             .handlers = &grpc_call_handlers,
                             .arg = c },
               err);
    if (r < 0)
        return r;
    log_debug("%s: connection of process %d, user %u", options->name, c->peer.pid, c->peer.uid);
    *ret = TAKE_PTR(c);
    return 0;
}

GrpcConnection *grpc_connection_free(GrpcConnection *c) {
    if (!c)
        return NULL;
    while (c->calls)
        grpc_call_free(c->calls);
    h2_free(c->h2);
    free(c);
    return NULL;
}

void grpc_connection_shutdown(GrpcConnection *c) {
    grpc_call_end_streams(c->calls);
    h2_goaway(c->h2);
}

void grpc_connection_down(void *arg, const char *why) {
    GrpcConnection *c = arg;

    log_debug("%s: connection of process %d ended: %s", c->options.name, c->peer.pid, why);
    c->options.on_end(c, c->options.arg);
}

const GrpcMethod *grpc_connection_find_method(const GrpcConnection *c, const char *path, size_t n) {
    for (const GrpcMethod *m = c->options.methods; m->path; m++)
        if (strlen(m->path) == n && memcmp(m->path, path, n) == 0)
            return m;
    return NULL;
}

sd_event *grpc_connection_event(const GrpcConnection *c) {
    return c->options.event;
}

GrpcCall **grpc_connection_calls(GrpcConnection *c) {
    return &c->calls;
}

void grpc_connection_report(const GrpcConnection *c, const GrpcMethod *method, GrpcCode code) {
    if (c->options.on_call)
        c->options.on_call(c->options.on_call_arg, method ? method->path : NULL, code);
}

void grpc_connection_peer(const GrpcConnection *c, uid_t *ret_uid, pid_t *ret_pid) {
    if (ret_uid)
        *ret_uid = c->peer.uid;
    if (ret_pid)
        *ret_pid = c->peer.pid;
}
