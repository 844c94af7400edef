/* SPDX-License-Identifier: Apache-2.0 */
/* progress: one line that moves on a terminal, one line a step elsewhere; and one for each thing
 * that is waited for. */
#include "ctl/progress.h"

#include "base/parse.h"
#include "ctl/output.h"

#include <sys/ioctl.h>

#define BAR_CELLS_MAX 30
#define TEXT_COLUMNS  60 /* what stands beside the bar */

static int terminal_columns(void) {
    struct winsize size;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* "412.0 MiB/s, 27 s left", as far as it is known. */
static void format_rate(char *buf, size_t n, const ProgressStep *s) {
    uint64_t left = s->total > s->done ? s->total - s->done : 0,
             seconds = s->rate > 0 ? (left + s->rate - 1) / s->rate : 0;

    if (seconds == 0)
        buf[0] = '\0';
    else
        (void)snprintf(buf, n, "%s/s, %s left", FORMAT_BYTES(s->rate),
                       FORMAT_DURATION(seconds * USEC_PER_SEC)); /* cut is fine */
}

static void show_on_terminal(Progress *p, const ProgressStep *s, int percent) {
    int cells = MAX(0, MIN(BAR_CELLS_MAX, terminal_columns() - TEXT_COLUMNS));
    char rate[96];

    format_rate(rate, sizeof(rate), s);
    printf("\r\033[K%-10s ", s->state);
    if (s->total > 0) {
        printf("[");
        for (int i = 0; i < cells; i++)
            (void)fputs(i < cells * percent / 100 ? "#" : ".", stdout);
        printf("] %3d %% of %s  %s", percent, FORMAT_BYTES(s->total), rate);
    }
    p->open = true;
}

static void show_as_line(Progress *p, const ProgressStep *s, int percent) {
    char rate[96];

    if (streq(p->last_state, s->state) && percent / 10 == p->last_decile)
        return;
    format_rate(rate, sizeof(rate), s);
    if (s->total > 0)
        printf("%s: %d %% (%s of %s)%s%s\n", s->state, percent, FORMAT_BYTES(s->done),
               FORMAT_BYTES(s->total), rate[0] ? ", " : "", rate);
    else
        printf("%s\n", s->state);
    p->last_decile = percent / 10;
    (void)snprintf(p->last_state, sizeof(p->last_state), "%s", s->state); /* names are short */
}

/* A line of its own, on a terminal above the one that moves; each is said once. */
static void show_note(Progress *p, const ProgressStep *s) {
    _cleanup_free_ char *note = output_clean(s->note ? s->note : "");

    if (!isempty(note) && !streq(p->last_note, note))
        printf("%s%s: %s\n", p->terminal ? "\r\033[K" : "", s->state, note);
    (void)snprintf(p->last_note, sizeof(p->last_note), "%s", note); /* as long as the daemon's */
}

void progress_show(Progress *p, const ProgressStep *step) {
    int percent = step->total > 0
                      ? (int)((double)MIN(step->done, step->total) * 100 / (double)step->total)
                      : 0;

    if (!p->terminal)
        show_as_line(p, step, percent);
    show_note(p, step);
    if (p->terminal)
        show_on_terminal(p, step, percent);
    (void)fflush(stdout); /* main() looks at it at the end */
}

void progress_end(Progress *p) {
    if (p->open)
        printf("\r\033[K");
    p->open = false;
}
