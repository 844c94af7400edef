/* SPDX-License-Identifier: Apache-2.0 */
/* volume: the life of volumes: one operation a target at a time, its states, and those who wait for
 * it. */
#include "csi/volume.h"

#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/parse.h"
#include "csi/volume_internal.h"

#include <stdarg.h>

typedef enum VolumeState {
    VOLUME_INIT,
    VOLUME_WAIT,    /* unpublish: behind another operation on its target */
    VOLUME_LOOKING, /* publish: a pool work looks what is there */
    VOLUME_ENSURE,  /* publish: the artifact comes */
    VOLUME_MOUNT,   /* publish: a pool work records and mounts */
    VOLUME_UNMOUNT, /* unpublish: a pool work does it */
    VOLUME_DONE,
    VOLUME_STATE_COUNT,
} VolumeState;

struct VolumeTicket {
    VolumeOp *op; /* NULL: it has ended */
    VolumeDone done;
    void *arg;
    VolumeTicket *next;
};

struct VolumeOp {
    Volumes
        *volumes; /* NULL: they were freed while a pool work runs, which then owns the operation */
    VolumeOp *next;
    VolumeTicket *tickets;
    VolumeState state;
    bool unpublish;
    bool cancelled; /* publish: an unpublish came */
    uint64_t begun_usec;

    /* publish */
    Params params;
    CredentialList credentials;
    bool trusted;
    EnsureTicket *ensure;
    char pull[PULL_ID_MAX]; /* id of the one that brought the artifact, or "" */
    bool in_ensure;         /* the backend is being called: its answer is taken when it returns */
    bool ensured;
    uint64_t deadline_usec; /* 0: it waits as long as it takes */
    int ensure_r;
    Err ensure_err;

    /* What pool works read and write; the loop keeps its hands off while one runs. */
    Store *store;
    MountMethod method;
    Volume volume;
    VolumeLook look;
};

static int op_enter_looking(VolumeOp *op);
static int op_enter_ensure(VolumeOp *op);
static int op_enter_mount(VolumeOp *op);
static int op_enter_unmount(VolumeOp *op);

/* The states, each with the moves it allows; `progress` is for who asks meanwhile. */
static const struct {
    const char *name;
    unsigned next;              /* bit set of the states that may follow */
    int (*enter)(VolumeOp *op); /* starts the state's work; < 0 ends the operation */
    const char *progress;
} volume_states[VOLUME_STATE_COUNT] = {
    [VOLUME_INIT] = { "init", 1U << VOLUME_LOOKING | 1U << VOLUME_WAIT | 1U << VOLUME_UNMOUNT, NULL,
                      "starting" },
    [VOLUME_WAIT] = { "wait", 1U << VOLUME_UNMOUNT | 1U << VOLUME_DONE, NULL,
                      "waiting for another operation on the target" },
    [VOLUME_LOOKING] = { "looking", 1U << VOLUME_ENSURE | 1U << VOLUME_MOUNT | 1U << VOLUME_DONE,
                         op_enter_looking, "looking what is there" },
    [VOLUME_ENSURE] = { "ensure", 1U << VOLUME_MOUNT | 1U << VOLUME_DONE, op_enter_ensure,
                        "waiting for the artifact" },
    [VOLUME_MOUNT] = { "mount", 1U << VOLUME_DONE, op_enter_mount, "mounting" },
    [VOLUME_UNMOUNT] = { "unmount", 1U << VOLUME_DONE, op_enter_unmount, "unmounting" },
    [VOLUME_DONE] = { "done", 0, NULL, "done" },
};

static void op_finish(VolumeOp *op, int r, const Err *err);

static void op_goto(VolumeOp *op, VolumeState state) {
    int r;

    assert(volume_states[op->state].next & 1U << state);
    log_write(LOG_DEBUG,
              LOG_FIELDS({ "volume", op->volume.volume_id }, { "pod", op->volume.pod_name },
                         { "namespace", op->volume.pod_namespace }),
              "volume: %s -> %s", volume_states[op->state].name, volume_states[state].name);
    op->state = state;
    r = volume_states[state].enter ? volume_states[state].enter(op) : 0;
    if (r < 0)
        op_finish(op, r, &op->ensure_err);
}

void volumes_event(const Volumes *v, const VolumeSubject *subject, const char *type,
                   const char *format, ...) {
    char text[640], digest[DIGEST_TEXT_MAX];
    const Volume *volume = subject->volume;
    StoreEvent event = { .type = (char *)type,
                         .text = text,
                         .time_usec = (int64_t)now_realtime_usec(),
                         .pull = isempty(subject->pull) ? NULL : (char *)subject->pull };
    va_list ap;

    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (volume) {
        event.reference = volume->reference;
        event.volume_id = volume->volume_id;
        if (!digest_is_zero(&volume->manifest))
            event.digest = (char *)digest_text(digest, &volume->manifest);
        event.pod_namespace = volume->pod_namespace;
        event.pod_name = volume->pod_name;
    }
    v->backend->event(v->backend->arg, &event);
}

/* Says once, at the end, what became of it. */
static void op_report(const VolumeOp *op, int r, const Err *err) {
    const Volume *v = &op->volume;
    const VolumeSubject subject = { v, op->pull };
    uint64_t usec = now_usec() - op->begun_usec;
    const char *what = v->reference ? v->reference : "an unknown volume";
    _cleanup_free_ char *pod =
        v->pod_name
            ? xasprintf(" for pod %s/%s", v->pod_namespace ? v->pod_namespace : "?", v->pod_name)
            : xstrdup("");

    if (r == -ECANCELED || (op->unpublish && r == 0) ||
        (!op->unpublish && op->look == VOLUME_LOOK_MOUNTED))
        return; /* nothing happened */
    if (r < 0)
        volumes_event(op->volumes, &subject,
                      op->unpublish ? "volume.unpublish-failed" : "volume.failed",
                      "cannot %s the volume at %s%s: %s", op->unpublish ? "unpublish" : "publish",
                      op->volume.target, pod, err_text(err, r));
    else if (op->unpublish)
        volumes_event(op->volumes, &subject, "volume.unpublished", "unpublished %s from %s%s in %s",
                      what, v->target, pod, FORMAT_DURATION(usec));
    else {
        volumes_event(op->volumes, &subject, "volume.published", "published %s at %s%s in %s", what,
                      op->volume.target, pod, FORMAT_DURATION(usec));
        op->volumes->backend->published(op->volumes->backend->arg, usec, *op->pull);
    }
}

static VolumeOp *op_free(VolumeOp *op) {
    params_done(&op->params);
    credential_list_done(&op->credentials);
    volume_clear(&op->volume);
    free(op);
    return NULL;
}

static void op_unlink(VolumeOp *op) {
    VolumeOp **p = &op->volumes->ops;

    while (*p != op)
        p = &(*p)->next;
    *p = op->next;
    op->next = NULL;
}

/* The first operation on the target. */
static VolumeOp *op_find(const Volumes *v, const char *target) {
    for (VolumeOp *op = v->ops; op; op = op->next)
        if (streq(op->volume.target, target))
            return op;
    return NULL;
}

static VolumeKey op_key(const VolumeOp *op) {
    return (VolumeKey){ op->volume.volume_id, op->volume.target };
}

/* Which pull it waited for is worth knowing at the end. */
static void op_drop_ensure(VolumeOp *op) {
    const Backend *b = op->volumes->backend;

    if (!op->ensure)
        return;
    (void)snprintf(op->pull, sizeof(op->pull), "%s", b->ticket_pull(op->ensure));
    op->ensure = b->ticket_free(op->ensure);
}

/* The only caller of `done`: last, when the operation is in no list any more. */
static void op_finish(VolumeOp *op, int r, const Err *err) {
    Volumes *v = op->volumes;
    VolumeKey key = op_key(op);
    VolumeOp *next;
    Err copy = { "" };

    if (op->state == VOLUME_DONE)
        return;
    op->state = VOLUME_DONE;
    if (err)
        copy = *err;
    op_drop_ensure(op);
    if (r >= 0)
        patience_forget(v->patience, &key);
    op_report(op, r, &copy);
    op_unlink(op);
    next = op_find(v, op->volume.target);
    if (next && next->state == VOLUME_WAIT)
        op_goto(next, VOLUME_UNMOUNT);
    for (VolumeTicket *t; (t = op->tickets);) {
        op->tickets = t->next;
        t->op = NULL;
        t->done(t->arg, r < 0 ? r : 0, &copy);
    }
    (void)op_free(op);
}

/* A pool work came back: is there still somebody to go on for?  An operation without an owner ends
 * here. */
static bool op_is_owned(VolumeOp *op) {
    if (op->volumes)
        return true;
    (void)op_free(op);
    return false;
}

static int op_run_look(void *arg, Err *err) {
    VolumeOp *op = arg;

    return volume_look(op->store, &op->volume, &op->look, &op->volume.manifest, err);
}

static void op_cancel(VolumeOp *op) {
    Err err;
    int r =
        err_set(&err, -ECANCELED, "the volume at %s was unpublished while it was being published",
                op->volume.target);

    op_finish(op, r, &err);
}

static void op_looked(void *arg, int r, const Err *err) {
    VolumeOp *op = arg;

    if (!op_is_owned(op))
        return;
    if (op->cancelled || !op->tickets)
        op_cancel(op);
    else if (r < 0 || op->look == VOLUME_LOOK_MOUNTED)
        op_finish(op, r, err);
    else
        op_goto(op, op->look == VOLUME_LOOK_RECORDED ? VOLUME_MOUNT : VOLUME_ENSURE);
}

static int op_enter_looking(VolumeOp *op) {
    pool_submit(op->volumes->backend->pool, op_run_look, op_looked, op);
    return 0;
}

static void op_take_ensured(VolumeOp *op) {
    op_drop_ensure(op);
    if (op->ensure_r < 0)
        op_finish(op, op->ensure_r, &op->ensure_err);
    else
        op_goto(op, VOLUME_MOUNT);
}

static void op_on_ensured(void *arg, int r, const Err *err, const Digest *artifact) {
    VolumeOp *op = arg;

    op->ensured = true;
    op->ensure_r = r;
    if (r < 0 && err)
        op->ensure_err = *err;
    if (r == -ETIMEDOUT && op->deadline_usec > 0 && now_usec() >= op->deadline_usec)
        (void)err_prefix(&op->ensure_err, r, "gave up after %s, the volume's timeout",
                         FORMAT_DURATION(op->params.timeout_usec));
    if (r >= 0)
        op->volume.manifest = *artifact;
    if (!op->in_ensure)
        op_take_ensured(op);
}

/* The backend may answer before it returns. */
static int op_enter_ensure(VolumeOp *op) {
    const Backend *b = op->volumes->backend;
    VolumeKey key = op_key(op);
    EnsureRequest request = {
        .asker = { op->volume.volume_id, op->volume.pod_namespace, op->volume.pod_name },
        .reference = op->params.reference,
        .platform = op->params.platform,
        .policy = op->params.policy,
        .filter = op->params.filter,
        .credentials = &op->credentials,
        .trusted = op->trusted,
    };
    int r;

    if (op->params.timeout_usec > 0)
        op->deadline_usec = request.deadline_usec =
            patience_until(op->volumes->patience, &key, op->params.timeout_usec, op->begun_usec);
    op->in_ensure = true;
    r = b->ensure(b->arg, &op->ensure, &request, op_on_ensured, op, &op->ensure_err);
    op->in_ensure = false;
    if (r < 0)
        return r;
    if (op->ensured)
        op_take_ensured(op);
    return 0;
}

static int op_run_mount(void *arg, Err *err) {
    VolumeOp *op = arg;

    return volume_mount(op->store, op->method, &op->volume, op->look == VOLUME_LOOK_STALE, err);
}

static void op_mounted(void *arg, int r, const Err *err) {
    VolumeOp *op = arg;

    if (!op_is_owned(op))
        return;
    if (r >= 0 && op->params.warm && !op->cancelled)
        warmer_add(op->volumes->warmer, &op->volume);
    op_finish(op, r, err);
}

static int op_enter_mount(VolumeOp *op) {
    pool_submit(op->volumes->backend->pool, op_run_mount, op_mounted, op);
    return 0;
}

static void op_unmounted(void *arg, int r, const Err *err) {
    VolumeOp *op = arg;

    if (op_is_owned(op))
        op_finish(op, r, err);
}

static int op_run_unmount(void *arg, Err *err) {
    VolumeOp *op = arg;
    VolumeKey key = op_key(op);
    Volume have = { 0 };

    /* For the report; what happens is decided by volume_unmount(). */
    if (store_volume_get(op->store, op->volume.volume_id, op->volume.target, &have, NULL) >= 0) {
        op->volume.reference = TAKE_PTR(have.reference);
        op->volume.manifest = have.manifest;
        op->volume.pod_namespace = TAKE_PTR(have.pod_namespace);
        op->volume.pod_name = TAKE_PTR(have.pod_name);
    }
    volume_clear(&have);
    return volume_unmount(op->store, &key, err);
}

static int op_enter_unmount(VolumeOp *op) {
    pool_submit(op->volumes->backend->pool, op_run_unmount, op_unmounted, op);
    return 0;
}

static VolumeOp *op_new(Volumes *v, const VolumeKey *key) {
    VolumeOp *op = xnew(VolumeOp), **last = &v->ops;

    op->volumes = v;
    op->store = v->backend->store;
    op->method = v->backend->mount_method;
    op->begun_usec = now_usec();
    op->volume.volume_id = xstrdup(key->volume_id);
    op->volume.target = xstrdup(key->target);
    op->volume.created_usec = (int64_t)now_realtime_usec();
    while (*last)
        last = &(*last)->next;
    *last = op;
    return op;
}

static VolumeTicket *op_join(VolumeOp *op, VolumeDone done, void *arg) {
    VolumeTicket *t = xnew(VolumeTicket);

    *t = (VolumeTicket){ .op = op, .done = done, .arg = arg, .next = op->tickets };
    op->tickets = t;
    return t;
}

static int volume_key_check(const VolumeKey *key, Err *err) {
    if (isempty(key->volume_id) || strlen(key->volume_id) > LIMIT_VOLUME_ID_BYTES)
        return err_set(err, -EINVAL, "a volume id has 1 to %d bytes", LIMIT_VOLUME_ID_BYTES);
    if (!params_is_plain(key->volume_id))
        return err_set(err, -EINVAL, "the volume id has a control character or is not UTF-8");
    return 0;
}

/* The text that the record keeps, and that a second publish must match. */
static char *request_text(const VolumePublishRequest *q) {
    _cleanup_free_ char *params = params_text(q->params);

    return xasprintf("%s%s", params, q->capability ? q->capability : "");
}

static void op_fill(VolumeOp *op, const VolumePublishRequest *q, char *parameters) {
    op->params = *q->params;
    *q->params = (Params){ 0 };
    if (q->credentials) {
        op->credentials = *q->credentials;
        *q->credentials = (CredentialList){ 0 };
    }
    op->trusted = q->trusted;
    op->volume.reference = reference_text(op->params.reference);
    op->volume.sub_path = xstrdup(op->params.sub_path);
    op->volume.parameters = parameters;
    op->volume.pod_namespace = TAKE_PTR(op->params.pod_namespace);
    op->volume.pod_name = TAKE_PTR(op->params.pod_name);
    op->volume.exec = op->params.exec && !q->noexec;
    op->volume.multi_node = q->multi_node;
}

static int op_join_publish(VolumeOp *op, VolumeTicket **ret, const VolumePublishRequest *q,
                           VolumeDone done, void *arg, Err *err) {
    _cleanup_free_ char *parameters = request_text(q);

    if (!op->unpublish && !op->cancelled && op->trusted == q->trusted &&
        streq(op->volume.volume_id, q->key.volume_id) && streq(op->volume.parameters, parameters)) {
        *ret = op_join(op, done, arg);
        return 0;
    }
    return err_set(err, -EINPROGRESS, "the target %.200s is being %s; try again when that is done",
                   q->key.target,
                   op->unpublish || op->cancelled ? "unpublished"
                                                  : "published with other attributes or as another "
                                                    "volume");
}

int volume_publish(Volumes *v, VolumeTicket **ret, const VolumePublishRequest *request,
                   VolumeDone done, void *arg, Err *err) {
    VolumeOp *op = op_find(v, request->key.target);
    int r = volume_key_check(&request->key, err);

    if (r >= 0 && path_is_beneath(request->key.target, store_path(v->backend->store)))
        r = err_set(err, -EINVAL,
                    "%.200s lies in the store of modelcached, where nothing can be mounted; name a "
                    "directory elsewhere",
                    request->key.target);
    if (r < 0)
        return r;
    if (op)
        return op_join_publish(op, ret, request, done, arg, err);
    op = op_new(v, &request->key);
    op_fill(op, request, request_text(request));
    *ret = op_join(op, done, arg);
    op_goto(op, VOLUME_LOOKING);
    return 0;
}

/* An unpublish is the negation that CSI lets cancel a publish; a mount that is being made is waited
 * for. */
static void cancel_publishes(Volumes *v, const VolumeKey *key) {
    VolumeOp *op = op_find(v, key->target);

    if (!op || op->unpublish || !streq(op->volume.volume_id, key->volume_id))
        return;
    if (op->state == VOLUME_ENSURE)
        op_cancel(op);
    else
        op->cancelled = true;
}

int volume_unpublish(Volumes *v, VolumeTicket **ret, const VolumeKey *key, VolumeDone done,
                     void *arg, Err *err) {
    VolumeOp *op = op_find(v, key->target);
    int r = volume_key_check(key, err);

    if (r < 0)
        return r;
    if (op && !op->unpublish && !streq(op->volume.volume_id, key->volume_id))
        return err_set(err, -EINPROGRESS,
                       "the target %.200s is being published as another volume; try again when "
                       "that is done",
                       key->target);
    warmer_stop(v->warmer, key->volume_id, key->target);
    cancel_publishes(v, key);
    for (op = v->ops; op; op = op->next)
        if (op->unpublish && streq(op->volume.volume_id, key->volume_id) &&
            streq(op->volume.target, key->target)) {
            *ret = op_join(op, done, arg);
            return 0;
        }
    op = op_new(v, key);
    op->unpublish = true;
    *ret = op_join(op, done, arg);
    op_goto(op, op_find(v, key->target) == op ? VOLUME_UNMOUNT : VOLUME_WAIT);
    return 0;
}

void volume_ticket_progress(const VolumeTicket *t, char *buf, size_t n) {
    const VolumeOp *op = t->op;

    buf[0] = '\0';
    if (op && op->state == VOLUME_ENSURE && op->ensure)
        op->volumes->backend->ticket_progress(op->ensure, buf, n);
    if (!buf[0])
        (void)snprintf(buf, n, "%s", volume_states[op ? op->state : VOLUME_DONE].progress);
}

const char *volume_ticket_pull(const VolumeTicket *t) {
    const VolumeOp *op = t->op;

    return op && op->ensure ? op->volumes->backend->ticket_pull(op->ensure) : "";
}

VolumeTicket *volume_ticket_free(VolumeTicket *t) {
    VolumeOp *op = t ? t->op : NULL;

    if (op) {
        VolumeTicket **p = &op->tickets;

        while (*p != t)
            p = &(*p)->next;
        *p = t->next;
        if (!op->tickets && op->state == VOLUME_ENSURE)
            op_finish(op, -ECANCELED, NULL);
    }
    free(t);
    return NULL;
}

static uint64_t room_for_cache(void) {
    return memory_room("/proc", "/sys/fs/cgroup");
}

static void on_warmed(void *arg, const Volume *volume, int r, const char *sentence) {
    volumes_event(arg, &(VolumeSubject){ .volume = volume },
                  r < 0 ? "volume.not-warmed" : "volume.warmed", "%s", sentence);
}

int volumes_new(Volumes **ret, const Backend *backend, Err *err) {
    Volumes *v;

    if (!backend->store || !backend->pool || backend->mount_method == MOUNT_METHOD_NONE)
        return err_set(err, -ENOTSUP,
                       "volumes cannot be mounted on this machine: CAP_SYS_ADMIN and a kernel that "
                       "can make read-only bind mounts are needed");
    v = xnew(Volumes);
    v->backend = backend;
    v->patience = patience_new();
    warmer_new(&v->warmer, &(WarmerOptions){ .event = backend->loop,
                                             .store = backend->store,
                                             .bytes_per_second = backend->warm_bytes_per_second,
                                             .room = room_for_cache,
                                             .done = on_warmed,
                                             .arg = v });
    *ret = v;
    return 0;
}

Volumes *volumes_free(Volumes *v) {
    if (!v)
        return NULL;
    for (VolumeOp *op; (op = v->ops);) {
        v->ops = op->next;
        for (VolumeTicket *t = op->tickets; t; t = t->next)
            t->op = NULL;
        op->tickets = NULL;
        op->volumes = NULL;
        if (op->ensure)
            op->ensure = v->backend->ticket_free(op->ensure);
        if (op->state == VOLUME_ENSURE || op->state == VOLUME_WAIT)
            (void)op_free(op); /* No pool work has it. */
    }
    (void)patience_free(v->patience);
    (void)warmer_free(v->warmer);
    free(v);
    return NULL;
}
