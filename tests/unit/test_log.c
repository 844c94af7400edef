/* SPDX-License-Identifier: Apache-2.0 */
/* test_log: the formats, levels, and that nobody outside writes to a terminal through a log line.
 */
#include "base/log.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <jansson.h>

#include "tests/unit/test.h"

/* Runs `write` with stderr going to a file, and gives what was written. */
static char *captured(void (*write_lines)(void)) {
    int saved = dup(STDERR_FILENO), fd = memfd_create("log", MFD_CLOEXEC);
    char *text = xcalloc(8192, 1);

    assert(saved >= 0 && fd >= 0);
    (void)dup2(fd, STDERR_FILENO);
    write_lines();
    (void)dup2(saved, STDERR_FILENO);
    (void)!pread(fd, text, 8191, 0);
    (void)close(fd);
    (void)close(saved);
    return text;
}

static void hostile(void) {
    log_write(LOG_WARN, LOG_FIELDS({ "volume", "v\x1b[31m\n1" }, { "none", NULL }),
              "a\nb\x1b]0;x\x07 \"q\" \xc2\x9b"
              "31m \x7f\xff %d",
              3);
}

TEST(text_has_no_control_characters) {
    _cleanup_free_ char *text = NULL;

    log_set_format(LOG_FORMAT_TEXT);
    text = captured(hostile);
    ASSERT_STRSTR(text, "warn: a b ");
    ASSERT_STRSTR(text, " volume=v [31m 1\n");
    ASSERT_TRUE(!strstr(text, "none="));
    for (const char *s = text; s[1]; s++)
        ASSERT_TRUE((unsigned char)*s >= 0x20 && *s != 0x7f);
    ASSERT_TRUE(!strstr(text, "\xc2\x9b")); /* CSI in one character */
}

TEST(json_is_valid_whatever_was_said) {
    _cleanup_free_ char *text = NULL;
    json_t *line;

    log_set_format(LOG_FORMAT_JSON);
    text = captured(hostile);
    ASSERT_EQ(strchr(text, '\n') - text, strlen(text) - 1);
    line = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    ASSERT_TRUE(line != NULL);
    ASSERT_STREQ(json_string_value(json_object_get(line, "level")), "warn");
    ASSERT_STREQ(json_string_value(json_object_get(line, "volume")), "v\x1b[31m\n1");
    ASSERT_STRSTR(json_string_value(json_object_get(line, "msg")), "a\nb\x1b]0;x");
    ASSERT_TRUE(json_object_get(line, "none") == NULL);
    json_decref(line);
}

static void all_levels(void) {
    log_debug("d");
    log_info("i");
    log_warn("w");
    log_error("e");
}

TEST(levels_below_are_left_out) {
    static const struct {
        LogLevel level;
        const char *want;
    } cases[] = { { LOG_ERROR, "error: e\n" },
                  { LOG_WARN, "warn: w\nerror: e\n" },
                  { LOG_INFO, "i\nwarn: w\nerror: e\n" },
                  { LOG_DEBUG, "debug: d\ni\nwarn: w\nerror: e\n" } };

    log_set_format(LOG_FORMAT_TEXT);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_free_ char *text = NULL;
        log_set_level(cases[i].level);
        text = captured(all_levels);
        ASSERT_STREQ(text, cases[i].want);
    }
    log_set_level(LOG_INFO);
}

TEST(names_are_parsed) {
    LogLevel level;
    LogFormat format;

    ASSERT_OK(log_level_parse(&level, "debug"));
    ASSERT_EQ(level, LOG_DEBUG);
    ASSERT_ERR(log_level_parse(&level, "loud"), -EINVAL);
    ASSERT_OK(log_format_parse(&format, "journal"));
    ASSERT_EQ(format, LOG_FORMAT_JOURNAL);
    ASSERT_ERR(log_format_parse(&format, "xml"), -EINVAL);
}

static void long_message(void) {
    _cleanup_free_ char *s = xcalloc(5001, 1);

    memset(s, 'a', 5000);
    errno = ENOSPC;
    log_info("%s", s);
    assert(errno == ENOSPC);
}

TEST(long_messages_are_cut_and_errno_is_kept) {
    _cleanup_free_ char *text = NULL;

    log_set_format(LOG_FORMAT_TEXT);
    text = captured(long_message);
    ASSERT_TRUE(strlen(text) > 1000 && strlen(text) < 3000);
    ASSERT_TRUE(endswith(text, "a\n") != NULL);
}
