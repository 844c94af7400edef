/* SPDX-License-Identifier: Apache-2.0 */
/* test_decode: gzip and zstd streams, whole, in pieces, cut, damaged, with windows that are too
 * large. */
#include "base/limits.h"
#include "oci/decode.h"
#include "tests/unit/test.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#define PLAIN_BYTES (700 * 1024)

/* A stream given in pieces of `step` bytes. */
typedef struct Stream {
    const uint8_t *data;
    size_t n, at, step;
    int fail; /* what comes instead of the end */
} Stream;

static int next(void *arg, const uint8_t **ret, size_t *ret_n, Err *err) {
    Stream *s = arg;
    size_t k = MIN(s->step, s->n - s->at);

    if (k == 0)
        return s->fail < 0 ? err_set(err, s->fail, "the source fails") : 0;
    *ret = s->data + s->at;
    *ret_n = k;
    s->at += k;
    return 1;
}

static uint8_t *plain_new(size_t n) {
    uint8_t *p = xcalloc(1, n);
    uint32_t x = 1;

    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        p[i] = i % 3 ? (uint8_t)(x >> 28) : 'a';
    }
    return p;
}

static size_t gzip(uint8_t *out, size_t room, const uint8_t *data, size_t n) {
    struct isal_zstream z;

    isal_deflate_init(&z);
    z.gzip_flag = IGZIP_GZIP;
    z.end_of_stream = 1;
    z.next_in = (uint8_t *)(uintptr_t)data;
    z.avail_in = (uint32_t)n;
    z.next_out = out;
    z.avail_out = (uint32_t)room;
    ASSERT_EQ(isal_deflate(&z), COMP_OK);
    return z.total_out;
}

static size_t zstd(uint8_t *out, size_t room, const uint8_t *data, size_t n) {
    size_t k = ZSTD_compress(out, room, data, n, 1);

    ASSERT_TRUE(!ZSTD_isError(k));
    return k;
}

/* Decodes all; returns the bytes or the error.  `want`: what they must be. */
static ssize_t decode(Stream *s, Codec codec, const uint8_t *want, size_t n_want, Err *err) {
    _cleanup_(decoder_freep) Decoder *d = NULL;
    const uint8_t *data;
    size_t n, at = 0;
    int r;

    decoder_new(&d, codec, next, s);
    while ((r = decoder_read(d, &data, &n, err)) > 0) {
        if (want)
            ASSERT_TRUE(n <= n_want - at && memcmp(data, want + at, n) == 0);
        at += n;
    }
    return r < 0 ? r : (ssize_t)at;
}

TEST(every_codec_gives_back_what_went_in_whatever_the_pieces) {
    static const size_t steps[] = { 1, 3, 7, 4096, 1 << 20 };
    _cleanup_free_ uint8_t *plain = plain_new(PLAIN_BYTES), *packed = xcalloc(1, 2 * PLAIN_BYTES);

    for (Codec c = CODEC_NONE; c <= CODEC_ZSTD; c++) {
        size_t n = PLAIN_BYTES;
        if (c == CODEC_NONE)
            memcpy(packed, plain, n);
        else
            n = (c == CODEC_GZIP ? gzip : zstd)(packed, 2 * PLAIN_BYTES, plain, PLAIN_BYTES);
        for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
            Stream s = { .data = packed, .n = n, .step = steps[i] };
            Err err;
            ASSERT_EQ(decode(&s, c, plain, PLAIN_BYTES, &err), PLAIN_BYTES);
        }
    }
}

TEST(the_content_decides_what_codec_it_is) {
    _cleanup_free_ uint8_t *plain = plain_new(1000), *packed = xcalloc(1, 4000);
    size_t n = gzip(packed, 4000, plain, 1000);
    Stream s = { .data = packed, .n = n, .step = 1000 };
    Err err;

    ASSERT_EQ(decode(&s, CODEC_ZSTD, plain, 1000, &err), 1000);
    s = (Stream){ .data = packed, .n = n, .step = 1 };
    ASSERT_EQ(decode(&s, CODEC_NONE, plain, 1000, &err), 1000);
    s = (Stream){ .data = plain, .n = 1000, .step = 2 };
    ASSERT_EQ(decode(&s, CODEC_GZIP, plain, 1000, &err), 1000);
    s = (Stream){ .data = plain, .n = 0, .step = 2 };
    ASSERT_EQ(decode(&s, CODEC_GZIP, plain, 0, &err), 0);
}

TEST(several_members_and_frames_are_one_stream) {
    _cleanup_free_ uint8_t *plain = plain_new(3000), *packed = xcalloc(1, 12000);
    size_t n;
    Err err;

    for (size_t step = 1; step < 2000; step = step * 3 + 1) {
        Stream s = { .data = packed, .step = step };
        n = gzip(packed, 12000, plain, 1000);
        n += gzip(packed + n, 12000 - n, plain + 1000, 0); /* an empty member in between */
        n += gzip(packed + n, 12000 - n, plain + 1000, 2000);
        s.n = n;
        ASSERT_EQ(decode(&s, CODEC_GZIP, plain, 3000, &err), 3000);
        n = zstd(packed, 12000, plain, 1000);
        memcpy(packed + n, "\x50\x2a\x4d\x18\x03\x00\x00\x00xyz", 11); /* skippable */
        n += 11;
        n += zstd(packed + n, 12000 - n, plain + 1000, 2000);
        s = (Stream){ .data = packed, .n = n, .step = step };
        ASSERT_EQ(decode(&s, CODEC_ZSTD, plain, 3000, &err), 3000);
    }
}

TEST(a_stream_that_is_cut_anywhere_is_an_error) {
    _cleanup_free_ uint8_t *plain = plain_new(2000), *packed = xcalloc(1, 8000);
    Err err;

    for (Codec c = CODEC_GZIP; c <= CODEC_ZSTD; c++) {
        size_t n = (c == CODEC_GZIP ? gzip : zstd)(packed, 8000, plain, 2000);
        for (size_t cut = 4; cut < n; cut++) {
            Stream s = { .data = packed, .n = cut, .step = 100 };
            ASSERT_EQ(decode(&s, c, plain, 2000, &err), -EPROTO);
            ASSERT_STRSTR(err.text, "ends early");
        }
    }
}

TEST(damage_and_bytes_behind_the_end_are_errors) {
    _cleanup_free_ uint8_t *plain = plain_new(2000), *packed = xcalloc(1, 8000);
    size_t n = gzip(packed, 8000, plain, 2000);
    Stream s = { .data = packed, .n = n + 4, .step = 100 };
    Err err;

    memcpy(packed + n, "junk", 4);
    ASSERT_EQ(decode(&s, CODEC_GZIP, plain, 2000, &err), -EPROTO);
    ASSERT_STRSTR(err.text, "behind");
    packed[n - 6] ^= 1; /* the checksum */
    s = (Stream){ .data = packed, .n = n, .step = 8000 };
    ASSERT_EQ(decode(&s, CODEC_GZIP, NULL, 0, &err), -EPROTO);
    ASSERT_STRSTR(err.text, "checksum");
    n = zstd(packed, 8000, plain, 2000);
    memcpy(packed + n, "junk", 4);
    s = (Stream){ .data = packed, .n = n + 4, .step = 100 };
    ASSERT_EQ(decode(&s, CODEC_ZSTD, plain, 2000, &err), -EPROTO);
    packed[6] = 0xff;
    packed[7] = 0xff;
    packed[8] = 0xff;
    s = (Stream){ .data = packed, .n = n, .step = 100 };
    ASSERT_EQ(decode(&s, CODEC_ZSTD, NULL, 0, &err), -EPROTO);
}

TEST(a_zstd_window_above_the_limit_is_refused_before_memory_is_taken) {
    /* RFC 8878 3.1.1.1: magic, descriptor without size, window descriptor: exponent 18 + 10 = 2^28.
     */
    static const uint8_t large[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 0, 0, 0, 0, 0, 0 };
    Stream s = { .data = large, .n = sizeof(large), .step = 64 };
    Err err;

    ASSERT_EQ(decode(&s, CODEC_ZSTD, NULL, 0, &err), -E2BIG);
    ASSERT_STRSTR(err.text, "128 MiB");
}

/* A frame that does not say how long its content is, with a window of 2^log bytes. */
static size_t zstd_frame(uint8_t *out, size_t room, const uint8_t *data, size_t n, int log) {
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_outBuffer o = { .dst = out, .size = room };
    ZSTD_inBuffer in = { .src = data, .size = n };

    ASSERT_TRUE(!ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, log)));
    ASSERT_TRUE(!ZSTD_isError(ZSTD_compressStream2(c, &o, &in, ZSTD_e_continue)));
    ASSERT_EQ(ZSTD_compressStream2(c, &o, &in, ZSTD_e_end), 0);
    ASSERT_EQ(in.pos, n);
    (void)ZSTD_freeCCtx(c);
    return o.pos;
}

typedef struct Asked {
    unsigned n;
    bool no;
} Asked;

static bool ask(void *arg) {
    Asked *a = arg;

    a->n++;
    return !a->no;
}

/* Decodes all of it; returns the bytes, of which there may be some before an error. */
static size_t decode_asking(Stream *s, Asked *asked, const uint8_t *want, int *ret_r, Err *err) {
    _cleanup_(decoder_freep) Decoder *d = NULL;
    const uint8_t *data;
    size_t n, at = 0;

    decoder_new(&d, CODEC_ZSTD, next, s);
    decoder_ask(d, ask, asked);
    while ((*ret_r = decoder_read(d, &data, &n, err)) > 0) {
        ASSERT_MEMEQ(data, want + at, n);
        at += n;
    }
    return at;
}

#define PIECE KiB(32)

static const size_t zstd_steps[] = { 1, 5, 7, 17, 18, 4096, 1 << 20 };

TEST(it_asks_for_large_windows_once_and_for_others_never) {
    static const struct {
        int logs[3]; /* of the frames; between them are skippable ones */
        unsigned asks;
    } streams[] = {
        { { 10, 25, 22 }, 0 },
        { { 26, 10, 10 }, 1 },
        { { 10, 10, 27 }, 1 },
        { { 27, 25, 26 }, 1 },
    };
    const size_t n_plain = 3 * PIECE;
    _cleanup_free_ uint8_t *plain = plain_new(n_plain), *packed = xcalloc(1, 2 * n_plain);

    for (size_t i = 0; i < ELEMENTSOF(streams); i++) {
        size_t n = 0;

        for (size_t k = 0; k < 3; k++) {
            n += zstd_frame(packed + n, 2 * n_plain - n, plain + k * PIECE, PIECE,
                            streams[i].logs[k]);
            memcpy(packed + n, "\x50\x2a\x4d\x18\x03\x00\x00\x00xyz", 11);
            n += 11;
        }
        for (size_t k = 0; k < ELEMENTSOF(zstd_steps); k++) {
            Stream s = { .data = packed, .n = n, .step = zstd_steps[k] };
            Asked asked = { 0 };
            Err err;
            int r;

            ASSERT_EQ(decode_asking(&s, &asked, plain, &r, &err), n_plain);
            ASSERT_EQ(r, 0);
            ASSERT_EQ(asked.n, streams[i].asks);
        }
    }
}

TEST(who_may_not_have_a_large_window_gets_all_before_it) {
    _cleanup_free_ uint8_t *plain = plain_new(2 * PIECE), *packed = xcalloc(1, 4 * PIECE);
    size_t n = zstd_frame(packed, 4 * PIECE, plain, PIECE, 25);

    n += zstd_frame(packed + n, 4 * PIECE - n, plain + PIECE, PIECE, 26);
    for (size_t i = 0; i < ELEMENTSOF(zstd_steps); i++) {
        Stream s = { .data = packed, .n = n, .step = zstd_steps[i] };
        Asked asked = { .no = true };
        Err err;
        int r;

        ASSERT_EQ(decode_asking(&s, &asked, plain, &r, &err), PIECE);
        ASSERT_EQ(r, -EBUSY);
        ASSERT_STRSTR(err.text, "needs a window above 32 MiB");
        ASSERT_EQ(asked.n, 1);
    }
}

/* RFC 8878 3.1.1.1: a frame in one segment has all of its content as its window. */
TEST(the_window_of_one_segment_is_its_content) {
    for (unsigned more = 0; more < 2; more++) {
        uint8_t head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0xa0, (uint8_t)more, 0, 0, 2, 0, 0, 0 };
        Stream s = { .data = head, .n = sizeof(head), .step = 64 };
        Asked asked = { .no = true };
        Err err;
        int r;

        ASSERT_EQ(decode_asking(&s, &asked, NULL, &r, &err), 0);
        ASSERT_EQ(r, more ? -EBUSY : -EPROTO);
        ASSERT_EQ(asked.n, more);
    }
}

/* libzstd decodes those of before RFC 8878, too, and gives their windows memory whatever the limit
 * is. */
TEST(a_frame_of_the_time_before_the_standard_is_refused) {
    _cleanup_free_ uint8_t *plain = plain_new(PIECE), *packed = xcalloc(1, 2 * PIECE);
    size_t n = zstd_frame(packed, 2 * PIECE, plain, PIECE, 20);

    memcpy(packed + n, "\x27\xb5\x2f\xfd\x00\x88\xc0\x00\x00", 9);
    for (size_t i = 0; i < ELEMENTSOF(zstd_steps); i++) {
        Stream s = { .data = packed, .n = n + 9, .step = zstd_steps[i] };
        Asked asked = { 0 };
        Err err;
        int r;

        ASSERT_EQ(decode_asking(&s, &asked, plain, &r, &err), PIECE);
        ASSERT_EQ(r, -EPROTO);
        ASSERT_STRSTR(err.text, "is no frame");
    }
}

TEST(a_window_above_the_limit_is_refused_to_who_may_have_a_large_one) {
    static const uint8_t head[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 0, 0, 0, 0, 0, 0 };
    Stream s = { .data = head, .n = sizeof(head), .step = 64 };
    Asked asked = { 0 };
    Err err;
    int r;

    ASSERT_EQ(decode_asking(&s, &asked, NULL, &r, &err), 0);
    ASSERT_EQ(r, -E2BIG);
    ASSERT_EQ(asked.n, 1);
}

TEST(an_error_of_the_source_is_handed_on) {
    _cleanup_free_ uint8_t *plain = plain_new(2000), *packed = xcalloc(1, 8000);
    size_t n = gzip(packed, 8000, plain, 2000);
    Err err;

    for (size_t cut = 0; cut < n; cut += 200) {
        Stream s = { .data = packed, .n = cut, .step = 3, .fail = -ECONNRESET };
        ASSERT_EQ(decode(&s, CODEC_GZIP, plain, 2000, &err), -ECONNRESET);
        ASSERT_STREQ(err.text, "the source fails");
    }
}

/* Decodes the rest of the stream from a state that was kept, in memory of its own. */
static size_t decode_from(Stream *s, const DecoderState *state, uint64_t skip,
                          const uint8_t *want) {
    _cleanup_(decoder_freep) Decoder *d = NULL;
    DecoderResume from = { .state = *state, .skip = skip, .source = next, .arg = s };
    const uint8_t *data;
    size_t n, at = 0;
    Err err;
    int r;

    ASSERT_OK(decoder_resume(&d, &from, &err));
    while ((r = decoder_read(d, &data, &n, &err)) > 0) {
        ASSERT_MEMEQ(data, want + at, n);
        at += n;
    }
    ASSERT_EQ(r, 0);
    return at;
}

/* At each moment at which a state can be had, another decoder goes on with it: with the bytes that
 * were left, and with those of the source's last piece once more.  Returns how often. */
static unsigned go_on_everywhere(Stream *s, Codec codec, const uint8_t *plain, size_t n_plain) {
    _cleanup_(decoder_freep) Decoder *d = NULL;
    unsigned n_states = 0;
    const uint8_t *data;
    size_t n, at = 0;
    Err err;

    decoder_new(&d, codec, next, s);
    while (decoder_read(d, &data, &n, &err) > 0) {
        DecoderState state;

        at += n;
        if (!decoder_state(d, &state))
            continue;
        ASSERT_TRUE(state.left <= s->step); /* of the last piece */
        _cleanup_free_ uint8_t *kept = xnew_n(uint8_t, state.n + 1);
        size_t used = s->at - state.left, again = MIN(used, s->step);
        Stream rest = { .data = s->data, .n = s->n, .at = used - again, .step = s->step };

        if (state.n > 0)
            memcpy(kept, state.data, state.n);
        state.data = kept;
        ASSERT_EQ(decode_from(&rest, &state, again, plain + at), n_plain - at);
        n_states++;
    }
    ASSERT_EQ(at, n_plain);
    return n_states;
}

TEST(another_decoder_goes_on_at_each_place) {
    static const size_t steps[] = { 1000, 4096, 77777 };
    const size_t n_plain = 3 * PLAIN_BYTES;
    _cleanup_free_ uint8_t *plain = plain_new(n_plain), *packed = xcalloc(1, 2 * n_plain);
    size_t third = PLAIN_BYTES, n;

    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        Stream s = { .data = plain, .n = n_plain, .step = steps[i] };

        ASSERT_TRUE(go_on_everywhere(&s, CODEC_NONE, plain, n_plain) > 20);
        n = gzip(packed, 2 * n_plain, plain, 2 * third); /* of two members */
        n += gzip(packed + n, 2 * n_plain - n, plain + 2 * third, third);
        s = (Stream){ .data = packed, .n = n, .step = steps[i] };
        ASSERT_TRUE(go_on_everywhere(&s, CODEC_GZIP, plain, n_plain) >= 8);
        n = 0; /* between two frames only */
        for (size_t k = 0; k < 3; k++)
            n += zstd(packed + n, 2 * n_plain - n, plain + k * third, third);
        s = (Stream){ .data = packed, .n = n, .step = steps[i] };
        ASSERT_EQ(go_on_everywhere(&s, CODEC_ZSTD, plain, n_plain), 3);
    }
}

/* RFC 8878 3.1.1: 40 bytes in one segment, one block of one byte that is repeated.  Of some frames
 * the header is gathered, and all of the next frame with it. */
TEST(another_decoder_goes_on_between_tiny_frames) {
    static const uint8_t frame[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x20, 40, 0x43, 0x01, 0, 'a' };
    uint8_t plain[20 * 40], packed[20 * sizeof(frame)];

    memset(plain, 'a', sizeof(plain));
    for (size_t i = 0; i < sizeof(packed); i++)
        packed[i] = frame[i % sizeof(frame)];
    for (size_t step = 1; step < 3 * sizeof(frame); step++) {
        Stream s = { .data = packed, .n = sizeof(packed), .step = step };

        ASSERT_TRUE(go_on_everywhere(&s, CODEC_ZSTD, plain, sizeof(plain)) > 0);
    }
}

TEST(a_state_of_another_library_is_not_ours) {
    _cleanup_free_ uint8_t *plain = plain_new(PLAIN_BYTES), *packed = xcalloc(1, PLAIN_BYTES);
    _cleanup_(decoder_freep) Decoder *d = NULL;
    Stream s = { .data = packed, .n = gzip(packed, PLAIN_BYTES, plain, PLAIN_BYTES), .step = 9999 };
    DecoderState state, bad;
    const uint8_t *data;
    size_t n;
    Err err;

    decoder_new(&d, CODEC_GZIP, next, &s);
    ASSERT_EQ(decoder_read(d, &data, &n, &err), 1);
    ASSERT_TRUE(decoder_state(d, &state));
    ASSERT_TRUE(decoder_state_is_ours(&state));
    bad = state;
    bad.n--;
    ASSERT_TRUE(!decoder_state_is_ours(&bad));
    bad = state;
    bad.build[3] ^= 1;
    ASSERT_TRUE(!decoder_state_is_ours(&bad));
    bad = state;
    bad.in_frame = false;
    ASSERT_TRUE(!decoder_state_is_ours(&bad));
    bad = (DecoderState){ .codec = CODEC_ZSTD, .in_frame = true };
    ASSERT_TRUE(!decoder_state_is_ours(&bad));
    bad = (DecoderState){ .codec = CODEC_NONE, .n = 3 };
    ASSERT_TRUE(!decoder_state_is_ours(&bad));
    bad = (DecoderState){ .codec = CODEC_ZSTD };
    ASSERT_TRUE(decoder_state_is_ours(&bad));
}
