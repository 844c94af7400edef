/* SPDX-License-Identifier: Apache-2.0 */
/* share: which running pull fetches which blob, and who waits for it, so that each is fetched once.
 *
 * A pull takes its layers one by one.  What nobody has is its own to fetch; what another has it
 * waits for.  Fetching never waits for anything, so two pulls that wait for each other go on.  Only
 * pulls of one repository share: another one's worker may lie about what it brings. */
#pragma once

#include "cache/store.h"

typedef struct Shares Shares; /* of all pulls */
typedef struct Sharer Sharer; /* one pull's part in it */

Shares *shares_new(void);
/* After all sharers.  NULL is fine; returns NULL. */
Shares *shares_free(Shares *s);
DEFINE_CLEANUP(Shares, shares_free);

/* Called on the loop, out of another pull's calls; they may not take, and may not free. */
typedef struct SharerHandlers {
    /* The layer that this pull waits for is stored now; nobody has it any more. */
    void (*on_stored)(void *arg, size_t layer);
    /* The pull that fetched it is over without it: this one has it now. */
    void (*on_yours)(void *arg, size_t layer);
    void (*on_progress)(void *arg, size_t layer, uint64_t bytes, uint64_t resumed);
    void *arg;
} SharerHandlers;

/* `origin`: "registry/repository"; copied. */
Sharer *sharer_new(Shares *s, const char *origin, size_t n_layers, const SharerHandlers *handlers);
/* Leaves all: what it had goes to the first that waits for it.  NULL is fine; returns NULL. */
Sharer *sharer_free(Sharer *u);
DEFINE_CLEANUP(Sharer, sharer_free);

typedef enum ShareRole {
    SHARE_FETCH, /* it is this pull's to fetch */
    SHARE_WAIT,  /* another pull has it */
    SHARE_SAME,  /* it has the content of an earlier layer of this pull */
} ShareRole;
/* `ret_same`: the earlier layer, or the layer itself. */
ShareRole sharer_take(Sharer *u, size_t layer, const Layer *what, size_t *ret_same) _must_check_;
/* The layer, this pull's to fetch, is stored. */
void sharer_stored(Sharer *u, size_t layer);
void sharer_progress(Sharer *u, size_t layer, uint64_t bytes, uint64_t resumed);

/* `arg` of the pull that has the layer; NULL: nobody. */
void *sharer_owner(const Sharer *u, size_t layer);
/* Does one for which `test` (of its `arg`) is true wait for a layer that this one has? */
bool sharer_is_awaited(const Sharer *u, bool (*test)(const void *arg));
