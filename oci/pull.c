/* SPDX-License-Identifier: Apache-2.0 */
/* pull: one pull in the worker: its states, its end, and what comes from the daemon. */
#include "oci/pull_internal.h"

#include "base/log.h"

#include <limits.h>

#define BACKGROUND_DEPTH 16 /* writes at once of a pull that nobody waits for */

/* The states of a pull, each with the moves it allows. */
static const struct {
    const char *name;
    unsigned next;                   /* bit set of the states that may follow */
    int (*enter)(Pull *p, Err *err); /* starts the state's work; < 0 fails the pull */
} states[PULL_STATE_COUNT] = {
    [PULL_INIT] = { "init", 1U << PULL_RESOLVE | 1U << PULL_ENDED, NULL },
    [PULL_RESOLVE] = { "resolve", 1U << PULL_PLAN | 1U << PULL_ENDED, pull_enter_resolve },
    [PULL_PLAN] = { "plan", 1U << PULL_LAYERS | 1U << PULL_ENDED, pull_enter_plan },
    [PULL_LAYERS] = { "layers", 1U << PULL_ENDED, pull_enter_layers },
    [PULL_ENDED] = { "ended", 0, NULL },
};

void pull_goto(Pull *p, PullState state) {
    Err err;
    int r;

    assert(states[p->state].next & 1U << state);
    log_debug("%s -> %s", states[p->state].name, states[state].name);
    p->state = state;
    r = states[state].enter ? states[state].enter(p, &err) : 0;
    if (r < 0)
        pull_finish(p, r, &err);
}

void pull_say_progress(Pull *p, Modelcached__Worker__LayerProgress **layers, size_t n) {
    Modelcached__Worker__Progress progress = MODELCACHED__WORKER__PROGRESS__INIT;
    Modelcached__Worker__FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;

    if (p->waiting)
        progress.waiting = p->waiting;
    progress.layers = layers;
    progress.n_layers = n;
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_PROGRESS;
    message.progress = &progress;
    channel_send(p->o.channel, &message);
}

void pull_say_waiting(Pull *p, const char *why) {
    xfree_and_strdup(&p->waiting, why);
    pull_say_progress(p, NULL, 0);
}

/* The daemon ends a worker that says nothing for long; it forgets no reason for waiting by this. */
static int on_alive(sd_event_source *source, uint64_t usec, void *arg) {
    Pull *p = arg;

    (void)source;
    (void)usec;
    if (channel_is_idle(p->o.channel))
        pull_say_progress(p, NULL, 0);
    return loop_timer_after(p->o.event, &p->alive, PULL_ALIVE_USEC, on_alive, p);
}

void pull_finish(Pull *p, int r, const Err *err) {
    Modelcached__Worker__FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;
    Modelcached__Worker__Failed failed = MODELCACHED__WORKER__FAILED__INIT;
    Modelcached__Worker__Done done = MODELCACHED__WORKER__DONE__INIT;

    if (p->state == PULL_ENDED)
        return;
    pull_goto(p, PULL_ENDED);
    p->progress = sd_event_source_disable_unref(p->progress);
    p->alive = sd_event_source_disable_unref(p->alive);
    p->timer = sd_event_source_disable_unref(p->timer);
    if (r < 0) {
        message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_FAILED;
        failed.error = -r;
        failed.text = (char *)(uintptr_t)err_text(err, r);
        failed.answered = p->answered;
        message.failed = &failed;
    } else {
        message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_DONE;
        message.done = &done;
    }
    channel_send(p->o.channel, &message);
    p->o.done(p->o.arg, r);
}

static void obey(Pull *p, const Modelcached__Worker__Limits *limits) {
    traffic_limit(p->traffic, limits->connections, limits->bytes_per_second);
    ring_limit(p->o.ring, limits->background ? BACKGROUND_DEPTH : UINT_MAX);
    pull_use_buffers(
        p, (unsigned)MIN(limits->memory_bytes / ring_buffer_bytes(p->o.ring), (uint64_t)UINT_MAX));
}

static void on_traffic(void *arg) {
    pull_wake(arg);
}

/* What the layers share. */
static int make_traffic(Pull *p, Err *err) {
    const Modelcached__Worker__Job *job = p->o.job;
    TrafficOptions traffic = { .event = p->o.event,
                               .connections = p->o.connections,
                               .retry_usec = p->o.retry_usec,
                               .give_up_usec = job->give_up_seconds > 0
                                                   ? job->give_up_seconds * USEC_PER_SEC
                                                   : PULL_GIVE_UP_USEC,
                               .wake = on_traffic,
                               .arg = p };
    int r = traffic_new(&p->traffic, &traffic, err);

    if (r < 0)
        return r;
    p->context = (FetchContext){ .event = p->o.event,
                                 .registry = p->o.registry,
                                 .traffic = p->traffic,
                                 .ring = p->o.ring,
                                 .pool = p->o.pool,
                                 .reserve = 1,
                                 .range_min_bytes = job->range_min_bytes,
                                 .page_cache = job->page_cache };
    memcpy(p->context.boot, p->o.boot, RESUME_BOOT_BYTES);
    ring_limit_buffers(p->o.ring, 0);
    if (job->limits)
        obey(p, job->limits);
    else
        pull_use_buffers(p, p->o.n_buffers);
    return 0;
}

void pull_on_message(Pull *p, const Modelcached__Worker__ToWorker *message) {
    bool plan = message->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_PLAN;
    Err err;
    int r;

    if (p->state == PULL_ENDED)
        return;
    if (message->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_LIMITS) {
        obey(p, message->limits);
        return;
    }
    if (!plan || !(p->state == PULL_PLAN || (p->state == PULL_LAYERS && p->more))) {
        r = err_set(&err, -EPROTO, "the daemon sent message %d in state %s",
                    (int)message->message_case, states[p->state].name);
        pull_finish(p, r, &err);
        return;
    }
    r = pull_take_plan(p, message->plan, &err);
    if (r < 0)
        pull_finish(p, r, &err);
    else if (p->state == PULL_PLAN)
        pull_goto(p, PULL_LAYERS);
    else
        pull_fill(p);
}

static int on_start(sd_event_source *source, uint64_t usec, void *arg) {
    Pull *p = arg;

    (void)source;
    (void)usec;
    p->timer = sd_event_source_disable_unref(p->timer); /* has another callback from now on */
    pull_goto(p, PULL_RESOLVE);
    return 0;
}

int pull_new(Pull **ret, const PullOptions *options, Err *err) {
    _cleanup_(pull_freep) Pull *p = xnew(Pull);
    const Modelcached__Worker__Job *job = options->job;
    int r;

    p->o = *options;
    p->asked_size = UINT64_MAX;
    atomic_init(&p->budget.entries, LIMIT_TREE_ENTRIES); /* bytes come with the plans */
    if (job->digest.len > 0) {
        r = digest_from_bytes(&p->digest, job->digest.data, job->digest.len);
        if (r < 0)
            return err_set(err, r, "the job's digest has %zu bytes instead of %d", job->digest.len,
                           DIGEST_BYTES);
        p->asked = xstrdup(DIGEST_STR(&p->digest));
    } else if (*job->tag) {
        p->asked = xstrdup(job->tag);
    } else {
        return err_set(err, -EINVAL, "the job has neither tag nor digest");
    }
    r = make_traffic(p, err);
    if (r < 0)
        return r;
    /* From the loop, so that nothing is called back before the caller has `*ret`. */
    r = loop_timer_after(options->event, &p->timer, 0, on_start, p);
    if (r >= 0)
        r = loop_timer_after(options->event, &p->alive, PULL_ALIVE_USEC, on_alive, p);
    if (r < 0)
        return err_errnum(err, r, "cannot start the pull");
    *ret = TAKE_PTR(p);
    return 0;
}

void pull_cancel(Pull *p) {
    p->request = registry_request_free(p->request);
    p->timer = sd_event_source_disable_unref(p->timer);
    p->progress = sd_event_source_disable_unref(p->progress);
    p->alive = sd_event_source_disable_unref(p->alive);
    pull_stop_layers(p);
}

Pull *pull_free(Pull *p) {
    if (!p)
        return NULL;
    (void)sd_event_source_disable_unref(p->timer);
    (void)sd_event_source_disable_unref(p->progress);
    (void)sd_event_source_disable_unref(p->alive);
    (void)manifest_doc_free(p->manifest);
    (void)traffic_free(p->traffic);
    for (size_t i = 0; i < p->n_order; i++)
        free(p->order[i]->trouble);
    free(p->layers);
    free(p->order);
    for (size_t i = 0; i < ELEMENTSOF(p->indexes); i++)
        free(p->indexes[i].data);
    free(p->asked);
    free(p->waiting);
    free(p->platform);
    free(p->bytes);
    free(p);
    return NULL;
}
