/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/digest: the text of OCI image-spec v1.1 and FIPS 180-4 vectors. */
#include "cache/digest.h"
#include "tests/unit/test.h"

#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

TEST(digest_parse_table) {
    static const struct {
        const char *text;
        int want;
    } cases[] = {
        { "sha256:" ABC, 0 },
        { "", -EINVAL },
        { "sha256", -EINVAL },
        { "sha256:", -EINVAL },
        { ABC, -EINVAL },
        { "SHA256:" ABC, -EINVAL },
        { "sha256:" ABC "0", -EINVAL },
        { "sha256:" ABC "\n", -EINVAL },
        { " sha256:" ABC, -EINVAL },
        { "sha256:BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", -EINVAL },
        { "sha256:../../../../../../../../../../../../../../../../../../../etc/shad", -EINVAL },
        { "sha256:ga7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", -EINVAL },
        { "md5:d41d8cd98f00b204e9800998ecf8427e", -EINVAL },
        { "sha512:00", -ENOTSUP },
        { "blake3:00", -ENOTSUP },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Digest d = { { 0 } };
        Err err = { "" };

        ASSERT_ERR(digest_parse(&d, cases[i].text, &err), cases[i].want);
        ASSERT_EQ(digest_is_zero(&d), cases[i].want < 0);
        ASSERT_EQ(err.text[0] != 0, cases[i].want < 0);
    }
}

TEST(digest_prints_what_it_parses) {
    Digest d, same;

    ASSERT_OK(digest_parse(&d, "sha256:" ABC, NULL));
    ASSERT_STREQ(DIGEST_STR(&d), "sha256:" ABC);
    ASSERT_STREQ(DIGEST_HEX(&d), ABC);
    ASSERT_OK(digest_from_bytes(&same, d.bytes, DIGEST_BYTES));
    ASSERT_TRUE(digest_equal(&d, &same));
    ASSERT_ERR(digest_from_bytes(&same, d.bytes, 31), -EINVAL);
    ASSERT_ERR(digest_from_bytes(&same, d.bytes, 0), -EINVAL);
    same.bytes[31]++;
    ASSERT_TRUE(digest_compare(&d, &same) < 0);
}

TEST(hasher_gives_the_known_digests_and_starts_anew) {
    _cleanup_(hasher_freep) Hasher *h = hasher_new();
    Digest d, empty;

    hasher_update(h, "a", 1);
    hasher_update(h, "bc", 2);
    hasher_final(h, &d);
    ASSERT_STREQ(DIGEST_HEX(&d), ABC);
    hasher_final(h, &d);
    digest_of(&empty, "", 0);
    ASSERT_TRUE(digest_equal(&d, &empty));
    ASSERT_STREQ(DIGEST_HEX(&d),
                 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(a_hasher_goes_on_where_another_one_was) {
    static const uint64_t at[] = { 0, 64, 4096, MiB(1) + 64 };
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, MiB(2));
    Digest want, got;

    for (size_t i = 0; i < MiB(2); i++)
        data[i] = (uint8_t)(i * 7 + (i >> 9));
    digest_of(&want, data, MiB(2));
    for (size_t i = 0; i < ELEMENTSOF(at); i++) {
        _cleanup_(hasher_freep) Hasher *first = hasher_new(), *second = hasher_new();
        HasherState state;

        hasher_update(first, data, at[i]);
        hasher_save(first, &state);
        hasher_update(second, "something else", 14);
        hasher_restore(second, &state, at[i]);
        hasher_update(second, data + at[i], MiB(2) - at[i]);
        hasher_peek(second, &got);
        ASSERT_TRUE(digest_equal(&got, &want));
        hasher_final(second, &got); /* it went on as if nobody had looked */
        ASSERT_TRUE(digest_equal(&got, &want));
    }
}

/* The length is hashed at the end; what lies above 32 bits of it counts, too.  The digest is that
 * of the first hash value and the padding of 5,000 MiB, calculated with Python. */
TEST(a_hasher_goes_on_behind_four_gigabytes) {
    _cleanup_(hasher_freep) Hasher *h = hasher_new();
    HasherState state;
    Digest d;

    hasher_save(h, &state);
    hasher_restore(h, &state, MiB(5000));
    hasher_final(h, &d);
    ASSERT_STREQ(DIGEST_HEX(&d),
                 "583515c30fbcd0f55bf4b334afb13c3d82cc0934d97ff1d5b029f9763430aeda");
}

static void hasher_begin(Hasher *h, uint64_t whole_bytes, const uint8_t *data, size_t rest) {
    HasherState state;

    hasher_save(h, &state);
    hasher_restore(h, &state, whole_bytes);
    hasher_update(h, data, rest);
}

/* Of lengths around a block, of what is not aligned, behind what was no whole block, and where the
 * count of bits passes 32 bits. */
TEST(two_hashers_at_once_give_what_each_gives_alone) {
    static const struct {
        uint64_t whole; /* hashed before … */
        size_t rest;    /* … and behind that */
        size_t at, n;
    } sides[] = {
        { 0, 0, 0, 0 },
        { 0, 0, 0, 1 },
        { 0, 0, 1, 63 },
        { 0, 0, 0, 64 },
        { 0, 0, 3, 65 },
        { 0, 0, 0, 128 },
        { 0, 64, 7, KiB(256) },
        { 0, 1, 0, KiB(64) },
        { MiB(512) - 64, 0, 0, 200 },
        { MiB(9000), 0, 64, 999 },
        { 0, 63, 5, 1 },
        { 0, 128, 0, KiB(256) - 1 },
    };
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, KiB(257));

    for (size_t i = 0; i < KiB(257); i++)
        data[i] = (uint8_t)(i * 11 + (i >> 8));
    for (size_t i = 0; i < ELEMENTSOF(sides) * ELEMENTSOF(sides); i++) {
        size_t k[2] = { i / ELEMENTSOF(sides), i % ELEMENTSOF(sides) };
        _cleanup_(hasher_freep) Hasher *a = hasher_new(), *b = hasher_new(), *alone = hasher_new();
        Hasher *pair[2] = { a, b };
        Digest want, got;

        for (int j = 0; j < 2; j++)
            hasher_begin(pair[j], sides[k[j]].whole, data, sides[k[j]].rest);
        hasher_update_pair(pair,
                           (const uint8_t *[]){ data + sides[k[0]].at, data + sides[k[1]].at },
                           (size_t[]){ sides[k[0]].n, sides[k[1]].n });
        for (int j = 0; j < 2; j++) {
            hasher_begin(alone, sides[k[j]].whole, data, sides[k[j]].rest);
            hasher_update(alone, data + sides[k[j]].at, sides[k[j]].n);
            hasher_final(alone, &want);
            hasher_final(pair[j], &got);
            ASSERT_STREQ(DIGEST_HEX(&got), DIGEST_HEX(&want));
        }
    }
}
