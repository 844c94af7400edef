/* SPDX-License-Identifier: Apache-2.0 */
/* trim: gives memory back to the system once the daemon has become quiet. */
#include "agent/trim.h"

#include <malloc.h>

#define QUIET_USEC USEC_PER_SEC

struct Trim {
    sd_event *event;
    Store *store; /* borrowed */
    sd_event_source *post, *timer;
    uint64_t last_usec; /* when the loop did something */
    bool waiting;       /* the timer is set */
    bool own;           /* what the loop does now is our timer */
};

static int wait_until_quiet(Trim *t, uint64_t usec);

static int on_timer(sd_event_source *source, uint64_t usec, void *arg) {
    Trim *t = arg;
    uint64_t quiet = now_usec() - t->last_usec;

    (void)source;
    (void)usec;
    t->own = true;
    t->waiting = false;
    if (quiet < QUIET_USEC)
        return wait_until_quiet(t, QUIET_USEC - quiet);
    store_shrink(t->store);
    (void)malloc_trim(0); /* tells whether there was any */
    return 0;
}

static int wait_until_quiet(Trim *t, uint64_t usec) {
    t->waiting = true;
    return loop_timer_after(t->event, &t->timer, usec, on_timer, t);
}

/* After each round of the loop in which something happened. */
static int on_post(sd_event_source *source, void *arg) {
    Trim *t = arg;

    (void)source;
    if (t->own) {
        t->own = false;
        return 0;
    }
    t->last_usec = now_usec();
    return t->waiting ? 0 : wait_until_quiet(t, QUIET_USEC);
}

int trim_new(Trim **ret, sd_event *event, Store *store, Err *err) {
    _cleanup_(trim_freep) Trim *t = xnew(Trim);
    int r = sd_event_add_post(event, &t->post, on_post, t);

    if (r < 0)
        return err_errnum(err, -EIO, "cannot watch the event loop");
    t->event = sd_event_ref(event);
    t->store = store;
    *ret = TAKE_PTR(t);
    return 0;
}

Trim *trim_free(Trim *t) {
    if (!t)
        return NULL;
    (void)sd_event_source_disable_unref(t->post);
    (void)sd_event_source_disable_unref(t->timer);
    (void)sd_event_unref(t->event);
    free(t);
    return NULL;
}
