/* SPDX-License-Identifier: Apache-2.0 */
/* turn: what one layer of a pull may do at a time: threads take it, the loop hands it on. */
#pragma once

#include "base/macro.h"

#include <limits.h>
#include <stdatomic.h>

#define TURN_NOBODY UINT_MAX

typedef struct Turn {
    atomic_uint holder; /* 1 + the layer; 0: nobody, as in zeroed memory */
} Turn;

/* Any thread: is it the layer's?  It is when nobody had it. */
bool turn_take(Turn *t, unsigned layer);
/* Loop: from a layer or TURN_NOBODY to another such; nothing happens when another one has it. */
void turn_pass(Turn *t, unsigned from, unsigned to);
/* A layer, or TURN_NOBODY. */
unsigned turn_holder(const Turn *t);
