/* SPDX-License-Identifier: Apache-2.0 */
/* patience: how long volumes wait for their artifact that say so. */
#include "csi/patience.h"

typedef struct Wait {
    char *volume_id, *target;
    uint64_t first_usec, last_usec;
    struct Wait *next;
} Wait;

struct Patience {
    Wait *waits;
};

Patience *patience_new(void) {
    return xnew(Patience);
}

/* Takes the first of the list away. */
static void wait_remove(Wait **link) {
    Wait *w = *link;

    *link = w->next;
    free(w->volume_id);
    free(w->target);
    free(w);
}

Patience *patience_free(Patience *p) {
    if (!p)
        return NULL;
    while (p->waits)
        wait_remove(&p->waits);
    free(p);
    return NULL;
}

static Wait **find(Patience *p, const VolumeKey *key) {
    Wait **link = &p->waits;

    while (*link &&
           !(streq((*link)->volume_id, key->volume_id) && streq((*link)->target, key->target)))
        link = &(*link)->next;
    return link;
}

static void remove_old(Patience *p, uint64_t now) {
    for (Wait **link = &p->waits; *link;)
        if (now - (*link)->last_usec >= PATIENCE_FORGET_USEC)
            wait_remove(link);
        else
            link = &(*link)->next;
}

uint64_t patience_until(Patience *p, const VolumeKey *key, uint64_t timeout_usec, uint64_t now) {
    Wait **link;

    remove_old(p, now);
    link = find(p, key);
    if (!*link) {
        *link = xnew(Wait);
        **link = (Wait){ xstrdup(key->volume_id), xstrdup(key->target), now, now, NULL };
    }
    (*link)->last_usec = now;
    return (*link)->first_usec + timeout_usec;
}

void patience_forget(Patience *p, const VolumeKey *key) {
    Wait **link = find(p, key);

    if (*link)
        wait_remove(link);
}
