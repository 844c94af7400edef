/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_decode: any bytes as a compressed stream, in pieces whose size the first byte says. */
#include "oci/decode.h"

#define DECODED_MAX MiB(16)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Stream {
    const uint8_t *data;
    size_t n, step;
} Stream;

static int next(void *arg, const uint8_t **ret, size_t *ret_n, Err *err) {
    Stream *s = arg;
    size_t k = MIN(s->n, s->step);

    (void)err;
    *ret = s->data;
    *ret_n = k;
    s->data += k;
    s->n -= k;
    return k > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_(decoder_freep) Decoder *d = NULL;
    const uint8_t *out;
    size_t n, total = 0;
    Stream s;
    Err err;
    int r;

    if (size == 0)
        return 0;
    s = (Stream){ data + 1, size - 1, (size_t)data[0] + 1 };
    decoder_new(&d, CODEC_NONE, next, &s);
    while ((r = decoder_read(d, &out, &n, &err)) > 0 && total < DECODED_MAX) {
        assert(n > 0);
        total += n;
    }
    assert(r >= 0 || *err.text);
    return 0;
}
