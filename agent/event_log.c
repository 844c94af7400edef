/* SPDX-License-Identifier: Apache-2.0 */
/* event_log: the history: each event goes to the store, to our log, and to those who follow. */
#include "agent/event_log.h"
#include "base/log.h"

struct EventFollower {
    EventLog *log;
    void (*on_event)(void *arg, const StoreEvent *e);
    void *arg;
    EventFollower *next;
};

typedef struct EventWork {
    EventLog *log;
    StoreEvent event; /* owned strings */
    struct EventWork *next;
} EventWork;

struct EventLog {
    Store *store;
    Pool *pool;
    EventWork *first,
        *last; /* the first is being written; one at a time, so that ids rise as events happen */
    EventFollower *followers;
};

void event_log_new(EventLog **ret, Store *store, Pool *pool) {
    EventLog *l = xnew(EventLog);

    l->store = store;
    l->pool = pool;
    *ret = l;
}

EventLog *event_log_free(EventLog *l) {
    if (!l)
        return NULL;
    assert(!l->followers && !l->first);
    free(l);
    return NULL;
}

static void write_next(EventLog *l);

static int run_add(void *arg, Err *err) {
    EventWork *w = arg;

    return store_event_add(w->log->store, &w->event, &w->event.id, err);
}

static void on_added(void *arg, int r, const Err *err) {
    EventWork *w = arg;

    if (r < 0)
        log_warn("cannot write the history: %s", err_text(err, r));
    for (EventFollower *f = w->log->followers, *next; r >= 0 && f; f = next) {
        next = f->next;
        f->on_event(f->arg, &w->event);
    }
    write_next(w->log);
    store_event_clear(&w->event);
    free(w);
}

static void write_next(EventLog *l) {
    l->first = l->first->next;
    if (l->first)
        pool_submit(l->pool, run_add, on_added, l->first);
    else
        l->last = NULL;
}

void event_log_add(EventLog *l, const StoreEvent *e) {
    bool bad = endswith(e->type, "failed") || endswith(e->type, "bad");
    EventWork *w = xnew(EventWork);

    log_write(bad ? LOG_WARN : LOG_INFO,
              LOG_FIELDS({ "event", e->type }, { "pull", e->pull }, { "reference", e->reference },
                         { "digest", e->digest }, { "volume", e->volume_id },
                         { "pod", e->pod_name }, { "namespace", e->pod_namespace }),
              "%s", e->text ? e->text : e->type);
    w->log = l;
    store_event_copy(&w->event, e);
    w->event.id = 0;
    w->event.time_usec = (int64_t)now_realtime_usec();
    if (l->last) {
        l->last->next = w;
        l->last = w;
    } else {
        l->first = l->last = w;
        pool_submit(l->pool, run_add, on_added, w);
    }
}

EventFollower *event_log_follow(EventLog *l, void (*on_event)(void *arg, const StoreEvent *e),
                                void *arg) {
    EventFollower *f = xnew(EventFollower);

    *f = (EventFollower){ l, on_event, arg, l->followers };
    l->followers = f;
    return f;
}

EventFollower *event_follower_free(EventFollower *f) {
    if (f) {
        EventFollower **link = &f->log->followers;
        while (*link != f)
            link = &(*link)->next;
        *link = f->next;
        free(f);
    }
    return NULL;
}
