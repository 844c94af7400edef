/* SPDX-License-Identifier: Apache-2.0 */
/* log: one line an event, with fields; to the journal, a terminal, or as JSON lines. */
#include "base/log.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

#define LOG_FIELDS_MAX  16
#define LOG_MESSAGE_MAX 2048

/* Where a process logs to is process-wide by nature; the two settings are the only state here. */
static atomic_int log_level_now = LOG_INFO;
static atomic_int log_format_now = LOG_FORMAT_AUTO;

static const struct {
    LogLevel level;
    const char *name;
} levels[] = {
    { LOG_ERROR, "error" }, { LOG_WARN, "warn" }, { LOG_INFO, "info" }, { LOG_DEBUG, "debug" }
};

static const char *const formats[] = {
    [LOG_FORMAT_AUTO] = "auto",
    [LOG_FORMAT_TEXT] = "text",
    [LOG_FORMAT_JSON] = "json",
    [LOG_FORMAT_JOURNAL] = "journal",
};

void log_set_level(LogLevel level) {
    log_level_now = level;
}

bool log_enabled(LogLevel level) {
    return (int)level <= log_level_now;
}

int log_level_parse(LogLevel *ret, const char *name) {
    for (size_t i = 0; i < ELEMENTSOF(levels); i++)
        if (streq(levels[i].name, name)) {
            *ret = levels[i].level;
            return 0;
        }
    return -EINVAL;
}

int log_format_parse(LogFormat *ret, const char *name) {
    for (size_t i = 0; i < ELEMENTSOF(formats); i++)
        if (streq(formats[i], name)) {
            *ret = (LogFormat)i;
            return 0;
        }
    return -EINVAL;
}

static const char *level_name(LogLevel level) {
    for (size_t i = 0; i < ELEMENTSOF(levels); i++)
        if (levels[i].level == level)
            return levels[i].name;
    return "info";
}

/* systemd.exec(5): JOURNAL_STREAM holds "device:inode" of the stream that stderr was connected to.
 */
static bool stderr_is_journal(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    unsigned long long dev, ino;

    return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void log_set_format(LogFormat format) {
    if (format == LOG_FORMAT_AUTO)
        format = stderr_is_journal()     ? LOG_FORMAT_JOURNAL
                 : isatty(STDERR_FILENO) ? LOG_FORMAT_TEXT
                                         : LOG_FORMAT_JSON;
    log_format_now = (int)format;
}

/* Length of the well-formed UTF-8 character at `s` (RFC 3629), 0 when there is none. */
static size_t utf8_length(const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
               : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
                                             : 4;

    if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++) /* a NUL ends it too */
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || /* overlong; surrogates */
        (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f)) /* overlong; above U+10FFFF */
        return 0;
    return n;
}

/* U+0000 to U+001F, U+007F, U+0080 to U+009F: what a terminal may obey. */
static bool is_control(const char *s) {
    unsigned char c = (unsigned char)s[0];

    return c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)s[1] < 0xa0);
}

static void json_string(FILE *f, const char *s) {
    (void)fputc('"', f);
    while (*s) {
        size_t n = utf8_length(s);
        if (n == 0)
            (void)fputs("\\ufffd", f);
        else if (is_control(s))
            (void)fprintf(f, "\\u%04x", n == 2 ? (unsigned char)s[1] : (unsigned char)s[0]);
        else
            (void)fprintf(f, "%s%.*s", *s == '"' || *s == '\\' ? "\\" : "", (int)n, s);
        s += MAX(n, (size_t)1);
    }
    (void)fputc('"', f);
}

/* A terminal must not obey what a registry said. */
static void text_string(FILE *f, const char *s) {
    while (*s) {
        size_t n = utf8_length(s);
        if (n == 0 || is_control(s))
            (void)fputc(n == 0 ? '?' : ' ', f);
        else
            (void)fprintf(f, "%.*s", (int)n, s);
        s += MAX(n, (size_t)1);
    }
}

static void format_json(FILE *f, LogLevel level, const char *message, const LogField *fields) {
    char when[32];
    struct timespec ts;
    struct tm tm;

    (void)clock_gettime(CLOCK_REALTIME, &ts); /* cannot fail for this clock */
    (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", gmtime_r(&ts.tv_sec, &tm));
    (void)fprintf(f, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"msg\":", when,
                  ts.tv_nsec / 1000000, level_name(level));
    json_string(f, message);
    for (; fields && fields->key; fields++)
        if (fields->value) {
            (void)fprintf(f, ",\"%s\":", fields->key);
            json_string(f, fields->value);
        }
    (void)fputs("}\n", f);
}

static void format_text(FILE *f, LogLevel level, const char *message, const LogField *fields) {
    if (log_format_now == LOG_FORMAT_LEVELS)
        (void)fprintf(f, "<%d>", (int)level);
    else if (level != LOG_INFO)
        (void)fprintf(f, "%s: ", level_name(level));
    text_string(f, message);
    for (; fields && fields->key; fields++)
        if (fields->value) {
            (void)fprintf(f, " %s=", fields->key);
            text_string(f, fields->value);
        }
    (void)fputc('\n', f);
}

static void write_journal(LogLevel level, const char *message, const LogField *fields) {
    struct iovec iov[LOG_FIELDS_MAX + 2];
    char *text[LOG_FIELDS_MAX + 2];
    int n = 0;

    text[n++] = xasprintf("MESSAGE=%s", message);
    text[n++] = xasprintf("PRIORITY=%d", (int)level);
    for (; fields && fields->key && n < (int)ELEMENTSOF(iov); fields++)
        if (fields->value) {
            char *s = text[n++] = xasprintf("%s=%s", fields->key, fields->value);
            for (; *s != '='; s++)
                *s = (char)toupper((unsigned char)*s);
        }
    for (int i = 0; i < n; i++)
        iov[i] = (struct iovec){ text[i], strlen(text[i]) };
    (void)sd_journal_sendv(iov, n); /* a journal that is gone cannot be reported to the journal */
    for (int i = 0; i < n; i++)
        free(text[i]);
}

void log_write(LogLevel level, const LogField *fields, const char *format, ...) {
    char message[LOG_MESSAGE_MAX];
    _cleanup_free_ char *line = NULL;
    size_t size = 0;
    int saved = errno;
    va_list ap;
    FILE *f;

    if (!log_enabled(level))
        return;
    if (log_format_now == LOG_FORMAT_AUTO)
        log_set_format(LOG_FORMAT_AUTO);
    va_start(ap, format);
    (void)vsnprintf(message, sizeof(message), format, ap); /* a message that is too long is cut */
    va_end(ap);
    if (log_format_now == LOG_FORMAT_JOURNAL)
        write_journal(level, message, fields);
    else if ((f = open_memstream(&line, &size))) {
        if (log_format_now == LOG_FORMAT_JSON)
            format_json(f, level, message, fields);
        else
            format_text(f, level, message, fields);
        (void)fclose(f);
        /* One write, one line; when stderr is gone there is nobody to tell. */
        (void)!write(STDERR_FILENO, line, size);
    }
    errno = saved;
}
