/* SPDX-License-Identifier: Apache-2.0 */
/* flight_share: the layers of a pull that another pull fetches: waited for, and taken from the
 * store or over. */
#include "agent/flight_internal.h"
#include "base/limits.h"

/* A layer of which another pull has told something; the store is asked what it means. */
typedef struct LateWork {
    Flight *pull;
    size_t layer;
    bool ours;        /* to fetch, when it is not stored … */
    uint64_t claimed; /* … and then so much of it is on disk */
} LateWork;

static int run_late(void *arg, Err *err) {
    LateWork *w = arg;
    Flight *p = w->pull;

    const StorePull pull = flight_store_pull(p);

    return flight_look_up(p->context->store, &pull, p->id, &p->manifest->layers[w->layer],
                          w->ours ? &w->claimed : NULL, err);
}

static void on_late(void *arg, int r, const Err *err);

static void ask_store(Flight *p, size_t layer, bool ours) {
    LateWork *w = xnew(LateWork);

    *w = (LateWork){ .pull = p, .layer = layer, .ours = ours };
    if (ours)
        p->passed_on += p->manifest->layers[layer].size;
    flight_submit(p, run_late, on_late, w);
}

/* The layer is ours to fetch from now on. */
static void fetch_late(Flight *p, size_t layer, uint64_t claimed) {
    flight_progress(p, layer, 0, 0); /* what the other pull had does not count */
    p->layers[layer].role = SHARE_FETCH;
    p->layers[layer].claimed = claimed;
    p->n_waiting--;
    if (p->state == FLIGHT_FETCHING) { /* else the first plan has it */
        p->layers[layer].late = true;
        p->n_late++;
    }
    if (!p->planned)
        return; /* the plan will find it */
    p->n_own++;
    p->context->changed(p->context->arg);
}

void flight_tell_plan(Flight *p, const uint32_t *fetch, size_t n) {
    WorkerPlan plan = { .fetch = fetch, .n = n, .more = p->n_waiting + p->n_late > 0 };

    if (p->state != FLIGHT_FETCHING || !p->worker)
        return;
    if (n > 0)
        plan.content_max_bytes = flight_content_max(p);
    worker_plan(p->worker, &plan);
}

static void plan_late(Flight *p);

/* All that became ours since the last plan; when more did meanwhile, room is looked for again. */
static void tell_late(Flight *p) {
    _cleanup_free_ uint32_t *fetch = xnew_n(uint32_t, p->n_late);
    bool all = p->n_looked == p->n_late && p->passed_on == 0;
    size_t n = 0;

    p->n_looked = 0;
    if (!all) {
        plan_late(p);
        return;
    }
    for (size_t i = 0; p->n_late > 0; i++)
        if (p->layers[i].late) {
            p->layers[i].late = false;
            p->n_late--;
            fetch[n++] = (uint32_t)i;
        }
    flight_tell_plan(p, fetch, n);
}

/* The worker is told of them once the store was asked about all that were passed on: only then it
 * is known what they need. */
static void plan_late(Flight *p) {
    if (p->n_late == 0 && p->n_waiting == 0)
        flight_tell_plan(p, NULL, 0);
    if (p->n_late == 0 || p->passed_on > 0 || p->n_looked > 0)
        return;
    p->n_looked = p->n_late;
    flight_look_for_room(p, tell_late);
}

static void on_late(void *arg, int r, const Err *err) {
    LateWork w = *(LateWork *)arg;
    Flight *p = w.pull;
    size_t same;

    free(arg);
    if (w.ours)
        p->passed_on -= p->manifest->layers[w.layer].size;
    if (!flight_step_ended(p, r, err))
        return;
    if (r > 0) {
        if (w.ours)
            sharer_stored(p->sharer, w.layer);
        p->n_waiting--;
        plan_late(p);
        flight_layer_in(p, w.layer);
        p->context->changed(p->context->arg); /* nobody waits for it any more */
    } else if (w.ours) {
        fetch_late(p, w.layer, w.claimed);
        plan_late(p);
    } else if (sharer_take(p->sharer, w.layer, &p->manifest->layers[w.layer], &same) ==
               SHARE_FETCH) /* it was stored, and removed since */
        ask_store(p, w.layer, true);
}

static void on_stored(void *arg, size_t layer) {
    Flight *p = arg;

    if (p->state != FLIGHT_DONE)
        ask_store(p, layer, false);
}

static void on_yours(void *arg, size_t layer) {
    Flight *p = arg;

    if (p->state != FLIGHT_DONE) /* else it passes it on when it ends */
        ask_store(p, layer, true);
}

static void on_shared_progress(void *arg, size_t layer, uint64_t bytes, uint64_t resumed) {
    flight_progress(arg, layer, bytes, resumed);
}

int flight_take_layers(Flight *p, Err *err) {
    const SharerHandlers handlers = { on_stored, on_yours, on_shared_progress, p };
    uint64_t steps = LIMIT_FILTER_LAYER_STEPS;

    p->sharer = sharer_new(p->context->shares, p->origin, p->manifest->n_layers, &handlers);
    for (size_t i = 0; i < p->manifest->n_layers; i++) {
        FlightLayer *l = &p->layers[i];

        l->left_out = !manifest_wants_layer(p->manifest, i, &steps);
        p->n_left_out += l->left_out;
        if (l->left_out)
            continue;
        l->role = sharer_take(p->sharer, i, &p->manifest->layers[i], &l->same_as);
        p->n_waiting += l->role == SHARE_WAIT;
    }
    return filter_check_steps(steps, err);
}

static bool wanted_itself(const void *arg) {
    return ((const Flight *)arg)->wanted && ((const Flight *)arg)->state != FLIGHT_DONE;
}

bool flight_is_asked_for(const Flight *p) {
    return p->wanted;
}

bool flight_is_wanted(const Flight *p) {
    return p->wanted || (p->sharer && sharer_is_awaited(p->sharer, wanted_itself));
}

bool flight_is_queued(const Flight *p) {
    return p->state == FLIGHT_QUEUED;
}

bool flight_is_fetching(const Flight *p) {
    return p->state == FLIGHT_FETCHING && !p->worker_ended && p->n_own > p->n_reported;
}

bool flight_is_idle(const Flight *p) {
    return p->state == FLIGHT_FETCHING && !flight_is_fetching(p) && p->n_waiting > 0 &&
           p->passed_on == 0;
}

unsigned flight_connections(const Flight *p) {
    return p->limits.connections;
}

uint64_t flight_memory(const Flight *p) {
    return p->limits.memory_bytes;
}

uint64_t flight_memory_max(const Flight *p) {
    return p->options->memory_bytes;
}

const Reference *flight_reference(const Flight *p) {
    return p->reference;
}
