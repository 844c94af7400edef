/* SPDX-License-Identifier: Apache-2.0 */
/* divide: the node's connections and buffers, among the pulls that have blobs to fetch. */
#pragma once

#include "base/macro.h"

/* Why a pull gets no connection. */
typedef enum DivideLack {
    DIVIDE_LACKS_NOTHING,
    DIVIDE_LACKS_NODE,     /* the node's are all given … */
    DIVIDE_LACKS_REGISTRY, /* … or those to its registry … */
    DIVIDE_LACKS_MEMORY,   /* … or there are no buffers for what it would receive */
} DivideLack;

/* One pull: what it asks with, and what it gets. */
typedef struct DivideClaim {
    const char *registry;  /* host[:port]; borrowed */
    unsigned registry_max; /* from it, of all pulls together; 0: no limit of its own */
    bool wanted;           /* somebody waits for it */
    bool has_some;         /* connections; it is not to be broken off for another of its kind */
    uint64_t memory_max;   /* bytes of buffers that it can use */
    uint64_t memory;       /* that it has; set: that it gets, never less */
    unsigned given;        /* set: connections; 0: it has to wait … */
    DivideLack lack;       /* … set: for this */
    size_t first_of_it;    /* inside: the first claim with that registry, which has … */
    unsigned registry_has; /* … what all of them have got */
} DivideClaim;

/* For each pull that may run, so that half of it is two buffers, and each gets on. */
#define DIVIDE_MEMORY_LEAST MiB(4)

typedef struct DivideNode {
    unsigned connections; /* that the node may have */
    unsigned pulls;       /* that may run at once */
    uint64_t first;       /* of divide_first() */
    uint64_t memory;      /* bytes of buffers … */
    uint64_t taken;       /* … of which pulls have so many, also such that claim nothing … */
    unsigned takers;      /* … so many pulls; and … */
    uint64_t idle;        /* … of `taken` those have that only wait for layers of others */
} DivideNode;

/* What each of so many pulls gets at first, of the node's `memory` when it can use at most `each`:
 * what a blob of a registry that is near has in its buffers, or half of its equal part. */
uint64_t divide_first(uint64_t memory, unsigned pulls, uint64_t each);
/* Connections: gives each pull one, the wanted ones first, of each kind those that have some, else
 * in the order of `claims`; then what is left to the wanted ones equally, or, without any, to the
 * others.  Never more than the node's together nor than a registry allows.
 *
 * Memory: what a pull has it keeps.  So each that gets a connection gets `first`, which is
 * kept for those that may still begin; then the wanted ones as much as they can use, those with the
 * least first, if there is so much; then the others, but not more than an equal part of all for
 * each pull that may run.  For whom there is not even `first`, it gets no connection, which is
 * for others then; but when all that is taken is idle, so that none of it comes back, the one
 * before the others gets it beyond what there is: others may wait for that one. */
void divide_among(const DivideNode *node, DivideClaim *claims, size_t n);
