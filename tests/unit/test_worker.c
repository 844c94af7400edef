/* SPDX-License-Identifier: Apache-2.0 */
/* test_worker: real processes that behave and misbehave: what they get, and what becomes of them.
 */
#include "agent/worker.h"
#include "base/parse.h"
#include "tests/unit/fake_worker.h"

#include <sys/wait.h>

typedef struct Env {
    TmpDir *dir;
    sd_event *event;
    Standby *standby;
    int r;
    bool ended;
    size_t n_features;
    uint64_t patience_usec;
    Err err;
} Env;

static void env_init(Env *e) {
    *e = (Env){ .dir = tmpdir_new(), .event = fake_event() };
    standby_new(&e->standby, e->event, fake_program(e->dir));
}

static void env_done(Env *e) {
    (void)standby_free(e->standby);
    (void)sd_event_unref(e->event);
    (void)tmpdir_free(e->dir);
}

static void on_hello(void *arg, FeatureList *features) {
    ((Env *)arg)->n_features = features->n;
    feature_list_done(features);
}

static void on_end(void *arg, int r, const Err *err) {
    Env *e = arg;

    ASSERT_TRUE(!e->ended);
    e->ended = true;
    e->r = r;
    e->err = *err;
}

static int start(Env *e, Worker **ret, const char *how, Err *err) {
    Modelcached__Worker__Job job = MODELCACHED__WORKER__JOB__INIT;
    WorkerOptions options = {
        .event = e->event,
        .standby = e->standby,
        .label = how ? how : "probe",
        .ingest_fd = tmpdir_fd(e->dir),
        .patience_usec = e->patience_usec,
        .job = &job,
        .handlers = { { .on_hello = on_hello, .arg = e }, on_end, e },
    };

    job.probe = how == NULL;
    job.repository = (char *)(how ? how : "");
    return worker_new(ret, &options, err);
}

static void run(Env *e, const char *how) {
    _cleanup_(worker_freep) Worker *w = NULL;
    uint64_t until = now_usec() + 20 * USEC_PER_SEC;

    e->ended = false;
    ASSERT_OK(start(e, &w, how, &e->err));
    while (!e->ended && now_usec() < until)
        (void)sd_event_run(e->event, 100 * USEC_PER_MSEC);
    ASSERT_TRUE(e->ended);
}

/* Dead counts, whoever is to reap it. */
static bool is_gone(pid_t pid) {
    _cleanup_free_ char *path = xasprintf("/proc/%d/stat", (int)pid), *text = NULL;
    Err err;

    return fs_read_file(AT_FDCWD, path, KiB(4), &text, NULL, &err) < 0 || strstr(text, ") Z ");
}

TEST(worker_probe) {
    Env e;

    env_init(&e);
    run(&e, NULL);
    ASSERT_OK(e.r);
    ASSERT_EQ(e.n_features, 2);
    env_done(&e);
}

TEST(worker_gets_nothing_but_proxies_and_two_descriptors) {
    Env e;

    env_init(&e);
    (void)setenv("https_proxy", "http://proxy:1", 1);
    (void)setenv("SECRET", "x", 1);
    run(&e, "report");
    (void)unsetenv("https_proxy");
    ASSERT_ERR(e.r, -EACCES);
    ASSERT_STREQ(e.err.text, "https_proxy=http://proxy:1 ");
    env_done(&e);
}

static const struct {
    const char *how;
    int r;
    const char *sentence;
} ends[] = {
    { "exit", -EIO, "the pull worker ended with exit code 7 before the pull was complete" },
    { "kill", -EIO, "the pull worker was killed by signal 9 (perhaps for want of memory)" },
    { "garbage", -EPROTO, "the pull worker broke its protocol: 5 bytes that are not a message" },
    { "long", -EPROTO, "the pull worker broke its protocol: a message of 4294967295 bytes" },
    { "early", -EPROTO, "the pull worker broke its protocol: message 7 while hello" },
    { "dirty", -ENOENT, "a?[31mb?" },
    { "odd", -EIO, "odd error" },
    { "absent", -ENOENT, "no such tag" },
    { "stderr", -EPROTO, "the pull worker failed without saying why" },
};

TEST(worker_ends) {
    for (size_t i = 0; i < ELEMENTSOF(ends); i++) {
        Env e;
        env_init(&e);
        run(&e, ends[i].how);
        if (e.r != ends[i].r || !strstr(e.err.text, ends[i].sentence))
            test_fail(__FILE__, __LINE__, "%s: %d: %s", ends[i].how, e.r, e.err.text);
        env_done(&e);
    }
}

TEST(worker_free_kills_it) {
    Worker *w = NULL;
    Err err = { "" };
    pid_t pid;
    Env e;

    env_init(&e);
    ASSERT_OK(start(&e, &w, "sleep", &err));
    pid = worker_pid(w);
    ASSERT_EQ(kill(pid, 0), 0);
    w = worker_free(w);
    ASSERT_EQ(kill(pid, 0), -1);
    ASSERT_EQ(errno, ESRCH);
    ASSERT_TRUE(!e.ended);
    env_done(&e);
}

TEST(worker_release_leaves_the_wait_to_the_caller) {
    Worker *w = NULL;
    Env e;
    pid_t pid;

    env_init(&e);
    ASSERT_OK(start(&e, &w, "sleep", &e.err));
    pid = worker_release(w);
    ASSERT_TRUE(pid > 0);
    worker_wait(pid);
    ASSERT_ERR(waitpid(pid, NULL, 0) < 0 ? -errno : 0, -ECHILD);
    ASSERT_EQ(worker_release(NULL), 0);
    worker_wait(0);
    ASSERT_TRUE(!e.ended);
    env_done(&e);
}

TEST(worker_program_that_is_missing) {
    Worker *w = NULL;
    Err err = { "" };
    Env e;

    env_init(&e);
    (void)standby_free(e.standby);
    standby_new(&e.standby, e.event, "/nonexistent/modelcached-pull");
    ASSERT_ERR(start(&e, &w, "x", &err), -ENOENT);
    ASSERT_STRSTR(err.text,
                  "cannot start the pull worker /nonexistent/modelcached-pull; is modelcached "
                  "installed completely?");
    env_done(&e);
}

TEST(worker_find_program_gives_a_path) {
    _cleanup_free_ char *path = worker_find_program();

    ASSERT_TRUE(path[0] == '/');
    ASSERT_STRSTR(path, "/modelcached-pull");
}

TEST(worker_that_is_silent_is_ended) {
    Env e;

    env_init(&e);
    e.patience_usec = 300 * USEC_PER_MSEC;
    run(&e, "sleep"); /* says nothing at all */
    ASSERT_ERR(e.r, -ETIMEDOUT);
    ASSERT_STRSTR(e.err.text, "the pull worker said nothing for 300 ms");
    ASSERT_STRSTR(e.err.text, "start the pull again");
    run(&e, "hello-sleep");
    ASSERT_ERR(e.r, -ETIMEDOUT);
    env_done(&e);
}

TEST(worker_that_ends_takes_its_children_along) {
    _cleanup_free_ char *text = NULL;
    uint64_t until, child = 0;
    Env e;

    env_init(&e);
    run(&e, "family");
    ASSERT_ERR(e.r, -EIO);
    ASSERT_OK(fs_read_file(tmpdir_fd(e.dir), "child", 32, &text, NULL, &e.err));
    ASSERT_OK(parse_u64(text, &child));
    until = now_usec() + 10 * USEC_PER_SEC;
    while (!is_gone((pid_t)child) && now_usec() < until)
        (void)usleep(10000);
    ASSERT_TRUE(is_gone((pid_t)child));
    env_done(&e);
}
