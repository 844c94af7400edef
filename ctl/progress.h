/* SPDX-License-Identifier: Apache-2.0 */
/* progress: one line that moves on a terminal, one line a step elsewhere; and one for each thing
 * that is waited for. */
#pragma once

#include "ctl/ctl.h"

typedef struct Progress {
    bool terminal;
    bool open;       /* the terminal's line was written and has no newline yet */
    int last_decile; /* without a terminal a step is ten percent */
    char last_state[32];
    char last_note[1024];
} Progress;

typedef struct ProgressStep {
    const char *state;    /* "fetching" */
    uint64_t done, total; /* bytes; total 0: not known */
    uint64_t rate;        /* bytes/s; 0: not known */
    const char *note;     /* what is waited for; may be NULL or empty */
} ProgressStep;

void progress_show(Progress *p, const ProgressStep *step);
/* Ends the terminal's line, if one is open. */
void progress_end(Progress *p);
