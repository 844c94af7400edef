/* SPDX-License-Identifier: Apache-2.0 */
/* test_sha256_pair: two hash values at once, by the known one of "abc" and block by block. */
#include "cache/digest.h"
#include "cache/sha256_pair.h"
#include "tests/unit/test.h"

/* FIPS 180-4, 5.3.3. */
static const uint32_t initial[SHA256_WORDS] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                                0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

static void skip_without_instructions(void) {
    if (!sha256_pair_supported())
        SKIP("this processor has no SHA instructions");
}

/* "abc" with its padding is one block; NIST's example gives its hash value. */
TEST(abc_beside_another_block) {
    static const uint32_t want[SHA256_WORDS] = { 0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223,
                                                 0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad };
    uint8_t abc[SHA256_BLOCK_BYTES] = { 'a', 'b', 'c', 0x80 }, zeros[SHA256_BLOCK_BYTES] = { 0 };

    skip_without_instructions();
    abc[SHA256_BLOCK_BYTES - 1] = 24; /* bits */
    for (int side = 0; side < 2; side++) {
        uint32_t a[SHA256_WORDS], b[SHA256_WORDS];

        memcpy(a, initial, sizeof(a));
        memcpy(b, initial, sizeof(b));
        sha256_pair((uint32_t *[]){ side ? b : a, side ? a : b },
                    (const uint8_t *[]){ side ? zeros : abc, side ? abc : zeros }, 1);
        ASSERT_EQ(memcmp(a, want, sizeof(a)), 0);
        ASSERT_TRUE(memcmp(b, want, sizeof(b)) != 0);
    }
}

/* What a hasher holds after the same blocks; they need not be aligned. */
TEST(many_blocks_are_as_those_of_a_hasher) {
    enum { BLOCKS = 1000 };
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, (BLOCKS + 1) * SHA256_BLOCK_BYTES);
    uint32_t words[2][SHA256_WORDS];

    skip_without_instructions();
    for (size_t i = 0; i < (BLOCKS + 1) * SHA256_BLOCK_BYTES; i++)
        data[i] = (uint8_t)(i * 13 + (i >> 7));
    for (size_t n = 0; n <= BLOCKS; n += n < 4 ? 1 : 83) {
        const uint8_t *at[2] = { data, data + 5 };

        for (int i = 0; i < 2; i++)
            memcpy(words[i], initial, sizeof(initial));
        sha256_pair((uint32_t *[]){ words[0], words[1] }, at, n);
        for (int i = 0; i < 2; i++) {
            _cleanup_(hasher_freep) Hasher *h = hasher_new();
            HasherState state;

            hasher_update(h, at[i], n * SHA256_BLOCK_BYTES);
            hasher_save(h, &state);
            ASSERT_EQ(memcmp(words[i], state.words, sizeof(state.words)), 0);
        }
    }
}
