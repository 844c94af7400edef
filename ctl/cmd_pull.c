/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_pull: cache-ctl pull, brings an artifact onto the node and shows how it goes. */
#include "base/fs.h"
#include "base/limits.h"
#include "base/parse.h"
#include "ctl/artifact.h"
#include "ctl/output.h"
#include "ctl/progress.h"

#include <fcntl.h>

enum {
    OPTION_POLICY = 1000,
    OPTION_PLATFORM,
    OPTION_INCLUDE,
    OPTION_EXCLUDE,
    OPTION_USERNAME,
    OPTION_PASSWORD_STDIN,
    OPTION_BACKGROUND,
    OPTION_QUIET
};

static const struct option options[] = {
    { "policy", required_argument, NULL, OPTION_POLICY },
    { "platform", required_argument, NULL, OPTION_PLATFORM },
    { "include", required_argument, NULL, OPTION_INCLUDE },
    { "exclude", required_argument, NULL, OPTION_EXCLUDE },
    { "username", required_argument, NULL, OPTION_USERNAME },
    { "password-stdin", no_argument, NULL, OPTION_PASSWORD_STDIN },
    { "background", no_argument, NULL, OPTION_BACKGROUND },
    { "quiet", no_argument, NULL, OPTION_QUIET },
    { NULL, 0, NULL, 0 },
};

typedef struct PullArguments {
    char *policy, *platform, *include, *exclude, *username; /* borrowed from argv */
    bool password_stdin, background, quiet;
} PullArguments;

typedef struct PullView {
    const Ctl *ctl;
    bool quiet;
    Progress progress;
} PullView;

static json_t *layers_json(const Modelcached__Control__PullProgress *p) {
    json_t *layers = json_array();

    for (size_t i = 0; i < p->n_layers; i++) {
        const Modelcached__Control__LayerStatus *l = p->layers[i];
        (void)json_array_append_new(
            layers, json_pack("{s:o,s:o,s:I,s:I,s:b,s:b}", "digest", output_json_string(l->digest),
                              "path", output_json_string(l->path), "bytes_done",
                              (json_int_t)l->bytes_done, "bytes_total", (json_int_t)l->bytes_total,
                              "cached", l->cached, "done", l->done));
    }
    return layers;
}

static json_t *pull_json(const Modelcached__Control__PullProgress *p) {
    return json_pack(
        "{s:s,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:o,s:I,s:b,s:o,s:o}", "state",
        pull_state_name(p->state), "reference", output_json_string(p->reference), "digest",
        output_json_string(p->digest), "bytes_done", (json_int_t)p->bytes_done, "bytes_total",
        (json_int_t)p->bytes_total, "bytes_cached", (json_int_t)p->bytes_cached, "layers_done",
        (json_int_t)p->layers_done, "layers_total", (json_int_t)p->layers_total, "rate",
        (json_int_t)p->rate, "elapsed_seconds", (double)p->elapsed_usec / (double)USEC_PER_SEC,
        "waiting", output_json_string(p->waiting), "bytes_resumed", (json_int_t)p->bytes_resumed,
        "background", p->background, "id", output_json_string(p->id), "layers", layers_json(p));
}

static void show_done(PullView *v, const Modelcached__Control__PullProgress *p) {
    _cleanup_free_ char *reference = output_clean(p->reference);

    progress_end(&v->progress);
    if (v->quiet)
        printf("%s\n", p->digest);
    else if (p->bytes_done == 0)
        printf("%s is here: %s (%s, nothing to fetch)\n", reference, p->digest,
               FORMAT_BYTES(p->bytes_cached));
    else
        printf("%s is here: %s (%s fetched, %s were here already, %s)\n", reference, p->digest,
               FORMAT_BYTES(p->bytes_done - MIN(p->bytes_resumed, p->bytes_done)),
               FORMAT_BYTES(p->bytes_cached + p->bytes_resumed), FORMAT_DURATION(p->elapsed_usec));
}

static void show(PullView *v, const Modelcached__Control__PullProgress *p) {
    ProgressStep step = { pull_state_name(p->state), p->bytes_done, p->bytes_total, p->rate,
                          p->waiting };

    if (v->ctl->json)
        output_json(pull_json(p), true);
    else if (p->state == MODELCACHED__CONTROL__PULL_STATE__PULL_DONE)
        show_done(v, p);
    else if (!v->quiet)
        progress_show(&v->progress, &step);
}

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    Modelcached__Control__PullProgress *p = CTL_UNPACK(pull_progress, message, n);

    if (!p)
        return ctl_not_understood();
    show(arg, p);
    modelcached__control__pull_progress__free_unpacked(p, NULL);
    return CTL_EXIT_DONE;
}

static void on_end(void *arg) {
    PullView *v = arg;

    progress_end(&v->progress);
}

static int take_option(void *arg, int val, const char *value) {
    PullArguments *a = arg;

    switch (val) {
    case OPTION_POLICY:
        a->policy = (char *)value;
        return 0;
    case OPTION_PLATFORM:
        a->platform = (char *)value;
        return 0;
    case OPTION_INCLUDE:
        a->include = (char *)value;
        return 0;
    case OPTION_EXCLUDE:
        a->exclude = (char *)value;
        return 0;
    case OPTION_USERNAME:
        a->username = (char *)value;
        return 0;
    case OPTION_PASSWORD_STDIN:
        a->password_stdin = true;
        return 0;
    case OPTION_BACKGROUND:
        a->background = true;
        return 0;
    default:
        a->quiet = true;
        return 0;
    }
}

/* One line of standard input; a password on the command line could be read by every process of the
 * node. */
static CtlExit read_password(char **ret) {
    size_t alloc = 0;
    ssize_t n = getline(ret, &alloc, stdin);

    if (n <= 0) {
        fprintf(stderr, "cache-ctl pull: --password-stdin: standard input holds no password\n");
        return CTL_EXIT_USAGE;
    }
    (*ret)[strcspn(*ret, "\r\n")] = '\0';
    return CTL_EXIT_DONE;
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    PullArguments *a = arg;
    Modelcached__Control__PullRequest request = MODELCACHED__CONTROL__PULL_REQUEST__INIT;
    PullView view = { .ctl = ctl,
                      .quiet = a->quiet,
                      .progress = { .terminal = ctl->terminal, .last_decile = -1 } };
    _cleanup_free_ char *password = NULL;
    CtlExit exit;
    CtlCall call = { "Pull",
                     &request.base,
                     on_message,
                     on_end,
                     "the pull goes on in the daemon; the same command watches it again",
                     &view };

    (void)n;
    if (!a->username != !a->password_stdin) {
        fprintf(stderr, "cache-ctl pull: --username and --password-stdin go together\n");
        return CTL_EXIT_USAGE;
    }
    request.reference = arguments[0];
    request.background = a->background;
    request.policy = a->policy ? a->policy : request.policy;
    request.platform = a->platform ? a->platform : request.platform;
    request.include = a->include ? a->include : request.include;
    request.exclude = a->exclude ? a->exclude : request.exclude;
    if (a->username) {
        exit = read_password(&password);
        if (exit != CTL_EXIT_DONE)
            return exit;
        request.username = a->username;
        request.password = password;
    }
    exit = ctl_call(ctl, &call);
    if (password)
        explicit_bzero(password, strlen(password));
    return exit;
}

static PullArguments pull_arguments;

const CtlCommand ctl_pull = {
    .name = "pull",
    .arguments = "REFERENCE",
    .summary = "bring an artifact onto this node",
    .help =
        "Pulls an OCI artifact into the cache and shows how it goes. The pull belongs to the "
        "daemon: it goes on when\n"
        "this command is interrupted, and pods that want the same artifact join it.\n\n"
        "  cache-ctl pull registry.example/team/llama:8b\n"
        "  cache-ctl pull --policy Always registry.example/team/llama:latest\n\n"
        "Options of pull:\n"
        "      --policy POLICY          Always (ask the registry what the tag means now), "
        "IfNotPresent, Never;\n"
        "                               default as in Kubernetes: Always for :latest, else "
        "IfNotPresent\n"
        "      --platform OS/ARCH       what to take from an index (default: the node's)\n"
        "      --include PATTERNS       only these files: patterns with commas between; \"*.json\" "
        "in any directory,\n"
        "                               \"a/*\" and \"/*.json\" from the root of the artifact; "
        "\"**\" is any directories\n"
        "      --exclude PATTERNS       without these; what is left out and is a layer of its own "
        "is not fetched\n"
        "      --username NAME          with --password-stdin: who asks; default: the node's "
        "credentials\n"
        "      --password-stdin         read the password from standard input\n"
        "      --background             nobody waits for it: pulls that pods wait for go first;\n"
        "                               asking again without it lifts it\n"
        "      --quiet                  print only the digest, at the end\n",
    .options = options,
    .n_arguments_min = 1,
    .n_arguments_max = 1,
    .option = take_option,
    .run = run,
    .arg = &pull_arguments,
};
