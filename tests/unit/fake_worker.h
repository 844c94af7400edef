/* SPDX-License-Identifier: Apache-2.0 */
/* fake_worker: this test program as a pull worker: started under a name that begins with "fake-",
 * it behaves as the repository (or tag) of its job says.  Include it in one test file. */
#pragma once

#include "base/fs.h"
#include "base/loop.h"
#include "cache/digest.h"
#include "proto/worker.pb-c.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define FAKE_LAYERS 3 /* the third has the content of the first */

typedef Modelcached__Worker__FromWorker FakeMessage;

/* A framed message; the caller frees it. */
_unused_ static uint8_t *fake_frame(const FakeMessage *m, size_t *ret_n) {
    size_t n = modelcached__worker__from_worker__get_packed_size(m);
    uint8_t *bytes = xnew_n(uint8_t, n + 4);

    for (unsigned i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(n >> 8 * i);
    (void)modelcached__worker__from_worker__pack(m, bytes + 4);
    *ret_n = n + 4;
    return bytes;
}

_unused_ static void fake_send(const FakeMessage *m) {
    size_t n;
    uint8_t *bytes = fake_frame(m, &n);

    if (fs_write_all(3, bytes, n, NULL) < 0)
        _exit(9);
    free(bytes);
}

#define FAKE_MESSAGE(NAME, field, value)                                     \
    ({                                                                       \
        FakeMessage _m_ = MODELCACHED__WORKER__FROM_WORKER__INIT;            \
        _m_.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_##NAME; \
        _m_.field = (value);                                                 \
        _m_;                                                                 \
    })
#define FAKE_SEND(NAME, field, value)                             \
    do {                                                          \
        FakeMessage _message_ = FAKE_MESSAGE(NAME, field, value); \
        fake_send(&_message_);                                    \
    } while (0)

/* The folder that comes with the job becomes 4. */
_unused_ static Modelcached__Worker__ToWorker *fake_read(void) {
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
    uint8_t head[4], *bytes;
    struct iovec iov = { head, 4 };
    struct msghdr m = { NULL, 0, &iov, 1, control, sizeof(control), 0 };
    size_t n;
    int fd;

    if (recvmsg(3, &m, MSG_WAITALL) != 4)
        _exit(8);
    if (CMSG_FIRSTHDR(&m)) {
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
        if (fd != 4 && (dup2(fd, 4) < 0 || close(fd) < 0))
            _exit(8);
    }
    n = (size_t)head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
    bytes = xnew_n(uint8_t, n + 1);
    if (n > 0 && recv(3, bytes, n, MSG_WAITALL) != (ssize_t)n)
        _exit(8);
    return modelcached__worker__to_worker__unpack(NULL, n, bytes);
}

_unused_ static const char *fake_content(unsigned layer) {
    return layer % 2 ? "{\"hidden\": 1}" : "weights weights weights";
}

_unused_ static void fake_failed_as(int error, const char *text, bool answered) {
    Modelcached__Worker__Failed m = MODELCACHED__WORKER__FAILED__INIT;

    m.error = error;
    m.text = (char *)text;
    m.answered = answered;
    FAKE_SEND(FAILED, failed, &m);
}

_unused_ static void fake_failed(int error, const char *text) {
    fake_failed_as(error, text, false);
}

_unused_ static void fake_hello(void) {
    Modelcached__Worker__Hello m = MODELCACHED__WORKER__HELLO__INIT;
    Modelcached__Worker__Feature seccomp = MODELCACHED__WORKER__FEATURE__INIT,
                                 landlock = MODELCACHED__WORKER__FEATURE__INIT;
    Modelcached__Worker__Feature *features[] = { &seccomp, &landlock };

    seccomp.name = (char *)"seccomp";
    seccomp.active = true;
    landlock.name = (char *)"landlock";
    landlock.detail = (char *)"not in this\nkernel";
    m.features = features;
    m.n_features = ELEMENTSOF(features);
    FAKE_SEND(HELLO, hello, &m);
}

/* Manifest bytes are the repository's name, so that each is an artifact of its own, and the digests
 * of its layers. */
_unused_ static const char *fake_manifest(char buf[static 1024], const char *how) {
    size_t n = (size_t)snprintf(buf, 1024, "%s", how);

    for (unsigned i = 0; i < FAKE_LAYERS; i++) {
        Digest d;

        digest_of(&d, fake_content(i), strlen(fake_content(i)));
        n += (size_t)snprintf(buf + n, 1024 - n, " %s", DIGEST_STR(&d));
    }
    return buf;
}
#define FAKE_MANIFEST(how) fake_manifest((char[1024]){ "" }, (how))

_unused_ static void fake_resolved(const char *how, uint64_t size_of_first) {
    const char *text = FAKE_MANIFEST(how);
    Modelcached__Worker__Resolved m = MODELCACHED__WORKER__RESOLVED__INIT;
    const unsigned n = startswith(how, "single") ? 1 : streq(how, "winding") ? 1000 : FAKE_LAYERS;
    Modelcached__Worker__LayerInfo infos[1000], *list[1000];
    static const char *const paths[] = { "model.bin", "config.json", "copy.bin" };
    Digest digests[1000], manifest;

    digest_of(&manifest, text, strlen(text));
    m.digest = (ProtobufCBinaryData){ DIGEST_BYTES, manifest.bytes };
    m.media_type = (char *)"application/vnd.oci.image.manifest.v1+json";
    m.family = (char *)"modelpack";
    m.manifest = (ProtobufCBinaryData){ strlen(text), (uint8_t *)text };
    for (unsigned i = 0; i < n; i++) {
        digest_of(&digests[i], fake_content(i), strlen(fake_content(i)));
        modelcached__worker__layer_info__init(&infos[i]);
        infos[i].digest = (ProtobufCBinaryData){ DIGEST_BYTES, digests[i].bytes };
        infos[i].size = i == 0 && size_of_first ? size_of_first : strlen(fake_content(i));
        infos[i].media_type = (char *)"application/x";
        infos[i].path = n > FAKE_LAYERS ? xasprintf("%0200u", i) : (char *)paths[i];
        list[i] = &infos[i];
    }
    m.layers = list;
    m.n_layers = n;
    FAKE_SEND(RESOLVED, resolved, &m);
}

_unused_ static void fake_layer(uint32_t index) {
    Modelcached__Worker__Entry entry = MODELCACHED__WORKER__ENTRY__INIT;
    Modelcached__Worker__Entry *entries_list[] = { &entry };
    Modelcached__Worker__Entries entries = MODELCACHED__WORKER__ENTRIES__INIT;
    Modelcached__Worker__LayerDone done = MODELCACHED__WORKER__LAYER_DONE__INIT;
    static const char *const paths[] = { "model.bin", "config.json", "copy.bin" };
    const char *text = fake_content(index);
    Digest digest;
    char name[16];
    int fd;

    (void)snprintf(name, sizeof(name), "f%u", index);
    fd = openat(4, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fs_write_all(fd, text, strlen(text), NULL) < 0)
        _exit(7);
    (void)close(fd);
    digest_of(&digest, text, strlen(text));
    entry.path = (char *)paths[index];
    entry.digest = (ProtobufCBinaryData){ DIGEST_BYTES, digest.bytes };
    entry.size = strlen(text);
    entry.ingest = name;
    entries.layer = done.layer = index;
    entries.entries = entries_list;
    entries.n_entries = 1;
    FAKE_SEND(ENTRIES, entries, &entries);
    FAKE_SEND(LAYER_DONE, layer_done, &done);
}

_unused_ static void fake_done(void) {
    Modelcached__Worker__Done m = MODELCACHED__WORKER__DONE__INIT;

    FAKE_SEND(DONE, done, &m);
}

/* What the process was given, as a sentence. */
_unused_ static void fake_report(void) {
    char text[300];
    size_t used = 0;
    extern char **environ;

    text[0] = 0;
    for (char **e = environ; *e; e++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s ", *e);
    for (int fd = 5; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "fd%d ", fd);
    if (getpgrp() != getpid())
        used += (size_t)snprintf(text + used, sizeof(text) - used, "group ");
    fake_failed(EACCES, used > 0 ? text : "nothing");
}

/* A line for the test: in "fake.log" beside the store. */
_unused_ static void fake_log(const char *how, const char *what, unsigned a, unsigned b) {
    char line[200];
    int fd = openat(4, "../../../fake.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int n = snprintf(line, sizeof(line), "%s %s %u %u\n", how, what, a, b);

    if (fd >= 0)
        (void)!write(fd, line, (size_t)n);
    safe_close(fd);
}

_unused_ static void fake_log_limits(const char *how, const Modelcached__Worker__Limits *l) {
    fake_log(how, l->background ? "background" : "limits", l->connections,
             (unsigned)l->bytes_per_second);
}

_unused_ static const char *fake_partial(unsigned layer, const char *suffix) {
    static char name[100];
    Digest d;

    digest_of(&d, fake_content(layer), strlen(fake_content(layer)));
    (void)snprintf(name, sizeof(name), "%s%s", DIGEST_HEX(&d), suffix);
    return name;
}

/* Half of a layer is there, and the network goes away. */
_unused_ static void fake_half(unsigned layer) {
    for (unsigned i = 0; i < 2; i++) {
        int fd = openat(4, fake_partial(layer, i ? ".map" : ".part"), O_WRONLY | O_CREAT, 0600);
        (void)!write(fd, "half", 4);
        (void)close(fd);
    }
    (void)usleep(300000);
    fake_failed(ECONNRESET, "the connection was reset");
}

/* Is there a file of that name beside the store? */
_unused_ static bool fake_has(const char *name) {
    _cleanup_free_ char *path = xasprintf("../../../%s", name);

    return faccessat(4, path, F_OK, 0) == 0;
}

/* "slow" begins the names of the slow ones; "gated" and "first" those that wait for a file "go" of
 * the test, the latter bring one layer then; with "crash" in it one layer comes. */
_unused_ static void fake_fetch(const char *how, const Modelcached__Worker__Plan *plan) {
    if (streq(how, "large") && plan->n_fetch > 0) /* which does not come */
        (void)pause();
    while ((startswith(how, "gated") || startswith(how, "first")) && !fake_has("go"))
        (void)usleep(5000);
    for (size_t i = 0; i < plan->n_fetch; i++) {
        if (startswith(how, "first") && i > 0)
            (void)pause();
        if (startswith(how, "slow") || streq(how, "half") || streq(how, "crash"))
            (void)usleep(200000);
        if (strstr(how, "crash") && i > 0)
            (void)raise(SIGKILL);
        if (streq(how, "half") && i > 0) {
            fake_half(plan->fetch[i]);
            _exit(0);
        }
        fake_log(how,
                 faccessat(4, fake_partial(plan->fetch[i], ".map"), F_OK, 0) == 0 ? "resume"
                                                                                  : "fetch",
                 plan->fetch[i], plan->more ? 1 : 0);
        fake_layer(plan->fetch[i]);
    }
}

/* As the repository says, or in that of the name "tags" the tag: pulls of one repository share. */
_unused_ static const char *fake_how(const Modelcached__Worker__Job *job) {
    if (strstr(job->repository, "private") && fake_has("moved"))
        return "moved";
    return streq(job->repository, "tags") ? job->tag : job->repository;
}

/* What a registry answers to all of who asks, while there is a file of that name. */
_unused_ static bool fake_closed(void) {
    static const struct {
        const char *name;
        int error;
        bool answered;
    } answers[] = {
        { "401", EKEYREJECTED, true },    { "403", EACCES, true },
        { "404", ENOENT, true },          { "403-of-a-proxy", EACCES, false },
        { "no-platform", ENOENT, false },
    };

    for (size_t i = 0; i < ELEMENTSOF(answers); i++)
        if (fake_has(answers[i].name)) {
            fake_failed_as(answers[i].error, answers[i].name, answers[i].answered);
            return true;
        }
    return false;
}

/* "private" repositories are for the password "good" alone, until the file "revoked" is there; who
 * comes with "down" finds nobody. */
_unused_ static bool fake_refuses(const Modelcached__Worker__Job *job) {
    const char *password = job->n_credentials > 0 ? job->credentials[0]->password : "";
    bool down = streq(password, "down");

    if (strstr(job->repository, "private"))
        fake_log(password, "patience", job->stall_seconds, job->give_up_seconds);
    if (!strstr(job->repository, "private") || (streq(password, "good") && !fake_has("revoked")))
        return false;
    fake_failed(down ? ECONNREFUSED : EKEYREJECTED, down ? "nobody is there" : "401, who are you?");
    return true;
}

/* "late" begins the names of those that resolve when there is a file "go" of the test. */
_unused_ static void fake_pull(const Modelcached__Worker__Job *job) {
    const char *how = fake_how(job);
    Modelcached__Worker__ToWorker *m;
    size_t n = 0;
    bool more = true;

    fake_hello();
    while (startswith(how, "late") && !fake_has("go"))
        (void)usleep(5000);
    if (streq(how, "absent"))
        fake_failed_as(ENOENT, "no such tag", true);
    if (streq(how, "absent") || fake_closed() || fake_refuses(job))
        return;
    if (job->limits)
        fake_log_limits(how, job->limits);
    fake_resolved(how, streq(how, "huge") ? (uint64_t)1 << 45 : streq(how, "large") ? GiB(1) : 0);
    while (more) {
        m = fake_read();
        if (m->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_LIMITS) {
            fake_log_limits(how, m->limits);
            continue;
        }
        n += m->plan->n_fetch;
        more = m->plan->more;
        fake_log(how, "plan", (unsigned)m->plan->n_fetch,
                 (unsigned)(m->plan->content_max_bytes >> 20));
        fake_fetch(how, m->plan);
    }
    if (streq(how, "three") && n != 3) /* layer 2 has the content of layer 0 */
        fake_failed(EIO, n == 2 ? "two" : "other");
    else
        fake_done();
    if (startswith(how, "repeats")) { /* "repeats2": 2 ms later */
        (void)usleep((useconds_t)(how[7] - '0') * 1000);
        fake_done();
    }
    if (streq(how, "lingers"))
        (void)pause();
}

/* Resolves, and writes down what it may use from then on; no layer ever comes. */
_unused_ static void fake_listen(const Modelcached__Worker__Job *job) {
    fake_hello();
    fake_resolved(job->repository, 0);
    for (;;) {
        const Modelcached__Worker__ToWorker *m;
        long prio;

        (void)usleep(50000);
        prio = syscall(SYS_ioprio_get, 1, 0); /* of this process */
        fake_log(job->repository, "ioprio", (unsigned)prio >> 13, (unsigned)prio & 0x1fff);
        fake_log(job->repository, "nice", (unsigned)getpriority(PRIO_PROCESS, 0), 0);
        m = fake_read();
        if (m->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_LIMITS)
            fake_log_limits(job->repository, m->limits);
        if (m->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_LIMITS)
            fake_log(job->repository, "memory", (unsigned)(m->limits->memory_bytes >> 20), 0);
    }
}

/* Leaves a child behind that holds the socket. */
_unused_ static void fake_family(void) {
    pid_t pid = fork();
    char text[16];
    int fd;

    if (pid == 0) {
        (void)sleep(100);
        _exit(0);
    }
    (void)snprintf(text, sizeof(text), "%d", (int)pid);
    fd = openat(4, "child", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || fs_write_all(fd, text, strlen(text), NULL) < 0)
        _exit(7);
    _exit(6);
}

_unused_ static void fake_behave(const Modelcached__Worker__Job *job) {
    const char *how = fake_how(job);

    if (job->probe)
        fake_hello();
    else if (streq(how, "report"))
        fake_report();
    else if (streq(how, "exit"))
        _exit(7);
    else if (streq(how, "kill"))
        (void)raise(SIGKILL);
    else if (streq(how, "garbage"))
        (void)!write(3, "\x05\0\0\0hello", 9);
    else if (streq(how, "long"))
        (void)!write(3, "\xff\xff\xff\xff", 4);
    else if (streq(how, "early"))
        fake_done();
    else if (streq(how, "dirty"))
        fake_failed(ENOENT, "a\033[31mb\xff");
    else if (streq(how, "odd"))
        fake_failed(EXDEV, "odd error");
    else if (startswith(how, "sleep-"))
        fake_listen(job);
    else if (streq(how, "sleep"))
        (void)sleep(100);
    else if (streq(how, "hello-sleep"))
        fake_hello(), (void)sleep(100);
    else if (streq(how, "family"))
        fake_family();
    else if (streq(how, "stderr"))
        (void)!write(2, "line one\nline \033[1mtwo", 22), fake_failed(EPROTO, "");
    else
        fake_pull(job);
}

/* What it could do ahead does not matter. */
_unused_ static const Modelcached__Worker__Job *fake_job(void) {
    const Modelcached__Worker__ToWorker *m;

    do
        m = fake_read();
    while (m->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_AHEAD);
    return m->job;
}

__attribute__((__constructor__(101))) static void fake_main(void) {
    if (startswith(program_invocation_short_name, "fake-")) {
        fake_behave(fake_job());
        _exit(0);
    }
}

/* A loop that may watch workers; the caller unrefs it. */
_unused_ static sd_event *fake_event(void) {
    sd_event *event = NULL;
    sigset_t signals;

    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    ASSERT_OK(sd_event_new(&event));
    return event;
}

/* A link to this program that is a worker. */
_unused_ static const char *fake_program(TmpDir *dir) {
    const char *path = tmpdir_join(dir, "fake-worker");
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    self[n > 0 ? n : 0] = 0;
    if (symlink(self, path) < 0)
        test_fail(__FILE__, __LINE__, "symlink: %s", strerror(errno));
    return path;
}
