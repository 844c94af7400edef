/* SPDX-License-Identifier: Apache-2.0 */
/* control_events: Events: the history, and what is added to it while somebody follows. */
#include "agent/control_internal.h"

#define LAST_DEFAULT     50
#define LAST_MAX         10000
#define QUEUED_MAX_BYTES MiB(4) /* a follower that does not read loses the stream */

typedef struct EventStream {
    Control *control;
    Store *store;
    GrpcCall *call; /* NULL: cancelled while the store is asked */
    EventFollower *follower;
    bool follow, listed;
    unsigned last;
    Modelcached__Control__EventsRequest *request; /* owned */
    EventFilter filter;                           /* borrows from it */
    uint64_t sent;                                /* id of the last one that was sent */
    StoreEvent *events;                           /* of the store */
    size_t n;
    StoreEvent *early; /* happened while the store was asked */
    size_t n_early, cap_early;
} EventStream;

static void events_free(StoreEvent *events, size_t n) {
    for (size_t i = 0; i < n; i++)
        store_event_clear(&events[i]);
    free(events);
}

static void stream_free(EventStream *s) {
    (void)event_follower_free(s->follower);
    events_free(s->events, s->n);
    events_free(s->early, s->n_early);
    message_free(&s->request->base);
    free(s);
}

/* An event is sent once, in the order of ids.  Returns what is queued. */
static size_t send_event(EventStream *s, const StoreEvent *e) {
    Modelcached__Control__Event m = MODELCACHED__CONTROL__EVENT__INIT;

    if (e->id <= s->sent)
        return 0;
    s->sent = e->id;
    m.id = e->id;
    m.time_usec = e->time_usec;
    m.type = e->type;
    m.reference = e->reference;
    m.digest = e->digest;
    m.volume_id = e->volume_id;
    m.text = e->text;
    m.pull = e->pull;
    m.pod_namespace = e->pod_namespace;
    m.pod_name = e->pod_name;
    return control_send(s->call, &m.base);
}

static void on_event(void *arg, const StoreEvent *e) {
    EventStream *s = arg;

    if (!event_filter_matches(&s->filter, e))
        return;
    if (!s->listed) {
        ARRAY_GROW(s->early, s->n_early, s->cap_early);
        store_event_copy(&s->early[s->n_early++], e);
    } else if (send_event(s, e) > QUEUED_MAX_BYTES) {
        control_fail(s->call, -ECONNRESET, &(Err){ "events are not read fast enough; ask again" });
        stream_free(s);
    }
}

static int run_list(void *arg, Err *err) {
    EventStream *s = arg;

    return store_event_list(s->store, &s->filter, s->last, &s->events, &s->n, err);
}

static void on_cancel(GrpcCall *call, void *arg) {
    EventStream *s = arg;

    (void)call;
    s->call = NULL;
    s->follower = event_follower_free(s->follower);
    if (s->listed) /* else on_listed frees it */
        stream_free(s);
}

static void on_listed(void *arg, int r, const Err *err) {
    EventStream *s = arg;

    s->listed = true;
    for (size_t i = 0; s->call && r >= 0 && i < s->n; i++)
        (void)send_event(s, &s->events[i]);
    for (size_t i = 0; s->call && r >= 0 && i < s->n_early; i++)
        (void)send_event(s, &s->early[i]);
    if (s->call && r >= 0 && s->follow) {
        events_free(TAKE_PTR(s->events), s->n);
        events_free(TAKE_PTR(s->early), s->n_early);
        s->n = s->n_early = 0;
        return;
    }
    if (s->call && r < 0)
        control_fail(s->call, r, err);
    else if (s->call)
        grpc_call_finish(s->call, NULL, 0);
    stream_free(s);
}

void control_events(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    Modelcached__Control__EventsRequest *q = (void *)request;
    EventStream *s = xnew(EventStream);

    *s = (EventStream){ .control = c,
                        .store = c->o.backend->store,
                        .call = call,
                        .request = q,
                        .filter = { q->pull, q->pod_namespace, q->pod_name },
                        .follow = q->follow,
                        .last = q->last > 0 ? MIN(q->last, (uint32_t)LAST_MAX) : LAST_DEFAULT };
    grpc_call_set_on_cancel(call, on_cancel, s);
    if (s->follow)
        s->follower = event_log_follow(c->o.events, on_event, s);
    pool_submit(c->o.backend->pool, run_list, on_listed, s);
}
