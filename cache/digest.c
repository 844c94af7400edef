/* SPDX-License-Identifier: Apache-2.0 */
/* digest: a SHA-256 as bytes and as text, and the running hash behind it. */
/* The calls of OpenSSL that OpenSSL 3 would replace by EVP: it is the same assembler, but the first
 * hash of EVP sets up all algorithms of the default provider, for 1.4 MiB of memory of a daemon
 * that idles. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "cache/digest.h"

#include "base/parse.h"

#include <openssl/sha.h>

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

void hasher_final(Hasher *h, Digest *ret) {
    must(SHA256_Final(ret->bytes, &h->ctx));
    start(h);
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

/* The hash of the key, filled up and changed by `mask`, and of `n` bytes behind it. */
static void hash_keyed(Digest *ret, const void *key, size_t n_key, uint8_t mask, const void *data,
                       size_t n) {
    uint8_t block[SHA256_CBLOCK] = { 0 };
    Hasher h;

    memcpy(block, key, n_key);
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] ^= mask;
    start(&h);
    hasher_update(&h, block, sizeof(block));
    hasher_update(&h, data, n);
    hasher_final(&h, ret);
    explicit_bzero(block, sizeof(block));
}

void digest_hmac(Digest *ret, const void *key, size_t n_key, const void *data, size_t n) {
    Digest inner;

    assert(n_key <= SHA256_CBLOCK);
    hash_keyed(&inner, key, n_key, 0x36, data, n);
    hash_keyed(ret, key, n_key, 0x5c, inner.bytes, sizeof(inner.bytes));
}

void digest_stretch(Digest *ret, const Digest *secret, const void *salt, size_t n_salt,
                    unsigned rounds) {
    static const uint8_t number[] = { 0, 0, 0, 1 }; /* of the first block, which is all */
    uint8_t first[DIGEST_SALT_MAX + sizeof(number)];
    Digest u;

    assert(n_salt <= DIGEST_SALT_MAX);
    memcpy(first, salt, n_salt);
    memcpy(first + n_salt, number, sizeof(number));
    digest_hmac(&u, secret->bytes, sizeof(secret->bytes), first, n_salt + sizeof(number));
    *ret = u;
    for (unsigned i = 1; i < rounds; i++) {
        digest_hmac(&u, secret->bytes, sizeof(secret->bytes), u.bytes, sizeof(u.bytes));
        for (size_t k = 0; k < sizeof(u.bytes); k++)
            ret->bytes[k] ^= u.bytes[k];
    }
}
