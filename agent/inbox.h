/* SPDX-License-Identifier: Apache-2.0 */
/* inbox: what a pull worker says, checked: bytes in, calls out.  The worker parses what registries
 * send, so nothing of it is believed: order, indexes, counts, lengths, names, UTF-8, and the memory
 * that parsing takes. */
#pragma once

#include "agent/chain.h"
#include "base/buf.h"
#include "cache/store.h"

typedef struct Inbox Inbox;

/* A line on what confines the worker; strings are clean text. */
typedef struct Feature {
    char *name;
    bool active;
    char *detail;
} Feature;

typedef struct FeatureList {
    Feature *items;
    size_t n;
} FeatureList;
void feature_list_done(FeatureList *l);

/* Each is called as its message comes; none may free the inbox.  NULL: not interesting. */
typedef struct InboxHandlers {
    /* The list is the callee's. */
    void (*on_hello)(void *arg, FeatureList *features);
    /* Both are the callee's.  `index`: what led to the manifest, or NULL. */
    void (*on_resolved)(void *arg, Manifest *manifest, IndexChain *index);
    /* `resumed` of the `bytes` were found on disk; `ahead` more have their space there. */
    void (*on_progress)(void *arg, size_t layer, uint64_t bytes, uint64_t resumed, uint64_t ahead);
    /* Nothing moves, and why; "" when it goes on. */
    void (*on_waiting)(void *arg, const char *text);
    /* All entries of a layer; they are the callee's. */
    void (*on_layer)(void *arg, size_t layer, LayerEntry *entries, size_t n);
    /* It has sent all that was asked for; its process may take a while to end. */
    void (*on_done)(void *arg);
    void *arg;
} InboxHandlers;

Inbox *inbox_new(const InboxHandlers *handlers, bool probe);
Inbox *inbox_free(Inbox *in);
DEFINE_CLEANUP(Inbox, inbox_free);

/* The daemon asked for these layers (indexes of Resolved.layers, ascending, each once); with `more`
 * it will ask again, and the worker may not be done before. */
void inbox_plan(Inbox *in, const uint32_t *fetch, size_t n, bool more);

/* The files that it brings may have this many bytes together, those that came before included; less
 * than was said before counts for nothing.  Without a call they may have none. */
void inbox_raise_room(Inbox *in, uint64_t bytes);

/* Takes bytes of the stream.  Errors: -EPROTO the worker broke the protocol (the sentence says how;
 * end it); -ENOSPC its files do not fit into the room. */
int inbox_feed(Inbox *in, const uint8_t *data, size_t n, Err *err) _must_check_;

/* How the worker ended the pull: 0 not yet (or only half a message), 1 done (a probe: said hello),
 * or the negative errno of its Failed with the sentence in `err`. */
int inbox_outcome(const Inbox *in, Err *err) _must_check_;
/* Of one that failed: did the registry itself say so, of the manifest that was asked for? */
bool inbox_was_answered(const Inbox *in);
