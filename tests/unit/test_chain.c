/* SPDX-License-Identifier: Apache-2.0 */
/* test_chain: manifests and layers that follow from what was asked for, and those that do not. */
#include "agent/chain.h"
#include "tests/unit/test.h"

static Digest digest_of_text(const char *text) {
    Digest d;

    digest_of(&d, text, strlen(text));
    return d;
}

static IndexDocument naming(const char *before, const Digest *d) {
    char *text = xasprintf("%s{\"digest\":\"%s\"}", before, d ? DIGEST_STR(d) : "");

    return (IndexDocument){ (uint8_t *)text, strlen(text) };
}

/* An outer index, an inner one, the manifest. */
static IndexChain *chain(const Digest *manifest) {
    IndexChain *c = xnew(IndexChain);
    Digest inner, other = digest_of_text("other");

    c->n = 2;
    c->documents = xnew_n(IndexDocument, 2);
    c->documents[1] = naming("sha256:", manifest);
    digest_of(&inner, c->documents[1].bytes, c->documents[1].n);
    c->documents[0] = naming(DIGEST_STR(&other), &inner);
    digest_of(&c->digest, c->documents[0].bytes, c->documents[0].n);
    return c;
}

TEST(chain_of_indexes) {
    Digest manifest = digest_of_text("manifest"), other = digest_of_text("another");
    _cleanup_(index_chain_freep) IndexChain *c = chain(&manifest);
    size_t n = c->n;
    Err err = { "" };

    ASSERT_OK(chain_check_index(c, &manifest, &err));
    ASSERT_ERR(chain_check_index(c, &other, &err), -EBADMSG);
    ASSERT_STRSTR(err.text, "not named in the index");
    c->documents[1].bytes[0] ^= 1; /* no longer the one that the outer names */
    ASSERT_ERR(chain_check_index(c, &manifest, &err), -EBADMSG);
    c->documents[0].bytes[0] ^= 1;
    ASSERT_ERR(chain_check_index(c, &manifest, &err), -EBADMSG);
    ASSERT_STRSTR(err.text, "not what its digest");
    c->n = 0;
    ASSERT_ERR(chain_check_index(c, &manifest, &err), -EBADMSG);
    c->n = n;
}

TEST(chain_of_layers) {
    Layer layers[] = { { .digest = digest_of_text("a") }, { .digest = digest_of_text("b") } };
    _cleanup_free_ char *both =
        xasprintf("[\"%s\",\"%s\"]", DIGEST_STR(&layers[0].digest), DIGEST_STR(&layers[1].digest));
    Manifest m = { .bytes = (uint8_t *)both, .n_bytes = strlen(both), .layers = layers };
    Err err = { "" };

    ASSERT_OK(chain_check_layers(&m, &err)); /* no layers */
    m.n_layers = 2;
    ASSERT_OK(chain_check_layers(&m, &err));
    m.n_bytes -= 3; /* the last digit is gone */
    ASSERT_ERR(chain_check_layers(&m, &err), -EBADMSG);
    ASSERT_STRSTR(err.text, DIGEST_STR(&layers[1].digest));
    both[10] = 'G';
    ASSERT_ERR(chain_check_layers(&m, &err), -EBADMSG);
    ASSERT_STRSTR(err.text, DIGEST_STR(&layers[0].digest));
    m.n_bytes = 0;
    ASSERT_ERR(chain_check_layers(&m, &err), -EBADMSG);
}
