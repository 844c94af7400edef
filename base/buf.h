/* SPDX-License-Identifier: Apache-2.0 */
/* buf: bytes that grow up to a cap; for whatever is sized by outside input. */
#pragma once

#include "base/err.h"

/* Zero-initialise with BUF_INIT(cap); free with buf_done (or _cleanup_(buf_done)). */
typedef struct Buf {
    uint8_t *data; /* owned; NULL while empty */
    size_t len;    /* bytes used */
    size_t alloc;  /* bytes allocated */
    size_t max;    /* cap in bytes */
} Buf;

#define BUF_INIT(cap) ((Buf){ .max = (cap) })

/* Appends.  Errors: -E2BIG the cap would be passed (nothing is appended); -ENOMEM. */
int buf_append(Buf *b, const void *data, size_t n) _must_check_;
/* Makes room for `n` more bytes and returns where they start through `ret`; add to `len` what was
 * used. */
int buf_reserve(Buf *b, size_t n, uint8_t **ret) _must_check_;
/* Drops the first `n` bytes. */
void buf_consume(Buf *b, size_t n);
/* Hands the bytes over as a NUL-terminated string (the NUL is not counted); leaves the buffer
 * empty.  NULL: no memory. */
char *buf_take_string(Buf *b) _must_check_;
void buf_done(Buf *b);
