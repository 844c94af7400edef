/* SPDX-License-Identifier: Apache-2.0 */
/* divide: the node's connections and buffers, among the pulls that have blobs to fetch. */
#include "agent/divide.h"

#define FIRST_BYTES MiB(16) /* the first buffers of a pull: enough when the registry is near */
#define STEP_BYTES  MiB(1)

static void begin(DivideClaim *claims, size_t n) {
    for (size_t i = 0; i < n; i++) {
        DivideClaim *c = &claims[i];

        c->given = c->registry_has = 0;
        c->lack = DIVIDE_LACKS_NOTHING;
        c->first_of_it = 0;
        while (!streq(claims[c->first_of_it].registry, c->registry))
            c->first_of_it++;
    }
}

static bool give_one(unsigned *left, DivideClaim *c, unsigned *registry_has) {
    bool registry_is_full = c->registry_max > 0 && *registry_has >= c->registry_max;

    if (registry_is_full || *left == 0) {
        c->lack = c->given > 0       ? DIVIDE_LACKS_NOTHING
                  : registry_is_full ? DIVIDE_LACKS_REGISTRY
                                     : DIVIDE_LACKS_NODE;
        return false;
    }
    c->given++;
    ++*registry_has;
    --*left;
    return true;
}

/* One more for each pull of a kind, as far as there are some; false: none got any. */
static bool give_round(unsigned *left, DivideClaim *claims, size_t n, bool wanted) {
    bool gave = false;

    for (unsigned fresh = 0; fresh < 2; fresh++)
        for (size_t i = 0; i < n; i++)
            if (claims[i].wanted == wanted && claims[i].has_some == !fresh)
                gave |= give_one(left, &claims[i], &claims[claims[i].first_of_it].registry_has);
    return gave;
}

void divide_connections(unsigned node_max, DivideClaim *claims, size_t n) {
    unsigned left = node_max;
    bool wanted;

    begin(claims, n);
    wanted = give_round(&left, claims, n, true);
    (void)give_round(&left, claims, n, false); /* none may be left for them */
    while (give_round(&left, claims, n, wanted))
        ;
}

/* To those that have none. */
static void give_first(uint64_t first, DivideMemory *m, DivideClaim *claims, size_t n,
                       bool wanted) {
    for (size_t i = 0; i < n; i++) {
        DivideClaim *c = &claims[i];

        if (c->wanted != wanted || c->given == 0 || c->memory > 0)
            continue;
        if (m->taken + first > m->total) {
            c->given = 0;
            c->lack = DIVIDE_LACKS_MEMORY;
            continue;
        }
        c->memory = first;
        m->taken += first;
        m->n++;
    }
}

/* To the one that has the least, up to `max`; false: none can use it. */
static bool give_more(uint64_t *left, DivideClaim *claims, size_t n, bool wanted, uint64_t max) {
    DivideClaim *least = NULL;
    uint64_t step;

    for (size_t i = 0; i < n; i++) {
        DivideClaim *c = &claims[i];

        if (c->wanted == wanted && c->given > 0 && c->memory < MIN(c->memory_max, max) &&
            (!least || c->memory < least->memory))
            least = c;
    }
    if (!least)
        return false;
    step = MIN(MIN(least->memory_max, max) - least->memory, STEP_BYTES);
    step = MIN(step, *left);
    least->memory += step;
    *left -= step;
    return step > 0;
}

void divide_memory(const DivideMemory *memory, DivideClaim *claims, size_t n) {
    DivideMemory m = *memory;
    uint64_t part = m.total / m.pulls / STEP_BYTES * STEP_BYTES, first = MIN(part, FIRST_BYTES);
    uint64_t kept, left;

    give_first(first, &m, claims, n, true);
    give_first(first, &m, claims, n, false);
    kept = m.taken + first * (m.pulls - MIN(m.n, m.pulls));
    left = m.total - MIN(kept, m.total);
    while (give_more(&left, claims, n, true, UINT64_MAX))
        ;
    while (give_more(&left, claims, n, false, part))
        ;
}
