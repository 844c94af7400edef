/* SPDX-License-Identifier: Apache-2.0 */
/* worker_stderr: what a worker writes to stderr, as lines of our log: cleaned, short, and not too
 * many. */
#include "agent/worker_stderr.h"
#include "agent/clean.h"
#include "base/log.h"

#include <sys/epoll.h>

#define LINE_MAX_BYTES 400
#define LINES_MAX      100   /* a report of a sanitizer fits; what is more is dropped */
#define DEBUG_MAX      10000 /* the same, of lines that are only for debugging */

struct WorkerStderr {
    sd_event_source *source;
    int fd;
    char *label, *pull;
    char line[LINE_MAX_BYTES + 1];
    size_t len;
    unsigned n_lines, n_debug;
};

static LogLevel take_level(const char **line) {
    static const LogLevel levels[] = { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

    for (size_t i = 0; i < ELEMENTSOF(levels); i++) {
        const char prefix[] = { '<', (char)('0' + levels[i]), '>', 0 }, *rest;

        rest = startswith(*line, prefix);
        if (rest) {
            *line = rest;
            return levels[i];
        }
    }
    return LOG_WARN;
}

static bool is_too_much(WorkerStderr *e, LogLevel level) {
    return level == LOG_DEBUG ? e->n_debug++ >= DEBUG_MAX : e->n_lines++ >= LINES_MAX;
}

static void say(WorkerStderr *e) {
    _cleanup_free_ char *text = NULL;
    const char *line = e->line;
    LogLevel level;

    e->line[e->len] = 0;
    level = take_level(&line);
    text = text_clean(line, LINE_MAX_BYTES);
    e->len = 0;
    if (*text && !is_too_much(e, level))
        log_write(level, LOG_FIELDS({ "pull", e->pull }, { "reference", e->label }),
                  "pull worker: %s", text);
}

/* Returns false at the end of the pipe or when it is empty for now. */
static bool take_some(WorkerStderr *e) {
    char bytes[1024];
    ssize_t n = read(e->fd, bytes, sizeof(bytes));

    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] != '\n' && bytes[i] != 0)
            e->line[e->len++] = bytes[i];
        if (bytes[i] == '\n' || e->len == LINE_MAX_BYTES)
            say(e);
    }
    return n > 0;
}

static int on_readable(sd_event_source *source, int fd, uint32_t revents, void *arg) {
    (void)fd;
    if (!take_some(arg) && revents & (EPOLLHUP | EPOLLERR))
        (void)sd_event_source_set_enabled(source, SD_EVENT_OFF); /* an end that stays readable */
    return 0;
}

int worker_stderr_new(WorkerStderr **ret, sd_event *event, int fd, const char *label,
                      const char *pull, Err *err) {
    _cleanup_(worker_stderr_freep) WorkerStderr *e = xnew(WorkerStderr);
    int r;

    e->fd = fd;
    e->label = xstrdup(label);
    e->pull = xstrdup(pull);
    r = sd_event_add_io(event, &e->source, fd, EPOLLIN, on_readable, e);
    if (r < 0)
        return err_errnum(err, r, "cannot watch the pull worker's messages");
    *ret = TAKE_PTR(e);
    return 0;
}

WorkerStderr *worker_stderr_free(WorkerStderr *e) {
    if (!e)
        return NULL;
    for (unsigned i = 0; i < LINES_MAX && take_some(e); i++)
        ;
    if (e->len > 0)
        say(e);
    (void)sd_event_source_disable_unref(e->source);
    (void)safe_close(e->fd);
    free(e->label);
    free(e->pull);
    free(e);
    return NULL;
}
