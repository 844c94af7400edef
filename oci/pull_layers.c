/* SPDX-License-Identifier: Apache-2.0 */
/* pull_layers: fetches the planned layers, large ones first, a few at once. */
#include "oci/pull_internal.h"

#include "base/log.h"

static int by_size_descending(const void *a, const void *b) {
    const PullLayer *x = *(PullLayer *const *)a, *y = *(PullLayer *const *)b;

    if (x->layer->layer.size != y->layer->layer.size)
        return x->layer->layer.size < y->layer->layer.size ? 1 : -1;
    return x->index < y->index ? -1 : 1;
}

/* Layers of an earlier plan may take of it at the same time. */
static void raise_budget(Pull *p, uint64_t content_max) {
    if (content_max <= p->content_max)
        return;
    (void)atomic_fetch_add(&p->budget.bytes, content_max - p->content_max);
    p->content_max = content_max;
}

/* Raw layers say how large they are; tars are counted while they are unpacked. */
static int take_space(Pull *p, const Modelcached__Worker__Plan *plan, Err *err) {
    uint64_t want = 0;

    for (size_t i = 0; i < plan->n_fetch; i++) {
        const Layer *layer = &p->layers[plan->fetch[i]].layer->layer;

        if (layer->kind == LAYER_KIND_RAW && __builtin_add_overflow(want, layer->size, &want))
            want = UINT64_MAX;
    }
    if (unpack_take(&p->budget, want, 0, err) < 0)
        return err_set(err, -ENOSPC,
                       "no space left in the store: the artifact brings %llu bytes, %llu are left: "
                       "free space or raise "
                       "the store's limit",
                       (unsigned long long)want, (unsigned long long)atomic_load(&p->budget.bytes));
    return 0;
}

static void make_layers(Pull *p) {
    size_t n = p->manifest->n_layers;

    p->layers = xnew_n(PullLayer, n + 1);
    p->order = xnew_n(PullLayer *, n + 1);
    for (size_t i = 0; i < n; i++)
        p->layers[i] =
            (PullLayer){ .pull = p, .index = (unsigned)i, .layer = &p->manifest->layers[i] };
}

/* Layers at once at most: so that each has a buffer, and as many are left for what comes early. */
static unsigned max_transfers(const Pull *p) {
    return MIN(p->o.transfers, (p->context.n_buffers + 1) / 2);
}

/* For as many layers as may still run at once.  It does not rise unless as many buffers come: what
 * was taken above it does not come back when somebody needs it. */
static void set_reserve(Pull *p) {
    size_t most = max_transfers(p), left = p->more ? most : MIN(p->n_order - p->n_done, most);

    p->context.reserve = MAX((unsigned)left, 1U);
}

void pull_use_buffers(Pull *p, unsigned n) {
    n = MIN(n, p->o.n_buffers);
    if (n <= p->context.n_buffers)
        return;
    p->context.n_buffers = n;
    ring_limit_buffers(p->o.ring, n);
    set_reserve(p);
    if (p->state == PULL_LAYERS)
        pull_wake(p);
}

/* The files of a tar layer are named after the first bytes of its digest (unpack_name()): whoever
 * makes two layers with the same ones wants them to be mixed up. */
static bool has_name_of_another(const Pull *p, const Layer *l) {
    for (size_t i = 0; i < p->n_order && l->kind == LAYER_KIND_TAR; i++) {
        const Layer *other = &p->order[i]->layer->layer;

        if (other->kind == LAYER_KIND_TAR &&
            memcmp(other->digest.bytes, l->digest.bytes, UNPACK_NAME_BYTES) == 0)
            return true;
    }
    return false;
}

int pull_take_plan(Pull *p, const Modelcached__Worker__Plan *plan, Err *err) {
    size_t n = p->manifest->n_layers;

    if (!p->layers)
        make_layers(p);
    p->more = plan->more;
    for (size_t i = 0; i < plan->n_fetch; i++) {
        uint32_t index = plan->fetch[i];

        if (index >= n || p->layers[index].state != PULL_LAYER_SKIPPED)
            return err_set(err, -EPROTO,
                           "the daemon's plan names layer %u of %zu twice or without reason", index,
                           n);
        if (has_name_of_another(p, &p->layers[index].layer->layer))
            return err_set(err, -EPROTO,
                           "layer %u of %zu has a digest that begins like that of another one",
                           index, n);
        p->layers[index].state = PULL_LAYER_WAITING;
        p->order[p->n_order++] = &p->layers[index];
    }
    qsort(p->order, p->n_order, sizeof(*p->order), by_size_descending);
    set_reserve(p);
    p->first = p->past = 0;
    for (size_t i = 0; i < p->n_order; i++)
        if (p->order[i]->job || p->order[i]->state == PULL_LAYER_PARKED)
            p->past = i + 1;
    raise_budget(p, plan->content_max_bytes);
    return take_space(p, plan, err);
}

/* Once it has rested and more has come, it waits no longer. */
static void forget_trouble(PullLayer *l) {
    uint64_t bytes = l->job ? layer_job_bytes(l->job) : 0;

    if (l->trouble && l->job && layer_job_is_resting(l->job))
        l->trouble_bytes = bytes;
    else if (l->trouble && (l->state == PULL_LAYER_DONE || bytes > l->trouble_bytes))
        free(TAKE_PTR(l->trouble));
}

/* The first layer that waits after a failure, and why, and how many others do; NULL: none does. */
static const char *first_trouble(Pull *p, size_t *ret_others) {
    const char *first = NULL;

    for (size_t i = 0; i < p->n_order; i++) {
        PullLayer *l = p->order[i];

        forget_trouble(l);
        *ret_others += l->trouble && first;
        if (!first)
            first = l->trouble;
    }
    return first;
}

/* Which layer waits, and why; others may go on meanwhile.  The caller frees it; NULL: none does. */
static char *describe_waits(Pull *p) {
    _cleanup_free_ char *parked = NULL;
    size_t others = 0;
    const char *first = first_trouble(p, &others);

    if (!first)
        first = parked = pull_large_describe(p, &others);
    return others > 0
               ? xasprintf("%s (and %zu other layer%s)", first, others, others > 1 ? "s" : "")
               : xstrdup(first);
}

/* Of a layer that has a job: bytes that were here before this pull. */
static uint64_t resumed_of(const PullLayer *l) {
    uint64_t resumed = layer_job_resumed(l->job);

    return resumed - MIN(resumed, l->own);
}

/* What one that was parked had brought counts while it is looked at once more. */
static uint64_t look_at_job(PullLayer *l) {
    uint64_t bytes = layer_job_bytes(l->job), all = bytes + layer_job_ahead(l->job);

    l->bytes = MAX(bytes, l->kept);
    l->resumed = resumed_of(l);
    return all - MIN(all, l->bytes);
}

/* Of the layers that have changed; returns how many these are. */
static size_t gather_progress(Pull *p, Modelcached__Worker__LayerProgress *items) {
    size_t n = 0;

    for (size_t i = 0; i < p->n_order && channel_is_idle(p->o.channel); i++) {
        PullLayer *l = p->order[i];
        uint64_t ahead = l->job ? look_at_job(l) : 0;

        if (l->bytes == l->told && ahead == l->told_ahead)
            continue;
        l->told = l->bytes;
        l->told_ahead = ahead;
        modelcached__worker__layer_progress__init(&items[n]);
        items[n].index = l->index;
        items[n].bytes = l->bytes;
        items[n].resumed = l->resumed;
        items[n++].ahead = ahead;
    }
    return n;
}

/* Tells the daemon how far the layers are and what they wait for; changes only, and only as fast as
 * it reads. */
static int on_progress(sd_event_source *source, uint64_t usec, void *arg) {
    Pull *p = arg;
    _cleanup_free_ Modelcached__Worker__LayerProgress *items =
        xnew_n(Modelcached__Worker__LayerProgress, p->n_order + 1);
    _cleanup_free_ Modelcached__Worker__LayerProgress **pointers =
        xnew_n(Modelcached__Worker__LayerProgress *, p->n_order + 1);
    _cleanup_free_ char *waiting = describe_waits(p);
    size_t n = gather_progress(p, items);

    (void)source;
    (void)usec;
    for (size_t i = 0; i < n; i++)
        pointers[i] = &items[i];
    if (n > 0 || (channel_is_idle(p->o.channel) && !streq_ptr(waiting, p->waiting))) {
        xfree_and_strdup(&p->waiting, waiting);
        pull_say_progress(p, pointers, n);
    }
    return loop_timer_after(p->o.event, &p->progress, PULL_PROGRESS_USEC, on_progress, p);
}

/* Sends what became of a raw layer: one file. */
static void send_raw_entry(PullLayer *l) {
    const Layer *layer = &l->layer->layer;
    Modelcached__Worker__Entry entry = MODELCACHED__WORKER__ENTRY__INIT, *entries[] = { &entry };
    Modelcached__Worker__Entries list = MODELCACHED__WORKER__ENTRIES__INIT;
    Modelcached__Worker__FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;
    char name[LAYER_JOB_NAME_MAX];

    entry.type = MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_FILE;
    entry.path = layer->path;
    entry.digest = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)(uintptr_t)layer->digest.bytes };
    entry.size = layer->size;
    entry.executable = layer->executable;
    entry.ingest = (char *)(uintptr_t)layer_job_file(name, &layer->digest, ".part");
    list.layer = l->index;
    list.entries = entries;
    list.n_entries = ELEMENTSOF(entries);
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_ENTRIES;
    message.entries = &list;
    channel_send(l->pull->o.channel, &message);
}

/* A layer may be done before the next on_progress(); that part of it was on disk, and did not come
 * from the registry, is told all the same. */
static void send_resumed(PullLayer *l) {
    Modelcached__Worker__LayerProgress item = MODELCACHED__WORKER__LAYER_PROGRESS__INIT,
                                       *items[] = { &item };

    item.index = l->index;
    item.bytes = layer_job_bytes(l->job);
    item.resumed = resumed_of(l);
    if (item.resumed > 0)
        pull_say_progress(l->pull, items, ELEMENTSOF(items));
}

static void send_layer(PullLayer *l) {
    Modelcached__Worker__LayerDone done = MODELCACHED__WORKER__LAYER_DONE__INIT;
    Modelcached__Worker__FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;

    send_resumed(l);
    if (l->layer->layer.kind == LAYER_KIND_TAR) {
        uint64_t bytes;
        int fd = layer_job_take_entries(l->job, &bytes);

        channel_send_file(l->pull->o.channel, fd, bytes);
    } else {
        send_raw_entry(l);
    }
    done.layer = l->index;
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_LAYER_DONE;
    message.layer_done = &done;
    channel_send(l->pull->o.channel, &message);
}

/* A connection failed; on_progress() tells. */
static void on_trouble(void *arg, const char *why) {
    PullLayer *l = arg;

    free(l->trouble);
    l->trouble =
        xasprintf("layer %u of %zu: %.480s", l->index + 1, l->pull->manifest->n_layers, why);
    l->trouble_bytes = l->job ? layer_job_bytes(l->job) : 0;
    log_debug("%s", l->trouble);
}

/* What becomes of a layer whose job has ended; PULL_LAYER_RUNNING: the pull fails with it. */
static PullLayerState state_after(const PullLayer *l, int r) {
    bool found = layer_job_is_composed(l->job) || layer_job_is_restored(l->job);
    bool wrong = r == -EBADMSG || (r == -EPROTO && layer_job_is_restored(l->job));

    if (r >= 0)
        return PULL_LAYER_DONE;
    if (layer_job_is_refused(l->job))
        return PULL_LAYER_PARKED;
    /* Perhaps its parts do not belong together: once more, from nothing. */
    return wrong && found && !l->anew ? PULL_LAYER_WAITING : PULL_LAYER_RUNNING;
}

/* What it has brought, and has of the budget, stays its own. */
static void park(PullLayer *l) {
    l->used = layer_job_used(l->job);
    l->kept = l->bytes = layer_job_kept(l->job);
    l->resumed = MIN(resumed_of(l), l->kept);
    l->own = l->kept - l->resumed;
    pull_large_park(l);
}

static void on_layer(void *arg, int r, const Err *err) {
    PullLayer *l = arg;
    Pull *p = l->pull;
    Err why = *err;

    if (p->state != PULL_LAYERS) { /* has failed already */
        l->job = layer_job_free(l->job);
        return;
    }
    p->n_running--;
    p->n_decoding -= l->layer->layer.kind == LAYER_KIND_TAR;
    if (r >= 0)
        send_layer(l);
    l->bytes = r >= 0 ? layer_job_bytes(l->job) : 0;
    l->resumed = r >= 0 ? resumed_of(l) : 0;
    l->state = state_after(l, r);
    if (l->state == PULL_LAYER_PARKED)
        park(l);
    l->job = layer_job_free(l->job);
    pull_large_pass(l);
    if (l->state == PULL_LAYER_DONE) {
        p->n_done++;
        set_reserve(p);
    } else if (l->state == PULL_LAYER_WAITING) {
        l->anew = true;
        l->kept = l->own = 0;
        on_trouble(l, err_text(&why, r));
    }
    if (l->state == PULL_LAYER_RUNNING)
        pull_finish(p,
                    err_prefix(&why, r, "layer %u of %zu (%.19s…)", l->index + 1,
                               p->manifest->n_layers, DIGEST_STR(&l->layer->layer.digest)),
                    &why);
    else
        pull_fill(p);
}

static int start(PullLayer *l, Err *err) {
    Pull *p = l->pull;
    bool tar = l->layer->layer.kind == LAYER_KIND_TAR;
    LayerJobOptions options = {
        .context = &p->context,
        .decoders = p->o.decoders,
        .layer = l->layer,
        .index = l->index,
        .image = streq_ptr(p->manifest->family, "image"),
        .queue = 8,
        .dir_fd = p->o.dir_fd,
        .budget = &p->budget,
        .large = &p->large,
        .anew = l->anew,
        .on_trouble = on_trouble,
        .done = on_layer,
        .arg = l,
    };
    int r = layer_job_new(&l->job, &options, err);

    if (r < 0)
        return err_prefix(err, r, "layer %u of %zu", l->index + 1, p->manifest->n_layers);
    if (l->state == PULL_LAYER_PARKED) {
        unpack_give_back(&p->budget, &l->used); /* it takes that of what it finds */
        p->n_parked--;
    }
    l->state = PULL_LAYER_RUNNING;
    p->n_running++;
    p->n_decoding += tar;
    return 0;
}

/* 1; 0: all that may run do. */
static int start_if_free(PullLayer *l, unsigned max, Err *err) {
    const Pull *p = l->pull;
    int r;

    if (p->n_running >= max ||
        (l->layer->layer.kind == LAYER_KIND_TAR && p->n_decoding == p->o.n_decoders))
        return 0;
    r = start(l, err);
    return r < 0 ? r : 1;
}

/* How many layers may run: while some want more connections than they have, half are left to them.
 */
static unsigned max_running(Pull *p) {
    unsigned n = traffic_connections(p->traffic);

    return MIN(traffic_is_hungry(p->traffic) ? n - n / 2 : n, max_transfers(p));
}

/* Each layer that runs can have a connection; and while others wait, half of all are for new ones.
 */
static void limit_extras(Pull *p, bool waits) {
    unsigned n = traffic_connections(p->traffic), left = n - MIN(p->n_running, n);

    traffic_limit_extras(p->traffic, waits ? MIN(n / 2, left) : left);
}

void pull_fill(Pull *p) {
    unsigned max = max_running(p);
    PullLayer *next;
    bool waits;
    Err err;
    int r;

    if (p->state != PULL_LAYERS)
        return;
    if (p->n_done == p->n_order && !p->more) {
        pull_finish(p, 0, NULL);
        return;
    }
    while (p->first < p->n_order && p->order[p->first]->state == PULL_LAYER_DONE)
        p->first++;
    next = pull_large_next(p); /* it has waited longer than others */
    r = next ? start_if_free(next, max, &err) : 1;
    waits = r == 0;
    for (size_t i = p->first; i < p->n_order && r >= 0; i++) {
        if (p->order[i]->state != PULL_LAYER_WAITING)
            continue;
        r = start_if_free(p->order[i], max, &err);
        if (r > 0)
            p->past = MAX(p->past, i + 1);
        waits = waits || r == 0;
        if (r == 0 && p->n_running >= max)
            break;
    }
    if (r < 0)
        pull_finish(p, r, &err);
    else
        limit_extras(p, waits);
}

static void wake_jobs(Pull *p) {
    for (size_t i = p->first; i < p->past && p->state == PULL_LAYERS; i++)
        if (p->order[i]->job)
            layer_job_wake(p->order[i]->job);
}

void pull_wake(Pull *p) {
    pull_fill(p);
    traffic_forget_hunger(p->traffic); /* all are asked anew */
    wake_jobs(p);
}

static void on_free(void *arg) {
    wake_jobs(arg);
}

int pull_enter_layers(Pull *p, Err *err) {
    int r = loop_timer_after(p->o.event, &p->progress, PULL_PROGRESS_USEC, on_progress, p);

    if (r < 0)
        return err_errnum(err, r, "cannot start a timer");
    ring_set_on_free(p->o.ring, on_free, p);
    pull_fill(p);
    return 0;
}

void pull_stop_layers(Pull *p) {
    ring_set_on_free(p->o.ring, NULL, NULL);
    for (size_t i = 0; i < p->n_order; i++)
        p->order[i]->job = layer_job_free(p->order[i]->job);
}
