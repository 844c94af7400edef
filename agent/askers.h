/* SPDX-License-Identifier: Apache-2.0 */
/* askers: whose volumes wait for a pull: copies, each volume once. */
#pragma once

#include "csi/backend.h"

typedef struct Askers {
    Asker *items; /* the first is who caused the pull; its fields are NULL when no volume did */
    size_t n, cap;
} Askers;

/* Copies, with its strings; free with asker_done(). */
Asker asker_copy(const Asker *a) _must_check_;
void asker_done(Asker *a);
/* True: it is the first, or a volume that was not there. */
bool askers_add(Askers *list, const Asker *a);
void askers_done(Askers *list);
