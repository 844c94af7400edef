/* SPDX-License-Identifier: Apache-2.0 */
/* worker: one process modelcached-pull: started, spoken to over its socket, ended with its owner.
 */
#include "agent/worker.h"
#include "agent/outbox.h"
#include "agent/worker_stderr.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/parse.h"
#include "base/privilege.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define READ_BYTES   KiB(64)
#define READS_A_TURN 16 /* then the loop goes on with others */
/* A socket holds less (net.core.wmem_max); the last words of a worker that is gone end here. */
#define LAST_READS_MAX 256
/* A worker that has said its last word has nothing more to do. */
#define EXIT_USEC (5 * USEC_PER_SEC)
/* Silence that ends it.  A worker that is well says something every PULL_ALIVE_USEC (oci/pull.c).
 */
#define HELLO_USEC  (30 * USEC_PER_SEC)
#define SILENT_USEC (60 * USEC_PER_SEC)
/* What is not nice has nine times as much of a core as a pull in the background: sched(7). */
#define BACKGROUND_NICE 10

struct Worker {
    sd_event *event;
    WorkerHandlers handlers;
    Inbox *inbox;
    WorkerStderr *messages;
    Metrics *metrics;
    Standby *standby;
    char *label, *pull;
    int fd;            /* our end of the socketpair */
    int folder_fd;     /* goes with the job … */
    bool folder_given; /* … and has gone */
    pid_t pid;
    sd_event_source *io, *child, *exit_timer, *watchdog;
    uint64_t patience_usec; /* for the next word */
    uint64_t later_usec;    /* after the first one */
    uint64_t heard_usec;    /* when it said the last */
    Buf out;                /* framed, not sent yet; may hold credentials */
    bool untried;           /* it stood by, and has not said anything since … */
    Buf told;               /* … but was told this */
    bool background;        /* the priority that was asked for last */
    bool closed;            /* the socket gave its last byte */
    int r;                  /* < 0: it broke the protocol, or the socket did */
    Err err;
};

char *worker_find_program(void) {
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash, *beside;

    if (n > 0) {
        self[n] = 0;
        slash = strrchr(self, '/');
        beside = xasprintf("%.*s/modelcached-pull", (int)(slash - self), self);
        if (access(beside, X_OK) == 0)
            return beside;
        free(beside);
    }
    return xstrdup(MC_LIBEXECDIR "/modelcached-pull");
}

static void wipe(Buf *b) {
    if (b->data)
        explicit_bzero(b->data, b->alloc);
    buf_done(b);
    *b = BUF_INIT(LIMIT_WORKER_MESSAGE_BYTES);
}

pid_t worker_release(Worker *w) {
    pid_t pid;

    if (!w)
        return 0;
    pid = w->pid;
    if (pid > 0)
        (void)kill(-pid, SIGKILL); /* its whole group; it may be gone already */
    (void)sd_event_source_disable_unref(w->io);
    (void)sd_event_source_disable_unref(w->watchdog);
    (void)sd_event_source_disable_unref(w->exit_timer);
    (void)sd_event_source_disable_unref(w->child); /* does not reap what it did not see ending */
    (void)worker_stderr_free(w->messages);
    (void)safe_close(w->fd);
    (void)safe_close(w->folder_fd);
    wipe(&w->out);
    wipe(&w->told);
    free(w->label);
    free(w->pull);
    (void)inbox_free(w->inbox);
    (void)sd_event_unref(w->event);
    free(w);
    return pid;
}

void worker_wait(pid_t pid) {
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

Worker *worker_free(Worker *w) {
    worker_wait(worker_release(w));
    return NULL;
}

pid_t worker_pid(const Worker *w) {
    return w->pid;
}

bool worker_was_answered(const Worker *w) {
    return inbox_was_answered(w->inbox);
}

bool worker_said_why(const Worker *w) {
    return w->r >= 0 && inbox_outcome(w->inbox, NULL) < 0;
}

static void stop_watching(Worker *w) {
    w->closed = true;
    if (w->io)
        (void)sd_event_source_set_enabled(w->io,
                                          SD_EVENT_OFF); /* fails only for sources of others */
}

/* Kills the process and what it started, if it was not reaped yet: 0 would be our own group. */
static void worker_kill(const Worker *w) {
    if (w->pid > 0)
        (void)kill(-w->pid, SIGKILL); /* it may be gone already */
}

/* Ends the process; on_child tells. */
static void worker_break(Worker *w, int r, const Err *err) {
    if (w->r < 0)
        return;
    w->err = *err;
    w->r = err_prefix(&w->err, r, "the pull worker broke its protocol");
    stop_watching(w);
    worker_kill(w);
}

/* 1: there may be more; 0: not now, or ended. */
static int read_some(Worker *w) {
    _cleanup_free_ uint8_t *bytes = malloc(READ_BYTES);
    Err err = { "" };
    ssize_t n;
    int r;

    if (!bytes || w->closed)
        return 0;
    n = recv(w->fd, bytes, READ_BYTES, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        stop_watching(w);
        return 0;
    }
    w->heard_usec = now_usec();
    w->patience_usec = w->later_usec;
    w->untried = false;
    wipe(&w->told);
    r = inbox_feed(w->inbox, bytes, (size_t)n, &err);
    if (r < 0)
        worker_break(w, r, &err);
    return r < 0 ? 0 : 1;
}

static void read_turn(Worker *w) {
    for (unsigned i = 0; i < READS_A_TURN && read_some(w) > 0; i++)
        ;
}

static int watch(Worker *w) {
    uint32_t events = EPOLLIN | (w->out.len > 0 ? EPOLLOUT : 0);

    return sd_event_source_set_io_events(w->io, events);
}

/* The folder goes with the first byte (SCM_RIGHTS, unix(7)). */
static ssize_t send_some(Worker *w) {
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec iov = { w->out.data, w->out.len };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct cmsghdr *c;
    ssize_t n;

    if (!w->folder_given) {
        m.msg_control = control;
        m.msg_controllen = sizeof(control);
        c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &w->folder_fd, sizeof(int));
    }
    n = sendmsg(w->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    w->folder_given = w->folder_given || n > 0;
    return n;
}

static void flush(Worker *w) {
    while (w->out.len > 0 && !w->closed) {
        ssize_t n = send_some(w);
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) { /* nobody reads it any more, which reading, SIGCHLD or the watchdog shows */
            wipe(&w->out);
            return;
        }
        explicit_bzero(w->out.data, (size_t)n);
        buf_consume(&w->out, (size_t)n);
    }
    if (w->out.len == 0)
        wipe(&w->out);
}

static int on_exit_timer(sd_event_source *source, uint64_t usec, void *arg) {
    Worker *w = arg;

    (void)source;
    (void)usec;
    log_debug("pull worker %d did not end by itself", (int)w->pid);
    worker_kill(w); /* on_child tells */
    return 0;
}

static int watch_silence(Worker *w);

/* The loop itself may have slept: what is in the socket counts first. */
static int on_watchdog(sd_event_source *source, uint64_t usec, void *arg) {
    Worker *w = arg;

    (void)source;
    (void)usec;
    read_turn(w);
    if (w->r < 0 || w->closed || inbox_outcome(w->inbox, NULL) != 0)
        return 0; /* it is about to end, or will be ended */
    if (now_usec() - w->heard_usec < w->patience_usec)
        return watch_silence(w);
    w->r = err_set(&w->err, -ETIMEDOUT,
                   "the pull worker said nothing for %s and was ended; start the pull again",
                   FORMAT_DURATION(w->patience_usec));
    stop_watching(w);
    worker_kill(w); /* on_child tells */
    return 0;
}

static int watch_silence(Worker *w) {
    uint64_t silent = now_usec() - w->heard_usec;

    return loop_timer_after(w->event, &w->watchdog,
                            silent < w->patience_usec ? w->patience_usec - silent : 0, on_watchdog,
                            w);
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *arg) {
    Worker *w = arg;

    (void)source;
    (void)fd;
    if (revents & EPOLLOUT)
        flush(w);
    read_turn(w);
    if (!w->exit_timer && (w->closed || inbox_outcome(w->inbox, NULL) != 0))
        /* Without a timer it would only be waited for longer. */
        (void)!loop_timer_after(w->event, &w->exit_timer, EXIT_USEC, on_exit_timer, w);
    return w->closed ? 0 : watch(w);
}

static void count_failure(const Worker *w, MetricReason reason) {
    metrics_add(w->metrics, METRIC_WORKER_FAILURES, METRIC_LABEL(reason), 1);
}

/* What the end of the process means. */
static int judge(Worker *w, const siginfo_t *si, Err *err) {
    int outcome = inbox_outcome(w->inbox, err);

    if (w->r < 0) {
        count_failure(w, w->r == -ETIMEDOUT ? METRIC_SILENT : METRIC_PROTOCOL);
        *err = w->err;
        return w->r;
    }
    if (outcome != 0) {
        if (si->si_code != CLD_EXITED || si->si_status != 0)
            log_debug("pull worker ended with %d after its last message", si->si_status);
        return outcome < 0 ? outcome : 0;
    }
    count_failure(w, METRIC_CRASHED);
    if (si->si_code == CLD_EXITED)
        return err_set(err, -EIO,
                       "the pull worker ended with exit code %d before the pull was complete; "
                       "start the pull again",
                       si->si_status);
    return err_set(err, -EIO,
                   "the pull worker was killed by signal %d%s before the pull was complete; "
                   "start the pull again",
                   si->si_status, si->si_status == SIGKILL ? " (perhaps for want of memory)" : "");
}

/* The process is the leader of a group of its own, so that this reaches each of its threads.  Once
 * it has its own user, only CAP_SYS_NICE lifts it again: without that it is as any other. */
static void set_priority(Worker *w, bool background) {
    /* Of constants: what types the macro wants differs from header to header. */
    int idle = (int)IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0);
    int normal = (int)IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, IOPRIO_NORM);
    int nice = getpriority(PRIO_PROCESS, 0) + (background ? BACKGROUND_NICE : 0);

    w->background = background;
    if (w->pid <= 0 || !privilege_has(CAP_SYS_NICE))
        return;
    /* ioprio_set(2) has no wrapper. */
    if (syscall(SYS_ioprio_set, IOPRIO_WHO_PGRP, w->pid, background ? idle : normal) < 0 ||
        setpriority(PRIO_PGRP, (id_t)w->pid, nice) < 0)
        log_debug("cannot change the priority of pull worker %d: %s", (int)w->pid, strerror(errno));
}

static int on_child(sd_event_source *source, const siginfo_t *si, void *arg);

static int start_process(Worker *w, Err *err) {
    WorkerProcess process;
    int r = standby_take(w->standby, &process, err);

    if (r < 0)
        return r;
    w->untried = r > 0;
    w->pid = process.pid;
    w->fd = process.socket_fd;
    w->heard_usec = now_usec();
    metrics_add(w->metrics, METRIC_WORKERS, METRIC_NO_LABEL, 1);
    r = worker_stderr_new(&w->messages, w->event, process.messages_fd, w->label, w->pull, err);
    if (r < 0)
        return r;
    r = sd_event_add_io(w->event, &w->io, w->fd, EPOLLIN, on_io, w);
    if (r >= 0)
        r = sd_event_add_child(w->event, &w->child, w->pid, WEXITED, on_child, w);
    if (r >= 0)
        r = watch_silence(w);
    if (r < 0)
        return err_errnum(err, r, "cannot watch the pull worker");
    if (w->background)
        set_priority(w, true);
    return 0;
}

static int tell_again(Worker *w, Err *err) {
    int r = buf_append(&w->out, w->told.data, w->told.len);

    if (r < 0)
        return err_errnum(err, r, "no room for the messages to the pull worker");
    if (!w->untried)
        wipe(&w->told);
    flush(w);
    r = watch(w);
    return r < 0 ? err_errnum(err, r, "cannot watch the pull worker") : 0;
}

/* It may have been about to end when it was taken: another process gets what it was told. */
static bool start_again(Worker *w) {
    Err err = { "" };
    int r;

    w->io = sd_event_source_disable_unref(w->io);
    w->child = sd_event_source_disable_unref(w->child);
    w->exit_timer = sd_event_source_disable_unref(w->exit_timer);
    w->messages = worker_stderr_free(w->messages);
    w->fd = safe_close(w->fd);
    w->pid = 0;
    w->closed = w->folder_given = w->untried = false;
    wipe(&w->out);
    log_debug("the pull worker that stood by has ended before its job");
    r = start_process(w, &err);
    if (r >= 0)
        r = tell_again(w, &err);
    if (r >= 0)
        return true;
    log_debug("%s", err_text(&err, r));
    worker_kill(w);
    worker_wait(w->pid);
    return false;
}

static int on_child(sd_event_source *source, const siginfo_t *si, void *arg) {
    Worker *w = arg;
    Err err = { "" };
    int r;

    (void)source;
    /* What it started must not write on, for ever or into the folder. */
    worker_kill(w);
    for (unsigned i = 0; i < LAST_READS_MAX && read_some(w) > 0; i++)
        ; /* its last words may still be in the socket */
    stop_watching(w);
    if (w->untried && w->r >= 0 && start_again(w))
        return 0; /* sd-event reaps it after this callback */
    r = judge(w, si, &err);
    w->pid = 0; /* the same */
    w->messages = worker_stderr_free(w->messages);
    w->handlers.on_end(w->handlers.arg, r, &err);
    return 0;
}

static int send_message(Worker *w, const Modelcached__Worker__ToWorker *m, Err *err) {
    int r = outbox_add(&w->out, m, err);

    if (r >= 0 && w->untried)
        r = outbox_add(&w->told, m, err);
    if (r < 0)
        return r;
    flush(w);
    return watch(w);
}

void worker_plan(Worker *w, const WorkerPlan *plan) {
    Modelcached__Worker__Plan p = MODELCACHED__WORKER__PLAN__INIT;
    Modelcached__Worker__ToWorker m = MODELCACHED__WORKER__TO_WORKER__INIT;
    Err err = { "" };
    int r;

    p.fetch = (uint32_t *)plan->fetch;
    p.n_fetch = plan->n;
    p.more = plan->more;
    p.content_max_bytes = plan->content_max_bytes;
    m.message_case = MODELCACHED__WORKER__TO_WORKER__MESSAGE_PLAN;
    m.plan = &p;
    inbox_plan(w->inbox, plan->fetch, plan->n, plan->more);
    inbox_raise_room(w->inbox, plan->content_max_bytes);
    r = send_message(w, &m, &err);
    if (r < 0)
        worker_break(w, r, &err);
}

void worker_limits_message(Modelcached__Worker__Limits *ret, const WorkerLimits *limits) {
    modelcached__worker__limits__init(ret);
    ret->connections = limits->connections;
    ret->bytes_per_second = limits->bytes_per_second;
    ret->background = limits->background;
    ret->memory_bytes = limits->memory_bytes;
}

void worker_limits(Worker *w, const WorkerLimits *limits) {
    Modelcached__Worker__ToWorker m = MODELCACHED__WORKER__TO_WORKER__INIT;
    Modelcached__Worker__Limits message;
    Err err = { "" };
    int r;

    if (w->background != limits->background)
        set_priority(w, limits->background);
    worker_limits_message(&message, limits);
    m.message_case = MODELCACHED__WORKER__TO_WORKER__MESSAGE_LIMITS;
    m.limits = &message;
    r = send_message(w, &m, &err);
    if (r < 0)
        worker_break(w, r, &err);
}

int worker_new(Worker **ret, const WorkerOptions *o, Err *err) {
    _cleanup_(worker_freep) Worker *w = xnew(Worker);
    Modelcached__Worker__ToWorker m = MODELCACHED__WORKER__TO_WORKER__INIT;
    int r;

    w->fd = w->folder_fd = -EBADF;
    w->event = sd_event_ref(o->event);
    w->handlers = o->handlers;
    w->metrics = o->metrics;
    w->standby = o->standby;
    w->label = xstrdup(o->label);
    w->pull = xstrdup(o->pull);
    w->background = o->job->limits && o->job->limits->background;
    w->out = w->told = BUF_INIT(LIMIT_WORKER_MESSAGE_BYTES);
    w->inbox = inbox_new(&o->handlers.inbox, o->job->probe);
    w->patience_usec = o->patience_usec > 0 ? o->patience_usec : HELLO_USEC;
    w->later_usec = o->patience_usec > 0 ? o->patience_usec : SILENT_USEC;
    w->folder_fd = fcntl(o->ingest_fd, F_DUPFD_CLOEXEC, 0);
    if (w->folder_fd < 0)
        return err_errno(err, "cannot give the pull worker its folder");
    r = start_process(w, err);
    if (r < 0)
        return r;
    m.message_case = MODELCACHED__WORKER__TO_WORKER__MESSAGE_JOB;
    m.job = (Modelcached__Worker__Job *)o->job;
    r = send_message(w, &m, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(w);
    return 0;
}
