/* SPDX-License-Identifier: Apache-2.0 */
/* test_standby: the process that waits: who gets it, how long it is kept, and what becomes of one
 * that ends. */
#include "agent/worker.h"
#include "tests/unit/fake_worker.h"

#include <sys/wait.h>

typedef struct Env {
    TmpDir *dir;
    sd_event *event;
    Standby *standby;
    unsigned ended;
    int r;
} Env;

static void env_init(Env *e) {
    *e = (Env){ .dir = tmpdir_new(), .event = fake_event() };
    standby_new(&e->standby, e->event, fake_program(e->dir));
}

static void env_done(Env *e) {
    (void)standby_free(e->standby);
    (void)sd_event_unref(e->event);
    (void)tmpdir_free(e->dir);
    ASSERT_ERR(waitpid(-1, NULL, WNOHANG) < 0 ? -errno : 0, -ECHILD); /* nobody is left */
}

static void run_for(Env *e, uint64_t usec) {
    uint64_t until = now_usec() + usec;

    for (uint64_t now; (now = now_usec()) < until;)
        (void)sd_event_run(e->event, until - now);
}

/* The one child that runs; 0: none. */
static pid_t child(void) {
    _cleanup_free_ char *text = NULL;
    _cleanup_free_ char *path = xasprintf("/proc/self/task/%d/children", (int)getpid());
    Err err;

    ASSERT_OK(fs_read_file(AT_FDCWD, path, KiB(4), &text, NULL, &err));
    return (pid_t)strtol(text, NULL, 10);
}

static pid_t wait_for_child(Env *e) {
    uint64_t until = now_usec() + 10 * USEC_PER_SEC;
    pid_t pid = 0;

    while ((pid = child()) == 0 && now_usec() < until)
        run_for(e, 5 * USEC_PER_MSEC);
    ASSERT_TRUE(pid > 0);
    return pid;
}

static void on_end(void *arg, int r, const Err *err) {
    Env *e = arg;

    (void)err;
    e->ended++;
    e->r = r;
}

/* Takes a process for a whole pull that asks for nothing; `dying`: it ends before it has its job.
 * Returns its pid. */
static pid_t work_with(Env *e, bool dying) {
    Modelcached__Worker__Job job = MODELCACHED__WORKER__JOB__INIT;
    _cleanup_(worker_freep) Worker *w = NULL;
    uint64_t until = now_usec() + 20 * USEC_PER_SEC;
    unsigned ended = e->ended;
    Err err = { "" };
    pid_t pid;

    job.probe = true;
    ASSERT_OK(worker_new(&w,
                         &(WorkerOptions){ .event = e->event,
                                           .standby = e->standby,
                                           .label = "x",
                                           .ingest_fd = tmpdir_fd(e->dir),
                                           .job = &job,
                                           .handlers = { { .arg = e }, on_end, e } },
                         &err));
    pid = worker_pid(w);
    if (dying)
        ASSERT_OK(kill(pid, SIGKILL));
    while (e->ended == ended && now_usec() < until)
        (void)sd_event_run(e->event, 100 * USEC_PER_MSEC);
    ASSERT_EQ(e->ended, ended + 1);
    ASSERT_OK(e->r);
    return pid;
}

static pid_t work(Env *e) {
    return work_with(e, false);
}

TEST(the_one_that_waits_does_the_next_job) {
    pid_t waiting;
    Env e;

    env_init(&e);
    ASSERT_EQ(child(), 0);
    standby_prepare(e.standby, &(StandbyPlan){ .after_usec = 0, .keep_usec = 60 * USEC_PER_SEC });
    waiting = wait_for_child(&e);
    ASSERT_EQ(work(&e), waiting);
    ASSERT_EQ(child(), 0); /* no other one unless it is asked for */
    ASSERT_TRUE(work(&e) != waiting);
    env_done(&e);
}

TEST(it_starts_later_and_is_kept_so_long) {
    Env e;

    env_init(&e);
    standby_prepare(e.standby, &(StandbyPlan){ .after_usec = 200 * USEC_PER_MSEC,
                                               .keep_usec = 300 * USEC_PER_MSEC });
    run_for(&e, 50 * USEC_PER_MSEC);
    ASSERT_EQ(child(), 0);
    (void)wait_for_child(&e);
    run_for(&e, 200 * USEC_PER_MSEC);
    ASSERT_TRUE(child() > 0);
    standby_prepare(
        e.standby,
        &(StandbyPlan){ .after_usec = 0, .keep_usec = 400 * USEC_PER_MSEC }); /* counts anew */
    run_for(&e, 200 * USEC_PER_MSEC);
    ASSERT_TRUE(child() > 0);
    run_for(&e, 500 * USEC_PER_MSEC);
    ASSERT_EQ(child(), 0);
    ASSERT_TRUE(work(&e) > 0);
    env_done(&e);
}

TEST(none_is_kept_for_no_time) {
    Env e;

    env_init(&e);
    standby_prepare(e.standby, &(StandbyPlan){ .after_usec = 0, .keep_usec = 0 });
    run_for(&e, 50 * USEC_PER_MSEC);
    ASSERT_EQ(child(), 0);
    standby_prepare(e.standby, &(StandbyPlan){ .after_usec = 0, .keep_usec = 60 * USEC_PER_SEC });
    (void)wait_for_child(&e);
    standby_prepare(e.standby, &(StandbyPlan){ 0 }); /* the configuration was read again */
    run_for(&e, 200 * USEC_PER_MSEC);
    ASSERT_EQ(child(), 0);
    env_done(&e);
}

/* Whether the loop has heard of it or not. */
TEST(one_that_has_ended_is_not_given) {
    for (unsigned heard = 0; heard < 2; heard++) {
        siginfo_t si;
        pid_t waiting;
        Env e;

        env_init(&e);
        standby_prepare(e.standby,
                        &(StandbyPlan){ .after_usec = 0, .keep_usec = 60 * USEC_PER_SEC });
        waiting = wait_for_child(&e);
        ASSERT_OK(kill(waiting, SIGKILL));
        ASSERT_OK(waitid(P_PID, (id_t)waiting, &si, WEXITED | WNOWAIT));
        if (heard)
            run_for(&e, 50 * USEC_PER_MSEC);
        ASSERT_TRUE(work(&e) != waiting);
        env_done(&e);
    }
}

/* What ends is alive for a while; the job is done all the same, by another one. */
TEST(one_that_is_about_to_end_is_replaced) {
    for (unsigned i = 0; i < 5; i++) {
        Env e;

        env_init(&e);
        standby_prepare(e.standby, &(StandbyPlan){ .keep_usec = 60 * USEC_PER_SEC });
        (void)wait_for_child(&e);
        (void)work_with(&e, true);
        ASSERT_EQ(e.ended, 1);
        env_done(&e);
    }
}

TEST(one_that_does_not_start_is_no_trouble) {
    WorkerProcess p = WORKER_PROCESS_NONE;
    Err err = { "" };
    Env e;

    env_init(&e);
    (void)standby_free(e.standby);
    standby_new(&e.standby, e.event, "/nonexistent/worker");
    standby_prepare(e.standby, &(StandbyPlan){ .after_usec = 0, .keep_usec = 60 * USEC_PER_SEC });
    run_for(&e, 50 * USEC_PER_MSEC);
    ASSERT_ERR(standby_take(e.standby, &p, &err), -ENOENT);
    ASSERT_STRSTR(err.text, "cannot start the pull worker /nonexistent/worker");
    env_done(&e);
}
