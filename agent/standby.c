/* SPDX-License-Identifier: Apache-2.0 */
/* standby: a worker's process that waits for its job, so that a pull which follows another need not
 * wait for the start of one. */
#include "agent/standby.h"
#include "agent/outbox.h"
#include "base/log.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* To look again whether one that was killed has ended. */
#define ENDING_USEC (100 * USEC_PER_MSEC)

struct Standby {
    sd_event *event;
    char *program;
    WorkerProcess process;          /* or WORKER_PROCESS_NONE */
    bool ending;                    /* it was killed; nobody waits for that here */
    sd_event_source *child, *timer; /* the timer starts one, or ends the one that waits */
    StandbyPlan plan;
};

void standby_new(Standby **ret, sd_event *event, const char *program) {
    Standby *s = xnew(Standby);

    s->event = sd_event_ref(event);
    s->program = xstrdup(program);
    s->process = WORKER_PROCESS_NONE;
    *ret = s;
}

static bool is_waiting(const Standby *s) {
    return s->process.pid > 0 && !s->ending;
}

static void close_ends(Standby *s) {
    s->process.socket_fd = safe_close(s->process.socket_fd);
    s->process.messages_fd = safe_close(s->process.messages_fd);
}

/* It is somebody else's, or nobody's, now. */
static void let_go(Standby *s) {
    s->child = sd_event_source_disable_unref(s->child); /* does not reap */
    s->process = WORKER_PROCESS_NONE;
    s->ending = false;
}

static void stop_timer(Standby *s) {
    s->timer = sd_event_source_disable_unref(s->timer);
}

static void end(Standby *s) {
    stop_timer(s);
    if (!is_waiting(s))
        return;
    (void)kill(-s->process.pid, SIGKILL); /* it may have ended by itself */
    close_ends(s);
    s->ending = true;
}

static void end_and_wait(Standby *s) {
    end(s);
    while (s->process.pid > 0 && waitpid(s->process.pid, NULL, 0) < 0 && errno == EINTR)
        ;
    let_go(s);
}

Standby *standby_free(Standby *s) {
    if (!s)
        return NULL;
    end_and_wait(s);
    (void)sd_event_unref(s->event);
    free(s->program);
    free(s);
    return NULL;
}

/* When it was not we who ended it: the next pull starts its own, and says what is wrong if that
 * ends, too. */
static int on_child(sd_event_source *source, const siginfo_t *si, void *arg) {
    Standby *s = arg;

    (void)source;
    if (!s->ending) {
        log_debug("the pull worker that stood by has ended with %d", si->si_status);
        stop_timer(s);
    }
    close_ends(s);
    let_go(s); /* sd-event reaps it after this callback */
    return 0;
}

/* What it can do before it has a job.  Without that it works as well. */
static void send_ahead(const Standby *s) {
    Modelcached__Worker__ToWorker m = MODELCACHED__WORKER__TO_WORKER__INIT;
    Modelcached__Worker__Ahead ahead = MODELCACHED__WORKER__AHEAD__INIT;
    Buf out = BUF_INIT(KiB(1));
    Err err;

    ahead.tls = s->plan.tls;
    ahead.memory_bytes = s->plan.memory_bytes;
    ahead.fill_bytes = s->plan.fill_bytes;
    m.message_case = MODELCACHED__WORKER__TO_WORKER__MESSAGE_AHEAD;
    m.ahead = &ahead;
    if (outbox_add(&out, &m, &err) >= 0) /* the socket has room for it, or its reader is gone */
        (void)send(s->process.socket_fd, out.data, out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    buf_done(&out);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg);

static int start(Standby *s, Err *err) {
    int r = worker_spawn(&s->process, s->program, err);

    if (r < 0)
        return r;
    r = sd_event_add_child(s->event, &s->child, s->process.pid, WEXITED, on_child, s);
    if (r >= 0)
        r = loop_timer_after(s->event, &s->timer, s->plan.keep_usec, on_timer, s);
    if (r < 0)
        end_and_wait(s);
    else
        send_ahead(s);
    return r < 0 ? err_errnum(err, r, "cannot watch the pull worker that stands by") : 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg) {
    Standby *s = arg;
    Err err = { "" };
    int r = 0;

    (void)source;
    (void)usec;
    if (s->ending)
        r = loop_timer_after(s->event, &s->timer, ENDING_USEC, on_timer, s);
    else if (is_waiting(s))
        end(s);
    else
        r = start(s, &err);
    if (r < 0) /* the next pull tries it again, and tells */
        log_debug("%s", err_text(&err, r));
    return 0;
}

void standby_prepare(Standby *s, const StandbyPlan *plan) {
    s->plan = *plan;
    if (plan->keep_usec == 0)
        end(s);
    else if (loop_timer_after(s->event, &s->timer,
                              is_waiting(s) ? plan->keep_usec : plan->after_usec, on_timer, s) < 0)
        log_debug("no pull worker stands by: there is no timer");
}

static bool is_alive(pid_t pid) {
    siginfo_t si = { 0 };

    return waitid(P_PID, (id_t)pid, &si, WEXITED | WNOHANG | WNOWAIT) == 0 && si.si_pid == 0;
}

int standby_take(Standby *s, WorkerProcess *ret, Err *err) {
    int r;

    if (is_waiting(s) && is_alive(s->process.pid)) {
        *ret = s->process;
        let_go(s);
        stop_timer(s);
        return 1;
    }
    end(s);
    r = worker_spawn(ret, s->program, err);
    return r < 0 ? r : 0;
}
