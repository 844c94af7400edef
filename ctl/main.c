/* SPDX-License-Identifier: Apache-2.0 */
/* main: cache-ctl, the command line of modelcached on the node. */
#include "base/parse.h"
#include "base/version.h"
#include "ctl/ctl.h"

#include <locale.h>

static const CtlCommand *const commands[] = {
    &ctl_pull,   &ctl_ls,     &ctl_inspect, &ctl_rm,     &ctl_prune,  &ctl_mount,
    &ctl_umount, &ctl_verify, &ctl_status,  &ctl_events, &ctl_health,
};

enum { OPTION_SOCKET = 's', OPTION_OUTPUT = 'o', OPTION_HELP = 'h', OPTION_VERSION = 'V' };

static const struct option global_options[] = {
    { "socket", required_argument, NULL, OPTION_SOCKET },
    { "output", required_argument, NULL, OPTION_OUTPUT },
    { "help", no_argument, NULL, OPTION_HELP },
    { "version", no_argument, NULL, OPTION_VERSION },
    { NULL, 0, NULL, 0 },
};

static const char global_help[] =
    "  -s, --socket PATH        control socket of the daemon (default " CTL_SOCKET_DEFAULT ",\n"
    "                           or $MODELCACHED_SOCKET)\n"
    "  -o, --output table|json  for people (default) or for programs\n"
    "  -h, --help               this text; after a command: that command's\n"
    "      --version            the version\n";

static void print_help(void) {
    printf("cache-ctl drives and explains modelcached, the model cache of this node.\n\n"
           "Usage: cache-ctl [--socket PATH] [--output table|json] COMMAND "
           "[ARGUMENT…]\n\nCommands:\n");
    for (size_t i = 0; i < ELEMENTSOF(commands); i++)
        printf("  %-8s %-24s %s\n", commands[i]->name, commands[i]->arguments,
               commands[i]->summary);
    printf(
        "\nOptions:\n%s\n"
        "First steps:\n"
        "  cache-ctl status                                 is the daemon well, and what is it "
        "doing?\n"
        "  cache-ctl pull registry.example/team/llama:8b    bring an artifact onto this node now\n"
        "  cache-ctl ls                                     what is here, how large, who uses "
        "it?\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 daemon not reachable, 4 not found,\n"
        "5 not allowed, 6 no space, 7 content is not what its digest says.  More: man cache-ctl\n",
        global_help);
}

static void print_command_help(const CtlCommand *c) {
    printf("Usage: cache-ctl %s%s %s\n\n%s\nOptions of every command:\n%s", c->name,
           c->options ? " [OPTION…]" : "", c->arguments, c->help, global_help);
}

static int usage(const char *what, const char *detail) {
    fprintf(stderr, "cache-ctl: %s%s; try: cache-ctl --help\n", what, detail ? detail : "");
    return CTL_EXIT_USAGE;
}

/* Returns -1 to go on, else the exit code. */
static int take_global(Ctl *ctl, int option, const CtlCommand *command) {
    switch (option) {
    case OPTION_SOCKET:
        ctl->socket = optarg;
        return *optarg ? -1 : usage("--socket is an empty path", NULL);
    case OPTION_OUTPUT:
        ctl->json = streq(optarg, "json");
        return ctl->json || streq(optarg, "table")
                   ? -1
                   : usage("--output is table or json, not ", optarg);
    case OPTION_HELP:
        if (command)
            print_command_help(command);
        else
            print_help();
        return CTL_EXIT_DONE;
    case OPTION_VERSION:
        printf("cache-ctl %s\n", MC_VERSION);
        return CTL_EXIT_DONE;
    default: /* getopt_long(3) said what is wrong */
        fprintf(stderr, "try: cache-ctl %s%s--help\n", command ? command->name : "",
                command ? " " : "");
        return CTL_EXIT_USAGE;
    }
}

static const CtlCommand *find_command(const char *name) {
    for (size_t i = 0; i < ELEMENTSOF(commands); i++)
        if (streq(commands[i]->name, name))
            return commands[i];
    return NULL;
}

/* The command's own options and the global ones, which may stand behind the command too. */
static struct option *join_options(const CtlCommand *c) {
    size_t n = 0;
    struct option *all;

    for (const struct option *o = c->options; o && o->name; o++)
        n++;
    all = xnew_n(struct option, n + ELEMENTSOF(global_options));
    for (size_t i = 0; i < n; i++)
        all[i] = c->options[i];
    memcpy(all + n, global_options, sizeof(global_options));
    return all;
}

static int run_command(Ctl *ctl, const CtlCommand *c, int argc, char **argv) {
    _cleanup_free_ struct option *options = join_options(c);
    _cleanup_free_ char *name = xasprintf("cache-ctl %s", c->name);
    int option, n;

    argv[0] = name; /* getopt_long(3) says it */
    optind = 0;     /* getopt_long(3): a new scan */
    while ((option = getopt_long(argc, argv, "s:o:h", options, NULL)) >= 0) {
        int r = option >= 1000 ? c->option(c->arg, option, optarg) : take_global(ctl, option, c);
        if (option >= 1000 ? r != 0 : r >= 0)
            return r;
    }
    n = argc - optind;
    if (n < c->n_arguments_min || n > c->n_arguments_max) {
        fprintf(stderr, "cache-ctl %s: %s; usage: cache-ctl %s %s\n", c->name,
                n < c->n_arguments_min ? "an argument is missing" : "too many arguments", c->name,
                c->arguments);
        return CTL_EXIT_USAGE;
    }
    return (int)c->run(ctl, c->arg, argv + optind, n);
}

int main(int argc, char **argv) {
    const char *socket = getenv("MODELCACHED_SOCKET");
    Ctl ctl = { .socket = isempty(socket) ? CTL_SOCKET_DEFAULT : socket,
                .terminal = isatty(STDOUT_FILENO) == 1 };
    const CtlCommand *command;
    int option, r;

    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* only widths of columns depend on it */
    while ((option = getopt_long(argc, argv, "+s:o:h", global_options, NULL)) >= 0) {
        r = take_global(&ctl, option, NULL);
        if (r >= 0)
            return r;
    }
    if (optind >= argc)
        return usage("a command is missing", NULL);
    command = find_command(argv[optind]);
    if (!command)
        return usage("there is no command ", argv[optind]);
    r = run_command(&ctl, command, argc - optind, argv + optind);
    if (fflush(stdout) != 0 && r == CTL_EXIT_DONE) {
        fprintf(stderr, "cache-ctl: write to standard output: %s\n", strerror(errno));
        return CTL_EXIT_FAILED;
    }
    return r;
}
