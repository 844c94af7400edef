/* SPDX-License-Identifier: Apache-2.0 */
/* control: the methods of the control API, and what all of them need. */
#include "agent/control_internal.h"
#include "base/fs.h"
#include "base/limits.h"

#define SERVICE "/modelcached.control.Control/"

static const struct {
    const char *path;
    bool streaming;
    const ProtobufCMessageDescriptor *request;
    ControlHandler handle;
} methods[] = {
#define METHOD(Name, streaming, request, handler) \
    { SERVICE #Name, streaming, &modelcached__control__##request##__descriptor, handler }
    METHOD(Pull, true, pull_request, control_pull),
    METHOD(List, false, list_request, control_list),
    METHOD(Inspect, true, inspect_request, control_inspect),
    METHOD(Remove, false, remove_request, control_remove),
    METHOD(Prune, false, prune_request, control_prune),
    METHOD(Mount, false, mount_request, control_mount),
    METHOD(Unmount, false, unmount_request, control_unmount),
    METHOD(Verify, true, verify_request, control_verify),
    METHOD(Status, false, status_request, control_status),
    METHOD(Events, true, events_request, control_events),
    METHOD(Health, false, health_request, control_health),
#undef METHOD
};

void message_free(ProtobufCMessage *m) {
    protobuf_c_message_free_unpacked(m, NULL);
}

void control_fail(GrpcCall *call, int r, const Err *err) {
    grpc_call_fail(call, status_from_errno(r), err_text(err, r));
}

/* The bytes of a message, or NULL when it passes the limit; the caller frees them. */
static uint8_t *pack(const ProtobufCMessage *m, size_t *ret_n) {
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *bytes;

    if (n > LIMIT_GRPC_MESSAGE_BYTES)
        return NULL;
    bytes = xnew_n(uint8_t, n + 1);
    *ret_n = protobuf_c_message_pack(m, bytes);
    return bytes;
}

void control_answer(GrpcCall *call, const ProtobufCMessage *m) {
    size_t n;
    _cleanup_free_ uint8_t *bytes = pack(m, &n);

    if (bytes)
        grpc_call_finish(call, bytes, n);
    else
        control_fail(call, -E2BIG, &(Err){ "the answer is too big for one message" });
}

size_t control_send(GrpcCall *call, const ProtobufCMessage *m) {
    size_t n;
    _cleanup_free_ uint8_t *bytes = pack(m, &n);

    return bytes ? grpc_call_send(call, bytes, n) : 0;
}

static void on_request(GrpcCall *call, const uint8_t *data, size_t n, void *arg) {
    const ControlMethod *m = arg;
    ProtobufCMessage *request = protobuf_c_message_unpack(m->request, NULL, n, data);

    if (request)
        m->handle(m->control, call, request);
    else
        control_fail(call, -EINVAL, &(Err){ "the request is not a message of control.proto" });
}

/* Works. */

static void work_free(ControlWork *w) {
    message_free(w->request);
    if (w->answer)
        message_free(w->answer);
    free(w);
}

static void on_work_cancel(GrpcCall *call, void *arg) {
    (void)call;
    ((ControlWork *)arg)->call = NULL;
}

static int run_work(void *arg, Err *err) {
    ControlWork *w = arg;

    return w->run(w, err);
}

static void on_work_done(void *arg, int r, const Err *err) {
    ControlWork *w = arg;

    if (w->call && r < 0)
        control_fail(w->call, r, err);
    else if (w->call) {
        if (w->finish)
            w->finish(w);
        control_answer(w->call, w->answer);
    }
    work_free(w);
}

void control_work_start(Control *c, GrpcCall *call, ProtobufCMessage *request,
                        int (*run)(ControlWork *w, Err *err), void (*finish)(ControlWork *w)) {
    ControlWork *w = xnew(ControlWork);

    *w = (ControlWork){ .control = c,
                        .store = c->o.backend->store,
                        .call = call,
                        .request = request,
                        .run = run,
                        .finish = finish };
    grpc_call_set_on_cancel(call, on_work_cancel, w);
    pool_submit(c->o.backend->pool, run_work, on_work_done, w);
}

/* The server. */

static int listen_on(Control *c, Err *err) {
    const char *path = c->o.config->control_socket;
    GrpcServerOptions options = { .event = c->o.event, .name = "control", .methods = c->methods };
    int r = fs_mkdir_for(path, 0755, err);

    if (r >= 0)
        r = grpc_server_new(&c->server, &options, err);
    if (r >= 0)
        r = grpc_server_listen(c->server, path, 0660, err);
    return r;
}

int control_new(Control **ret, const ControlOptions *options, Err *err) {
    _cleanup_(control_freep) Control *c = xnew(Control);
    int r;

    c->o = *options;
    c->started_usec = (int64_t)now_realtime_usec();
    c->methods = xnew_n(GrpcMethod, ELEMENTSOF(methods) + 1);
    c->contexts = xnew_n(ControlMethod, ELEMENTSOF(methods));
    for (size_t i = 0; i < ELEMENTSOF(methods); i++) {
        c->contexts[i] = (ControlMethod){ c, methods[i].request, methods[i].handle };
        c->methods[i] =
            (GrpcMethod){ methods[i].path, methods[i].streaming, on_request, &c->contexts[i] };
    }
    r = listen_on(c, err);
    if (r < 0)
        return err_prefix(err, r, "control socket");
    *ret = TAKE_PTR(c);
    return 0;
}

void control_stop(Control *c, uint64_t usec, void (*done)(void *arg), void *arg) {
    grpc_server_shutdown(c->server, usec, done, arg);
}

Control *control_free(Control *c) {
    if (!c)
        return NULL;
    (void)grpc_server_free(c->server);
    free(c->methods);
    free(c->contexts);
    free(c);
    return NULL;
}
