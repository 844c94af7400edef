/* SPDX-License-Identifier: Apache-2.0 */
/* turn: what one layer of a pull may do at a time: threads take it, the loop hands it on. */
#include "oci/turn.h"

static unsigned mark_of(unsigned layer) {
    return layer == TURN_NOBODY ? 0 : layer + 1;
}

bool turn_take(Turn *t, unsigned layer) {
    unsigned nobody = 0;

    return atomic_compare_exchange_strong(&t->holder, &nobody, mark_of(layer)) ||
           nobody == mark_of(layer);
}

void turn_pass(Turn *t, unsigned from, unsigned to) {
    unsigned mark = mark_of(from);

    (void)atomic_compare_exchange_strong(&t->holder, &mark, mark_of(to));
}

unsigned turn_holder(const Turn *t) {
    unsigned mark = atomic_load(&t->holder);

    return mark == 0 ? TURN_NOBODY : mark - 1;
}
