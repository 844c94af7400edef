/* SPDX-License-Identifier: Apache-2.0 */
/* options: the command line of modelcached. */
#include "agent/options.h"

#include <getopt.h>

enum { OPT_CONFIG = 256, OPT_SET, OPT_CHECK, OPT_HELP, OPT_VERSION, OPT_PRINT_DOCS };

/* One line an option: what getopt needs, and what --help says. */
static const struct {
    const char *name, *value;
    int id;
    const char *help;
} table[] = {
    { "config", "FILE", OPT_CONFIG,
      "read FILE instead of " CONFIG_DEFAULT_FILE " (which may be absent)" },
    { "set", "KEY=VALUE", OPT_SET, "set a key; wins over the file; may be given again" },
    { "check-config", NULL, OPT_CHECK, "read the configuration, say whether it is right, and end" },
    { "print-docs", "FORMAT", OPT_PRINT_DOCS,
      "print the table of keys as \"markdown\" (docs/config.md) or \"man\", or that of \"metrics\" "
      "(docs/metrics.md)" },
    { "help", NULL, OPT_HELP, "print this text" },
    { "version", NULL, OPT_VERSION, "print the version" },
};

void options_write_help(FILE *f) {
    (void)fputs("Usage: modelcached [OPTION]...\n\n"
                "Keeps OCI model artifacts on this node and gives them to pods as read-only "
                "volumes (CSI).\n"
                "Runs in the foreground. SIGHUP rereads the configuration, SIGTERM ends it; mounts "
                "stay.\n\n"
                "Options:\n",
                f);
    for (size_t i = 0; i < ELEMENTSOF(table); i++)
        (void)fprintf(f, "  --%s%s%s\n      %s\n", table[i].name, table[i].value ? " " : "",
                      table[i].value ? table[i].value : "", table[i].help);
    (void)fputs(
        "\nKeys of the configuration (sections are YAML mappings; see modelcached-config(5)):\n",
        f);
    config_write_help(f);
    (void)fputs("\nExamples:\n"
                "  modelcached --check-config\n"
                "  modelcached --set store.path=/srv/models --set log.level=debug\n"
                "  modelcached --set registries.127.0.0.1:5000.plain_http=true\n\n"
                "Exit codes: 0 ended as asked, 1 failed, 2 wrong usage or configuration.\n"
                "Talk to it with cache-ctl(1).\n",
                f);
}

static int set_print_docs(Options *o, const char *format, Err *err) {
    static const struct {
        const char *format;
        OptionsAction action;
    } formats[] = { { "markdown", OPTIONS_PRINT_MARKDOWN },
                    { "man", OPTIONS_PRINT_MAN },
                    { "metrics", OPTIONS_PRINT_METRICS } };

    for (size_t i = 0; i < ELEMENTSOF(formats); i++)
        if (streq(formats[i].format, format)) {
            o->action = formats[i].action;
            return 0;
        }
    return err_set(err, -EINVAL,
                   "--print-docs: \"%.100s\" is unknown, allowed: markdown, man, metrics", format);
}

static int take_option(Options *o, const char **sets, int id, Err *err) {
    switch (id) {
    case OPT_CONFIG:
        o->sources.file = optarg;
        o->sources.file_may_be_absent = false;
        return 0;
    case OPT_SET:
        sets[o->sources.n_sets++] = optarg;
        return 0;
    case OPT_CHECK:
        o->action = OPTIONS_CHECK_CONFIG;
        return 0;
    case OPT_PRINT_DOCS:
        return set_print_docs(o, optarg, err);
    case OPT_HELP:
        o->action = OPTIONS_HELP;
        return 0;
    case OPT_VERSION:
        o->action = OPTIONS_VERSION;
        return 0;
    default:
        return -EINVAL;
    }
}

int options_parse(Options *ret, int argc, char **argv, Err *err) {
    struct option longs[ELEMENTSOF(table) + 1] = { { 0 } };
    const char **sets = xnew_n(const char *, (size_t)argc + 1);
    Options o = { .sources = {
                      .file = CONFIG_DEFAULT_FILE, .file_may_be_absent = true, .sets = sets } };
    int id, r = 0;

    for (size_t i = 0; i < ELEMENTSOF(table); i++)
        longs[i] = (struct option){ table[i].name, table[i].value ? required_argument : no_argument,
                                    NULL, table[i].id };
    optind = 0; /* glibc: start anew */
    opterr = 0;
    while (r >= 0 && (id = getopt_long(argc, argv, ":", longs, NULL)) != -1) {
        if (id == ':')
            r = err_set(err, -EINVAL, "%s needs a value; see modelcached --help", argv[optind - 1]);
        else if (id == '?')
            r = err_set(err, -EINVAL, "%s is not an option; see modelcached --help",
                        argv[optind - 1]);
        else
            r = take_option(&o, sets, id, err);
    }
    if (r >= 0 && optind < argc)
        r = err_set(err, -EINVAL,
                    "\"%.100s\" is too much; modelcached takes options only, see --help",
                    argv[optind]);
    if (r < 0) {
        free(sets);
        return r;
    }
    *ret = o;
    return 0;
}

void options_done(Options *o) {
    free((void *)o->sources.sets);
    o->sources.sets = NULL;
}
