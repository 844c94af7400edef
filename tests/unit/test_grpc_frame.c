/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of proto/grpc_frame.h: framing over pieces of any size, grpc-timeout, grpc-message. */
#include "proto/grpc_frame.h"
#include "tests/unit/test.h"

TEST(grpc_reader_joins_pieces_of_every_size) {
    static const uint8_t wire[] = {
        0, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'z'
    };
    static const char *const want[] = { "abc", "", "z" };

    for (size_t piece = 1; piece <= sizeof(wire); piece++) {
        GrpcReader r = GRPC_READER_INIT(16);
        size_t n_messages = 0;

        for (size_t at = 0; at < sizeof(wire); at += piece) {
            const uint8_t *data = wire + at;
            size_t n = MIN(piece, sizeof(wire) - at);

            while (n > 0) {
                int done = grpc_reader_push(&r, &data, &n);

                ASSERT_OK(done);
                if (!done)
                    continue;
                ASSERT_TRUE(n_messages < ELEMENTSOF(want));
                ASSERT_EQ(r.body.len, strlen(want[n_messages]));
                ASSERT_MEMEQ(r.body.data, want[n_messages], r.body.len);
                n_messages++;
                grpc_reader_next(&r);
            }
        }
        ASSERT_EQ(n_messages, 3);
        ASSERT_TRUE(grpc_reader_is_empty(&r));
        grpc_reader_done(&r);
    }
}

TEST(grpc_reader_refuses) {
    static const struct {
        uint8_t prefix[5];
        int error;
    } cases[] = {
        { { 1, 0, 0, 0, 1 }, -ENOTSUP },
        { { 2, 0, 0, 0, 1 }, -EPROTO },
        { { 0, 0, 0, 0, 17 }, -E2BIG },
        { { 0, 255, 255, 255, 255 }, -E2BIG },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        GrpcReader r = GRPC_READER_INIT(16);
        const uint8_t *data = cases[i].prefix;
        size_t n = 5;

        ASSERT_ERR(grpc_reader_push(&r, &data, &n), cases[i].error);
        ASSERT_EQ(r.body.alloc, 0);
        grpc_reader_done(&r);
    }
}

TEST(grpc_reader_does_not_trust_the_promised_length) {
    static const uint8_t wire[] = { 0, 0, 255, 255, 255, 'a' };
    GrpcReader r = GRPC_READER_INIT(16 << 20);
    const uint8_t *data = wire;
    size_t n = sizeof(wire);

    ASSERT_EQ(grpc_reader_push(&r, &data, &n), 0);
    ASSERT_TRUE(r.body.alloc < 4096);
    ASSERT_TRUE(!grpc_reader_is_empty(&r));
    grpc_reader_done(&r);
}

TEST(grpc_prefix_write_is_big_endian) {
    uint8_t prefix[GRPC_PREFIX_BYTES];

    grpc_prefix_write(prefix, 0x01020304);
    ASSERT_MEMEQ(prefix, "\0\1\2\3\4", 5);
}

TEST(grpc_timeout_parse_follows_the_grammar) {
    static const struct {
        const char *text;
        int r;
        uint64_t usec;
    } cases[] = {
        { "1n", 0, 1 },
        { "0n", 0, 0 },
        { "1001n", 0, 2 },
        { "5u", 0, 5 },
        { "7m", 0, 7000 },
        { "2S", 0, 2000000 },
        { "3M", 0, 180000000 },
        { "1H", 0, 3600000000 },
        { "99999999H", 0, 359999996400000000 },
        { "", -EINVAL, 0 },
        { "S", -EINVAL, 0 },
        { "1", -EINVAL, 0 },
        { "1s", -EINVAL, 0 },
        { "-1S", -EINVAL, 0 },
        { "1 S", -EINVAL, 0 },
        { "123456789S", -EINVAL, 0 },
        { "1SS", -EINVAL, 0 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        uint64_t usec = 0;

        ASSERT_ERR(grpc_timeout_parse(cases[i].text, strlen(cases[i].text), &usec), cases[i].r);
        ASSERT_EQ(usec, cases[i].usec);
    }
}

TEST(grpc_timeout_format_fits_and_never_shortens) {
    static const struct {
        uint64_t usec;
        const char *text;
    } cases[] = {
        { 1, "1u" },
        { 99999999, "99999999u" },
        { 100000000, "100000m" },
        { 100000001, "100001m" },
        { 99999999000, "99999999m" },
        { 99999999001, "100000S" },
        { UINT64_MAX, "99999999H" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        char buf[GRPC_TIMEOUT_MAX];

        ASSERT_STREQ(grpc_timeout_format(buf, cases[i].usec), cases[i].text);
    }
}

TEST(grpc_message_survives_the_way_there_and_back) {
    static const struct {
        const char *plain, *encoded;
    } cases[] = {
        { "", "" },
        { "no such artifact", "no such artifact" },
        { "100%", "100%25" },
        { "Grüße", "Gr%C3%BC%C3%9Fe" },
        { "a\r\nb\x7f", "a%0D%0Ab%7F" },
        { "\xff\xc3", "%FF%C3" },
        { " a b ", "%20a b%20" },
        { " ", "%20" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_free_ char *encoded = grpc_message_encode(cases[i].plain);
        _cleanup_free_ char *decoded = grpc_message_decode(encoded, strlen(encoded));

        ASSERT_STREQ(encoded, cases[i].encoded);
        ASSERT_STREQ(decoded, cases[i].plain);
    }
}

TEST(grpc_message_decode_leaves_bad_escapes) {
    static const struct {
        const char *encoded, *plain;
    } cases[] = {
        { "%", "%" },     { "%4", "%4" },    { "%zz", "%zz" },
        { "%00", "%00" }, { "%c3%bc", "ü" }, { "%%41", "%A" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_free_ char *plain =
            grpc_message_decode(cases[i].encoded, strlen(cases[i].encoded));

        ASSERT_STREQ(plain, cases[i].plain);
    }
}

TEST(grpc_message_encode_cuts_between_characters) {
    char text[8192];
    size_t n;

    for (size_t i = 0; i + 2 < sizeof(text); i += 2)
        memcpy(text + i, "ü", 2);
    text[sizeof(text) - 2] = '\0';
    _cleanup_free_ char *encoded = grpc_message_encode(text);
    n = strlen(encoded);
    ASSERT_TRUE(n <= 4096 && n > 4000);
    ASSERT_EQ(n % 6, 0);
}
