/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/filter: patterns and what they mean. */
#include "base/limits.h"
#include "cache/filter.h"
#include "tests/unit/test.h"

static bool keeps(const char *include, const char *exclude, const char *path) {
    _cleanup_(filter_freep) Filter *f = NULL;
    uint64_t steps = 1000;
    Err err = { "" };

    ASSERT_OK(filter_parse(&f, include, exclude, &err));
    return filter_keeps(f, path, &steps);
}

TEST(filter_patterns_table) {
    static const struct {
        const char *include, *path;
        bool want;
    } cases[] = {
        { "*.json", "config.json", true },
        { "*.json", "a/b/config.json", true },
        { "*.json", "config.jsonl", false },
        { "/*.json", "config.json", true },
        { "/*.json", "a/config.json", false },
        { "a/*.json", "a/config.json", true },
        { "a/*.json", "b/a/config.json", false },
        { "a/*.json", "a/b/config.json", false },
        { "**/a/*.json", "b/a/config.json", true },
        { "**/a/*.json", "a/config.json", true },
        { "a/**/z", "a/z", true },
        { "a/**/z", "a/b/c/z", true },
        { "a/**/z", "a/b/c/zz", false },
        { "a/**/b/**/c", "a/b/b/x/c", true },
        { "a/**/b/**/c", "a/x/c", false },
        { "**/a/b", "a/a/b", true },
        { "a", "a/b/c", true },
        { "a/", "x/a/c", true },
        { "/a", "x/a/c", false },
        { "a/**", "a/b/c", true },
        { "a/*", "a/b/c", true },
        { "a/b/c", "a/b", false },
        { "?.bin", "a.bin", true },
        { "?.bin", "\xc3\xa9.bin", true },
        { "?.bin", "ab.bin", false },
        { "*a*b*c", "xxaxxbxxbxxc", true },
        { "*a*b*c", "xxaxxbxxcx", false },
        { "*ab", "aab", true },
        { "model-*-of-*.safetensors", "model-00001-of-00002.safetensors", true },
        { ".*", ".gitattributes", true },
        { "*", ".gitattributes", true },
        { "**", "a/b", true },
        { " a.txt ,\n\tb.txt\n", "b.txt", true },
        { " a.txt ,\n\tb.txt\n", "a.txt", true },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        if (keeps(cases[i].include, NULL, cases[i].path) != cases[i].want ||
            (!streq(cases[i].include, "*") && !streq(cases[i].include, "**") &&
             keeps(NULL, cases[i].include, cases[i].path) == cases[i].want))
            test_fail(__FILE__, __LINE__, "%s and %s", cases[i].include, cases[i].path);
}

TEST(filter_exclude_wins) {
    ASSERT_TRUE(keeps("*.safetensors", "original", "a.safetensors"));
    ASSERT_TRUE(!keeps("*.safetensors", "original", "original/a.safetensors"));
    ASSERT_TRUE(!keeps("*.safetensors", "original", "b.json"));
    ASSERT_TRUE(!keeps(NULL, "*", "b.json"));
}

TEST(filter_equal_lists_have_one_form) {
    static const struct {
        const char *include, *exclude, *text;
    } cases[] = {
        { NULL, NULL, "" },
        { "", " ,\n", "" },
        { "*", NULL, "" },
        { "a,**", NULL, "" },
        { "b,a", NULL, "include=a,b\nexclude=" },
        { "a\nb\na,\n", "", "include=a,b\nexclude=" },
        { "**/a,b/", "/c/d,/e", "include=a,b\nexclude=/e,c/d" },
        { "/**/a,**/**/a/b,/**/**/c", NULL, "include=**/a/b,a,c\nexclude=" },
        { "/**", NULL, "" },
        { NULL, "*", "include=\nexclude=*" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(filter_freep) Filter *f = NULL, *again = NULL, *copy = NULL;
        _cleanup_free_ char *text = NULL, *second = NULL, *third = NULL;
        Err err = { "" };

        ASSERT_OK(filter_parse(&f, cases[i].include, cases[i].exclude, &err));
        text = filter_text(f);
        ASSERT_STREQ(text, cases[i].text);
        ASSERT_OK(filter_from_text(&again, text, &err));
        second = filter_text(again);
        ASSERT_STREQ(second, text);
        copy = filter_copy(f);
        third = filter_text(copy);
        ASSERT_STREQ(third, text);
    }
}

TEST(filter_keys_differ) {
    _cleanup_(filter_freep) Filter *a = NULL, *b = NULL;
    Digest m = { { 1 } }, n = { { 2 } }, keys[4];
    Err err = { "" };

    ASSERT_OK(filter_parse(&a, "a", NULL, &err));
    ASSERT_OK(filter_parse(&b, NULL, "a", &err));
    filter_key(NULL, &m, &keys[0]);
    ASSERT_TRUE(digest_equal(&keys[0], &m));
    filter_key(a, &m, &keys[1]);
    filter_key(b, &m, &keys[2]);
    filter_key(a, &n, &keys[3]);
    for (size_t i = 0; i < ELEMENTSOF(keys); i++)
        for (size_t k = 0; k < i; k++)
            ASSERT_TRUE(!digest_equal(&keys[i], &keys[k]));
}

TEST(filter_bad_patterns) {
    static const struct {
        const char *list, *text;
    } cases[] = {
        { "a[bc]", "'['" },  { "!a", "'!'" },     { "{a,b}", "'{'" },      { "a\\b", "'\\'" },
        { "a//b", "empty" }, { "/", "empty" },    { "../a", "\"..\"" },    { "a/./b", "\".\"" },
        { "a**", "\"**\"" }, { "***", "\"**\"" }, { "a\001b", "control" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        for (int exclude = 0; exclude < 2; exclude++) {
            _cleanup_(filter_freep) Filter *f = NULL;
            Err err = { "" };

            ASSERT_ERR(filter_parse(&f, exclude ? NULL : cases[i].list,
                                    exclude ? cases[i].list : NULL, &err),
                       -EINVAL);
            ASSERT_STRSTR(err.text, cases[i].text);
            ASSERT_STRSTR(err.text, exclude ? "exclude" : "include");
        }
}

TEST(filter_caps) {
    char many[1024] = "", *long_one = xcalloc(1, LIMIT_FILTER_BYTES + 2);
    _cleanup_(filter_freep) Filter *f = NULL;
    Err err = { "" };

    for (int i = 0; i <= LIMIT_FILTER_PATTERNS; i++)
        (void)snprintf(many + strlen(many), sizeof(many) - strlen(many), "p%d,", i);
    ASSERT_ERR(filter_parse(&f, many, NULL, &err), -EINVAL);
    ASSERT_STRSTR(err.text, "64 patterns");
    memset(long_one, 'a', LIMIT_FILTER_BYTES + 1);
    ASSERT_ERR(filter_parse(&f, NULL, long_one, &err), -EINVAL);
    ASSERT_STRSTR(err.text, "4096 bytes");
    free(long_one);
    ASSERT_ERR(filter_from_text(&f, "include=a", &err), -EINVAL);
}

/* What would take hours ends when the steps are spent. */
TEST(filter_counts_what_it_costs) {
    char path[LIMIT_NAME_BYTES + 1] = "";
    _cleanup_(filter_freep) Filter *f = NULL;
    uint64_t steps = 100000;
    Err err = { "" };

    memset(path, 'a', LIMIT_NAME_BYTES);
    ASSERT_OK(filter_parse(&f, "*aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", NULL, &err));
    for (int i = 0; i < 1000; i++)
        ASSERT_TRUE(!filter_keeps(f, path, &steps));
    ASSERT_EQ(steps, 0);
    ASSERT_ERR(filter_check_steps(steps, &err), -E2BIG);
    ASSERT_OK(filter_check_steps(1, &err));
}
