/* SPDX-License-Identifier: Apache-2.0 */
/* control_pull: Pull: what a pull is at, four times a second, until it is over. */
#include "agent/control_internal.h"

#define INTERVAL_USEC    (250 * USEC_PER_MSEC)
#define QUEUED_MAX_BYTES KiB(256) /* a client that does not read is not told meanwhile */
#define LAYERS_MAX       256      /* more are counted, not listed */

typedef struct PullStream {
    Control *control; /* only while `call` is set */
    Store *store;
    GrpcCall *call; /* NULL: cancelled */
    EnsureTicket *ticket;
    sd_event_source *timer;
    char *reference;
    Digest digest;  /* once done: of the manifest */
    uint64_t bytes; /* of the artifact */
} PullStream;

static void stream_free(PullStream *s) {
    (void)sd_event_source_disable_unref(s->timer);
    (void)puller_ticket_free(s->ticket);
    free(s->reference);
    free(s);
}

static void add_layers(Modelcached__Control__PullProgress *m, const Flight *pull) {
    size_t n = m->layers_total < LAYERS_MAX ? m->layers_total : LAYERS_MAX;

    m->layers = xnew_n(Modelcached__Control__LayerStatus *, n + 1);
    for (size_t i = 0; m->n_layers < n; i++) {
        FlightLayerView v = flight_view_layer(pull, i);
        Modelcached__Control__LayerStatus *l;

        if (v.left_out)
            continue;
        l = CONTROL_NEW(LayerStatus, layer_status);

        l->digest = xstrdup(DIGEST_STR(&v.layer->digest));
        l->path = xstrdup(v.layer->path);
        l->bytes_done = v.bytes;
        l->bytes_total = v.layer->size;
        l->cached = v.cached;
        l->done = v.done;
        m->layers[m->n_layers++] = l;
    }
}

Modelcached__Control__PullProgress *control_progress(const Flight *pull) {
    Modelcached__Control__PullProgress *m = CONTROL_NEW(PullProgress, pull_progress);
    FlightView v;

    flight_view(pull, &v);
    m->state = (Modelcached__Control__PullState)v.state;
    m->reference = xstrdup(v.reference);
    if (v.digest)
        m->digest = xstrdup(DIGEST_STR(v.digest));
    m->bytes_done = v.bytes_done;
    m->bytes_total = v.bytes_total;
    m->bytes_cached = v.bytes_cached;
    m->layers_done = v.layers_done;
    m->layers_total = v.layers_total;
    m->rate = v.rate;
    m->elapsed_usec = v.elapsed_usec;
    m->waiting = xstrdup(v.waiting);
    m->bytes_resumed = v.bytes_resumed;
    m->background = v.background;
    m->id = xstrdup(v.id);
    add_layers(m, pull);
    return m;
}

static void send_progress(PullStream *s, const Flight *pull) {
    Modelcached__Control__PullProgress *m = control_progress(pull);

    (void)control_send(s->call, &m->base);
    message_free(&m->base);
}

/* A pull that is over but not cleaned up yet tells nothing: the last message is on_done's. */
static void tell(PullStream *s) {
    const Flight *pull = puller_ticket_pull(s->ticket);
    FlightView v;

    if (!pull)
        return;
    flight_view(pull, &v);
    if (v.state != FLIGHT_DONE)
        send_progress(s, pull);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *arg) {
    PullStream *s = arg;

    (void)source;
    (void)usec;
    if (grpc_call_queued(s->call) <= QUEUED_MAX_BYTES)
        tell(s);
    return loop_timer_after(s->control->o.event, &s->timer, INTERVAL_USEC, on_tick, s);
}

static void on_cancel(GrpcCall *call, void *arg) {
    (void)call;
    stream_free(arg); /* the pull goes on */
}

/* The store knew it: how much it is, for people. */
static int run_size(void *arg, Err *err) {
    PullStream *s = arg;
    ArtifactInfo info;
    int r = store_inspect(s->store, &s->digest, &info, err);

    if (r < 0)
        return r;
    s->bytes = info.bytes;
    s->digest = info.manifest;
    artifact_info_clear(&info);
    return 0;
}

static void on_size(void *arg, int r, const Err *err) {
    PullStream *s = arg;
    Modelcached__Control__PullProgress *m;

    if (s->call && r < 0)
        control_fail(s->call, r, err);
    else if (s->call) {
        m = CONTROL_NEW(PullProgress, pull_progress);
        m->state = MODELCACHED__CONTROL__PULL_STATE__PULL_DONE;
        m->reference = xstrdup(s->reference);
        m->digest = xstrdup(DIGEST_STR(&s->digest));
        m->bytes_cached = s->bytes;
        (void)control_send(s->call, &m->base);
        message_free(&m->base);
        grpc_call_finish(s->call, NULL, 0);
    }
    stream_free(s);
}

static void on_cancel_late(GrpcCall *call, void *arg) {
    (void)call;
    ((PullStream *)arg)->call = NULL; /* on_size frees it */
}

static void on_done(void *arg, int r, const Err *err, const Digest *artifact) {
    PullStream *s = arg;
    const Flight *pull = puller_ticket_pull(s->ticket);

    s->timer = sd_event_source_disable_unref(s->timer);
    if (r >= 0 && !pull) {
        s->digest = *artifact;
        grpc_call_set_on_cancel(s->call, on_cancel_late, s);
        pool_submit(s->control->o.backend->pool, run_size, on_size, s);
        return;
    }
    if (r < 0)
        control_fail(s->call, r, err);
    else {
        send_progress(s, pull);
        grpc_call_finish(s->call, NULL, 0);
    }
    stream_free(s);
}

static int start(PullStream *s, const Modelcached__Control__PullRequest *q,
                 CredentialList *credentials, Err *err) {
    _cleanup_(reference_freep) Reference *reference = NULL;
    EnsureRequest request = { .platform = *q->platform ? q->platform : NULL,
                              .credentials = credentials,
                              .background = q->background,
                              .trusted = true };
    _cleanup_(filter_freep) Filter *filter = NULL;
    int r = reference_parse(&reference, q->reference, err);

    if (r >= 0)
        r = pull_policy_parse(&request.policy, q->policy, err);
    if (r >= 0)
        r = filter_parse(&filter, q->include, q->exclude, err);
    if (r >= 0 && (*q->username || *q->password))
        r = credential_add(credentials, reference->registry, q->username, q->password, err);
    if (r < 0)
        return r;
    s->reference = reference_text(reference);
    request.reference = reference;
    request.filter = filter;
    r = puller_ensure(s->control->o.puller, &s->ticket, &request, on_done, s, err);
    if (r < 0)
        return r;
    return loop_timer_after(s->control->o.event, &s->timer, INTERVAL_USEC, on_tick, s);
}

void control_pull(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    Modelcached__Control__PullRequest *q = (void *)request;
    CredentialList credentials = { 0 };
    PullStream *s = xnew(PullStream);
    Err err = { "" };
    int r;

    *s = (PullStream){ .control = c, .store = c->o.backend->store, .call = call };
    r = start(s, q, &credentials, &err);
    credential_list_done(&credentials);
    if (q->password)
        explicit_bzero(q->password, strlen(q->password));
    message_free(request);
    if (r < 0) {
        stream_free(s);
        control_fail(call, r, &err);
        return;
    }
    grpc_call_set_on_cancel(call, on_cancel, s);
}
