/* SPDX-License-Identifier: Apache-2.0 */
/* test_output: tables and JSON of cache-ctl, as they stand on standard output. */
#include "base/loop.h"
#include "ctl/output.h"
#include "tests/unit/test.h"

#include <fcntl.h>

/* What `print` writes to standard output.  The caller frees. */
static char *captured(void (*print)(void)) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "out");
    int saved = dup(STDOUT_FILENO), fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    char *text = xnew_n(char, 4096);

    ASSERT_OK(saved);
    ASSERT_OK(fd);
    (void)fflush(stdout);
    ASSERT_OK(dup2(fd, STDOUT_FILENO));
    print();
    (void)fflush(stdout);
    ASSERT_OK(dup2(saved, STDOUT_FILENO));
    ASSERT_OK(pread(fd, text, 4095, 0));
    (void)close(saved);
    (void)close(fd);
    return text;
}

static void print_table(void) {
    static const char *const columns[] = { "NAME", ">SIZE", "NOTE", NULL };
    OutputTable *t = output_table_new(columns);
    char *first[] = { xstrdup("a"), xstrdup("1"), xstrdup("x") };
    char *second[] = { xstrdup("größer"), xstrdup("1000"), xstrdup("\033[31mred\xc2\x9b\n") };

    output_table_row(t, first);
    output_table_row(t, second);
    output_table_print(t);
}

TEST(output_table_aligns_columns_and_disarms_control_characters) {
    _cleanup_free_ char *text = NULL;

    text = captured(print_table);
    ASSERT_STRSTR(text, "SIZE  NOTE\n");
    ASSERT_STRSTR(text, "   1  x\n");
    ASSERT_STRSTR(text, "1000  ?[31mred??\n");
    ASSERT_TRUE(!strchr(text, '\033'));
}

static void print_lists(void) {
    for (int n = 0; n <= 2; n++) {
        output_json_begin(json_pack("{s:i,s:[i]}", "a", 1, "b", 2), "list");
        for (int i = 0; i < n; i++)
            output_json_item(json_pack("{s:i}", "n", i), i == 0);
        output_json_end(n == 0);
    }
}

TEST(output_json_prints_a_document_with_a_long_list) {
    _cleanup_free_ char *text = captured(print_lists);
    size_t at = 0;

    for (size_t n = 0; n <= 2; n++) {
        json_error_t error;
        json_t *document = json_loads(text + at, JSON_DISABLE_EOF_CHECK, &error), *list;

        ASSERT_TRUE(document);
        at += (size_t)error.position;
        list = json_object_get(document, "list");
        ASSERT_EQ(json_array_size(list), n);
        for (size_t i = 0; i < n; i++)
            ASSERT_EQ(json_integer_value(json_object_get(json_array_get(list, i), "n")), i);
        ASSERT_EQ(json_integer_value(json_object_get(document, "a")), 1);
        json_decref(document);
    }
    ASSERT_STREQ(text + at, "\n");
}

static void print_json(void) {
    char *strings[] = { (char *)"a\"b", (char *)"\xff" };

    output_json(json_pack("{s:o,s:o,s:o,s:o}", "strings", output_json_strings(strings, 2), "none",
                          output_json_string(NULL), "never", output_json_time(0), "then",
                          output_json_time(1700000000000001)),
                true);
}

TEST(output_json_is_one_line_with_nulls_for_what_is_not_known) {
    _cleanup_free_ char *text = captured(print_json);
    _cleanup_json_ json_t *document = NULL;
    Err err = { "" };

    ASSERT_EQ(strchr(text, '\n') - text, strlen(text) - 1);
    ASSERT_OK(json_parse(text, strlen(text) - 1, "output", &document, &err));
    ASSERT_STREQ(json_string_value(json_object_get(document, "then")),
                 "2023-11-14T22:13:20.000001Z");
    ASSERT_TRUE(json_is_null(json_object_get(document, "none")));
    ASSERT_TRUE(json_is_null(json_object_get(document, "never")));
    ASSERT_TRUE(json_is_null(json_array_get(json_object_get(document, "strings"), 1)));
}

TEST(output_ago_grows_coarser) {
    static const struct {
        int64_t seconds;
        const char *want;
    } cases[] = {
        { 0, "just now" },       { 30, "30 s ago" },       { 600, "10 min ago" },
        { 3 * 3600, "3 h ago" }, { 5 * 86400, "5 d ago" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        int64_t then = (int64_t)now_realtime_usec() - cases[i].seconds * (int64_t)USEC_PER_SEC;
        _cleanup_free_ char *got = output_ago(then);
        ASSERT_STREQ(got, cases[i].want);
    }
    {
        _cleanup_free_ char *never = output_ago(0);
        ASSERT_STREQ(never, "never");
    }
}

TEST(output_digest_is_short_unless_asked) {
    const char *digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    _cleanup_free_ char *cut = output_digest(digest, false), *full = output_digest(digest, true);
    _cleanup_free_ char *none = output_digest(NULL, false);

    ASSERT_STREQ(cut, "0123456789ab");
    ASSERT_STREQ(full, digest);
    ASSERT_STREQ(none, "");
}
