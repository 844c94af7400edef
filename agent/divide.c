/* SPDX-License-Identifier: Apache-2.0 */
/* divide: the node's connections and buffers, among the pulls that have blobs to fetch. */
#include "agent/divide.h"

#define FIRST_BYTES MiB(20) /* the first buffers of a pull: enough when the registry is near */
#define STEP_BYTES  MiB(1)

static void begin(DivideClaim *claims, size_t n) {
    for (size_t i = 0; i < n; i++) {
        DivideClaim *c = &claims[i];

        c->given = c->registry_has = 0;
        if (c->lack != DIVIDE_LACKS_MEMORY)
            c->lack = DIVIDE_LACKS_NOTHING;
        c->first_of_it = 0;
        while (!streq(claims[c->first_of_it].registry, c->registry))
            c->first_of_it++;
    }
}

static bool give_one(unsigned *left, DivideClaim *c, unsigned *registry_has) {
    bool registry_is_full = c->registry_max > 0 && *registry_has >= c->registry_max;

    if (c->lack == DIVIDE_LACKS_MEMORY)
        return false;
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

static void divide_connections(unsigned left, DivideClaim *claims, size_t n) {
    bool wanted;

    begin(claims, n);
    wanted = give_round(&left, claims, n, true);
    (void)give_round(&left, claims, n, false); /* none may be left for them */
    while (give_round(&left, claims, n, wanted))
        ;
}

static void give_memory(DivideNode *node, DivideClaim *c) {
    c->memory = node->first;
    node->taken += node->first;
    node->takers++;
}

/* To those that have a connection and no memory; false: there was not enough for one. */
static bool give_first(DivideNode *node, DivideClaim *claims, size_t n, bool wanted) {
    bool enough = true;

    for (size_t i = 0; i < n; i++) {
        DivideClaim *c = &claims[i];

        if (c->wanted != wanted || c->given == 0 || c->memory > 0)
            continue;
        if (node->taken + node->first > node->memory) {
            c->given = 0;
            c->lack = DIVIDE_LACKS_MEMORY;
            enough = false;
            continue;
        }
        give_memory(node, c);
    }
    return enough;
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

static uint64_t part_of(uint64_t memory, unsigned pulls) {
    return memory / pulls / STEP_BYTES * STEP_BYTES;
}

uint64_t divide_first(uint64_t memory, unsigned pulls, uint64_t each) {
    return MIN(part_of(memory, 2 * pulls), MIN(FIRST_BYTES, each));
}

/* The one that lacks memory and goes before the others; NULL: some comes back by itself, or none
 * lacks it. */
static DivideClaim *find_stuck(const DivideNode *node, DivideClaim *claims, size_t n) {
    DivideClaim *stuck = NULL;

    for (size_t i = 0; i < n && node->idle == node->taken; i++)
        if (claims[i].lack == DIVIDE_LACKS_MEMORY &&
            (!stuck || (claims[i].wanted && !stuck->wanted)))
            stuck = &claims[i];
    return stuck;
}

/* Connections, and first memory for whom has none. */
static void divide_first_among(DivideNode *node, DivideClaim *claims, size_t n) {
    DivideClaim *stuck;

    do
        divide_connections(node->connections, claims, n);
    while (!give_first(node, claims, n, true) || !give_first(node, claims, n, false));
    stuck = find_stuck(node, claims, n);
    if (!stuck)
        return;
    stuck->lack = DIVIDE_LACKS_NOTHING;
    give_memory(node, stuck);
    divide_connections(node->connections, claims, n);
}

void divide_among(const DivideNode *node, DivideClaim *claims, size_t n) {
    uint64_t kept, left;
    DivideNode now = *node;

    for (size_t i = 0; i < n; i++)
        claims[i].lack = DIVIDE_LACKS_NOTHING;
    divide_first_among(&now, claims, n);
    kept = now.taken + now.first * (now.pulls - MIN(now.takers, now.pulls));
    left = now.memory - MIN(kept, now.memory);
    while (give_more(&left, claims, n, true, UINT64_MAX))
        ;
    while (give_more(&left, claims, n, false, part_of(now.memory, now.pulls)))
        ;
}
