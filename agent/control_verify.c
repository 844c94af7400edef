/* SPDX-License-Identifier: Apache-2.0 */
/* control_verify: Verify: reads objects in a thread, tells how far it is. */
#include "agent/control_internal.h"

#include <pthread.h>

#define INTERVAL_USEC    (250 * USEC_PER_MSEC)
#define BAD_MAX          1000     /* sentences kept until the next message */
#define QUEUED_MAX_BYTES KiB(256) /* a client that does not read is not told meanwhile */

typedef struct Verify {
    Control *control;
    Store *store;
    GrpcCall *call; /* NULL: cancelled */
    ProtobufCMessage *request;
    sd_event_source *timer;

    pthread_mutex_t mutex; /* guards what follows: the thread writes, the loop reads */
    uint64_t objects, n_objects, bytes, n_bytes;
    char **bad;
    size_t n_bad, cap_bad;
    int n_incomplete;
    bool cancelled;
} Verify;

static void verify_free(Verify *v) {
    for (size_t i = 0; i < v->n_bad; i++)
        free(v->bad[i]);
    free(v->bad);
    (void)sd_event_source_disable_unref(v->timer);
    (void)pthread_mutex_destroy(&v->mutex);
    message_free(v->request);
    free(v);
}

static int on_progress(void *arg, uint64_t objects, uint64_t n_objects, uint64_t bytes,
                       uint64_t n_bytes) {
    Verify *v = arg;
    bool cancelled;

    (void)pthread_mutex_lock(&v->mutex);
    v->objects = objects;
    v->n_objects = n_objects;
    v->bytes = bytes;
    v->n_bytes = n_bytes;
    cancelled = v->cancelled;
    (void)pthread_mutex_unlock(&v->mutex);
    return cancelled ? -ECANCELED : 0;
}

static void on_bad(void *arg, const Digest *object, const char *sentence) {
    Verify *v = arg;

    (void)object;
    (void)pthread_mutex_lock(&v->mutex);
    if (v->n_bad < BAD_MAX) {
        ARRAY_GROW(v->bad, v->n_bad, v->cap_bad);
        v->bad[v->n_bad++] = xstrdup(sentence);
    }
    (void)pthread_mutex_unlock(&v->mutex);
}

static void on_incomplete(void *arg, const Digest *manifest, const char *sentence) {
    Verify *v = arg;

    v->n_incomplete++; /* read when the work has ended */
    on_bad(v, manifest, sentence);
}

/* Returns the number of bad objects and incomplete artifacts. */
static int run_verify(void *arg, Err *err) {
    Verify *v = arg;
    const Modelcached__Control__VerifyRequest *q = (void *)v->request;
    VerifyHandlers handlers = { on_progress, on_bad, on_incomplete, v };
    _cleanup_free_ char *reference = NULL;
    Digest digest;
    int r = *q->reference ? control_find(v->store, q->reference, "", &digest, &reference, err) : 0;

    return r < 0 ? r : store_verify(v->store, *q->reference ? &digest : NULL, &handlers, err);
}

static void say_bad(Verify *v, const char *sentence) {
    const Modelcached__Control__VerifyRequest *q = (void *)v->request;
    StoreEvent e = { .type = (char *)"verify.bad",
                     .reference = *q->reference ? q->reference : NULL,
                     .text = (char *)sentence };

    event_log_add(v->control->o.events, &e);
    metrics_add(v->control->o.metrics, METRIC_VERIFY_FAILURES, METRIC_LABEL(METRIC_IN_STORE), 1);
}

static void send_progress(Verify *v) {
    Modelcached__Control__VerifyProgress *m = CONTROL_NEW(VerifyProgress, verify_progress);

    (void)pthread_mutex_lock(&v->mutex);
    m->objects_done = v->objects;
    m->objects_total = v->n_objects;
    m->bytes_done = v->bytes;
    m->bytes_total = v->n_bytes;
    m->bad = TAKE_PTR(v->bad);
    m->n_bad = v->n_bad;
    v->n_bad = v->cap_bad = 0;
    (void)pthread_mutex_unlock(&v->mutex);
    for (size_t i = 0; i < m->n_bad; i++)
        say_bad(v, m->bad[i]);
    (void)control_send(v->call, &m->base);
    message_free(&m->base);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg) {
    Verify *v = arg;

    (void)source;
    (void)usec;
    if (grpc_call_queued(v->call) <= QUEUED_MAX_BYTES)
        send_progress(v);
    return loop_timer_after(v->control->o.event, &v->timer, INTERVAL_USEC, on_tick, v);
}

static void on_cancel(GrpcCall *call, void *arg) {
    Verify *v = arg;

    (void)call;
    v->call = NULL; /* on_verified frees it */
    v->timer = sd_event_source_disable_unref(v->timer);
    (void)pthread_mutex_lock(&v->mutex);
    v->cancelled = true;
    (void)pthread_mutex_unlock(&v->mutex);
}

static int say_result(int n_bad, int n_incomplete, Err *err) {
    if (n_bad == 0)
        return err_set(err, -EBADMSG, "%d artifact%s incomplete; %s must be pulled again",
                       n_incomplete, n_incomplete == 1 ? " is" : "s are",
                       n_incomplete == 1 ? "it" : "they");
    return err_set(err, -EBADMSG,
                   "%d object%s not what the digest says: taken out, and the next pull of the "
                   "artifact repairs it%s",
                   n_bad, n_bad == 1 ? " is" : "s are",
                   n_incomplete > 0 ? "; other artifacts are incomplete, see above" : "");
}

static void on_verified(void *arg, int r, const Err *err) {
    Verify *v = arg;
    Err why = { "" };

    if (v->call) {
        if (r >= 0)
            send_progress(v);
        if (r > 0)
            r = say_result(r - v->n_incomplete, v->n_incomplete, &why);
        else if (r < 0)
            why = *err;
        if (r < 0)
            control_fail(v->call, r, &why);
        else
            grpc_call_finish(v->call, NULL, 0);
    }
    verify_free(v);
}

void control_verify(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    Verify *v = xnew(Verify);

    *v = (Verify){ .control = c, .store = c->o.backend->store, .call = call, .request = request };
    (void)pthread_mutex_init(&v->mutex, NULL);
    grpc_call_set_on_cancel(call, on_cancel, v);
    /* Without the timer only the end is told. */
    (void)!loop_timer_after(c->o.event, &v->timer, INTERVAL_USEC, on_tick, v);
    pool_submit(c->o.checks, run_verify, on_verified, v);
}
