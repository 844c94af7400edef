/* SPDX-License-Identifier: Apache-2.0 */
/* pull_main: modelcached-pull, the process of one pull: started by the daemon with a socket (fd 3),
 * over which its job comes, with a folder. */
#include "base/log.h"
#include "oci/pull.h"
#include "oci/pull_setup.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define SOCKET_FD  3
#define RETRY_USEC (500 * USEC_PER_MSEC)
#define EXIT_USAGE 2

#define GIVEN_BACK MiB(4) /* all windows of zstd that matter, and few others */

typedef Modelcached__Worker__FromWorker FromWorker;
typedef Modelcached__Worker__ToWorker ToWorker;

typedef struct Worker {
    Channel *channel;
    ToWorker *job; /* whose message is a Job … */
    int dir_fd;    /* … and its folder */
    PullSetup setup;
    Pull *pull;
} Worker;

/* By itself malloc(3) learns from what is freed: a window of up to 32 MiB then stays with each
 * thread that had one. */
static void give_back(void) {
    (void)mallopt(M_MMAP_THRESHOLD, (int)GIVEN_BACK);
    (void)mallopt(M_TRIM_THRESHOLD, (int)GIVEN_BACK);
}

/* The daemon's descriptor, and nothing else that was left open. */
static int check_descriptors(Err *err) {
    struct stat socket;

    if (fstat(SOCKET_FD, &socket) < 0 || !S_ISSOCK(socket.st_mode))
        return err_set(err, -EINVAL,
                       "modelcached-pull is started by modelcached, with a socket as descriptor 3; "
                       "to pull by hand use cache-ctl pull");
    (void)syscall(SYS_close_range, SOCKET_FD + 1, ~0U,
                  0); /* before Linux 5.9: the daemon opens all with O_CLOEXEC */
    (void)fcntl(SOCKET_FD, F_SETFD, FD_CLOEXEC);
    return 0;
}

/* What it may do ahead is done meanwhile. */
static int receive_job(Worker *w, Err *err) {
    int r = channel_receive(w->channel, &w->job, err);
    struct stat dir;

    while (r >= 0 && w->job->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_AHEAD) {
        pull_setup_ahead(&w->setup, w->job->ahead, w->channel);
        modelcached__worker__to_worker__free_unpacked(TAKE_PTR(w->job), NULL);
        r = channel_receive(w->channel, &w->job, err);
    }
    if (r < 0)
        return r;
    w->dir_fd = channel_take_fd(w->channel);
    if (w->job->message_case != MODELCACHED__WORKER__TO_WORKER__MESSAGE_JOB ||
        fstat(w->dir_fd, &dir) < 0 || !S_ISDIR(dir.st_mode))
        return err_set(err, -EPROTO, "the daemon sent something else before a job with a folder");
    if (w->job->job->debug)
        log_set_level(LOG_DEBUG);
    return 0;
}

static void say_hello(Worker *w) {
    Modelcached__Worker__Feature features[SANDBOX_FEATURE_COUNT + 1],
        *pointers[ELEMENTSOF(features)];
    Modelcached__Worker__Hello hello = MODELCACHED__WORKER__HELLO__INIT;
    FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;

    for (size_t i = 0; i < ELEMENTSOF(features); i++) {
        modelcached__worker__feature__init(&features[i]);
        pointers[i] = &features[i];
    }
    for (unsigned i = 0; i < SANDBOX_FEATURE_COUNT; i++) {
        features[i].name = (char *)(uintptr_t)sandbox_feature_name((SandboxFeature)i);
        features[i].active = w->setup.features[i].active;
        features[i].detail = w->setup.features[i].detail;
    }
    features[SANDBOX_FEATURE_COUNT].name = (char *)(uintptr_t) "io_uring";
    features[SANDBOX_FEATURE_COUNT].active = w->setup.ring_active;
    features[SANDBOX_FEATURE_COUNT].detail = w->setup.ring_detail;
    hello.features = pointers;
    hello.n_features = ELEMENTSOF(pointers);
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_HELLO;
    message.hello = &hello;
    channel_send(w->channel, &message);
}

/* A failure before there is a pull. */
static void say_failed(Worker *w, int r, const Err *err) {
    Modelcached__Worker__Failed failed = MODELCACHED__WORKER__FAILED__INIT;
    FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;

    failed.error = -r;
    failed.text = (char *)(uintptr_t)err_text(err, r);
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_FAILED;
    message.failed = &failed;
    channel_send(w->channel, &message);
}

static void on_message(void *arg, const ToWorker *message) {
    Worker *w = arg;

    pull_on_message(w->pull, message);
}

static void on_closed(void *arg, int r, const Err *err) {
    Worker *w = arg;

    log_debug("ends: %s", err_text(err, r));
    (void)sd_event_exit(w->setup.event, EXIT_FAILURE);
}

static void on_pulled(void *arg, int r) {
    Worker *w = arg;

    (void)sd_event_exit(w->setup.event, r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* Returns the exit code, or < 0 with a sentence. */
static int run_pull(Worker *w, Err *err) {
    PullOptions options = {
        .event = w->setup.event,
        .job = w->job->job,
        .channel = w->channel,
        .registry = w->setup.registry,
        .ring = w->setup.ring,
        .pool = w->setup.pool,
        .decoders = w->setup.decoders,
        .dir_fd = w->dir_fd,
        .connections = w->setup.connections,
        .transfers = w->setup.transfers,
        .n_buffers = w->setup.n_buffers,
        .n_decoders = w->setup.n_decoders,
        .retry_usec = RETRY_USEC,
        .done = on_pulled,
        .arg = w,
    };
    int r;

    memcpy(options.boot, w->setup.boot, RESUME_BOOT_BYTES);
    r = pull_new(&w->pull, &options, err);
    if (r < 0)
        return r;
    r = channel_attach(w->channel, w->setup.event, on_message, on_closed, w);
    if (r < 0)
        return err_errnum(err, r, "cannot watch the daemon's socket");
    r = sd_event_loop(w->setup.event);
    return r < 0 ? err_errnum(err, r, "the event loop failed") : r;
}

static int run(Worker *w, Err *err) {
    int r = receive_job(w, err);

    if (r < 0)
        return r;
    r = pull_setup(&w->setup, w->job->job, w->dir_fd, err);
    if (r < 0)
        return r;
    say_hello(w);
    return w->job->job->probe ? EXIT_SUCCESS : run_pull(w, err);
}

int main(int argc, char **argv) {
    Worker w = { .dir_fd = -EBADF };
    Err err;
    int r;

    (void)argv;
    give_back();
    (void)setlocale(
        LC_CTYPE,
        "C.UTF-8"); /* names in pax headers are UTF-8; libarchive converts to the locale */
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);                  /* write(2) says -EFBIG then */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* the sandbox sets it again */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);        /* the job holds credentials */
    r = check_descriptors(&err);
    if (r < 0 || argc > 1) {
        (void)fprintf(stderr, "%s\n",
                      r < 0 ? err_text(&err, r) : "modelcached-pull takes no arguments");
        _exit(EXIT_USAGE);
    }
    log_set_format(LOG_FORMAT_LEVELS); /* stderr is a pipe to the daemon, which knows the pull */
    channel_new(&w.channel, SOCKET_FD);
    r = run(&w, &err);
    /* All is written and closed, and the kernel is quick with the rest. */
    if (r == EXIT_SUCCESS && channel_flush(w.channel, &err) >= 0)
        _exit(EXIT_SUCCESS);
    if (r < 0)
        say_failed(&w, r, &err);
    if (w.pull)
        pull_cancel(w.pull);
    pull_setup_done(&w.setup); /* waits for threads and writes: files of a failed pull go here */
    w.pull = pull_free(w.pull);
    if (channel_flush(w.channel, &err) < 0)
        r = EXIT_FAILURE;
    /* Not exit(3): what libraries do at the end has no business behind a sandbox. */
    _exit(r < 0 ? EXIT_FAILURE : r);
}
