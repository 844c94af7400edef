/* SPDX-License-Identifier: Apache-2.0 */
/* test_channel: messages over a socketpair: in pieces, malformed, large, from a file, and a daemon
 * that is gone. */
#include "oci/channel.h"

#include "base/limits.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

typedef struct Seen {
    unsigned messages;
    uint32_t last;
    int closed;
    sd_event *event;
} Seen;

static void on_message(void *arg, const Modelcached__Worker__ToWorker *message) {
    Seen *s = arg;

    s->messages++;
    if (message->message_case == MODELCACHED__WORKER__TO_WORKER__MESSAGE_PLAN &&
        message->plan->n_fetch > 0)
        s->last = message->plan->fetch[0];
}

static void on_closed(void *arg, int r, const Err *err) {
    Seen *s = arg;

    ASSERT_TRUE(*err_text(err, r));
    s->closed = r;
    (void)sd_event_exit(s->event, 0);
}

/* A Plan with `n` layers, as the daemon frames it. */
static uint8_t *plan_frame(uint32_t first, size_t n, size_t *ret_n) {
    Modelcached__Worker__Plan plan = MODELCACHED__WORKER__PLAN__INIT;
    Modelcached__Worker__ToWorker message = MODELCACHED__WORKER__TO_WORKER__INIT;
    _cleanup_free_ uint32_t *fetch = xnew_n(uint32_t, n);
    size_t k;
    uint8_t *frame;

    fetch[0] = first;
    plan.fetch = fetch;
    plan.n_fetch = n;
    message.message_case = MODELCACHED__WORKER__TO_WORKER__MESSAGE_PLAN;
    message.plan = &plan;
    k = modelcached__worker__to_worker__get_packed_size(&message);
    frame = xcalloc(1, k + 4);
    for (unsigned i = 0; i < 4; i++)
        frame[i] = (uint8_t)(k >> (8 * i));
    (void)modelcached__worker__to_worker__pack(&message, frame + 4);
    *ret_n = k + 4;
    return frame;
}

TEST(messages_come_whole_whatever_the_pieces) {
    int fds[2];
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(channel_freep) Channel *c = NULL;
    Seen seen = { 0 };

    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    ASSERT_OK(sd_event_new(&event));
    seen.event = event;
    channel_new(&c, fds[0]);
    ASSERT_OK(channel_attach(c, event, on_message, on_closed, &seen));
    for (uint32_t round = 1; round <= 5; round++) {
        size_t n;
        _cleanup_free_ uint8_t *frame = plan_frame(round, 3, &n);
        for (size_t i = 0; i < n; i++) {
            ASSERT_EQ(send(fds[1], frame + i, 1, 0), 1);
            if (round < 4)
                ASSERT_OK(sd_event_run(event, 0));
        }
    }
    for (int i = 0; i < 10; i++)
        ASSERT_OK(sd_event_run(event, 0));
    ASSERT_EQ(seen.messages, 5);
    ASSERT_EQ(seen.last, 5);
    ASSERT_OK(close(fds[1]));
    ASSERT_OK(sd_event_loop(event));
    ASSERT_EQ(seen.closed, -ECANCELED);
}

/* Two bytes come before the others, and with them a descriptor. */
static void send_with(int fd, const uint8_t *frame, size_t n, int passed) {
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec iov = { (void *)(uintptr_t)frame, 2 };
    struct msghdr m = { NULL, 0, &iov, 1, control, sizeof(control), 0 };
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &passed, sizeof(int));
    ASSERT_EQ(sendmsg(fd, &m, 0), 2);
    ASSERT_EQ(send(fd, frame + 2, n - 2, 0), (ssize_t)n - 2);
}

TEST(has_more_knows_what_was_read_and_what_was_not) {
    _cleanup_(channel_freep) Channel *c = NULL;
    Modelcached__Worker__ToWorker *message;
    size_t n;
    _cleanup_free_ uint8_t *frame = plan_frame(7, 1, &n);
    int fds[2];
    Err err;

    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    channel_new(&c, fds[0]);
    ASSERT_TRUE(!channel_has_more(c));
    for (int i = 0; i < 2; i++)
        ASSERT_EQ(send(fds[1], frame, n, 0), (ssize_t)n);
    for (int i = 0; i < 2; i++) { /* with the first one the second one is read */
        ASSERT_TRUE(channel_has_more(c));
        ASSERT_OK(channel_receive(c, &message, &err));
        modelcached__worker__to_worker__free_unpacked(message, NULL);
    }
    ASSERT_TRUE(!channel_has_more(c));
    ASSERT_OK(close(fds[1]));
    ASSERT_TRUE(channel_has_more(c));
}

TEST(receive_waits_for_one_message_and_what_comes_with_it) {
    int fds[2], got = -EBADF;
    struct stat here, there;
    _cleanup_(channel_freep) Channel *c = NULL;
    Modelcached__Worker__ToWorker *message;
    size_t n;
    _cleanup_free_ uint8_t *frame = plan_frame(7, 1, &n);
    Err err;

    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    channel_new(&c, fds[0]);
    send_with(fds[1], frame, n, fds[1]);
    ASSERT_OK(channel_receive(c, &message, &err));
    ASSERT_EQ(message->plan->fetch[0], 7);
    modelcached__worker__to_worker__free_unpacked(message, NULL);
    got = channel_take_fd(c);
    ASSERT_OK(fstat(fds[1], &here));
    ASSERT_OK(fstat(got, &there));
    ASSERT_EQ(here.st_ino, there.st_ino);
    ASSERT_EQ(fcntl(got, F_GETFD), FD_CLOEXEC);
    ASSERT_OK(close(got));
    ASSERT_EQ(send(fds[1], frame, n, 0), (ssize_t)n);
    ASSERT_OK(channel_receive(c, &message, &err));
    modelcached__worker__to_worker__free_unpacked(message, NULL);
    ASSERT_EQ(channel_take_fd(c), -EBADF);
    ASSERT_OK(close(fds[1]));
    ASSERT_ERR(channel_receive(c, &message, &err), -ECANCELED);
}

TEST(nonsense_is_an_error) {
    static const struct {
        const char *bytes;
        size_t n;
        ssize_t r;
    } cases[] = {
        { "", 0, 0 },
        { "\x05\x00\x00", 3, 0 },
        { "\x05\x00\x00\x00\x0a", 5, 0 },
        { "\x00\x00\x00\x00", 4, 4 },
        { "\x02\x00\x00\x00\x0a\x7f", 6, -EPROTO },
        { "\x01\x00\x00\x00\xff", 5, -EPROTO },
        { "\xff\xff\xff\xff", 4, -E2BIG },
        { "\x01\x00\x00\x04", 4, -E2BIG },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Modelcached__Worker__ToWorker *message = NULL;
        Err err;

        ASSERT_EQ(channel_parse((const uint8_t *)cases[i].bytes, cases[i].n, &message, &err),
                  cases[i].r);
        if (message)
            modelcached__worker__to_worker__free_unpacked(message, NULL);
    }
}

TEST(large_messages_and_files_leave_as_the_daemon_reads) {
    int fds[2];
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(channel_freep) Channel *c = NULL;
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    Modelcached__Worker__FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;
    Modelcached__Worker__Resolved resolved = MODELCACHED__WORKER__RESOLVED__INIT;
    _cleanup_free_ uint8_t *bytes = xcalloc(1, MiB(2)), *got = xcalloc(1, MiB(4));
    size_t at = 0, want = 0;
    Seen seen = { 0 };
    int file;

    ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    ASSERT_OK(sd_event_new(&event));
    seen.event = event;
    channel_new(&c, fds[0]);
    ASSERT_OK(channel_attach(c, event, on_message, on_closed, &seen));
    memset(bytes, 'm', MiB(2));
    resolved.manifest = (ProtobufCBinaryData){ MiB(2), bytes };
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_RESOLVED;
    message.resolved = &resolved;
    want = modelcached__worker__from_worker__get_packed_size(&message) + 4 + MiB(1);
    channel_send(c, &message);
    file = openat(tmpdir_fd(dir), "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(pwrite(file, bytes, MiB(1), 0), MiB(1));
    channel_send_file(c, file, MiB(1));
    ASSERT_TRUE(!channel_is_idle(c));
    while (at < want) {
        ssize_t n;
        ASSERT_OK(sd_event_run(event, 0));
        n = recv(fds[1], got + at, MiB(4) - at, MSG_DONTWAIT);
        if (n > 0)
            at += (size_t)n;
    }
    ASSERT_OK(sd_event_run(event, 0));
    ASSERT_TRUE(channel_is_idle(c));
    ASSERT_EQ(at, want);
    ASSERT_EQ(got[0] | got[1] << 8 | got[2] << 16 | got[3] << 24, want - 4 - MiB(1));
    ASSERT_MEMEQ(got + want - MiB(1), bytes, MiB(1));
    ASSERT_OK(close(fds[1]));
    channel_send(c, &message);
    Err err;
    ASSERT_ERR(channel_flush(c, &err), -ECANCELED);
}
