/* SPDX-License-Identifier: Apache-2.0 */
/* options: the command line of modelcached. */
#pragma once

#include "agent/config.h"

typedef enum OptionsAction {
    OPTIONS_RUN,
    OPTIONS_CHECK_CONFIG,
    OPTIONS_HELP,
    OPTIONS_VERSION,
    OPTIONS_PRINT_MARKDOWN, /* --print-docs markdown */
    OPTIONS_PRINT_MAN,      /* --print-docs man */
    OPTIONS_PRINT_METRICS,  /* --print-docs metrics */
} OptionsAction;

typedef struct Options {
    OptionsAction action;
    ConfigSources sources; /* points into argv; `sets` is owned */
} Options;

/* Errors: -EINVAL with a sentence. */
int options_parse(Options *ret, int argc, char **argv, Err *err) _must_check_;
void options_done(Options *o);
void options_write_help(FILE *f);
