/* SPDX-License-Identifier: Apache-2.0 */
/* control_mount: Mount, Unmount: volumes of an administrator, without the kubelet. */
#include "agent/control_internal.h"
#include "base/fs.h"

typedef struct MountCall {
    Control *control; /* only while `call` is set */
    Store *store;
    GrpcCall *call; /* NULL: cancelled */
    VolumeTicket *ticket;
    ProtobufCMessage *request;
    char *volume_id;
    Digest digest;
} MountCall;

static void call_free(MountCall *m) {
    (void)volume_ticket_free(m->ticket);
    message_free(m->request);
    free(m->volume_id);
    free(m);
}

static void on_cancel(GrpcCall *call, void *arg) {
    (void)call;
    call_free(arg);
}

static int check_directory(const char *directory, Err *err) {
    if (path_is_clean_absolute(directory))
        return 0;
    return err_set(err, -EINVAL, "\"%.200s\" is not an absolute path without . or .. components",
                   directory);
}

static int run_digest(ControlWork *w, Err *err) {
    const Modelcached__Control__MountRequest *q = (void *)w->request;
    _cleanup_free_ char *id = xasprintf("%s%s", VOLUME_ID_CONTROL, q->directory);
    Modelcached__Control__MountResponse *m = CONTROL_NEW(MountResponse, mount_response);
    Volume volume;
    int r = store_volume_get(w->store, id, q->directory, &volume, err);

    w->answer = &m->base;
    if (r < 0)
        return r;
    m->digest = xstrdup(DIGEST_STR(&volume.manifest));
    volume_clear(&volume);
    return 0;
}

static void on_published(void *arg, int r, const Err *err) {
    MountCall *m = arg;

    if (r < 0)
        control_fail(m->call, r, err);
    else /* takes over the call with its cancelling */
        control_work_start(m->control, m->call, TAKE_PTR(m->request), run_digest, NULL);
    call_free(m);
}

static int start_mount(MountCall *m, Err *err) {
    const Modelcached__Control__MountRequest *q = (void *)m->request;
    _cleanup_(params_done) Params params = { .exec = q->exec, .policy = PULL_POLICY_NEVER };
    VolumePublishRequest request = { .key = { m->volume_id, q->directory },
                                     .params = &params,
                                     .trusted = true };
    char platform[PLATFORM_TEXT_MAX];
    int r = check_directory(q->directory, err);

    if (r >= 0)
        r = control_platform(platform, q->platform, err);
    if (r >= 0 && *platform)
        params.platform = xstrdup(platform);
    if (*q->sub_path)
        params.sub_path = xstrdup(q->sub_path);
    if (r >= 0 && params.sub_path && !path_is_safe_relative(params.sub_path))
        r = err_set(err, -EINVAL,
                    "sub path \"%.200s\" is not a relative path without . or .. components",
                    params.sub_path);
    if (r >= 0)
        r = filter_parse(&params.filter, q->include, q->exclude, err);
    if (r >= 0)
        r = reference_parse(&params.reference, q->reference, err);
    if (r >= 0)
        r = volume_publish(m->control->o.volumes, &m->ticket, &request, on_published, m, err);
    return r;
}

static MountCall *call_new(Control *c, GrpcCall *call, ProtobufCMessage *request,
                           const char *directory) {
    MountCall *m = xnew(MountCall);

    *m = (MountCall){ .control = c,
                      .store = c->o.backend->store,
                      .call = call,
                      .request = request,
                      .volume_id = xasprintf("%s%s", VOLUME_ID_CONTROL, directory) };
    return m;
}

static void call_started(MountCall *m, int r, const Err *err) {
    if (r >= 0) {
        grpc_call_set_on_cancel(m->call, on_cancel, m);
        return;
    }
    control_fail(m->call, r, err);
    call_free(m);
}

void control_mount(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    const Modelcached__Control__MountRequest *q = (void *)request;
    MountCall *m = call_new(c, call, request, q->directory);
    Err err = { "" };

    call_started(m, start_mount(m, &err), &err);
}

static void on_unpublished(void *arg, int r, const Err *err) {
    MountCall *m = arg;
    Modelcached__Control__UnmountResponse answer = MODELCACHED__CONTROL__UNMOUNT_RESPONSE__INIT;

    if (r < 0)
        control_fail(m->call, r, err);
    else
        control_answer(m->call, &answer.base);
    call_free(m);
}

/* Only what `cache-ctl mount` has mounted: the kubelet's volumes are the kubelet's. */
static int run_known(void *arg, Err *err) {
    MountCall *m = arg;
    const Modelcached__Control__UnmountRequest *q = (void *)m->request;
    Volume volume;
    int r = store_volume_get(m->store, m->volume_id, q->directory, &volume, NULL);

    if (r == -ENOENT)
        return err_set(err, r, "%s was not mounted by cache-ctl mount", q->directory);
    if (r >= 0)
        volume_clear(&volume);
    return r;
}

static void on_cancel_early(GrpcCall *call, void *arg) {
    (void)call;
    ((MountCall *)arg)->call = NULL; /* on_known frees it */
}

static void on_known(void *arg, int r, const Err *err) {
    MountCall *m = arg;
    const Modelcached__Control__UnmountRequest *q = (void *)m->request;
    VolumeKey key = { m->volume_id, q->directory };
    Err why = *err;

    if (!m->call) {
        call_free(m);
        return;
    }
    if (r >= 0)
        r = volume_unpublish(m->control->o.volumes, &m->ticket, &key, on_unpublished, m, &why);
    call_started(m, r, &why);
}

void control_unmount(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    const Modelcached__Control__UnmountRequest *q = (void *)request;
    MountCall *m = call_new(c, call, request, q->directory);
    Err err = { "" };
    int r = check_directory(q->directory, &err);

    if (r < 0) {
        call_started(m, r, &err);
        return;
    }
    grpc_call_set_on_cancel(call, on_cancel_early, m);
    pool_submit(c->o.backend->pool, run_known, on_known, m);
}
