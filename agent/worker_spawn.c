/* SPDX-License-Identifier: Apache-2.0 */
/* worker_spawn: starts the process of a worker with exactly the descriptors and variables it may
 * have. */
#include "agent/worker_spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>

enum {
    WORKER_SOCKET_FD = 3,
    WORKER_FD_END = 4,
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

static int add_actions(posix_spawn_file_actions_t *actions, int socket_fd, int stderr_fd) {
    int r = posix_spawn_file_actions_addopen(actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);

    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, stderr_fd, STDOUT_FILENO);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, stderr_fd, STDERR_FILENO);
    if (r == 0)
        r = posix_spawn_file_actions_adddup2(actions, socket_fd, WORKER_SOCKET_FD);
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

static int spawn(pid_t *ret, const char *program, int socket_fd, int stderr_fd) {
    _cleanup_(free_environment) char **env = make_environment();
    char *argv[] = { xstrdup(program), NULL };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int r;

    (void)posix_spawn_file_actions_init(&actions); /* both cannot fail in glibc */
    (void)posix_spawnattr_init(&attributes);
    r = add_actions(&actions, socket_fd, stderr_fd);
    if (r == 0)
        r = set_attributes(&attributes);
    if (r == 0)
        r = posix_spawn(ret, program, &actions, &attributes, argv, env);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    free(argv[0]);
    return -r;
}

/* Above all that is to be replaced in the child. */
static int move_up(int *fd) {
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, FD_ABOVE);

    safe_close(*fd);
    *fd = high;
    return high < 0 ? -errno : 0;
}

static int make_ends(WorkerProcess *p, int *ret_socket, int *ret_stderr) {
    int pair[2], ends[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    p->socket_fd = pair[0];
    *ret_socket = pair[1];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    p->messages_fd = ends[0];
    *ret_stderr = ends[1];
    if (fcntl(p->messages_fd, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    r = move_up(ret_socket);
    return r < 0 ? r : move_up(ret_stderr);
}

int worker_spawn(WorkerProcess *ret, const char *program, Err *err) {
    _cleanup_close_ int socket_fd = -EBADF, stderr_fd = -EBADF;
    WorkerProcess p = WORKER_PROCESS_NONE;
    int r = make_ends(&p, &socket_fd, &stderr_fd);

    if (r < 0) {
        r = err_errnum(err, r, "cannot make a socket and a pipe for the pull worker");
    } else {
        r = spawn(&p.pid, program, socket_fd, stderr_fd);
        if (r < 0)
            r = err_errnum(err, r,
                           "cannot start the pull worker %s; is modelcached installed completely?",
                           program);
    }
    if (r < 0) {
        safe_close(p.socket_fd);
        safe_close(p.messages_fd);
        return r;
    }
    *ret = p;
    return 0;
}
