/* SPDX-License-Identifier: Apache-2.0 */
/* flight: one pull, an artifact on its way into the store: a worker fetches, the store commits,
 * layer by layer. */
#include "agent/copy.h"
#include "agent/flight_internal.h"
#include "agent/flight_job.h"
#include "base/log.h"
#include "oci/retry.h"

#include <sys/random.h>

/* A pod waits, and gets what is stored when the registry does not answer. */
#define OPEN_PATIENCE_SECONDS 5

static void enter_resolving(Flight *p);
static void enter_fetching(Flight *p);
static void enter_committing(Flight *p);
static void enter_done(Flight *p);

/* The states of a pull, each with the moves it allows. */
static const struct {
    const char *name;
    unsigned next;            /* bit set of the states that may follow */
    void (*enter)(Flight *p); /* starts the state's work */
} states[FLIGHT_STATE_COUNT] = {
    [FLIGHT_QUEUED] = { "queued", 1U << FLIGHT_RESOLVING | 1U << FLIGHT_DONE, NULL },
    [FLIGHT_RESOLVING] = { "resolving", 1U << FLIGHT_FETCHING | 1U << FLIGHT_DONE,
                           enter_resolving },
    [FLIGHT_FETCHING] = { "fetching", 1U << FLIGHT_COMMITTING | 1U << FLIGHT_DONE, enter_fetching },
    [FLIGHT_COMMITTING] = { "committing", 1U << FLIGHT_DONE, enter_committing },
    [FLIGHT_DONE] = { "done", 0, enter_done },
};

const char *flight_state_name(FlightState s) {
    return states[s].name;
}

static void flight_goto(Flight *p, FlightState next) {
    assert(states[p->state].next & 1U << next);
    log_write(LOG_DEBUG, LOG_FIELDS({ "pull", p->id }, { "reference", p->reference_text }),
              "pull: %s -> %s", states[p->state].name, states[next].name);
    p->state = next;
    states[next].enter(p);
    p->context->changed(p->context->arg);
}

/* The one way out: the first reason counts. */
void flight_finish(Flight *p, int r, const Err *err) {
    if (p->state == FLIGHT_DONE)
        return;
    p->r = r;
    if (r < 0)
        p->err = *err;
    flight_goto(p, FLIGHT_DONE);
}

StorePull flight_store_pull(const Flight *p) {
    return (StorePull){ .ingest = p->ingest, .origin = p->origin };
}

Grant flight_grant(const Flight *p) {
    return (Grant){ .origin = p->origin,
                    .fingerprint = p->fingerprint,
                    .lifetime_usec = p->options->access_lifetime_usec };
}

static int copy_request(Flight *p, const FlightRequest *request, Err *err) {
    const Reference *from = request->reference;
    int r = platform_parse(&p->platform, request->platform, err);

    if (r < 0)
        return r;
    p->platform_text = xstrdup(request->platform);
    p->reference_text = reference_text(from);
    p->reference = reference_copy(from);
    p->origin = reference_origin(from);
    p->filter = filter_copy(request->filter);
    credential_list_copy(&p->credentials, request->credential);
    memcpy(p->fingerprint, request->fingerprint, GRANT_BYTES);
    p->aim = request->aim;
    p->open = request->open;
    p->late = request->late;
    return 0;
}

static int set_id(Flight *p, const char *id, Err *err) {
    uint8_t random[8];

    if (!id && getrandom(random, sizeof(random), 0) != sizeof(random))
        return err_errno(err, "the kernel has no random numbers for the id of a pull");
    if (id)
        (void)snprintf(p->id, sizeof(p->id), "%s", id);
    else
        format_hex(random, sizeof(random), p->id);
    return 0;
}

const char *flight_id(const Flight *p) {
    return p->id;
}

int flight_new(Flight **ret, const FlightContext *context, const FlightRequest *request,
               FlightDone done, void *arg, Err *err) {
    _cleanup_(flight_freep) Flight *p = xnew(Flight);
    int r;

    p->context = context;
    p->done = done;
    p->arg = arg;
    p->wanted = request->wanted;
    p->ingest_fd = -EBADF;
    p->waiting = xstrdup("");
    p->started_usec = now_usec();
    r = set_id(p, request->id, err);
    if (r >= 0)
        r = copy_request(p, request, err);
    if (r >= 0)
        r = store_ingest_name(p->ingest, p->origin, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(p);
    return 0;
}

Flight *flight_free(Flight *p) {
    if (!p)
        return NULL;
    assert(p->n_works == 0 && !p->gathered);
    (void)sharer_free(p->sharer);
    (void)worker_free(p->worker);
    safe_close(p->ingest_fd);
    (void)pull_options_unref(p->options);
    (void)manifest_free(p->manifest);
    (void)index_chain_free(p->index);
    credential_list_done(&p->credentials);
    (void)reference_free(p->reference);
    (void)filter_free(p->filter);
    free(p->layers);
    free(p->reference_text);
    free(p->platform_text);
    free(p->origin);
    free(p->waiting);
    free(p);
    return NULL;
}

/* Queues a step; the pull lives until `done` of the last one was called. */
void flight_submit(Flight *p, PoolRun run, PoolDone done, void *arg) {
    p->n_works++;
    pool_submit(p->context->pool, run, done, arg);
}

static void enter_done(Flight *p) {
    p->leaving = worker_release(TAKE_PTR(p->worker)); /* flight_end.c waits for it */
    credential_list_done(&p->credentials);
    flight_commit_rest(p);
    flight_settle(p);
}

/* The end of a step: false when the pull is over meanwhile or because of it. */
bool flight_step_ended(Flight *p, int r, const Err *err) {
    p->n_works--;
    if (r < 0)
        flight_finish(p, r, err);
    else if (p->n_works == 0 && p->worker_r < 0)
        flight_finish(p, p->worker_r, &p->worker_err);
    if (p->state != FLIGHT_DONE)
        return true;
    flight_settle(p);
    return false;
}

void flight_start(Flight *p, PullOptions *options) {
    p->options = pull_options_ref(options);
    metrics_observe(p->context->metrics, METRIC_PULL_QUEUE, METRIC_NO_LABEL,
                    now_usec() - p->started_usec);
    p->started_usec = now_usec();
    flight_goto(p, FLIGHT_RESOLVING);
}

void flight_want(Flight *p) {
    p->wanted = true;
}

static bool same_limits(const WorkerLimits *a, const WorkerLimits *b) {
    return a->connections == b->connections && a->bytes_per_second == b->bytes_per_second &&
           a->background == b->background && a->memory_bytes == b->memory_bytes;
}

void flight_set_limits(Flight *p, const WorkerLimits *l, DivideLack lack) {
    FlightWorkers *workers = p->context->workers;
    WorkerLimits old = p->limits;

    assert(l->memory_bytes >= old.memory_bytes);
    workers->memory += l->memory_bytes - old.memory_bytes;
    workers->n += old.memory_bytes == 0 && l->memory_bytes > 0;
    p->limits = *l;
    p->lack = lack;
    if (p->worker && !p->worker_ended && !same_limits(&old, l))
        worker_limits(p->worker, l);
}

void flight_cancel(Flight *p, int r, const Err *err) {
    flight_finish(p, r, err);
}

/* Resolving: a folder, a worker, its answer, our plan. */

static void on_resolved(void *arg, Manifest *manifest, IndexChain *index);
static void on_progress(void *arg, size_t layer, uint64_t bytes, uint64_t resumed, uint64_t ahead);
static void on_waiting(void *arg, const char *text);
static void on_layer(void *arg, size_t layer, LayerEntry *entries, size_t n);
static void on_worker_done(void *arg);
static void on_worker_end(void *arg, int r, const Err *err);

static int start_worker(Flight *p, Err *err) {
    FlightJobSources sources = {
        .options = p->options,
        .reference = p->reference,
        .platform = &p->platform,
        .credential = p->credentials.n > 0 ? p->credentials.items : NULL,
        .file_max_bytes = p->file_max,
        .limits = p->limits,
        .patience_seconds = p->open ? OPEN_PATIENCE_SECONDS : 0,
    };
    WorkerOptions options = {
        .event = p->context->event,
        .standby = p->context->standby,
        .label = p->reference_text,
        .pull = p->id,
        .metrics = p->context->metrics,
        .ingest_fd = p->ingest_fd,
        .handlers = { { .on_resolved = on_resolved,
                        .on_progress = on_progress,
                        .on_waiting = on_waiting,
                        .on_layer = on_layer,
                        .on_done = on_worker_done,
                        .arg = p },
                      on_worker_end,
                      p },
    };
    FlightJob job;
    int r;

    flight_job_init(&job, &sources);
    options.job = &job.message;
    r = worker_new(&p->worker, &options, err);
    flight_job_done(&job);
    return r;
}

static int run_begin(void *arg, Err *err) {
    Flight *p = arg;
    int r = flight_make_folder(p->context->store, p->ingest, &p->ingest_fd, err);

    p->has_folder = r >= 0;
    p->file_max = flight_file_max(p->context->store);
    return r;
}

static void on_begun(void *arg, int r, const Err *err) {
    Flight *p = arg;
    Err why = { "" };

    if (!flight_step_ended(p, r, err))
        return;
    r = start_worker(p, &why);
    if (r < 0)
        flight_finish(p, r, &why);
    else
        p->ingest_fd = safe_close(p->ingest_fd); /* the worker has its own */
}

static void enter_resolving(Flight *p) {
    flight_submit(p, run_begin, on_begun, p);
}

typedef struct PlanWork {
    Flight *pull;
    bool *ask, *cached;
    uint64_t *claimed;
    FlightRoom room;
    Digest given;
    int r; /* < 0: there is nothing to plan, for this reason */
    Err err;
} PlanWork;

static int run_plan(void *arg, Err *err) {
    PlanWork *w = arg;
    Flight *p = w->pull;
    FlightPlan plan = {
        .manifest = p->manifest,
        .index = p->index,
        .reference = p->reference,
        .text = p->reference_text,
        .platform = p->platform_text,
        .aim = p->aim,
        .late = p->late,
        .grant = flight_grant(p),
        .pull = flight_store_pull(p),
        .id = p->id,
        .ask = w->ask,
        .cached = w->cached,
        .claimed = w->claimed,
    };
    int r;

    if (w->r < 0) {
        *err = w->err;
        return w->r;
    }
    r = flight_make_plan(p->context->store, &plan, err);
    w->room = plan.room;
    w->given = plan.given;
    return r;
}

/* What the store said of the layers that were ours; `all`: it has the artifact. */
static void take_answer(Flight *p, const PlanWork *w, bool all) {
    p->room = w->room;
    if (all) /* nothing came for it */
        p->bytes_done = p->bytes_resumed = p->bytes_shared = 0;
    for (size_t i = 0; i < p->manifest->n_layers; i++) {
        FlightLayer *l = &p->layers[i];

        if (w->ask[i])
            l->claimed = w->claimed[i];
        if (l->left_out || (!all && !(w->ask[i] && w->cached[i])))
            continue;
        if (w->ask[i])
            sharer_stored(p->sharer, i);
        l->cached = true;
    }
}

/* A layer that another pull had when this one was resolved may be in meanwhile, or ours. */
static void count_layers(Flight *p) {
    for (size_t i = 0; i < p->manifest->n_layers; i++) {
        uint64_t bytes = p->manifest->layers[i].size;
        const FlightLayer *l = &p->layers[i];

        if (l->left_out)
            continue;
        if (l->cached || l->same_as != i) {
            p->bytes_cached += bytes;
            continue;
        }
        p->bytes_total += bytes;
        if (l->done)
            continue;
        p->n_left++;
        p->n_own += l->role == SHARE_FETCH;
    }
}

static void check_room(Flight *p) {
    Err why = { "" };
    int r = flight_check_room(p->context->store, flight_promised(p), flight_room_left(p), &why);

    if (r < 0)
        flight_finish(p, err_prefix(&why, r, "%s", p->reference_text), &why);
    else
        flight_goto(p, FLIGHT_FETCHING);
}

static void on_planned(void *arg, int r, const Err *err) {
    PlanWork *w = arg;
    Flight *p = w->pull;

    if (flight_step_ended(p, r, err)) {
        take_answer(p, w, r > 0);
        count_layers(p);
        p->planned = true;
        if (r > 0)
            p->given = w->given;
        else
            manifest_key(p->manifest, &p->given);
        if (r > 0)
            flight_finish(p, 0, NULL); /* all there; the worker is not needed */
        else
            flight_with_room(p, check_room);
    }
    free(w->ask);
    free(w->cached);
    free(w->claimed);
    free(w);
}

/* The worker that calls it lives until it returns: so no error ends the pull here. */
static void on_resolved(void *arg, Manifest *manifest, IndexChain *index) {
    Flight *p = arg;
    size_t n = MAX(manifest->n_layers, (size_t)1);
    PlanWork *w;

    p->manifest = manifest;
    manifest->filter = TAKE_PTR(p->filter);
    p->layers = xnew_n(FlightLayer, n);
    p->index = index;
    w = xnew(PlanWork);
    *w = (PlanWork){
        .pull = p, .ask = xnew_n(bool, n), .cached = xnew_n(bool, n), .claimed = xnew_n(uint64_t, n)
    };
    w->r = flight_take_layers(p, &w->err);
    if (w->r < 0)
        w->r = err_prefix(&w->err, w->r, "pull %s", p->reference_text);
    for (size_t i = 0; i < manifest->n_layers; i++)
        w->ask[i] = p->layers[i].role == SHARE_FETCH && !p->layers[i].left_out;
    flight_submit(p, run_plan, on_planned, w);
}

/* Fetching: the worker sends layers, the pool commits them. */

/* What came over the network; when a blob begins anew, it comes again. */
static void count_received(const Flight *p, const FlightLayer *l, uint64_t bytes,
                           uint64_t resumed) {
    uint64_t before = l->bytes - l->resumed, now = bytes - resumed;

    if (l->role == SHARE_FETCH && now > before)
        metrics_add(p->context->metrics, METRIC_PULL_BYTES, METRIC_LABEL(METRIC_REGISTRY),
                    now - before);
}

void flight_progress(Flight *p, size_t layer, uint64_t bytes, uint64_t resumed) {
    FlightLayer *l = &p->layers[layer];

    if (l->done || l->cached)
        return;
    count_received(p, l, bytes, resumed);
    p->bytes_done += bytes - l->bytes;
    p->bytes_resumed += resumed - l->resumed;
    if (bytes < l->bytes || (p->manifest->layers[layer].kind == LAYER_KIND_TAR && bytes > resumed))
        l->claimed = 0; /* thrown away; or of the blob it is known now how much that was */
    l->bytes = bytes;
    l->resumed = resumed;
    rate_add(&p->rate, now_usec(), p->bytes_done - p->bytes_resumed);
}

void flight_own_progress(Flight *p, size_t layer, uint64_t bytes, uint64_t resumed,
                         uint64_t ahead) {
    flight_progress(p, layer, bytes, resumed);
    p->layers[layer].ahead = ahead;
    if (bytes + ahead == 0) /* what was there is of no use */
        p->layers[layer].claimed = 0;
}

static void on_progress(void *arg, size_t layer, uint64_t bytes, uint64_t resumed, uint64_t ahead) {
    Flight *p = arg;

    flight_own_progress(p, layer, bytes, resumed, ahead);
    sharer_progress(p->sharer, layer, bytes, resumed);
}

static void on_waiting(void *arg, const char *text) {
    xfree_and_strdup(&((Flight *)arg)->waiting, text);
}

/* All in?  The worker has said so, and the store has. */
static void check_complete(Flight *p) {
    if (p->state == FLIGHT_FETCHING && p->worker_done && p->n_left == 0)
        flight_goto(p, FLIGHT_COMMITTING);
}

void flight_layer_in(Flight *p, size_t layer) {
    FlightLayer *l = &p->layers[layer];
    bool own = l->role == SHARE_FETCH;

    flight_progress(p, layer, p->manifest->layers[layer].size, l->resumed);
    l->done = true;
    l->shared = !own;
    if (!own)
        p->bytes_shared += p->manifest->layers[layer].size;
    if (!p->planned)
        return;
    p->n_left--;
    if (own) {
        p->n_own--;
        p->n_reported--;
    }
    check_complete(p);
}

static void on_layer(void *arg, size_t layer, LayerEntry *entries, size_t n) {
    flight_commit_layer(arg, layer, entries, n);
}

static void on_worker_done(void *arg) {
    Flight *p = arg;

    p->worker_done = true;
    check_complete(p);
}

static int run_open(void *arg, Err *err) {
    Flight *p = arg;

    const AccessName name = { p->reference, p->reference_text, p->platform_text, p->filter };

    return access_take(p->context->store, &name, &p->stored, err);
}

static void on_opened(void *arg, int r, const Err *err) {
    Flight *p = arg;

    (void)err; /* what the registry said is told */
    if (!flight_step_ended(p, 0, NULL))
        return;
    if (r > 0)
        p->given = p->stored;
    if (r > 0)
        log_write(LOG_WARN, LOG_FIELDS({ "pull", p->id }, { "reference", p->reference_text }),
                  "%s is given unchecked, as access.unreachable says: %s", p->reference_text,
                  err_text(&p->worker_err, p->unreachable));
    flight_finish(p, r > 0 ? 0 : p->unreachable, &p->worker_err);
}

/* The worker's error ends the pull, unless the registry could not be asked and that is no obstacle.
 */
static bool try_open(Flight *p) {
    if (p->manifest || !p->open || !retry_is_transient(p->worker_r))
        return false;
    p->unreachable = p->worker_r;
    p->worker_r = 0;
    flight_submit(p, run_open, on_opened, p);
    return true;
}

/* Many registries answer 404 for a repository that the credentials may not see. */
static bool is_refused(const Flight *p, int r) {
    return !p->manifest &&
           (access_is_refusal(r) || (r == -ENOENT && worker_was_answered(p->worker)));
}

/* Of a worker that ended too early, what it brought may say more than its end: that is looked at
 * first. */
static void on_worker_end(void *arg, int r, const Err *err) {
    Flight *p = arg;

    p->refused = is_refused(p, r);
    p->answered = worker_was_answered(p->worker);
    p->died = r < 0 && !worker_said_why(p->worker);
    p->worker = worker_free(p->worker);
    p->worker_ended = true;
    flight_give_memory_back(p);
    p->context->changed(p->context->arg); /* others may have its connections */
    if (p->worker_done) {
        if (r < 0)
            log_write(LOG_WARN, LOG_FIELDS({ "pull", p->id }, { "reference", p->reference_text }),
                      "the pull of %s goes on, as all of it had come: %s", p->reference_text,
                      err_text(err, r));
        return;
    }
    p->worker_err = *err;
    p->worker_r = err_prefix(&p->worker_err, r, "pull %s", p->reference_text);
    if (p->state == FLIGHT_RESOLVING && try_open(p))
        return;
    flight_commit_rest(p);
    if (p->n_works == 0)
        flight_finish(p, p->worker_r, &p->worker_err);
}

/* Also what became ours while room was made. */
static void enter_fetching(Flight *p) {
    _cleanup_free_ uint32_t *fetch = xnew_n(uint32_t, MAX(p->manifest->n_layers, (size_t)1));
    size_t n = 0;

    credential_list_done(&p->credentials); /* the worker has it */
    p->context->changed(p->context->arg);  /* it has connections before it is told of layers */
    for (size_t i = 0; i < p->manifest->n_layers; i++)
        if (flight_fetches(p, i))
            fetch[n++] = (uint32_t)i;
    flight_tell_plan(p, fetch, n);
}

/* Committing: the manifest, its tree, the reference. */

static int run_commit(void *arg, Err *err) {
    Flight *p = arg;
    Grant grant = flight_grant(p);
    int r = flight_commit(p->context->store, p->manifest, &grant, p->reference_text,
                          p->platform_text, err);

    return r < 0 ? err_prefix(err, r, "commit %s", p->reference_text) : 0;
}

static void on_committed(void *arg, int r, const Err *err) {
    Flight *p = arg;

    if (flight_step_ended(p, r, err))
        flight_finish(p, 0, NULL);
}

static void enter_committing(Flight *p) {
    flight_submit(p, run_commit, on_committed, p);
}
