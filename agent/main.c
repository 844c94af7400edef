/* SPDX-License-Identifier: Apache-2.0 */
/* main: modelcached, the node's cache of OCI model artifacts. */
#include "agent/agent.h"
#include "agent/metrics.h"
#include "agent/options.h"
#include "agent/pull_options.h"
#include "base/log.h"
#include "base/version.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define EXIT_USAGE 2

/* A daemon that idles for weeks beside other people's workloads: few arenas, and memory goes back
 * (see trim.h); without fast bins, because what malloc_trim() joins out of these to the end of an
 * arena stays.  Of OpenSSL the daemon needs SHA-256 and PBKDF2: its configuration and its texts,
 * 0.6 MiB, are not loaded. */
static void keep_small(void) {
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_LOAD_CRYPTO_STRINGS,
                              NULL); /* what fails here fails again where it is used */
    (void)mallopt(M_ARENA_MAX, 2);
    (void)mallopt(M_MXFAST, 0);
    (void)mallopt(M_TRIM_THRESHOLD, (int)KiB(256));
    (void)mallopt(M_MMAP_THRESHOLD, (int)KiB(256));
}

/* Secrets of pods are in memory while their artifacts are pulled: no core dumps, neither to a file
 * nor to a program of core(5), which the limit alone does not keep away.  Workers inherit it. */
static void keep_secret(void) {
    const struct rlimit none = { 0, 0 };

    (void)setrlimit(RLIMIT_CORE, &none); /* neither of the two can fail with these values */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int load(Config **ret, const Options *options) {
    Err err = { "" };
    int r = config_load(ret, &options->sources, &err);

    if (r < 0)
        (void)fprintf(stderr, "modelcached: %s\n", err_text(&err, r));
    return r;
}

static int run(const Options *options) {
    _cleanup_(agent_freep) Agent *agent = NULL;
    Config *config;
    Err err = { "" };
    int r;

    if (load(&config, options) < 0)
        return EXIT_USAGE;
    r = agent_new(&agent, config, &options->sources, &err);
    if (r >= 0)
        r = agent_run(agent, &err);
    if (r < 0)
        log_error("%s", err_text(&err, r));
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int check(const Options *options) {
    _cleanup_(config_freep) Config *config = NULL;
    _cleanup_(pull_options_unrefp) PullOptions *pull = NULL;
    const char *file = options->sources.file;
    Err err = { "" };
    int r;

    if (load(&config, options) < 0)
        return EXIT_USAGE;
    r = pull_options_new(&pull, config, &err); /* reads the files that it names */
    if (r < 0) {
        (void)fprintf(stderr, "modelcached: %s\n", err_text(&err, r));
        return EXIT_USAGE;
    }
    if (file && access(file, F_OK) < 0)
        (void)printf("%s: there is no such file; ", file);
    else if (file)
        (void)printf("%s: ", file);
    (void)printf("the configuration is right\n");
    return EXIT_SUCCESS;
}

static int act(const Options *options) {
    switch (options->action) {
    case OPTIONS_CHECK_CONFIG:
        return check(options);
    case OPTIONS_HELP:
        options_write_help(stdout);
        return EXIT_SUCCESS;
    case OPTIONS_VERSION:
        (void)printf("modelcached %s\n", MC_VERSION);
        return EXIT_SUCCESS;
    case OPTIONS_PRINT_MARKDOWN:
        config_write_markdown(stdout);
        return EXIT_SUCCESS;
    case OPTIONS_PRINT_MAN:
        config_write_man(stdout);
        return EXIT_SUCCESS;
    case OPTIONS_PRINT_METRICS:
        metrics_write_markdown(stdout);
        return EXIT_SUCCESS;
    default:
        return run(options);
    }
}

int main(int argc, char **argv) {
    Options options;
    Err err = { "" };
    int r = options_parse(&options, argc, argv, &err);

    if (r < 0) {
        (void)fprintf(stderr, "modelcached: %s\n", err_text(&err, r));
        return EXIT_USAGE;
    }
    keep_small();
    keep_secret();
    r = act(&options);
    options_done(&options);
    return r;
}
