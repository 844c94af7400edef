/* SPDX-License-Identifier: Apache-2.0 */
/* divide: the node's connections, among the pulls that have blobs to fetch. */
#pragma once

#include "base/macro.h"

/* One pull: what it asks with, and what it gets. */
typedef struct DivideClaim {
    const char *registry;  /* host[:port]; borrowed */
    unsigned registry_max; /* from it, of all pulls together; 0: no limit of its own */
    bool wanted;           /* somebody waits for it */
    bool has_some;         /* connections; it is not to be broken off for another of its kind */
    unsigned given;        /* set: connections; 0: it has to wait … */
    bool registry_is_full; /* … set: for one from its registry, not for one of the node */
    size_t first_of_it;    /* inside: the first claim with that registry, which has … */
    unsigned registry_has; /* … what all of them have got */
} DivideClaim;

/* Gives each pull one, the wanted ones first, of each kind those that have some, else in the order
 * of `claims`; then what is left to the wanted ones equally, or, without any, to the others.  Never
 * more than `node_max` together nor than a registry allows. */
void divide_among(unsigned node_max, DivideClaim *claims, size_t n);
