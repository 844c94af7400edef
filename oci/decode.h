/* SPDX-License-Identifier: Apache-2.0 */
/* decode: a compressed stream becomes plain bytes: gzip (RFC 1952), zstd (RFC 8878), or as it is.
 */
#pragma once

#include "oci/media.h"

typedef struct Decoder Decoder;

/* Gives the next bytes of the stream, borrowed until the next call.  Returns 1, 0 at the end, or a
 * negative errno with a sentence, which decoder_read() hands on. */
typedef int (*DecodeSource)(void *arg, const uint8_t **ret, size_t *ret_n, Err *err);

/* `codec` is what the media type says; the first bytes decide when they say something else. */
void decoder_new(Decoder **ret, Codec codec, DecodeSource source, void *arg);
Decoder *decoder_free(Decoder *d);
DEFINE_CLEANUP(Decoder, decoder_free);

/* The next plain bytes, borrowed until the next call; several gzip members and zstd frames are one
 * stream.  Returns 1, or 0 at the end.  Errors: -EPROTO malformed, checksum, ends early, something
 * behind the end; -E2BIG a zstd window above LIMIT_ZSTD_WINDOW_LOG; -EBUSY it may not have one
 * above LIMIT_ZSTD_COMMON_WINDOW_LOG now; and those of the source. Blocks as the source does: for a
 * thread of its own. */
int decoder_read(Decoder *d, const uint8_t **ret, size_t *ret_n, Err *err) _must_check_;
/* Before the first window above LIMIT_ZSTD_COMMON_WINDOW_LOG takes its memory, within
 * decoder_read(): may it?  Whoever does not ask, may. */
typedef bool (*DecodeMayBeLarge)(void *arg);
void decoder_ask(Decoder *d, DecodeMayBeLarge may_be_large, void *arg);
/* Bytes of the source that all it gave was of; what another one had decoded does not count. */
uint64_t decoder_used(const Decoder *d);
#define DECODER_BUILD_MAX 32
/* Where a decoder is, between two calls: all it gave was of the bytes before the last `left` that
 * the source gave. */
typedef struct DecoderState {
    Codec codec;
    bool in_frame;
    const void *data; /* a library's memory, borrowed from the decoder … */
    size_t n;
    uint8_t build[DECODER_BUILD_MAX]; /* … and which build of it (build_id.h) */
    size_t left;
} DecoderState;

typedef struct DecoderResume {
    DecoderState state;
    uint64_t skip; /* bytes of the source that were decoded already */
    DecodeSource source;
    void *arg;
} DecoderResume;

/* False: another one could not go on from here (within a zstd frame). */
bool decoder_state(const Decoder *d, DecoderState *ret);
/* Is it of the library that we have? */
bool decoder_state_is_ours(const DecoderState *state);
/* Goes on there, in a state that is ours: the source gives what followed.  Error: -ENOMEM. */
int decoder_resume(Decoder **ret, const DecoderResume *from, Err *err) _must_check_;
