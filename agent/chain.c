/* SPDX-License-Identifier: Apache-2.0 */
/* chain: does a manifest follow from what was asked for?  Digests are found as text, without a
 * parser: "sha256:" and 64 digits, as image-spec v1.1, descriptor.md, writes them. */
#include "agent/chain.h"
#include "base/parse.h"

#define PREFIX     "sha256:"
#define HEX_DIGITS ((size_t)(2 * DIGEST_BYTES))

typedef struct DigestSet {
    Digest *items; /* sorted */
    size_t n, cap;
} DigestSet;

static void digest_set_done(DigestSet *s) {
    free(s->items);
}

static int compare(const void *a, const void *b) {
    return digest_compare(a, b);
}

/* All digests of a document, in one pass: 8192 layers in 4 MiB would take many. */
static void digest_set_read(DigestSet *s, const uint8_t *bytes, size_t n) {
    const char *p = (const char *)bytes, *end = p + n;

    while ((p = memmem(p, (size_t)(end - p), PREFIX, strlen(PREFIX)))) {
        p += strlen(PREFIX);
        if ((size_t)(end - p) < HEX_DIGITS)
            break;
        ARRAY_GROW(s->items, s->n, s->cap);
        if (parse_hex(p, HEX_DIGITS, s->items[s->n].bytes) == 0)
            s->n++;
    }
    if (s->n > 0)
        qsort(s->items, s->n, sizeof(*s->items), compare);
}

static bool digest_set_has(const DigestSet *s, const Digest *d) {
    return s->n > 0 && bsearch(d, s->items, s->n, sizeof(*s->items), compare);
}

IndexChain *index_chain_free(IndexChain *c) {
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->n; i++)
        free(c->documents[i].bytes);
    free(c->documents);
    free(c);
    return NULL;
}

int chain_check_index(const IndexChain *c, const Digest *manifest, Err *err) {
    Digest digest;

    if (c->n == 0)
        return err_set(err, -EBADMSG, "the index %s did not come with its manifest",
                       DIGEST_STR(&c->digest));
    digest_of(&digest, c->documents[0].bytes, c->documents[0].n);
    if (!digest_equal(&digest, &c->digest))
        return err_set(err, -EBADMSG, "the index is not what its digest %s says",
                       DIGEST_STR(&c->digest));
    for (size_t i = 0; i < c->n; i++) {
        _cleanup_(digest_set_done) DigestSet named = { 0 };

        digest_set_read(&named, c->documents[i].bytes, c->documents[i].n);
        digest = *manifest;
        if (i + 1 < c->n)
            digest_of(&digest, c->documents[i + 1].bytes, c->documents[i + 1].n);
        if (!digest_set_has(&named, &digest))
            return err_set(err, -EBADMSG, "%s is not named in the index that is to lead to it",
                           DIGEST_STR(&digest));
    }
    return 0;
}

int chain_check_layers(const Manifest *m, Err *err) {
    _cleanup_(digest_set_done) DigestSet named = { 0 };

    digest_set_read(&named, m->bytes, m->n_bytes);
    for (size_t i = 0; i < m->n_layers; i++)
        if (!digest_set_has(&named, &m->layers[i].digest))
            return err_set(err, -EBADMSG, "layer %s is not named in the manifest %s",
                           DIGEST_STR(&m->layers[i].digest), DIGEST_STR(&m->digest));
    return 0;
}
