/* SPDX-License-Identifier: Apache-2.0 */
/* seen: which contents this pull has brought, so that equal files are kept once. */
#include "oci/seen.h"

#include <pthread.h>

#define SLOTS       ((size_t)SEEN_MAX * 2) /* open addressing, at most half full */
#define FIRST_SLOTS 1024

typedef enum SeenState {
    SEEN_EMPTY,
    SEEN_PENDING,   /* of an attempt that goes on */
    SEEN_COMMITTED, /* of a layer that is done */
    SEEN_GONE,      /* of an attempt that failed; keeps the chain of slots */
} SeenState;

typedef struct SeenSlot {
    Digest digest;
    unsigned owner;
    uint8_t state; /* SeenState */
    bool executable;
} SeenSlot;

struct Seen {
    pthread_mutex_t mutex;
    SeenSlot *slots;
    size_t n_slots, n; /* `n` counts all that are not SEEN_EMPTY */
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

/* The slot of the content that `owner` may count on, or the empty one at the end of its chain.
 * Digests are evenly spread already. */
static SeenSlot *find(SeenSlot *slots, size_t n_slots, const SeenSlot *want) {
    size_t i;

    memcpy(&i, want->digest.bytes, sizeof(i));
    for (;; i++) {
        SeenSlot *s = &slots[i & (n_slots - 1)];

        if (s->state == SEEN_EMPTY)
            return s;
        if (s->state != SEEN_GONE && s->executable == want->executable &&
            digest_equal(&s->digest, &want->digest) &&
            (s->state == SEEN_COMMITTED || s->owner == want->owner))
            return s;
    }
}

static void grow(Seen *s) {
    size_t n_slots = s->n_slots * 2;
    SeenSlot *slots = xnew_n(SeenSlot, n_slots);

    s->n = 0;
    for (size_t i = 0; i < s->n_slots; i++) {
        const SeenSlot *old = &s->slots[i];

        if (old->state == SEEN_EMPTY || old->state == SEEN_GONE)
            continue;
        *find(slots, n_slots, old) = *old;
        s->n++;
    }
    free(s->slots);
    s->slots = slots;
    s->n_slots = n_slots;
}

bool seen_test_and_add(Seen *s, unsigned owner, const Digest *digest, bool executable) {
    SeenSlot want = {
        .digest = *digest, .owner = owner, .state = SEEN_PENDING, .executable = executable
    };
    SeenSlot *slot;
    bool found;

    (void)pthread_mutex_lock(&s->mutex);
    if (s->n * 2 >= s->n_slots && s->n_slots < SLOTS)
        grow(s);
    slot = find(s->slots, s->n_slots, &want);
    found = slot->state != SEEN_EMPTY;
    if (!found && s->n < SEEN_MAX) {
        *slot = want;
        s->n++;
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return found;
}

static void end(Seen *s, unsigned owner, SeenState state) {
    (void)pthread_mutex_lock(&s->mutex);
    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i].state == SEEN_PENDING && s->slots[i].owner == owner)
            s->slots[i].state = (uint8_t)state;
    (void)pthread_mutex_unlock(&s->mutex);
}

void seen_commit(Seen *s, unsigned owner) {
    end(s, owner, SEEN_COMMITTED);
}

void seen_forget(Seen *s, unsigned owner) {
    end(s, owner, SEEN_GONE);
}
