/* SPDX-License-Identifier: Apache-2.0 */
/* agent: the daemon: everything it is made of, in the order in which it starts and ends. */
#include "agent/agent.h"
#include "agent/backend.h"
#include "agent/control.h"
#include "agent/features.h"
#include "agent/observe.h"
#include "agent/trim.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/version.h"
#include "cache/label.h"

#include <signal.h>
#include <systemd/sd-daemon.h>

/* What a caller waits for, what takes minutes (the commits of pulls), and what takes hours (checks
 * of the store, one at a time) never wait for one another. */
#define POOL_THREADS   4
#define BULK_THREADS   4
#define CHECK_THREADS  1
#define CALLS_END_USEC (2 * USEC_PER_SEC)  /* running calls may still end */
#define STOP_USEC      (10 * USEC_PER_SEC) /* then what is left is left to the next start */

struct Agent {
    Config *config;
    const ConfigSources *sources; /* borrowed */
    sd_event *event;
    Trim *trim;
    Metrics *metrics;
    Health health;
    Observe *observe;
    Store *store;
    Pool *pool, *bulk, *checks;
    EventLog *events;
    PullOptions *pull_options;
    Standby *standby;
    Puller *puller;
    BackendParts parts;
    Backend backend;
    Volumes *volumes;
    CsiServer *csi;
    FeatureList features;
    FeatureProbe *probe;
    Control *control;
    const char *mount_why;
    sd_event_source *stop_timer;
    bool stopping;
    unsigned n_stopping; /* parts that are still ending */
};

static void apply_log(const Config *c) {
    LogLevel level;
    LogFormat format;

    if (log_level_parse(&level, c->log_level) >= 0) /* the table of keys has the same words */
        log_set_level(level);
    if (log_format_parse(&format, c->log_format) >= 0)
        log_set_format(format);
}

/* Stopping. */

static int on_stop_timer(sd_event_source *source, uint64_t usec, void *arg) {
    Agent *a = arg;

    (void)source;
    (void)usec;
    log_warn("not everything ended in time; ending anyway");
    return sd_event_exit(a->event, 0);
}

static void on_part_stopped(void *arg) {
    Agent *a = arg;

    if (--a->n_stopping == 0)
        (void)sd_event_exit(a->event, 0); /* fails only when it exits already */
}

/* No more calls, no more pulls; mounts stay. */
static void agent_stop(Agent *a) {
    if (a->stopping)
        return;
    a->stopping = a->health.stopping = true;
    (void)sd_notify(false, "STOPPING=1\nSTATUS=Ending; mounts stay"); /* nobody listens: fine */
    log_info("ending; volumes stay mounted");
    a->n_stopping = 3;
    a->probe = feature_probe_free(a->probe);
    standby_prepare(a->standby, &(StandbyPlan){ 0 });
    if (loop_timer_after(a->event, &a->stop_timer, STOP_USEC, on_stop_timer, a) < 0) {
        (void)sd_event_exit(a->event, 0); /* as above */
        return;
    }
    puller_stop(a->puller, on_part_stopped, a);
    csi_server_stop(a->csi, CALLS_END_USEC, on_part_stopped, a);
    control_stop(a->control, CALLS_END_USEC, on_part_stopped, a);
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *arg) {
    (void)source;
    (void)si;
    agent_stop(arg);
    return 0;
}

/* SIGHUP. */

static int reload(Agent *a, Err *err) {
    _cleanup_(config_freep) Config *fresh = NULL;
    _cleanup_(pull_options_unrefp) PullOptions *options = NULL;
    _cleanup_free_ char *changed = NULL, *restart = NULL;
    int r = config_load(&fresh, a->sources, err);

    if (r >= 0)
        r = pull_options_new(&options, fresh, err);
    if (r < 0)
        return r;
    puller_set_options(a->puller, options);
    config_reload(a->config, fresh, &changed, &restart);
    apply_log(a->config);
    log_info("configuration read again: %s%s", *changed ? "changed " : "no key changed", changed);
    if (*restart)
        log_warn("these keys changed too, but need a restart: %s", restart);
    return 0;
}

static int on_reload_signal(sd_event_source *source, const struct signalfd_siginfo *si, void *arg) {
    Err err = { "" };
    int r;

    (void)source;
    (void)si;
    (void)sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)now_usec());
    r = reload(arg, &err);
    if (r < 0)
        log_error("the configuration stays as it was: %s", err_text(&err, r));
    (void)sd_notify(false, "READY=1");
    return 0;
}

/* Starting. */

static int start_loop(Agent *a, Err *err) {
    static const struct {
        int signal;
        sd_event_signal_handler_t handler;
    } signals[] = { { SIGTERM, on_stop_signal },
                    { SIGINT, on_stop_signal },
                    { SIGHUP, on_reload_signal } };
    sigset_t set;
    int r;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGCHLD); /* sd-event wants it blocked to watch children */
    for (size_t i = 0; i < ELEMENTSOF(signals); i++)
        (void)sigaddset(&set, signals[i].signal);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return err_errno(err, "cannot block signals");
    (void)signal(SIGPIPE, SIG_IGN);
    r = sd_event_default(&a->event);
    for (size_t i = 0; r >= 0 && i < ELEMENTSOF(signals); i++)
        r = sd_event_add_signal(a->event, NULL, signals[i].signal, signals[i].handler, a);
    if (r >= 0)
        r = sd_event_set_watchdog(a->event, true);
    return r < 0 ? err_errnum(err, r, "cannot start the event loop") : 0;
}

static void on_pull_event(void *arg, const StoreEvent *event) {
    event_log_add(((Agent *)arg)->events, event);
}

static void start_puller(Agent *a) {
    _cleanup_free_ char *program = worker_find_program();

    standby_new(&a->standby, a->event, program);
    puller_new(&a->puller, &(PullerOptions){ .event = a->event,
                                             .store = a->store,
                                             .pool = a->pool,
                                             .bulk = a->bulk,
                                             .standby = a->standby,
                                             .options = a->pull_options,
                                             .on_event = on_pull_event,
                                             .arg = a,
                                             .metrics = a->metrics });
}

/* Said once here and at any time in the status. */
static void note_mount_method(const Agent *a) {
    if (a->backend.mount_method == MOUNT_METHOD_NONE)
        log_warn("volumes cannot be mounted: %s", a->mount_why);
    else if (a->mount_why)
        log_info("volumes are mounted by %s: %s", mount_method_name(a->backend.mount_method),
                 a->mount_why);
}

/* Volumes are mounted in any case: whoever labels the store otherwise knows better. */
static void label_store(const Agent *a) {
    const char *label = a->config->store_selinux_label;
    uint64_t n = 0;
    Err err = { "" };
    int r;

    if (isempty(label) || !label_is_needed("/proc"))
        return;
    r = label_content(a->store, label, &n, &err);
    if (r < 0)
        log_warn("SELinux: %s; containers read volumes only when the store's files have a label "
                 "that they may read",
                 err_text(&err, r));
    else if (n > 0)
        log_info("SELinux: %llu files of the store have the label %s now", (unsigned long long)n,
                 label);
}

static int start_store(Agent *a, Err *err) {
    int r;

    (void)sd_notify(false, "STATUS=Opening the store");
    r = store_open(&a->store, a->config->store_path, err);
    if (r < 0)
        return r;
    label_store(a);
    r = trim_new(&a->trim, a->event, a->store, err);
    if (r >= 0)
        r = pool_new(&a->pool, a->event, POOL_THREADS, err);
    if (r >= 0)
        r = pool_new(&a->bulk, a->event, BULK_THREADS, err);
    if (r >= 0)
        r = pool_new(&a->checks, a->event, CHECK_THREADS, err);
    if (r < 0)
        return r;
    event_log_new(&a->events, a->store, a->pool);
    start_puller(a);
    a->parts = (BackendParts){ a->puller, a->events, a->metrics };
    a->backend = (Backend){
        .loop = a->event,
        .store = a->store,
        .pool = a->pool,
        .mount_method = mount_method_probe(store_trees_fd(a->store), &a->mount_why),
        .node = a->config->node,
        .warm_bytes_per_second = a->config->csi_warm_bandwidth,
    };
    backend_init(&a->backend, &a->parts);
    note_mount_method(a);
    return 0;
}

/* An index that was lost, or put back from an old copy: said once, with what to do. */
static void warn_of_lost_index(const Agent *a, const VolumesFound *found) {
    const StoreRecovered *store = store_recovered(a->store);

    if (store->trees_kept > 0 || found->foreign > 0)
        log_warn("the index of the store does not know what %u mounts show: it was lost or is an "
                 "old one; they keep what they show until their pods are deleted or the kubelet "
                 "publishes them again; the %u files that it does not know were taken out of the "
                 "cache: pull their artifacts again",
                 found->foreign, store->objects_removed);
    else if (store->index_made && store->objects_removed > 0)
        log_warn("the index of the store was lost: the %u files in the store were removed, because "
                 "nothing says what they are: pull the artifacts again",
                 store->objects_removed);
}

static int start_volumes(Agent *a, Err *err) {
    VolumesFound found;
    uint64_t begun = now_usec();
    int r = volumes_new(&a->volumes, &a->backend, err);

    if (r >= 0)
        r = volumes_recover(a->volumes, &found, err);
    if (r < 0)
        return r;
    if (found.mounted + found.unmounted + found.dropped + found.foreign > 0)
        log_info(
            "found %u volumes mounted, %u not mounted, %u gone, %u mounts without a volume, in %s",
            found.mounted, found.unmounted, found.dropped, found.foreign,
            FORMAT_DURATION(now_usec() - begun));
    warn_of_lost_index(a, &found);
    return 0;
}

static void on_csi_call(void *arg, unsigned method, GrpcCode code) {
    metrics_add(((Agent *)arg)->metrics, METRIC_CSI_REQUESTS, (MetricLabels){ method, code }, 1);
}

static int start_csi(Agent *a, Err *err) {
    const Config *c = a->config;
    const char **dirs = xnew_n(const char *, c->csi_kubelet_dir.n + 1);
    CsiServerOptions options = {
        .event = a->event,
        .backend = &a->backend,
        .volumes = a->volumes,
        .driver = c->csi_driver,
        .version = MC_VERSION,
        .socket = c->csi_endpoint,
        .kubelet_dirs = dirs,
        .registration_dir = c->csi_registration_dir,
        .on_call = on_csi_call,
        .arg = a,
    };
    int r;

    memcpy(dirs, c->csi_kubelet_dir.items, c->csi_kubelet_dir.n * sizeof(*dirs));
    r = csi_server_new(&a->csi, &options, err);
    free(dirs);
    a->health.csi = a->csi;
    return r;
}

static int start_observe(Agent *a, Err *err) {
    (void)err;
    observe_new(&a->observe, &(ObserveOptions){ .event = a->event,
                                                .store = a->store,
                                                .pool = a->pool,
                                                .puller = a->puller,
                                                .health = &a->health,
                                                .metrics = a->metrics });
    return 0;
}

static int start_control(Agent *a, Err *err) {
    return control_new(&a->control,
                       &(ControlOptions){ .event = a->event,
                                          .backend = &a->backend,
                                          .checks = a->checks,
                                          .puller = a->puller,
                                          .volumes = a->volumes,
                                          .events = a->events,
                                          .config = a->config,
                                          .features = &a->features,
                                          .health = &a->health,
                                          .metrics = a->metrics,
                                          .mount_detail = a->mount_why },
                       err);
}

int agent_new(Agent **ret, Config *config, const ConfigSources *sources, Err *err) {
    static int (*const steps[])(Agent * a,
                                Err * err) = { start_loop,    start_store, start_volumes,
                                               start_control, start_csi,   start_observe };
    _cleanup_(agent_freep) Agent *a = xnew(Agent);
    int r;

    a->config = config;
    a->sources = sources;
    a->health.metrics_address = config->metrics_address;
    metrics_new(&a->metrics);
    apply_log(config);
    r = pull_options_new(&a->pull_options, config, err);
    for (size_t i = 0; r >= 0 && i < ELEMENTSOF(steps); i++)
        r = steps[i](a, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(a);
    return 0;
}

/* What cannot be pulled for want of a worker is said already; everything else works. */
static void say_ready(Agent *a) {
    StoreEvent e = { .type = (char *)"daemon.started",
                     .text = (char *)"modelcached " MC_VERSION " is ready" };

    event_log_add(a->events, &e);
    (void)sd_notify(false, "READY=1\nSTATUS=Serving");
}

static void on_probed(void *arg, int r) {
    Agent *a = arg;

    if (a->stopping)
        return;
    if (r >= 0)
        puller_prepare_standby(a->puller, 0);
    say_ready(a); /* without a worker, too */
}

int agent_run(Agent *a, Err *err) {
    FeatureProbeOptions probe = { a->event,        a->store,     a->pool,   a->standby,
                                  a->pull_options, &a->features, on_probed, a };
    int r = feature_probe_new(&a->probe, &probe);

    if (r < 0)
        say_ready(a);
    r = sd_event_loop(a->event);
    return r < 0 ? err_errnum(err, r, "the event loop failed") : 0;
}

/* Those that start calls and works first, then the pool, which ends all works, then what the works
 * used. */
Agent *agent_free(Agent *a) {
    if (!a)
        return NULL;
    (void)feature_probe_free(a->probe);
    a->health.csi = NULL;
    (void)csi_server_free(a->csi);
    (void)control_free(a->control);
    (void)volumes_free(a->volumes);
    if (a->puller)
        puller_stop(a->puller, NULL, NULL);
    (void)pool_free(a->checks);
    (void)pool_free(a->bulk);
    (void)pool_free(a->pool); /* last: what ends in the others is told by it */
    (void)observe_free(a->observe);
    (void)puller_free(a->puller);
    (void)standby_free(a->standby);
    (void)event_log_free(a->events);
    (void)trim_free(a->trim);
    (void)store_close(a->store);
    (void)pull_options_unref(a->pull_options);
    feature_list_done(&a->features);
    free(a->health.metrics_trouble);
    (void)metrics_free(a->metrics);
    (void)sd_event_source_disable_unref(a->stop_timer);
    (void)sd_event_unref(a->event);
    (void)config_free(a->config);
    free(a);
    return NULL;
}
