/* SPDX-License-Identifier: Apache-2.0 */
/* traffic: what the transfers of one pull share: connections, a bandwidth limit, the registry's
 * wish to be left alone for a while, and how long nothing moved. */
#include "oci/traffic.h"

#include "oci/retry.h"

#define BURST_PARTS 20 /* of a second: the limit holds over so short a time */
#define BURST_MIN   KiB(16)

struct Traffic {
    TrafficOptions o;
    unsigned connections, used;
    unsigned extras, extras_max;
    bool hungry;           /* an extra one was refused */
    uint64_t rate;         /* bytes a second; 0: no limit */
    int64_t tokens;        /* bytes that may come now; negative after a piece that was larger */
    uint64_t filled_usec;  /* when `tokens` was right */
    uint64_t held_usec;    /* nothing is asked for until then */
    uint64_t failing_usec; /* the first failure since the last new byte; 0: none */
    uint64_t armed_usec;   /* when the timer comes; UINT64_MAX: not at all */
    sd_event_source *timer;
    uint64_t answer_usec, nearest_usec;
    bool blob_answered; /* answer_usec is of a blob */
    bool ranges_bad, ranges_good;
};

static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *arg) {
    Traffic *t = arg;

    t->armed_usec = UINT64_MAX;
    t->o.wake(t->o.arg);
    return 0;
}

/* Makes the timer come at `usec`, or before. */
static void arm(Traffic *t, uint64_t usec) {
    uint64_t now = now_usec();

    if (t->armed_usec <= usec)
        return;
    t->armed_usec = usec;
    (void)!loop_timer_after(t->o.event, &t->timer, usec > now ? usec - now : 0, on_timer,
                            t); /* made by traffic_new(): setting cannot fail */
}

int traffic_new(Traffic **ret, const TrafficOptions *options, Err *err) {
    _cleanup_(traffic_freep) Traffic *t = xnew(Traffic);
    int r;

    t->o = *options;
    t->o.event = sd_event_ref(options->event);
    t->connections = t->extras_max = MAX(options->connections, 1U);
    t->armed_usec = UINT64_MAX;
    r = loop_timer_after(t->o.event, &t->timer, UINT64_MAX, on_timer, t);
    if (r >= 0)
        r = sd_event_source_set_enabled(t->timer, SD_EVENT_OFF);
    if (r < 0)
        return err_errnum(err, r, "cannot make a timer for transfers");
    *ret = TAKE_PTR(t);
    return 0;
}

Traffic *traffic_free(Traffic *t) {
    if (!t)
        return NULL;
    (void)sd_event_source_disable_unref(t->timer);
    (void)sd_event_unref(t->o.event);
    free(t);
    return NULL;
}

void traffic_limit(Traffic *t, unsigned connections, uint64_t bytes_per_second) {
    connections = MIN(connections, t->o.connections);
    if (t->connections == 0)
        t->failing_usec = 0; /* time without a connection is no lack of progress */
    t->connections = connections;
    if (t->rate != bytes_per_second) {
        t->rate = bytes_per_second;
        t->tokens = 0;
        t->filled_usec = now_usec();
    }
    arm(t, now_usec());
}

unsigned traffic_connections(const Traffic *t) {
    return t->connections;
}

bool traffic_take(Traffic *t, bool extra) {
    if (t->used >= t->connections || (extra && t->extras >= t->extras_max)) {
        t->hungry = t->hungry || extra;
        return false;
    }
    t->used++;
    t->extras += extra;
    return true;
}

void traffic_give(Traffic *t, bool extra) {
    assert(t->used > 0 && t->extras >= extra);
    t->used--;
    t->extras -= extra;
    arm(t, now_usec()); /* somebody may wait for it */
}

void traffic_limit_extras(Traffic *t, unsigned max) {
    if (max > t->extras_max)
        arm(t, now_usec()); /* somebody may wait for one */
    t->extras_max = max;
}

unsigned traffic_free_for(const Traffic *t, bool first) {
    unsigned all = t->connections - MIN(t->used, t->connections);
    unsigned extras = t->extras_max - MIN(t->extras, t->extras_max);

    return extras < all ? extras + first : all;
}

bool traffic_is_hungry(const Traffic *t) {
    return t->hungry;
}

void traffic_mark_hungry(Traffic *t) {
    t->hungry = true;
}

void traffic_forget_hunger(Traffic *t) {
    t->hungry = false;
}

unsigned traffic_used(const Traffic *t) {
    return t->used;
}

bool traffic_has_free(const Traffic *t) {
    return t->used < t->connections;
}

bool traffic_is_over(const Traffic *t) {
    return t->used > t->connections;
}

bool traffic_may_receive(Traffic *t) {
    uint64_t now, burst;
    int64_t more;

    if (t->rate == 0 || t->tokens > 0)
        return true;
    now = now_usec();
    burst = MAX(t->rate / BURST_PARTS, (uint64_t)BURST_MIN);
    more = (int64_t)((double)(now - t->filled_usec) * (double)t->rate / USEC_PER_SEC);
    if (more > 0) { /* else the time counts later */
        t->tokens = MIN(t->tokens + more, (int64_t)burst);
        t->filled_usec = now;
    }
    if (t->tokens > 0)
        return true;
    arm(t, now + (uint64_t)((double)((int64_t)burst / 2 - t->tokens) * USEC_PER_SEC /
                            (double)t->rate));
    return false;
}

void traffic_received(Traffic *t, size_t n, bool new_bytes) {
    if (t->rate > 0)
        t->tokens -= (int64_t)n;
    if (new_bytes)
        t->failing_usec = 0;
}

void traffic_hold(Traffic *t, uint64_t usec) {
    t->held_usec = MAX(t->held_usec, now_usec() + usec);
    arm(t, t->held_usec);
}

bool traffic_is_held(const Traffic *t) {
    return now_usec() < t->held_usec;
}

int traffic_wait(Traffic *t, unsigned tries, uint64_t after_usec, uint64_t *ret_usec) {
    uint64_t wait = retry_backoff_usec(t->o.retry_usec, tries, retry_random());

    if (after_usec > 0) /* not before, and not all at once */
        wait = MAX(wait, after_usec + after_usec / 64 * (retry_random() % 8));
    *ret_usec = wait;
    if (t->failing_usec == 0 || t->connections == 0)
        t->failing_usec = now_usec();
    return now_usec() + wait < t->failing_usec + t->o.give_up_usec;
}

uint64_t traffic_give_up_usec(const Traffic *t) {
    return t->o.give_up_usec;
}

void traffic_answered(Traffic *t, uint64_t usec, bool blob) {
    usec = MAX(usec, (uint64_t)1);
    t->nearest_usec = t->nearest_usec > 0 ? MIN(t->nearest_usec, usec) : usec;
    if (blob && t->blob_answered)
        t->answer_usec = MIN(t->answer_usec, usec);
    else if (blob || !t->blob_answered)
        t->answer_usec = usec;
    t->blob_answered = t->blob_answered || blob;
}

uint64_t traffic_answer_usec(const Traffic *t) {
    return t->answer_usec;
}

uint64_t traffic_nearest_usec(const Traffic *t) {
    return t->nearest_usec;
}

void traffic_mark_ranges_bad(Traffic *t) {
    t->ranges_bad = true;
}

bool traffic_ranges_are_bad(const Traffic *t) {
    return t->ranges_bad;
}

void traffic_mark_ranges_good(Traffic *t) {
    t->ranges_good = true;
}

bool traffic_ranges_are_good(const Traffic *t) {
    return t->ranges_good && !t->ranges_bad;
}
