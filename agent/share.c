/* SPDX-License-Identifier: Apache-2.0 */
/* share: which running pull fetches which blob, and who waits for it, so that each is fetched once.
 */
#include "agent/share.h"

#include <search.h>

typedef struct ShareUse {
    Sharer *user;
    size_t layer;
} ShareUse;

/* A blob of a repository, and what is made of it, that one pull has. */
typedef struct Share {
    char *origin;
    Digest digest;
    LayerKind kind;
    bool executable;
    ShareUse owner;
    ShareUse *waiters; /* in the order in which they came */
    size_t n, cap;
} Share;

struct Shares {
    void *tree; /* of Share, by content: tsearch(3) */
};

struct Sharer {
    Shares *shares;
    char *origin;
    SharerHandlers handlers;
    size_t n;
    Share *by_layer[]; /* NULL: none, or of an earlier layer */
};

Shares *shares_new(void) {
    return xnew(Shares);
}

Shares *shares_free(Shares *s) {
    if (!s)
        return NULL;
    assert(!s->tree);
    free(s);
    return NULL;
}

static int compare(const void *a, const void *b) {
    const Share *x = a, *y = b;
    int r = digest_compare(&x->digest, &y->digest);

    if (r == 0)
        r = (int)x->kind - (int)y->kind;
    if (r == 0)
        r = (int)x->executable - (int)y->executable;
    return r != 0 ? r : strcmp(x->origin, y->origin);
}

Sharer *sharer_new(Shares *s, const char *origin, size_t n_layers, const SharerHandlers *handlers) {
    Sharer *u = xcalloc(1, sizeof(*u) + n_layers * sizeof(u->by_layer[0]));

    u->shares = s;
    u->origin = xstrdup(origin);
    u->handlers = *handlers;
    u->n = n_layers;
    return u;
}

static void share_free(Share *share) {
    free(share->waiters);
    free(share->origin);
    free(share);
}

static void share_remove(Shares *s, Share *share) {
    (void)tdelete(share, &s->tree, compare);
    share_free(share);
}

static void remove_waiter(Share *share, size_t i) {
    memmove(&share->waiters[i], &share->waiters[i + 1], (--share->n - i) * sizeof(*share->waiters));
}

/* The owner is gone: the next one has it, or nobody. */
static void pass_on(Shares *s, Share *share) {
    if (share->n == 0) {
        share_remove(s, share);
        return;
    }
    share->owner = share->waiters[0];
    remove_waiter(share, 0);
    share->owner.user->handlers.on_yours(share->owner.user->handlers.arg, share->owner.layer);
}

static void leave(Sharer *u, Share *share) {
    if (share->owner.user == u) {
        pass_on(u->shares, share);
        return;
    }
    for (size_t i = share->n; i-- > 0;)
        if (share->waiters[i].user == u)
            remove_waiter(share, i);
}

Sharer *sharer_free(Sharer *u) {
    if (!u)
        return NULL;
    for (size_t i = 0; i < u->n; i++)
        if (u->by_layer[i])
            leave(u, TAKE_PTR(u->by_layer[i]));
    free(u->origin);
    free(u);
    return NULL;
}

static ShareRole join(Sharer *u, size_t layer, Share *share, size_t *ret_same) {
    if (share->owner.user == u) {
        *ret_same = share->owner.layer;
        return SHARE_SAME;
    }
    for (size_t i = 0; i < share->n; i++)
        if (share->waiters[i].user == u) {
            *ret_same = share->waiters[i].layer;
            return SHARE_SAME;
        }
    ARRAY_GROW(share->waiters, share->n, share->cap);
    share->waiters[share->n++] = (ShareUse){ u, layer };
    u->by_layer[layer] = share;
    return SHARE_WAIT;
}

ShareRole sharer_take(Sharer *u, size_t layer, const Layer *what, size_t *ret_same) {
    Share *fresh = xnew(Share), **found;

    assert(layer < u->n && !u->by_layer[layer]);
    *fresh = (Share){ .origin = xstrdup(u->origin),
                      .digest = what->digest,
                      .kind = what->kind,
                      .executable = what->executable,
                      .owner = { u, layer } };
    *ret_same = layer;
    found = tsearch(fresh, &u->shares->tree, compare);
    if (!found)
        abort(); /* no memory for a node: as xnew() */
    if (*found == fresh) {
        u->by_layer[layer] = fresh;
        return SHARE_FETCH;
    }
    share_free(fresh);
    return join(u, layer, *found, ret_same);
}

void sharer_stored(Sharer *u, size_t layer) {
    Share *share = TAKE_PTR(u->by_layer[layer]);

    if (!share)
        return;
    assert(share->owner.user == u);
    for (size_t i = 0; i < share->n; i++) {
        Sharer *w = share->waiters[i].user;
        w->by_layer[share->waiters[i].layer] = NULL;
        w->handlers.on_stored(w->handlers.arg, share->waiters[i].layer);
    }
    share_remove(u->shares, share);
}

void sharer_progress(Sharer *u, size_t layer, uint64_t bytes, uint64_t resumed) {
    const Share *share = u->by_layer[layer];

    for (size_t i = 0; share && share->owner.user == u && i < share->n; i++) {
        const SharerHandlers *h = &share->waiters[i].user->handlers;
        h->on_progress(h->arg, share->waiters[i].layer, bytes, resumed);
    }
}

void *sharer_owner(const Sharer *u, size_t layer) {
    const Share *share = u->by_layer[layer];

    return share ? share->owner.user->handlers.arg : NULL;
}

bool sharer_is_awaited(const Sharer *u, bool (*test)(const void *arg)) {
    for (size_t i = 0; i < u->n; i++) {
        const Share *share = u->by_layer[i];
        for (size_t k = 0; share && share->owner.user == u && k < share->n; k++)
            if (test(share->waiters[k].user->handlers.arg))
                return true;
    }
    return false;
}
