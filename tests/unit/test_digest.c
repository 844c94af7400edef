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

/* RFC 4231, cases 1, 2 and 4. */
static const struct {
    const char *key, *data, *want;
    size_t n_key, n;
} hmacs[] = {
    { "\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b",
      "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", 20, 8 },
    { "Jefe", "what do ya want for nothing?",
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", 4, 28 },
    { "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16"
      "\x17\x18\x19",
      "\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd"
      "\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd\xcd"
      "\xcd\xcd\xcd\xcd\xcd\xcd",
      "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b", 25, 50 },
};

TEST(hmac_gives_the_values_of_the_rfc) {
    Digest d;

    for (size_t i = 0; i < ELEMENTSOF(hmacs); i++) {
        digest_hmac(&d, hmacs[i].key, hmacs[i].n_key, hmacs[i].data, hmacs[i].n);
        ASSERT_STREQ(DIGEST_HEX(&d), hmacs[i].want);
    }
}

/* The values are Python's hashlib.pbkdf2_hmac('sha256', sha256(b'abc').digest(), salt, rounds). */
TEST(a_stretched_secret_is_pbkdf2_of_it) {
    Digest secret, d;

    digest_of(&secret, "abc", 3);
    digest_stretch(&d, &secret, "salt", 5, 1000); /* with its NUL */
    ASSERT_STREQ(DIGEST_HEX(&d),
                 "0d167b010f9a34b2c61ea13539ab84e61f5d8a08029377148a5f5e755dc9ce6a");
    digest_stretch(&d, &secret, "", 0, 1);
    ASSERT_STREQ(DIGEST_HEX(&d),
                 "e8d7142c997b9bac2d004f5dc4c8578ea182ef4d527a1ade4332413a8ae761eb");
}
