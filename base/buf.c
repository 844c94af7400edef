/* SPDX-License-Identifier: Apache-2.0 */
/* buf: bytes that grow up to a cap; for whatever is sized by outside input. */
#include "base/buf.h"

int buf_reserve(Buf *b, size_t n, uint8_t **ret) {
    assert(b->max < SIZE_MAX / 4);
    if (n > b->max - b->len)
        return -E2BIG;
    if (b->len + n + 1 > b->alloc) { /* one more for buf_take_string() */
        size_t alloc = MIN(MAX(MAX(b->alloc * 2, b->len + n), (size_t)256), b->max) + 1;
        uint8_t *data = realloc(b->data, alloc);
        if (!data)
            return -ENOMEM;
        b->data = data;
        b->alloc = alloc;
    }
    *ret = b->data + b->len;
    return 0;
}

int buf_append(Buf *b, const void *data, size_t n) {
    uint8_t *to;
    int r = buf_reserve(b, n, &to);

    if (r < 0)
        return r;
    if (n > 0)
        memcpy(to, data, n);
    b->len += n;
    return 0;
}

void buf_consume(Buf *b, size_t n) {
    assert(n <= b->len);
    b->len -= n;
    if (b->len > 0)
        memmove(b->data, b->data + n, b->len);
}

char *buf_take_string(Buf *b) {
    uint8_t *end;

    if (buf_reserve(b, 0, &end) < 0)
        return NULL;
    *end = '\0';
    b->len = b->alloc = 0;
    return (char *)TAKE_PTR(b->data);
}

void buf_done(Buf *b) {
    free(TAKE_PTR(b->data));
    b->len = b->alloc = 0;
}
