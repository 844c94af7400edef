/* SPDX-License-Identifier: Apache-2.0 */
/* observe: /metrics, /healthz and /readyz. */
#include "agent/observe.h"
#include "agent/httpd.h"
#include "base/log.h"

#include <dirent.h>
#include <sys/resource.h>

#define LISTEN_AGAIN_USEC (10 * USEC_PER_SEC)
/* Sums over the index take the longer the more there is: at most so often, and a hundredth of the
 * time. */
#define STATS_USEC     USEC_PER_SEC
#define STATS_PATIENCE 100

struct Observe {
    ObserveOptions o;
    Httpd *httpd;
    sd_event_source *timer; /* to listen again */
    bool asking;            /* the store is asked, in the pool */
    StoreStats stats;       /* of the work */
    uint64_t asked_usec, answered_usec;
};

/* The store. */

static int run_stats(void *arg, Err *err) {
    Observe *o = arg;

    return store_stats(o->o.store, &o->stats, err);
}

static void on_stats(void *arg, int r, const Err *err) {
    Observe *o = arg;
    const StoreStats *s = &o->stats;
    const struct {
        MetricId id;
        MetricLabels labels;
        uint64_t value;
    } values[] = {
        { METRIC_STORE_BYTES, { 0 }, s->bytes },
        { METRIC_STORE_OBJECTS, { 0 }, s->objects },
        { METRIC_ARTIFACTS, { .first = METRIC_COMPLETE }, s->artifacts },
        { METRIC_ARTIFACTS, { .first = METRIC_INCOMPLETE }, s->incomplete },
        { METRIC_VOLUMES, { 0 }, s->volumes },
        { METRIC_FS_BYTES, { 0 }, s->fs_bytes },
        { METRIC_FS_FREE_BYTES, { 0 }, s->fs_free_bytes },
        { METRIC_PARTIAL_LAYERS, { 0 }, s->partial_layers },
        { METRIC_PARTIAL_BYTES, { 0 }, s->partial_bytes },
        { METRIC_DEDUPLICATED, { 0 }, s->deduplicated_bytes },
    };

    o->asking = false;
    o->answered_usec = now_usec();
    if (r < 0)
        log_debug("cannot look at the store for the metrics: %s", err_text(err, r));
    for (size_t i = 0; r >= 0 && i < ELEMENTSOF(values); i++)
        metrics_set(o->o.metrics, values[i].id, values[i].labels, values[i].value);
}

/* For the next scrape: this one does not wait for a disk. */
static void ask_store(Observe *o) {
    uint64_t took = o->answered_usec - o->asked_usec;

    if (o->asking || now_usec() < o->answered_usec + MAX(STATS_USEC, STATS_PATIENCE * took))
        return;
    o->asking = true;
    o->asked_usec = now_usec();
    pool_submit(o->o.pool, run_stats, on_stats, o);
}

/* The process, and what the loop knows. */

static uint64_t resident_bytes(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long size, resident = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    (void)fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void) {
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;

    if (!d)
        return 0;
    while (readdir(d))
        n++;
    (void)closedir(d);
    return n - MIN(n, 3U); /* ".", ".." and the directory itself */
}

static void look_at_process(Metrics *m) {
    struct rusage usage = { 0 };
    struct rlimit files = { 0 };

    (void)getrusage(RUSAGE_SELF, &usage); /* neither can fail */
    (void)getrlimit(RLIMIT_NOFILE, &files);
    metrics_set(m, METRIC_CPU, METRIC_NO_LABEL,
                (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * USEC_PER_SEC +
                    (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec));
    metrics_set(m, METRIC_RESIDENT, METRIC_NO_LABEL, resident_bytes());
    metrics_set(m, METRIC_OPEN_FDS, METRIC_NO_LABEL, open_fds());
    metrics_set(m, METRIC_MAX_FDS, METRIC_NO_LABEL, files.rlim_cur);
}

static void look_at_pulls(const Observe *o) {
    uint64_t n[FLIGHT_DONE] = { 0 };

    for (size_t i = 0; i < puller_count(o->o.puller); i++) {
        FlightView v;

        flight_view(puller_get(o->o.puller, i), &v);
        if (v.state < FLIGHT_DONE) /* those are only being cleaned up */
            n[v.state]++;
    }
    for (unsigned i = 0; i < ELEMENTSOF(n); i++)
        metrics_set(o->o.metrics, METRIC_PULLS_RUNNING, METRIC_LABEL(i), n[i]);
    metrics_set(o->o.metrics, METRIC_PULL_BUFFERS, METRIC_NO_LABEL, puller_memory(o->o.puller));
}

static bool is_registered(const Health *h) {
    const char *detail;
    RegistrationState state = health_registration(h, &detail);

    return state == REGISTRATION_DONE || state == REGISTRATION_OFF;
}

/* Answers. */

static void answer_metrics(Observe *o, HttpAnswer *ret) {
    FILE *f = open_memstream(&ret->body, &ret->n);

    if (!f) {
        ret->status = 500;
        return;
    }
    ask_store(o);
    look_at_process(o->o.metrics);
    look_at_pulls(o);
    metrics_set(o->o.metrics, METRIC_REGISTERED, METRIC_NO_LABEL, is_registered(o->o.health));
    metrics_write(o->o.metrics, f);
    (void)fclose(f);
    ret->type = "text/plain; version=0.0.4; charset=utf-8";
}

static void answer_health(_unused_ Observe *o, HttpAnswer *ret) {
    ret->body = xstrdup("ok\n"); /* the loop answers: that is all there is to it */
}

static void answer_ready(Observe *o, HttpAnswer *ret) {
    char reason[HEALTH_REASON_MAX];
    bool ready = health_is_ready(o->o.health, reason);

    ret->status = ready ? 200 : 503;
    ret->body = xasprintf("%s\n", ready ? "ready" : reason);
}

static void handle(void *arg, const char *path, HttpAnswer *ret) {
    static const struct {
        const char *path;
        void (*answer)(Observe *o, HttpAnswer *ret);
    } paths[] = {
        { "/metrics", answer_metrics },
        { "/healthz", answer_health },
        { "/readyz", answer_ready },
    };

    ret->status = 200;
    ret->type = "text/plain; charset=utf-8";
    for (size_t i = 0; i < ELEMENTSOF(paths); i++)
        if (streq(paths[i].path, path))
            paths[i].answer(arg, ret);
    if (!ret->body) {
        ret->status = ret->status == 200 ? 404 : ret->status;
        ret->body = xstrdup("there are /metrics, /healthz and /readyz\n");
    }
    ret->n = strlen(ret->body);
}

/* Listening. */

static int on_timer(sd_event_source *source, uint64_t usec, void *arg);

static void listen_again_later(Observe *o, const char *trouble) {
    Health *h = o->o.health;

    if (!h->metrics_trouble || !streq(h->metrics_trouble, trouble))
        log_warn("no metrics (metrics.address): %s; trying again", trouble);
    xfree_and_strdup(&h->metrics_trouble, trouble);
    /* Without a timer, until the next start. */
    (void)!loop_timer_after(o->o.event, &o->timer, LISTEN_AGAIN_USEC, on_timer, o);
}

static void start_listening(Observe *o) {
    HttpdOptions options = { o->o.event, o->o.health->metrics_address, handle, o };
    Err err = { "" };
    int r = httpd_new(&o->httpd, &options, &err);

    if (r < 0) {
        listen_again_later(o, err_text(&err, r));
        return;
    }
    xfree_and_strdup(&o->o.health->metrics_trouble, NULL);
    log_info("metrics at http://%s/metrics", options.address);
}

static int on_timer(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *arg) {
    start_listening(arg);
    return 0;
}

void observe_new(Observe **ret, const ObserveOptions *options) {
    Observe *o = xnew(Observe);

    o->o = *options;
    o->o.event = sd_event_ref(options->event);
    metrics_set(o->o.metrics, METRIC_START_TIME, METRIC_NO_LABEL, now_realtime_usec());
    if (!isempty(o->o.health->metrics_address)) {
        start_listening(o);
        ask_store(o); /* for the first scrape */
    }
    *ret = o;
}

Observe *observe_free(Observe *o) {
    if (!o)
        return NULL;
    assert(!o->asking); /* the pool was freed */
    (void)httpd_free(o->httpd);
    (void)sd_event_source_disable_unref(o->timer);
    (void)sd_event_unref(o->o.event);
    free(o);
    return NULL;
}
