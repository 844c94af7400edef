/* SPDX-License-Identifier: Apache-2.0 */
/* divide: the node's connections, among the pulls that have blobs to fetch. */
#include "agent/divide.h"

static void begin(DivideClaim *claims, size_t n) {
    for (size_t i = 0; i < n; i++) {
        DivideClaim *c = &claims[i];

        c->given = c->registry_has = 0;
        c->registry_is_full = false;
        c->first_of_it = 0;
        while (!streq(claims[c->first_of_it].registry, c->registry))
            c->first_of_it++;
    }
}

static bool give_one(unsigned *left, DivideClaim *c, unsigned *registry_has) {
    c->registry_is_full = c->registry_max > 0 && *registry_has >= c->registry_max;
    if (c->registry_is_full || *left == 0)
        return false;
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

void divide_among(unsigned node_max, DivideClaim *claims, size_t n) {
    unsigned left = node_max;
    bool wanted;

    begin(claims, n);
    wanted = give_round(&left, claims, n, true);
    (void)give_round(&left, claims, n, false); /* none may be left for them */
    while (give_round(&left, claims, n, wanted))
        ;
}
