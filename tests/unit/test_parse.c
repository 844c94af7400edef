/* SPDX-License-Identifier: Apache-2.0 */
/* test_parse: tables of what is read, what is refused, and what people see. */
#include "base/parse.h"

#include "tests/unit/test.h"

typedef struct Case {
    const char *text;
    int r;
    uint64_t value;
} Case;

static const char *run_cases(const Case *cases, size_t n, int (*parse)(const char *, uint64_t *)) {
    for (size_t i = 0; i < n; i++) {
        uint64_t value = 4711;
        int r = parse(cases[i].text, &value);
        if (r != cases[i].r || value != (r < 0 ? 4711 : cases[i].value))
            return cases[i].text;
    }
    return NULL;
}

TEST(u64) {
    static const Case cases[] = {
        { "0", 0, 0 },
        { "007", 0, 7 },
        { "18446744073709551615", 0, UINT64_MAX },
        { "", -EINVAL, 0 },
        { "-1", -EINVAL, 0 },
        { "+1", -EINVAL, 0 },
        { " 1", -EINVAL, 0 },
        { "1 ", -EINVAL, 0 },
        { "0x1", -EINVAL, 0 },
        { "18446744073709551616", -ERANGE, 0 },
        { "99999999999999999999999", -ERANGE, 0 },
    };

    ASSERT_STREQ(run_cases(cases, ELEMENTSOF(cases), parse_u64), NULL);
}

TEST(size) {
    static const Case cases[] = {
        { "512", 0, 512 },
        { "0", 0, 0 },
        { "128MiB", 0, MiB(128) },
        { "1.5GiB", 0, MiB(1536) },
        { "0.1KiB", 0, 102 },
        { "1.000000001KiB", 0, 1024 },
        { "16777215TiB", 0, 16777215 * GiB(1024) },
        { "16777216TiB", -ERANGE, 0 },
        { "18446744073709551616", -ERANGE, 0 },
        { "", -EINVAL, 0 },
        { "1.5", -EINVAL, 0 },
        { "1.GiB", -EINVAL, 0 },
        { ".5GiB", -EINVAL, 0 },
        { "1.0000000001KiB", -EINVAL, 0 },
        { "1.99999999999999999999999KiB", -EINVAL, 0 },
        { "1 GiB", -EINVAL, 0 },
        { "1GB", -EINVAL, 0 },
        { "1gib", -EINVAL, 0 },
        { "1GiBx", -EINVAL, 0 },
        { "-1", -EINVAL, 0 },
        { "GiB", -EINVAL, 0 },
    };

    ASSERT_STREQ(run_cases(cases, ELEMENTSOF(cases), parse_size), NULL);
}

TEST(duration) {
    static const Case cases[] = {
        { "300ms", 0, 300000 },
        { "30s", 0, 30 * USEC_PER_SEC },
        { "30", 0, 30 * USEC_PER_SEC },
        { "5m", 0, 300 * USEC_PER_SEC },
        { "2h", 0, 7200 * USEC_PER_SEC },
        { "0", 0, 0 },
        { "", -EINVAL, 0 },
        { "s", -EINVAL, 0 },
        { "1d", -EINVAL, 0 },
        { "1.5s", -EINVAL, 0 },
        { "1m30s", -EINVAL, 0 },
        { "-1s", -EINVAL, 0 },
        { "18446744073709551615s", -ERANGE, 0 },
        { "99999999999999999999", -ERANGE, 0 },
    };

    ASSERT_STREQ(run_cases(cases, ELEMENTSOF(cases), parse_duration), NULL);
}

TEST(bools) {
    static const char *const yes[] = { "true", "yes", "on", "1" },
                             *const no[] = { "false", "no", "off", "0" },
                             *const bad[] = { "", "TRUE", "y", "2", "true " };
    bool b;

    for (size_t i = 0; i < ELEMENTSOF(yes); i++) {
        ASSERT_OK(parse_bool(yes[i], &b));
        ASSERT_TRUE(b);
        ASSERT_OK(parse_bool(no[i], &b));
        ASSERT_TRUE(!b);
    }
    for (size_t i = 0; i < ELEMENTSOF(bad); i++)
        ASSERT_ERR(parse_bool(bad[i], &b), -EINVAL);
}

TEST(hex) {
    uint8_t bytes[4] = { 1, 2, 3, 4 };
    char text[9];

    ASSERT_OK(parse_hex("00ffa51eXX", 8, bytes));
    ASSERT_MEMEQ(bytes, "\x00\xff\xa5\x1e", 4);
    format_hex(bytes, 4, text);
    ASSERT_STREQ(text, "00ffa51e");
    ASSERT_OK(parse_hex("", 0, bytes));
    ASSERT_ERR(parse_hex("0", 1, bytes), -EINVAL);
    ASSERT_ERR(parse_hex("FF", 2, bytes), -EINVAL);
    ASSERT_ERR(parse_hex("00f", 4, bytes), -EINVAL); /* shorter than said */
    ASSERT_ERR(parse_hex("0g", 2, bytes), -EINVAL);
    ASSERT_MEMEQ(bytes, "\x00\xff\xa5\x1e", 4);
}

TEST(base64_of_rfc_4648_section_10) {
    static const char *const text[] = { "",         "Zg==",     "Zm8=",    "Zm9v",
                                        "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy" };

    for (size_t i = 0; i < ELEMENTSOF(text); i++) {
        _cleanup_free_ char *s = NULL, *made = format_base64("foobar", i);
        size_t n;

        ASSERT_STREQ(made, text[i]);
        ASSERT_OK(parse_base64(text[i], strlen(text[i]), &s, &n));
        ASSERT_EQ(n, i);
        ASSERT_MEMEQ(s, "foobar", i);
        ASSERT_EQ(s[n], 0);
    }
}

TEST(base64_is_strict) {
    static const char *const bad[] = { "Z",    "Zg",       "Zg=",  "Zh==",  "Zm9=", "====",
                                       "Z===", "Zg==Zg==", "Zm 9", "Zm9\n", "-_-_", "Zm9v=" };

    for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
        char *s = NULL;
        size_t n;
        if (parse_base64(bad[i], strlen(bad[i]), &s, &n) != -EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\" was accepted", bad[i]);
    }
}

TEST(base64_of_all_bytes) {
    _cleanup_free_ char *text = NULL, *back = NULL;
    uint8_t bytes[256];
    size_t n;

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    text = format_base64(bytes, sizeof(bytes));
    ASSERT_OK(parse_base64(text, strlen(text), &back, &n));
    ASSERT_EQ(n, sizeof(bytes));
    ASSERT_MEMEQ(back, bytes, sizeof(bytes));
}

TEST(bytes_for_people) {
    ASSERT_STREQ(FORMAT_BYTES(0), "0 B");
    ASSERT_STREQ(FORMAT_BYTES(1023), "1023 B");
    ASSERT_STREQ(FORMAT_BYTES(1024), "1 KiB");
    ASSERT_STREQ(FORMAT_BYTES(MiB(1536)), "1.5 GiB");
    ASSERT_STREQ(FORMAT_BYTES(MiB(412)), "412 MiB");
    ASSERT_STREQ(FORMAT_BYTES(MiB(1) - 1), "1 MiB");
    ASSERT_STREQ(FORMAT_BYTES(GiB(14) + MiB(205)), "14.2 GiB");
    ASSERT_STREQ(FORMAT_BYTES(UINT64_MAX), "16 EiB");
}

TEST(durations_for_people) {
    ASSERT_STREQ(FORMAT_DURATION(0), "0 s");
    ASSERT_STREQ(FORMAT_DURATION(250), "250 us");
    ASSERT_STREQ(FORMAT_DURATION(300 * USEC_PER_MSEC), "300 ms");
    ASSERT_STREQ(FORMAT_DURATION(27 * USEC_PER_SEC), "27 s");
    ASSERT_STREQ(FORMAT_DURATION(200 * USEC_PER_SEC), "3 min 20 s");
    ASSERT_STREQ(FORMAT_DURATION(7500 * USEC_PER_SEC), "2 h 5 min");
    ASSERT_STREQ(FORMAT_DURATION(100 * 3600 * USEC_PER_SEC), "4 d 4 h");
    ASSERT_STREQ(FORMAT_DURATION(UINT64_MAX), "213503982 d 8 h");
}
