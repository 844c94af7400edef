/* SPDX-License-Identifier: Apache-2.0 */
/* digest: a SHA-256 as bytes and as text, and the running hash behind it (OpenSSL EVP). */
#include "cache/digest.h"

#include "base/parse.h"

#include <openssl/evp.h>

struct Hasher {
    EVP_MD_CTX *ctx; /* owned */
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

/* EVP calls fail only without memory or without SHA-256 in the library; nothing can go on then. */
static void must(int evp_result) {
    if (evp_result != 1)
        abort();
}

Hasher *hasher_new(void) {
    Hasher *h = xnew(Hasher);

    h->ctx = EVP_MD_CTX_new();
    must(h->ctx ? 1 : 0);
    must(EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL));
    return h;
}

void hasher_update(Hasher *h, const void *data, size_t n) {
    must(EVP_DigestUpdate(h->ctx, data, n));
}

void hasher_final(Hasher *h, Digest *ret) {
    must(EVP_DigestFinal_ex(h->ctx, ret->bytes, NULL));
    must(EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL));
}

Hasher *hasher_free(Hasher *h) {
    if (!h)
        return NULL;
    EVP_MD_CTX_free(h->ctx);
    free(h);
    return NULL;
}

void digest_of(Digest *ret, const void *data, size_t n) {
    _cleanup_(hasher_freep) Hasher *h = hasher_new();

    hasher_update(h, data, n);
    hasher_final(h, ret);
}
