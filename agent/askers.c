/* SPDX-License-Identifier: Apache-2.0 */
/* askers: whose volumes wait for a pull. */
#include "agent/askers.h"

#define ASKERS_MAX 1024 /* more are not told apart: they are taken as known */

Asker asker_copy(const Asker *a) {
    return (Asker){ xstrdup(a->volume_id), xstrdup(a->pod_namespace), xstrdup(a->pod_name) };
}

void asker_done(Asker *a) {
    free((char *)a->volume_id);
    free((char *)a->pod_namespace);
    free((char *)a->pod_name);
    *a = (Asker){ 0 };
}

static bool is_known(const Askers *list, const char *volume_id) {
    for (size_t i = 0; i < list->n; i++)
        if (list->items[i].volume_id && streq(list->items[i].volume_id, volume_id))
            return true;
    return list->n >= ASKERS_MAX;
}

bool askers_add(Askers *list, const Asker *a) {
    if (list->n > 0 && (!a->volume_id || is_known(list, a->volume_id)))
        return false;
    ARRAY_GROW(list->items, list->n, list->cap);
    list->items[list->n++] = asker_copy(a);
    return true;
}

void askers_done(Askers *list) {
    for (size_t i = 0; i < list->n; i++)
        asker_done(&list->items[i]);
    free(list->items);
    *list = (Askers){ 0 };
}
