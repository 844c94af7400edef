/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_inbox: any bytes as what a pull worker says: the first byte chooses whether it is a probe
 * and in which pieces they come; every layer is asked for. */
#include "agent/inbox.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

typedef struct Target {
    Inbox *inbox;
    size_t n_layers;
    bool resolved;
} Target;

static void on_hello(void *arg, FeatureList *features) {
    (void)arg;
    feature_list_done(features);
}

static void on_resolved(void *arg, Manifest *manifest, IndexChain *index) {
    Target *t = arg;
    Err err;

    if (index)
        (void)!chain_check_index(index, &manifest->digest, &err);
    (void)!chain_check_layers(manifest, &err);
    (void)index_chain_free(index);
    t->n_layers = manifest->n_layers;
    t->resolved = true;
    (void)manifest_free(manifest);
}

static void on_layer(void *arg, size_t layer, LayerEntry *entries, size_t n) {
    if (layer >= ((Target *)arg)->n_layers)
        abort();
    layer_entries_free(entries, n);
}

static void plan(Target *t) {
    uint32_t *fetch = xnew_n(uint32_t, t->n_layers + 1);

    for (uint32_t i = 0; i < t->n_layers; i++)
        fetch[i] = i;
    inbox_plan(t->inbox, fetch, t->n_layers, false);
    inbox_raise_room(t->inbox, MiB(1));
    free(fetch);
    t->resolved = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Target t = { 0 };
    InboxHandlers handlers = {
        .on_hello = on_hello, .on_resolved = on_resolved, .on_layer = on_layer, .arg = &t
    };
    size_t step = n > 0 ? (data[0] >> 1) + 1U : 1;
    Err err = { "" };

    t.inbox = inbox_new(&handlers, n > 0 && data[0] & 1);
    for (size_t i = 1; i < n; i += step) {
        if (inbox_feed(t.inbox, data + i, MIN(step, n - i), &err) < 0)
            break;
        if (t.resolved)
            plan(&t);
    }
    (void)!inbox_outcome(t.inbox, &err);
    (void)inbox_free(t.inbox);
    return 0;
}
