/* SPDX-License-Identifier: Apache-2.0 */
/* chain: does a manifest follow from what was asked for?  The worker parses JSON; the daemon only
 * hashes documents and looks which digests stand in them, so that a worker that was taken over can
 * put nothing under a digest that is not named there. */
#pragma once

#include "cache/store.h"

typedef struct IndexDocument {
    uint8_t *bytes;
    size_t n;
} IndexDocument;

/* The indexes on the way to a manifest, as the worker sent them: nothing is checked yet. */
typedef struct IndexChain {
    Digest digest; /* of the first */
    IndexDocument *documents;
    size_t n;
} IndexChain;
IndexChain *index_chain_free(IndexChain *c);
DEFINE_CLEANUP(IndexChain, index_chain_free);

/* Is the first document what its digest says, is the next one named in it, and so on, and the
 * manifest in the last one?  Errors: -EBADMSG. */
int chain_check_index(const IndexChain *c, const Digest *manifest, Err *err) _must_check_;
/* Are all layers named in the bytes of the manifest?  Errors: -EBADMSG. */
int chain_check_layers(const Manifest *m, Err *err) _must_check_;
