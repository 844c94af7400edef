/* SPDX-License-Identifier: Apache-2.0 */
/* features: what confines pull workers on this kernel, learned once at start from a worker that
 * only confines itself. */
#include "agent/features.h"
#include "agent/flight_work.h"
#include "base/log.h"

struct FeatureProbe {
    FeatureProbeOptions o;
    Worker *worker;
};

#define FOLDER "probe" /* no pull has this name */

static int run_clean(void *arg, Err *err) {
    return store_ingest_end(arg, FOLDER, err);
}

static void on_cleaned(void *arg, int r, const Err *err) {
    (void)arg;
    if (r < 0)
        log_warn("cannot clean up after the probe of pull workers: %s", err_text(err, r));
}

FeatureProbe *feature_probe_free(FeatureProbe *p) {
    if (!p)
        return NULL;
    if (p->worker) {
        (void)worker_free(p->worker);
        pool_submit(p->o.pool, run_clean, on_cleaned, p->o.store);
    }
    free(p);
    return NULL;
}

char *feature_list_missing(const FeatureList *list) {
    char *text = NULL;

    for (size_t i = 0; i < list->n; i++) {
        const Feature *f = &list->items[i];
        char *longer;

        if (f->active)
            continue;
        longer = xasprintf("%s%s%s%s%s%s", text ? text : "", text ? ", " : "", f->name,
                           *f->detail ? " (" : "", f->detail, *f->detail ? ")" : "");
        free(text);
        text = longer;
    }
    return text;
}

static void on_hello(void *arg, FeatureList *features) {
    FeatureProbe *p = arg;

    feature_list_done(p->o.list);
    *p->o.list = *features;
}

/* Without a worker nothing can be pulled, but what is stored can be published: said in the log and
 * in the status. */
static void note_failure(FeatureList *list, const char *why) {
    log_error("artifacts cannot be pulled: %s", why);
    feature_list_done(list);
    list->items = xnew(Feature);
    list->n = 1;
    *list->items = (Feature){ xstrdup("worker"), false, xstrdup(why) };
}

static void on_end(void *arg, int r, const Err *err) {
    FeatureProbe *p = arg;
    _cleanup_free_ char *missing = NULL;

    p->worker = worker_free(p->worker);
    pool_submit(p->o.pool, run_clean, on_cleaned, p->o.store);
    if (r < 0)
        note_failure(p->o.list, err_text(err, r));
    else if ((missing = feature_list_missing(p->o.list)))
        log_warn("pull workers do without what this machine does not give: %s", missing);
    p->o.done(p->o.arg, r);
}

static int start_worker(FeatureProbe *p, int folder_fd, Err *err) {
    Modelcached__Worker__Job job = MODELCACHED__WORKER__JOB__INIT;
    WorkerOptions options = {
        .event = p->o.event,
        .standby = p->o.standby,
        .label = FOLDER,
        .ingest_fd = folder_fd,
        .job = &job,
        .handlers = { { .on_hello = on_hello, .arg = p }, on_end, p },
    };

    job.probe = true;
    job.memory_bytes = p->o.pull->memory_bytes;
    job.connections = p->o.pull->connections;
    job.io = p->o.pull->io;
    return worker_new(&p->worker, &options, err);
}

int feature_probe_new(FeatureProbe **ret, const FeatureProbeOptions *options) {
    _cleanup_(feature_probe_freep) FeatureProbe *p = xnew(FeatureProbe);
    _cleanup_close_ int folder_fd = -EBADF;
    Err err = { "" };
    int r;

    p->o = *options;
    r = flight_make_folder(p->o.store, FOLDER, &folder_fd, &err);
    if (r >= 0)
        r = start_worker(p, folder_fd, &err);
    if (r < 0) {
        if (folder_fd >= 0)
            pool_submit(p->o.pool, run_clean, on_cleaned, p->o.store);
        note_failure(p->o.list, err_text(&err, r));
        return r;
    }
    *ret = TAKE_PTR(p);
    return 0;
}
