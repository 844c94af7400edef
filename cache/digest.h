/* SPDX-License-Identifier: Apache-2.0 */
/* digest: a SHA-256 as bytes, and the text of OCI image-spec v1.1 (descriptor.md, "Digests"). */
#pragma once

#include "base/err.h"

#define DIGEST_BYTES    32
#define DIGEST_HEX_MAX  (2 * DIGEST_BYTES + 1)
#define DIGEST_TEXT_MAX (sizeof("sha256:") + 2 * DIGEST_BYTES)

typedef struct Digest {
    uint8_t bytes[DIGEST_BYTES];
} Digest;

/* "sha256:" and 64 lower-case hex digits, nothing else.  Errors: -EINVAL; -ENOTSUP another
 * registered algorithm. */
int digest_parse(Digest *ret, const char *text, Err *err) _must_check_;
/* From raw bytes of a message; -EINVAL when n is not 32. */
int digest_from_bytes(Digest *ret, const void *bytes, size_t n) _must_check_;
const char *digest_text(char buf[static DIGEST_TEXT_MAX], const Digest *d);
const char *digest_hex(char buf[static DIGEST_HEX_MAX], const Digest *d);
#define DIGEST_STR(d) digest_text((char[DIGEST_TEXT_MAX]){ "" }, (d))
#define DIGEST_HEX(d) digest_hex((char[DIGEST_HEX_MAX]){ "" }, (d))
static inline bool digest_equal(const Digest *a, const Digest *b) {
    return memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}
static inline int digest_compare(const Digest *a, const Digest *b) {
    return memcmp(a->bytes, b->bytes, DIGEST_BYTES);
}
static inline bool digest_is_zero(const Digest *d) {
    static const Digest zero;
    return digest_equal(d, &zero);
}

/* Running SHA-256. */
typedef struct Hasher Hasher;
Hasher *hasher_new(void);
void hasher_update(Hasher *h, const void *data, size_t n);
/* Can this processor hash two at once (sha256_pair.h)? */
bool hasher_pairs(void);
/* Adds `data[i]` of `n[i]` bytes to `h[i]`, two that are not the same.  Where hasher_pairs(), that
 * takes little longer than the longer one of them alone, else as long as both. */
void hasher_update_pair(Hasher *const h[2], const uint8_t *const data[2], const size_t n[2]);
/* The digest of all so far; the hasher starts anew. */
void hasher_final(Hasher *h, Digest *ret);
/* The digest of all so far; the hasher goes on. */
void hasher_peek(const Hasher *h, Digest *ret);
/* What a hasher holds after whole blocks of HASHER_BLOCK_BYTES, so that another one goes on from
 * there: the hash value H(i) of FIPS 180-4, 6.2.2. */
#define HASHER_BLOCK_BYTES 64
typedef struct HasherState {
    uint32_t words[DIGEST_BYTES / sizeof(uint32_t)];
} HasherState;
void hasher_save(const Hasher *h, HasherState *ret);
/* `bytes` were hashed before, whole blocks. */
void hasher_restore(Hasher *h, const HasherState *state, uint64_t bytes);
Hasher *hasher_free(Hasher *h);
DEFINE_CLEANUP(Hasher, hasher_free);
void digest_of(Digest *ret, const void *data, size_t n);
