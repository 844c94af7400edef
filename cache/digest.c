/* SPDX-License-Identifier: Apache-2.0 */
/* digest: a SHA-256 as bytes and as text, and the running hash behind it. */
/* The calls of OpenSSL that OpenSSL 3 would replace by EVP: it is the same assembler, but the first
 * hash of EVP sets up all algorithms of the default provider, for 1.4 MiB of memory of a daemon
 * that idles. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "cache/digest.h"

#include "base/parse.h"
#include "cache/sha256_pair.h"

#include <openssl/sha.h>
#include <stdatomic.h>

struct Hasher {
    SHA256_CTX ctx;
};

int digest_parse(Digest *ret, const char *text, Err *err) {
    Digest d;
    const char *hex = startswith(text, "sha256:");

    if (!hex) {
        if (startswith(text, "sha512:") || startswith(text, "blake3:"))
            return err_set(err, -ENOTSUP,
                           "digest '%.80s' is not SHA-256, the only algorithm supported", text);
        return err_set(err, -EINVAL,
                       "'%.80s' is not a digest: it must be sha256: and 64 hex digits", text);
    }
    if (strlen(hex) != 2 * DIGEST_BYTES || parse_hex(hex, 2 * DIGEST_BYTES, d.bytes) < 0)
        return err_set(
            err, -EINVAL,
            "'%.80s' is not a digest: sha256: must be followed by 64 lower-case hex digits", text);
    *ret = d;
    return 0;
}

int digest_from_bytes(Digest *ret, const void *bytes, size_t n) {
    if (n != DIGEST_BYTES)
        return -EINVAL;
    memcpy(ret->bytes, bytes, DIGEST_BYTES);
    return 0;
}

const char *digest_text(char buf[static DIGEST_TEXT_MAX], const Digest *d) {
    memcpy(buf, "sha256:", 7);
    format_hex(d->bytes, DIGEST_BYTES, buf + 7);
    return buf;
}

const char *digest_hex(char buf[static DIGEST_HEX_MAX], const Digest *d) {
    format_hex(d->bytes, DIGEST_BYTES, buf);
    return buf;
}

/* They fail for no input. */
static void must(int result) {
    assert(result == 1);
}

static void start(Hasher *h) {
    must(SHA256_Init(&h->ctx));
}

Hasher *hasher_new(void) {
    Hasher *h = xnew(Hasher);

    start(h);
    return h;
}

void hasher_update(Hasher *h, const void *data, size_t n) {
    must(SHA256_Update(&h->ctx, data, n));
}

static uint64_t bytes_of(const Hasher *h) {
    return ((uint64_t)h->ctx.Nh << 32 | h->ctx.Nl) >> 3; /* they are bits */
}

static void set_bytes(Hasher *h, uint64_t bytes) {
    h->ctx.Nl = (SHA_LONG)(bytes << 3);
    h->ctx.Nh = (SHA_LONG)(bytes >> 29);
}

bool hasher_pairs(void) {
    static atomic_int known; /* 0: not yet */

    if (known == 0)
        known = sha256_pair_supported() ? 1 : -1;
    return known > 0;
}

void hasher_update_pair(Hasher *const h[2], const uint8_t *const data[2], const size_t n[2]) {
    size_t done = 0;

    assert(h[0] != h[1]);
    if (h[0]->ctx.num == 0 && h[1]->ctx.num == 0 && hasher_pairs()) {
        size_t n_blocks = MIN(n[0], n[1]) / HASHER_BLOCK_BYTES;

        done = n_blocks * HASHER_BLOCK_BYTES;
        sha256_pair((uint32_t *[]){ h[0]->ctx.h, h[1]->ctx.h }, data, n_blocks);
    }
    for (int i = 0; i < 2; i++) {
        set_bytes(h[i], bytes_of(h[i]) + done);
        hasher_update(h[i], data[i] + done, n[i] - done);
    }
}

void hasher_final(Hasher *h, Digest *ret) {
    must(SHA256_Final(ret->bytes, &h->ctx));
    start(h);
}

void hasher_peek(const Hasher *h, Digest *ret) {
    Hasher copy = *h;

    hasher_final(&copy, ret);
}

void hasher_save(const Hasher *h, HasherState *ret) {
    assert(h->ctx.num == 0);
    memcpy(ret->words, h->ctx.h, sizeof(ret->words));
}

void hasher_restore(Hasher *h, const HasherState *state, uint64_t bytes) {
    assert(bytes % HASHER_BLOCK_BYTES == 0);
    start(h);
    memcpy(h->ctx.h, state->words, sizeof(state->words));
    set_bytes(h, bytes);
}

Hasher *hasher_free(Hasher *h) {
    if (h)
        explicit_bzero(h, sizeof(*h)); /* it may have hashed a secret */
    free(h);
    return NULL;
}

void digest_of(Digest *ret, const void *data, size_t n) {
    Hasher h;

    start(&h);
    hasher_update(&h, data, n);
    hasher_final(&h, ret);
}
