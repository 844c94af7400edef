/* SPDX-License-Identifier: Apache-2.0 */
/* worker_spawn: starts the process of a worker with exactly the descriptors and variables it may
 * have. */
#include "agent/worker_spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

enum {
    WORKER_SOCKET_FD = 3,
    WORKER_INGEST_FD = 4,
    WORKER_FD_END = 5,
    FD_ABOVE =
        16, /* copies of what is handed over start here, so that no dup2() hits one of them */
};

/* What libcurl reads (curl(1), ENVIRONMENT); everything else of ours is none of the worker's
 * business. */
static const char *const passed[] = { "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                      "ALL_PROXY",  "no_proxy",    "NO_PROXY" };

static char **make_environment(void) {
    char **env = xnew_n(char *, ELEMENTSOF(passed) + 1);
    size_t n = 0;

    for (size_t i = 0; i < ELEMENTSOF(passed); i++) {
        const char *value = getenv(passed[i]);
        if (value)
            env[n++] = xasprintf("%s=%s", passed[i], value);
    }
    return env;
}

static void free_environment(char ***env) {
    for (char **p = *env; *p; p++)
        free(*p);
    free(*env);
}

static int add_actions(posix_spawn_file_actions_t *actions, const int fds[static 3]) {
    int r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, fds[2], STDOUT_FILENO);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, fds[2], STDERR_FILENO);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, fds[0], WORKER_SOCKET_FD);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, fds[1], WORKER_INGEST_FD);
    if (r == 0)
        r = posix_spawn_file_actions_addclosefrom_np(actions, WORKER_FD_END);
    return r;
}

/* Default signals, none blocked, a process group of its own: ^C on our terminal is for us. */
static int set_attributes(posix_spawnattr_t *attributes) {
    sigset_t none, all;
    int r;

    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    r = posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                 POSIX_SPAWN_SETPGROUP);
    if (r == 0)
        r = posix_spawnattr_setsigmask(attributes, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(attributes, &all);
    return r;
}

static int spawn(pid_t *ret, const char *program, const int fds[static 3]) {
    _cleanup_(free_environment) char **env = make_environment();
    char *argv[] = { xstrdup(program), NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int r;

    (void)posix_spawn_file_actions_init(&actions); /* both cannot fail in glibc */
    (void)posix_spawnattr_init(&attributes);
    r = add_actions(&actions, fds);
    if (r == 0)
        r = set_attributes(&attributes);
    if (r == 0)
        r = posix_spawn(ret, program, &actions, &attributes, argv, env);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(argv[0]);
    return -r;
}

int worker_spawn(pid_t *ret, const SpawnOptions *options, Err *err) {
    const int given[] = { options->socket_fd, options->ingest_fd, options->stderr_fd };
    int fds[] = { -EBADF, -EBADF, -EBADF };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ELEMENTSOF(fds); i++) {
        fds[i] = fcntl(given[i], F_DUPFD_CLOEXEC, FD_ABOVE);
        if (fds[i] < 0)
            r = err_errno(err, "cannot start %s", options->program);
    }
    if (r == 0) {
        r = spawn(ret, options->program, fds);
        if (r < 0)
            r = err_errnum(err, r,
                           "cannot start the pull worker %s; is modelcached installed completely?",
                           options->program);
    }
    for (size_t i = 0; i < ELEMENTSOF(fds); i++)
        safe_close(fds[i]);
    return r;
}
