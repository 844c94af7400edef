/* SPDX-License-Identifier: Apache-2.0 */
/* test_clean: UTF-8 and control characters of text from outside. */
#include "agent/clean.h"
#include "tests/unit/test.h"

static const struct {
    const char *text;
    bool valid, clean;
    const char *cleaned;
} cases[] = {
    { "", true, true, "" },
    { "model \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", true, true,
      "model \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80" },
    { "a\nb", true, false, "a?b" },
    { "a\x7f", true, false, "a?" },
    { "\033[31m", true, false, "?[31m" },
    { "a\xc2\x9b"
      "31m",
      true, false, "a?31m" }, /* C1: CSI */
    { "a\xc2\xa0"
      "b",
      true, true,
      "a\xc2\xa0"
      "b" }, /* the first that is none */
    { "\xe2\x80\xa8|\xe2\x80\xae|\xe2\x81\xa6|\xe2\x80\x8f", true, false, "?|?|?|?" },
    { "\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xaa", true, true, "\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\xaa" },
    { "\xff", false, false, "?" },
    { "\x80", false, false, "?" },
    { "\xc0\x80", false, false, "??" },           /* overlong */
    { "\xed\xa0\x80", false, false, "???" },      /* surrogate */
    { "\xf4\x90\x80\x80", false, false, "????" }, /* beyond U+10FFFF */
    { "\xe2\x82", false, false, "??" },           /* cut */
};

TEST(clean_table) {
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_free_ char *cleaned = text_clean(cases[i].text, 100);
        if (utf8_is_valid(cases[i].text) != cases[i].valid ||
            text_is_clean(cases[i].text) != cases[i].clean || !streq(cleaned, cases[i].cleaned))
            test_fail(__FILE__, __LINE__, "case %zu: %s", i, cleaned);
    }
}

TEST(clean_cuts_between_characters) {
    _cleanup_free_ char *a = text_clean("ab\xe2\x82\xac", 4), *b = text_clean("abcdef", 3),
                        *c = text_clean(NULL, 5);

    ASSERT_STREQ(a, "ab");
    ASSERT_STREQ(b, "abc");
    ASSERT_STREQ(c, "");
}
