/* SPDX-License-Identifier: Apache-2.0 */
/* pull_large: large zstd windows, of which a pull has one at a time: `large` goes from layer to
 * layer.
 */
#include "oci/pull_internal.h"

#include "base/log.h"

/* The largest: it has the most to do. */
static PullLayer *first_parked(const Pull *p) {
    for (size_t i = p->first; i < p->n_order && p->n_parked > 0; i++)
        if (p->order[i]->state == PULL_LAYER_PARKED)
            return p->order[i];
    return NULL;
}

void pull_large_park(PullLayer *l) {
    l->state = PULL_LAYER_PARKED;
    l->pull->n_parked++;
    free(TAKE_PTR(l->trouble)); /* of a connection that is given back */
    log_debug("layer %u of %zu waits until another one gives its large zstd window back",
              l->index + 1, l->pull->manifest->n_layers);
}

/* It is handed over, so that no layer that comes to need it later gets it before.  Nobody may have
 * it: the one that had it ended when `l` had been refused, and was not parked yet. */
void pull_large_pass(const PullLayer *l) {
    Pull *p = l->pull;
    const PullLayer *next = first_parked(p);
    unsigned to = next ? next->index : TURN_NOBODY;

    turn_pass(&p->large, l->index, to);
    turn_pass(&p->large, TURN_NOBODY, to);
}

PullLayer *pull_large_next(const Pull *p) {
    unsigned holder = turn_holder(&p->large);

    return holder != TURN_NOBODY && p->layers[holder].state == PULL_LAYER_PARKED
               ? &p->layers[holder]
               : NULL;
}

char *pull_large_describe(const Pull *p, size_t *ret_others) {
    unsigned holder = turn_holder(&p->large);
    const PullLayer *first = NULL;

    for (size_t i = p->first; i < p->n_order && p->n_parked > 0; i++) {
        const PullLayer *l = p->order[i];

        if (l->state != PULL_LAYER_PARKED || l->index == holder)
            continue;
        *ret_others += first != NULL;
        if (!first)
            first = l;
    }
    return first ? xasprintf("layer %u of %zu: waits for layer %u: zstd windows above %u MiB are "
                             "decoded one at a time",
                             first->index + 1, p->manifest->n_layers, holder + 1,
                             1U << (LIMIT_ZSTD_COMMON_WINDOW_LOG - 20))
                 : NULL;
}
