/* SPDX-License-Identifier: Apache-2.0 */
/* flight_layer: layers that have come are committed in batches, so that thousands of small ones
 * cost few flushes of the disk: each flush keeps the file system from making the files of the
 * others. */
#include "agent/flight_internal.h"

/* A layer of more files, or of as many bytes as make a batch, is a batch of its own: it waits for
 * none, and none for it. */
#define ALONE_ENTRIES 256
/* A batch begins with so much, with less when nothing else is to come, and when it has waited. */
#define BATCH_LAYERS 512
#define BATCH_BYTES  MiB(16)
#define BATCH_USEC   (250 * USEC_PER_MSEC)

typedef struct BatchLayer {
    size_t layer;
    LayerEntry *entries;
} BatchLayer;

typedef struct LayerBatch {
    Flight *pull;
    bool alone;
    bool due;   /* it begins as soon as the one before it has ended */
    bool needs; /* files that came with a layer before it */
    uint64_t bytes;
    BatchLayer *layers;
    LayerCommit *commits; /* of each */
    size_t n, cap, cap_commits;
} LayerBatch;

static LayerBatch *batch_new(Flight *p) {
    LayerBatch *b = xnew(LayerBatch);

    b->pull = p;
    return b;
}

static void batch_add(LayerBatch *b, size_t layer, LayerEntry *entries, size_t n) {
    size_t at = b->n;

    ARRAY_GROW(b->layers, at, b->cap);
    ARRAY_GROW(b->commits, at, b->cap_commits);
    b->layers[at] = (BatchLayer){ layer, entries };
    b->commits[at] = (LayerCommit){ .layer = &b->pull->manifest->layers[layer],
                                    .entries = entries,
                                    .n_entries = n };
    b->n++;
    b->bytes += b->pull->manifest->layers[layer].size;
    b->pull->n_reported++;
}

static void batch_free(LayerBatch *b) {
    for (size_t i = 0; i < b->n; i++)
        layer_entries_free(b->layers[i].entries, b->commits[i].n_entries);
    free(b->layers);
    free(b->commits);
    free(b);
}

/* The first that failed is told. */
static int run_batch(void *arg, Err *err) {
    LayerBatch *b = arg;
    Flight *p = b->pull;
    const StorePull pull = flight_store_pull(p);

    store_commit_layers(p->context->store, &pull, b->commits, b->n);
    for (size_t i = 0; i < b->n; i++)
        if (b->commits[i].r < 0) {
            *err = b->commits[i].err;
            (void)flight_explain_space(p->context->store, b->commits[i].r, err);
            return err_prefix(err, b->commits[i].r, "layer %zu of %zu of %s",
                              b->layers[i].layer + 1, p->manifest->n_layers, p->reference_text);
        }
    return 0;
}

static void commit_gathered(Flight *p);

/* What has come by now is committed also when the pull is over: it serves the next try. */
static void on_batch(void *arg, int r, const Err *err) {
    LayerBatch *b = arg;
    Flight *p = b->pull;

    if (b->alone)
        p->n_alone--;
    else
        p->committing = false;
    commit_gathered(p);
    for (size_t i = 0; i < b->n; i++)
        if (b->commits[i].r >= 0)
            sharer_stored(p->sharer, b->layers[i].layer);
    if (flight_step_ended(p, r, err))
        for (size_t i = 0; i < b->n; i++)
            flight_layer_in(p, b->layers[i].layer);
    p->context->changed(p->context->arg); /* it may be in the background again */
    batch_free(b);
}

/* Nobody waits for a layer that is in before the others are; only for the last ones. */
static bool is_due(const Flight *p) {
    const LayerBatch *b = p->gathered;

    return b->due || b->n >= BATCH_LAYERS || b->bytes >= BATCH_BYTES || p->n_reported == p->n_own;
}

static void commit_gathered(Flight *p) {
    if (!p->gathered || p->committing || !is_due(p) || (p->gathered->needs && p->n_alone > 0))
        return;
    p->committing = true;
    flight_submit(p, run_batch, on_batch, TAKE_PTR(p->gathered));
}

static int on_time(sd_event_source *source, uint64_t usec, void *arg) {
    Flight *p = arg;

    (void)source;
    (void)usec;
    if (p->gathered) {
        p->gathered->due = true;
        commit_gathered(p);
    }
    return 0;
}

/* Of equal files in several layers the worker sends one, with the layer that was decoded first. */
static bool needs_others(const LayerEntry *entries, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (entries[i].type == ENTRY_TYPE_FILE && isempty(entries[i].ingest))
            return true;
    return false;
}

static uint64_t content_of(const LayerEntry *entries, size_t n) {
    uint64_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += entries[i].ingest ? entries[i].size : 0;
    return bytes;
}

static void commit_alone(Flight *p, size_t layer, LayerEntry *entries, size_t n) {
    LayerBatch *b = batch_new(p);

    b->alone = true;
    p->n_alone++;
    batch_add(b, layer, entries, n);
    flight_submit(p, run_batch, on_batch, b);
}

/* It is a batch of its own, or waits for others. */
static void commit_or_gather(Flight *p, size_t layer, LayerEntry *entries, size_t n) {
    bool needs = needs_others(entries, n);

    if (!needs && (n > ALONE_ENTRIES || p->manifest->layers[layer].size >= BATCH_BYTES)) {
        commit_alone(p, layer, entries, n);
        return;
    }
    if (!p->gathered) {
        p->gathered = batch_new(p);
        p->gathered->due =
            loop_timer_after(p->context->event, &p->batch_timer, BATCH_USEC, on_time, p) < 0;
    }
    batch_add(p->gathered, layer, entries, n);
    p->gathered->needs |= needs;
    commit_gathered(p);
}

void flight_commit_layer(Flight *p, size_t layer, LayerEntry *entries, size_t n) {
    p->layers[layer].came = true;
    p->content += content_of(entries, n);
    commit_or_gather(p, layer, entries, n);
    if (p->n_reported == p->n_own) /* others may have its connections */
        p->context->changed(p->context->arg);
}

void flight_commit_rest(Flight *p) {
    p->batch_timer = sd_event_source_disable_unref(p->batch_timer);
    if (p->gathered)
        p->gathered->due = true;
    commit_gathered(p);
}
