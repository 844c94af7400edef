/* SPDX-License-Identifier: Apache-2.0 */
/* log: one line an event, with fields; to the journal, a terminal, or as JSON lines. */
#pragma once

#include "base/err.h"

typedef enum LogLevel {
    LOG_ERROR = 3, /* the numbers are syslog's */
    LOG_WARN = 4,
    LOG_INFO = 6,
    LOG_DEBUG = 7,
} LogLevel;

typedef enum LogFormat {
    LOG_FORMAT_AUTO, /* journal under systemd, text on a terminal, else JSON lines */
    LOG_FORMAT_TEXT,
    LOG_FORMAT_JSON,
    LOG_FORMAT_JOURNAL,
    LOG_FORMAT_LEVELS, /* text after "<6>": for a parent that logs it (sd-daemon(3)); has no name */
} LogFormat;

/* Both may be called again (SIGHUP).  Process-wide, as stderr is. */
void log_set_level(LogLevel level);
void log_set_format(LogFormat format);
int log_level_parse(LogLevel *ret, const char *name)
    _must_check_; /* "error" "warn" "info" "debug"; -EINVAL */
int log_format_parse(LogFormat *ret, const char *name)
    _must_check_; /* "auto" "text" "json" "journal"; -EINVAL */
bool log_enabled(LogLevel level);

/* A field of a log line.  Arrays end with an entry whose key is NULL; an entry whose value is NULL
 * is left out. */
typedef struct LogField {
    const char *key; /* lower case, [a-z_] */
    const char *value;
} LogField;

/* Writes one line.  The message is a sentence for a person; ids go into fields:
 * LOG_FIELDS({"volume", id}, …). */
void log_write(LogLevel level, const LogField *fields, const char *format, ...) _printf_(3, 4);
#define LOG_FIELDS(...)  \
    (const LogField[]) { \
        __VA_ARGS__, {   \
            NULL, NULL   \
        }                \
    }
#define log_error(...) log_write(LOG_ERROR, NULL, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, NULL, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...)                               \
    do {                                             \
        if (log_enabled(LOG_DEBUG))                  \
            log_write(LOG_DEBUG, NULL, __VA_ARGS__); \
    } while (0)
