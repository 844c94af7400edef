/* SPDX-License-Identifier: Apache-2.0 */
/* decode: a compressed stream becomes plain bytes: gzip by ISA-L, zstd by libzstd, or as it is. */
#include "oci/decode.h"

#include "base/build_id.h"
#include "base/limits.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define OUT_BYTES   KiB(256)
#define MAGIC_BYTES 4
#define HEAD_BYTES  18 /* of a zstd frame at most: RFC 8878 3.1.1 */

struct Decoder {
    Codec codec;
    DecodeSource source;
    void *arg;
    bool started; /* the first bytes were looked at */
    bool source_ended;
    bool in_frame;            /* within a gzip member or a zstd frame */
    uint64_t skip;            /* bytes of the source that were decoded already, by another one */
    uint8_t head[HEAD_BYTES]; /* the first bytes of a frame, when the source gave them in pieces */
    bool in_head;             /* `in` is of these */
    uint64_t given;           /* bytes of the source behind these */
    const uint8_t *in;        /* borrowed from the source, or `head` */
    size_t n_in;
    const uint8_t *later; /* behind `head` */
    size_t n_later;
    uint8_t *out;
    struct inflate_state *gzip;
    ZSTD_DCtx *zstd;
    DecodeMayBeLarge may_be_large; /* NULL: it may */
    void *ask_arg;
    bool large; /* windows up to LIMIT_ZSTD_WINDOW_LOG: it has asked */
};

void decoder_new(Decoder **ret, Codec codec, DecodeSource source, void *arg) {
    Decoder *d = xnew(Decoder);

    d->codec = codec;
    d->source = source;
    d->arg = arg;
    *ret = d;
}

Decoder *decoder_free(Decoder *d) {
    if (!d)
        return NULL;
    (void)ZSTD_freeDCtx(d->zstd); /* never fails */
    free(d->gzip);
    free(d->out);
    free(d);
    return NULL;
}

void decoder_ask(Decoder *d, DecodeMayBeLarge may_be_large, void *arg) {
    d->may_be_large = may_be_large;
    d->ask_arg = arg;
}

static void skip(Decoder *d) {
    size_t n = (size_t)MIN((uint64_t)d->n_in, d->skip);

    d->in += n;
    d->n_in -= n;
    d->skip -= n;
}

/* Makes `in` not empty, unless the source has ended. */
static int refill(Decoder *d, Err *err) {
    while (d->n_in == 0 && !d->source_ended) {
        int r;

        if (d->n_later > 0) {
            d->in = d->later;
            d->n_in = d->n_later;
            d->n_later = 0;
            d->in_head = false;
            return 0;
        }
        r = d->source(d->arg, &d->in, &d->n_in, err);
        if (r < 0)
            return r;
        if (r == 0) {
            d->n_in = 0;
            d->source_ended = true;
        }
        skip(d);
        d->given += d->n_in;
        d->in_head = false;
    }
    return 0;
}

/* Makes `in` hold `want` bytes in one piece, or all that are left of the source. */
static int gather(Decoder *d, size_t want, Err *err) {
    int r = refill(d, err);
    size_t n = d->n_in, k;

    if (r < 0 || n >= want || n == 0)
        return r;
    memmove(d->head, d->in, n);
    d->n_in = 0;
    do {
        r = refill(d, err);
        if (r < 0)
            return r;
        if (d->n_in == 0)
            break;
        k = MIN(d->n_in, want - n);
        memcpy(d->head + n, d->in, k);
        n += k;
        d->in += k;
        d->n_in -= k;
    } while (n < want);
    d->later = d->in;
    d->n_later = d->n_in;
    d->in = d->head;
    d->n_in = n;
    d->in_head = true;
    return 0;
}

uint64_t decoder_used(const Decoder *d) {
    return d->given - d->n_in - d->n_later;
}

/* RFC 1952 2.3.1; RFC 8878 3.1.1 and 3.1.2 (skippable frames). */
static Codec codec_of(const uint8_t *head, size_t n) {
    uint32_t magic;

    if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b)
        return CODEC_GZIP;
    if (n < MAGIC_BYTES)
        return CODEC_NONE;
    magic = (uint32_t)head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 |
            (uint32_t)head[3] << 24;
    if (magic == ZSTD_MAGICNUMBER || (magic & 0xFFFFFFF0U) == ZSTD_MAGIC_SKIPPABLE_START)
        return CODEC_ZSTD;
    return CODEC_NONE;
}

/* Between two frames: larger windows are an error of the frame, before they take memory. */
static bool limit_window(Decoder *d, int log) {
    return !ZSTD_isError(ZSTD_DCtx_reset(d->zstd, ZSTD_reset_session_only)) &&
           !ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, log));
}

static int open_codec(Decoder *d, Err *err) {
    if (d->codec == CODEC_NONE)
        return 0;
    d->out = malloc(OUT_BYTES);
    if (!d->out)
        return err_set(err, -ENOMEM, "no memory to decompress");
    if (d->codec == CODEC_GZIP) {
        d->gzip = xnew(struct inflate_state);
        isal_inflate_init(d->gzip);
        d->gzip->crc_flag = ISAL_GZIP;
        return 0;
    }
    d->zstd = ZSTD_createDCtx();
    if (!d->zstd || !limit_window(d, LIMIT_ZSTD_COMMON_WINDOW_LOG))
        return err_set(err, -ENOMEM, "no memory to decompress zstd");
    return 0;
}

/* Looks at the first bytes. */
static int start(Decoder *d, Err *err) {
    int r;

    d->started = true;
    r = gather(d, MAGIC_BYTES, err);
    if (r < 0)
        return r;
    d->codec = codec_of(d->in, d->n_in);
    return open_codec(d, err);
}

static const char *gzip_reason(int r) {
    switch (r) {
    case ISAL_INVALID_WRAPPER:
        return "bad header of a member";
    case ISAL_UNSUPPORTED_METHOD:
        return "unknown compression method";
    case ISAL_INCORRECT_CHECKSUM:
        return "checksum differs";
    default:
        return "invalid deflate data";
    }
}

/* Returns 1 with output, 0 at the end. */
static int read_gzip(Decoder *d, size_t *ret_n, Err *err) {
    struct inflate_state *z = d->gzip;

    for (;;) {
        int r = refill(d, err);

        if (r < 0)
            return r;
        if (!d->in_frame) {
            if (d->n_in == 0)
                return 0;
            if (d->in[0] != 0x1f)
                return err_set(err, -EPROTO, "the gzip stream is malformed: bytes behind its end");
            isal_inflate_reset(z);
            z->crc_flag = ISAL_GZIP;
            d->in_frame = true;
        }
        z->next_in = (uint8_t *)(uintptr_t)d->in; /* ISA-L does not write there */
        z->avail_in = (uint32_t)MIN(d->n_in, (size_t)UINT32_MAX);
        z->next_out = d->out;
        z->avail_out = OUT_BYTES;
        r = isal_inflate(z);
        d->n_in -= (size_t)(z->next_in - d->in);
        d->in = z->next_in;
        if (r < 0 || r == ISAL_NEED_DICT)
            return err_set(err, -EPROTO, "the gzip stream is malformed: %s", gzip_reason(r));
        if (z->block_state == ISAL_BLOCK_FINISH)
            d->in_frame = false;
        *ret_n = OUT_BYTES - z->avail_out;
        if (*ret_n > 0)
            return 1;
        if (d->in_frame && d->source_ended)
            return err_set(err, -EPROTO, "the gzip stream ends early");
    }
}

static int zstd_failed(size_t code, Err *err) {
    if (ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge)
        return err_set(err, -E2BIG,
                       "the zstd stream needs a window above %u MiB; compress it without --ultra "
                       "--long",
                       1U << (LIMIT_ZSTD_WINDOW_LOG - 20));
    if (ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation)
        return err_set(err, -ENOMEM, "no memory to decompress zstd");
    return err_set(err, -EPROTO, "the zstd stream is malformed: %s", ZSTD_getErrorName(code));
}

/* The frame whose header was just seen needs a window above LIMIT_ZSTD_COMMON_WINDOW_LOG. */
static int become_large(Decoder *d, Err *err) {
    if (d->may_be_large && !d->may_be_large(d->ask_arg))
        return err_set(err, -EBUSY,
                       "the zstd stream needs a window above %u MiB, of which another one has "
                       "the only one",
                       1U << (LIMIT_ZSTD_COMMON_WINDOW_LOG - 20));
    d->large = true;
    if (!limit_window(d, LIMIT_ZSTD_WINDOW_LOG))
        return err_set(err, -ENOMEM, "no memory to decompress zstd");
    return 0;
}

/* A frame's header is given in one piece: what libzstd says of its window then comes before it took
 * anything of it, and the frame can be given once more.  Frames of the time before RFC 8878 are
 * refused: with some of them libzstd does not look at the limit. */
static int read_zstd(Decoder *d, size_t *ret_n, Err *err) {
    for (;;) {
        ZSTD_outBuffer out = { .dst = d->out, .size = OUT_BYTES };
        ZSTD_inBuffer in;
        size_t code;
        int r = d->in_frame ? refill(d, err) : gather(d, HEAD_BYTES, err);

        if (r < 0)
            return r;
        if (d->n_in == 0 && !d->in_frame)
            return 0;
        if (!d->in_frame && d->n_in >= MAGIC_BYTES && codec_of(d->in, d->n_in) != CODEC_ZSTD)
            return err_set(err, -EPROTO, "the zstd stream is malformed: what follows is no frame");
        in = (ZSTD_inBuffer){ .src = d->in, .size = d->n_in };
        code = ZSTD_decompressStream(d->zstd, &out, &in);
        if (!d->in_frame && !d->large &&
            ZSTD_getErrorCode(code) == ZSTD_error_frameParameter_windowTooLarge) {
            r = become_large(d, err);
            if (r < 0)
                return r;
            continue;
        }
        if (ZSTD_isError(code))
            return zstd_failed(code, err);
        d->in += in.pos;
        d->n_in -= in.pos;
        d->in_frame = code != 0;
        *ret_n = out.pos;
        if (out.pos > 0)
            return 1;
        if (d->in_frame && d->source_ended)
            return err_set(err, -EPROTO, "the zstd stream ends early");
    }
}

/* False: the library does not say which one it is. */
static bool get_build(uint8_t ret[static DECODER_BUILD_MAX]) {
    return build_id_of((const void *)(uintptr_t)isal_inflate, ret, DECODER_BUILD_MAX) > 0;
}

/* ISA-L's state is plain memory, but for four fields that each call sets.  libzstd's is not. */
bool decoder_state(const Decoder *d, DecoderState *ret) {
    if (!d->started || d->n_later > 0 || (d->in_head && d->n_in > 0) ||
        (d->codec == CODEC_ZSTD && d->in_frame))
        return false;
    *ret = (DecoderState){ .codec = d->codec, .in_frame = d->in_frame, .left = d->n_in };
    if (d->codec != CODEC_GZIP || !d->in_frame)
        return true;
    ret->data = d->gzip;
    ret->n = sizeof(*d->gzip);
    return get_build(ret->build);
}

bool decoder_state_is_ours(const DecoderState *state) {
    uint8_t build[DECODER_BUILD_MAX] = { 0 };

    if (state->codec != CODEC_GZIP || !state->in_frame)
        return state->n == 0 && !state->in_frame;
    return state->n == sizeof(struct inflate_state) && get_build(build) &&
           memcmp(build, state->build, sizeof(build)) == 0;
}

int decoder_resume(Decoder **ret, const DecoderResume *from, Err *err) {
    _cleanup_(decoder_freep) Decoder *d = NULL;
    int r;

    assert(decoder_state_is_ours(&from->state));
    decoder_new(&d, from->state.codec, from->source, from->arg);
    d->started = true;
    d->in_frame = from->state.in_frame;
    d->skip = from->skip;
    r = open_codec(d, err);
    if (r < 0)
        return r;
    if (from->state.n > 0)
        memcpy(d->gzip, from->state.data, from->state.n);
    *ret = TAKE_PTR(d);
    return 0;
}

int decoder_read(Decoder *d, const uint8_t **ret, size_t *ret_n, Err *err) {
    int r;

    if (!d->started) {
        r = start(d, err);
        if (r < 0)
            return r;
    }
    *ret = d->out;
    if (d->codec == CODEC_GZIP)
        return read_gzip(d, ret_n, err);
    if (d->codec == CODEC_ZSTD)
        return read_zstd(d, ret_n, err);
    r = refill(d, err);
    if (r < 0 || d->n_in == 0)
        return r;
    *ret = d->in;
    *ret_n = d->n_in;
    d->n_in = 0;
    return 1;
}
