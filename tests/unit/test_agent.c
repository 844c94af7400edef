/* SPDX-License-Identifier: Apache-2.0 */
/* test_agent: the program modelcached: exit codes, one sentence for each start that fails, signals.
 */
#include "tests/unit/store_env.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

typedef struct Daemon {
    TmpDir *dir;
    pid_t pid;
    int out; /* its stdout and stderr */
    char text[8192];
    size_t len;
} Daemon;

static const char *program(void) {
    static char path[4096];
    const char *bin = getenv("MC_BIN");

    (void)snprintf(path, sizeof(path), "%s/modelcached", bin ? bin : ".");
    return access(path, X_OK) == 0 ? path : NULL;
}

/* With a store, sockets and folders in the test's directory; `more` are arguments that come last.
 */
static void start(Daemon *d, TmpDir *dir, const char *const *more) {
    const char *at = tmpdir_path(dir);
    char *argv[32];
    size_t n = 0;
    int pipe_fds[2];

    *d = (Daemon){ .dir = dir };
    ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
    (void)mkdirat(tmpdir_fd(dir), "kubelet", 0755);
    argv[n++] = xstrdup(program());
    argv[n++] = xasprintf("--set=store.path=%s/store", at);
    argv[n++] = xasprintf("--set=control.socket=%s/control.sock", at);
    argv[n++] = xasprintf("--set=csi.endpoint=unix://%s/csi/csi.sock", at);
    argv[n++] = xasprintf("--set=csi.kubelet_dir=%s/kubelet", at);
    argv[n++] = xstrdup("--set=csi.registration_dir=");
    argv[n++] = xstrdup("--set=metrics.address=");
    argv[n++] = xstrdup("--set=log.format=text");
    for (; *more; more++)
        argv[n++] = xstrdup(*more);
    argv[n] = NULL;
    d->pid = fork();
    if (d->pid == 0) {
        (void)dup2(pipe_fds[1], 1);
        (void)dup2(pipe_fds[1], 2);
        execv(argv[0], argv);
        _exit(127);
    }
    (void)close(pipe_fds[1]);
    d->out = pipe_fds[0];
    while (n > 0)
        free(argv[--n]);
}

/* Reads until `want` was said, or (NULL) to the end. */
static bool wait_for(Daemon *d, const char *want) {
    struct pollfd p = { d->out, POLLIN, 0 };

    while (!want || !strstr(d->text, want)) {
        ssize_t n;
        if (poll(&p, 1, 30000) <= 0)
            return false;
        n = read(d->out, d->text + d->len, sizeof(d->text) - 1 - d->len);
        if (n <= 0)
            return !want;
        d->len += (size_t)n;
    }
    return true;
}

static int finish(Daemon *d) {
    int status = 0;

    (void)wait_for(d, NULL);
    ASSERT_EQ(waitpid(d->pid, &status, 0), d->pid);
    (void)close(d->out);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static const struct {
    const char *args[4];
    int code;
    const char *text;
} runs[] = {
    { { "--version", NULL }, 0, "modelcached " },
    { { "--help", NULL }, 0, "Usage: modelcached" },
    { { "--check-config", NULL }, 0, "the configuration is right" },
    { { "--check-config", "--set", "credentials.docker_config=/nonexistent.json", NULL },
      2,
      "credentials.docker_config: " },
    { { "--print-docs", "markdown", NULL }, 0, "| key |" },
    { { "--print-docs", "metrics", NULL }, 0, "| metric |" },
    { { "--bogus", NULL }, 2, "modelcached: --bogus is not an option" },
    { { "--set", "pull.concurrent=0", NULL },
      2,
      "modelcached: --set: pull.concurrent: \"0\" is out of range" },
    { { "--config", "/nonexistent.yaml", NULL }, 2, "/nonexistent.yaml" },
    { { "--set", "metrics.address=localhost:80", NULL },
      2,
      "modelcached: --set: metrics.address: \"localhost:80\" is no address with a port" },
    { { "--set", "credentials.docker_config=/nonexistent.json", NULL },
      1,
      "credentials.docker_config: " },
    { { "--set", "store.path=/proc/models", NULL }, 1, "/proc/models" },
};

TEST(agent_exit_codes) {
    STORE_TEST_DIR(dir);

    if (!program())
        SKIP("modelcached is not built beside the tests");
    for (size_t i = 0; i < ELEMENTSOF(runs); i++) {
        Daemon d;
        int code;
        start(&d, dir, runs[i].args);
        code = finish(&d);
        if (code != runs[i].code || !strstr(d.text, runs[i].text))
            test_fail(__FILE__, __LINE__, "%s: %d: %s", runs[i].args[0], code, d.text);
    }
}

TEST(agent_one_daemon_a_store) {
    static const char *const none[] = { NULL };
    STORE_TEST_DIR(dir);
    Daemon first, second;

    if (!program())
        SKIP("modelcached is not built beside the tests");
    start(&first, dir, none);
    ASSERT_TRUE(wait_for(&first, "is ready"));
    start(&second, dir, none);
    ASSERT_EQ(finish(&second), 1);
    ASSERT_STRSTR(second.text, "error: ");
    (void)kill(first.pid, SIGTERM);
    ASSERT_EQ(finish(&first), 0);
    ASSERT_NE(access(tmpdir_join(dir, "control.sock"), F_OK), 0);
}

TEST(agent_reloads_on_sighup) {
    STORE_TEST_DIR(dir);
    const char *file = tmpdir_join(dir, "config.yaml");
    const char *const args[] = { "--config", file, NULL };
    Daemon d;

    if (!program())
        SKIP("modelcached is not built beside the tests");
    env_write(tmpdir_fd(dir), "config.yaml", "log: {level: info}\n", 19);
    start(&d, dir, args);
    ASSERT_TRUE(wait_for(&d, "is ready"));
    env_write(tmpdir_fd(dir), "config.yaml", "node: other\npull: {concurrent: 1}\n", 34);
    (void)kill(d.pid, SIGHUP);
    ASSERT_TRUE(wait_for(&d, "configuration read again: changed pull.concurrent"));
    ASSERT_TRUE(wait_for(&d, "but need a restart: node"));
    env_write(tmpdir_fd(dir), "config.yaml", "what: 1\n", 8);
    (void)kill(d.pid, SIGHUP);
    ASSERT_TRUE(wait_for(&d, "the configuration stays as it was: "));
    (void)kill(d.pid, SIGINT);
    ASSERT_EQ(finish(&d), 0);
}

TEST(agent_tells_systemd) {
    static const char *const none[] = { NULL };
    STORE_TEST_DIR(dir);
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ready = false;
    char text[256];
    Daemon d;

    if (!program())
        SKIP("modelcached is not built beside the tests");
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", tmpdir_path(dir));
    ASSERT_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    (void)setenv("NOTIFY_SOCKET", address.sun_path, 1);
    start(&d, dir, none);
    (void)unsetenv("NOTIFY_SOCKET");
    for (unsigned i = 0; i < 10 && !ready; i++) {
        struct pollfd p = { fd, POLLIN, 0 };
        ssize_t n = poll(&p, 1, 30000) > 0 ? recv(fd, text, sizeof(text) - 1, 0) : -1;
        ASSERT_TRUE(n > 0);
        text[n] = 0;
        ready = strstr(text, "READY=1") != NULL;
    }
    ASSERT_TRUE(ready);
    (void)kill(d.pid, SIGTERM);
    ASSERT_EQ(finish(&d), 0);
}
