/* SPDX-License-Identifier: Apache-2.0 */
/* seen: which contents a layer has brought, so that equal files are kept once. */
#include "oci/seen.h"

#include <pthread.h>

#define SLOTS       ((size_t)SEEN_MAX * 2) /* open addressing, at most half full */
#define FIRST_SLOTS 1024

typedef struct SeenSlot {
    Digest digest;
    bool used, executable;
} SeenSlot;

struct Seen {
    pthread_mutex_t mutex;
    SeenSlot *slots;
    size_t n_slots, n; /* `n` are used */
};

Seen *seen_new(void) {
    Seen *s = xnew(Seen);

    (void)pthread_mutex_init(&s->mutex, NULL);
    s->n_slots = FIRST_SLOTS;
    s->slots = xnew_n(SeenSlot, s->n_slots);
    return s;
}

Seen *seen_free(Seen *s) {
    if (!s)
        return NULL;
    (void)pthread_mutex_destroy(&s->mutex);
    free(s->slots);
    free(s);
    return NULL;
}

/* The slot of the content, or the free one at the end of its chain.  Digests are evenly spread
 * already. */
static SeenSlot *find(SeenSlot *slots, size_t n_slots, const SeenSlot *want) {
    size_t i;

    memcpy(&i, want->digest.bytes, sizeof(i));
    for (;; i++) {
        SeenSlot *s = &slots[i & (n_slots - 1)];

        if (!s->used ||
            (s->executable == want->executable && digest_equal(&s->digest, &want->digest)))
            return s;
    }
}

static void grow(Seen *s) {
    size_t n_slots = s->n_slots * 2;
    SeenSlot *slots = xnew_n(SeenSlot, n_slots);

    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i].used)
            *find(slots, n_slots, &s->slots[i]) = s->slots[i];
    free(s->slots);
    s->slots = slots;
    s->n_slots = n_slots;
}

bool seen_test_and_add(Seen *s, const Digest *digest, bool executable) {
    SeenSlot want = { .digest = *digest, .used = true, .executable = executable };
    SeenSlot *slot;
    bool found;

    (void)pthread_mutex_lock(&s->mutex);
    if (s->n * 2 >= s->n_slots && s->n_slots < SLOTS)
        grow(s);
    slot = find(s->slots, s->n_slots, &want);
    found = slot->used;
    if (!found && s->n < SEEN_MAX) {
        *slot = want;
        s->n++;
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return found;
}

bool seen_test(Seen *s, const Digest *digest, bool executable) {
    const SeenSlot want = { .digest = *digest, .executable = executable };
    bool found;

    (void)pthread_mutex_lock(&s->mutex);
    found = find(s->slots, s->n_slots, &want)->used;
    (void)pthread_mutex_unlock(&s->mutex);
    return found;
}

void seen_clear(Seen *s) {
    (void)pthread_mutex_lock(&s->mutex);
    memset(s->slots, 0, s->n_slots * sizeof(*s->slots));
    s->n = 0;
    (void)pthread_mutex_unlock(&s->mutex);
}
