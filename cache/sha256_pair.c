/* SPDX-License-Identifier: Apache-2.0 */
/* sha256_pair: two SHA-256 at once on one core, by the SHA instructions of x86-64. */
#include "cache/sha256_pair.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define LANES        2
#define STEPS        16 /* of four rounds */
#define _target_sha_ __attribute__((target("sha,ssse3,sse4.1")))

/* FIPS 180-4, 4.2.2. */
static const uint32_t constants[STEPS][4] = {
    { 0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5 },
    { 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5 },
    { 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3 },
    { 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174 },
    { 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc },
    { 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da },
    { 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7 },
    { 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967 },
    { 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13 },
    { 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85 },
    { 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3 },
    { 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070 },
    { 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5 },
    { 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3 },
    { 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208 },
    { 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2 },
};

/* The hash value as the instructions want it, from the highest word down, and the last 16 words of
 * the message schedule. */
typedef struct Lane {
    __m128i abef, cdgh;
    __m128i schedule[4];
} Lane;

_target_sha_ static inline __m128i load(const void *at) {
    return _mm_loadu_si128((const __m128i *)at);
}

_target_sha_ static void lane_open(Lane *l, const uint32_t words[static SHA256_WORDS]) {
    __m128i cdab = _mm_shuffle_epi32(load(words), 0xb1);
    __m128i efgh = _mm_shuffle_epi32(load(words + 4), 0x1b);

    l->abef = _mm_alignr_epi8(cdab, efgh, 8);
    l->cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
}

_target_sha_ static void lane_close(const Lane *l, uint32_t words[static SHA256_WORDS]) {
    __m128i feba = _mm_shuffle_epi32(l->abef, 0x1b);
    __m128i dchg = _mm_shuffle_epi32(l->cdgh, 0xb1);

    _mm_storeu_si128((__m128i *)words, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(words + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* The next four words of the message schedule: of the message itself, then from the 16 before. */
_target_sha_ static inline __m128i lane_schedule(Lane *l, const uint8_t *block, int step) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i *w = &l->schedule[step % 4], sum;
    __m128i before = l->schedule[(step + 3) % 4];

    if (step < 4) {
        *w = _mm_shuffle_epi8(load(block + (size_t)step * 16), big_endian);
    } else {
        sum = _mm_sha256msg1_epu32(*w, l->schedule[(step + 1) % 4]);
        sum = _mm_add_epi32(sum, _mm_alignr_epi8(before, l->schedule[(step + 2) % 4], 4));
        *w = _mm_sha256msg2_epu32(sum, before);
    }
    return *w;
}

/* The loops have to be unrolled, so that all of both lanes lies in registers. */
_target_sha_ static inline void add_block(Lane lanes[static LANES],
                                          const uint8_t *const blocks[static LANES]) {
    const __m128i abef[LANES] = { lanes[0].abef, lanes[1].abef };
    const __m128i cdgh[LANES] = { lanes[0].cdgh, lanes[1].cdgh };

#pragma GCC unroll 16
    for (int step = 0; step < STEPS; step++) {
#pragma GCC unroll 2
        for (int i = 0; i < LANES; i++) {
            Lane *l = &lanes[i];
            __m128i w = _mm_add_epi32(lane_schedule(l, blocks[i], step), load(constants[step]));

            l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, w);
            l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(w, 0x0e));
        }
    }
    for (int i = 0; i < LANES; i++) {
        lanes[i].abef = _mm_add_epi32(lanes[i].abef, abef[i]);
        lanes[i].cdgh = _mm_add_epi32(lanes[i].cdgh, cdgh[i]);
    }
}

/* Intel SDM, CPUID leaf 7: the compilers' own way knows of SHA only since clang 18.  What has SHA
 * has SSE 4.1. */
bool sha256_pair_supported(void) {
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}

_target_sha_ void sha256_pair(uint32_t *const words[2], const uint8_t *const data[2],
                              size_t n_blocks) {
    Lane lanes[LANES];

    for (int i = 0; i < LANES; i++)
        lane_open(&lanes[i], words[i]);
    for (size_t b = 0; b < n_blocks; b++) {
        size_t at = b * SHA256_BLOCK_BYTES;

        add_block(lanes, (const uint8_t *const[]){ data[0] + at, data[1] + at });
    }
    for (int i = 0; i < LANES; i++)
        lane_close(&lanes[i], words[i]);
}

#else

bool sha256_pair_supported(void) {
    return false;
}

void sha256_pair(uint32_t *const words[2], const uint8_t *const data[2], size_t n_blocks) {
    (void)words;
    (void)data;
    (void)n_blocks;
    assert(!"not supported");
}

#endif
