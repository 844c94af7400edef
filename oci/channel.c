/* SPDX-License-Identifier: Apache-2.0 */
/* channel: the worker's end of the socketpair to the daemon: messages of proto/worker.proto behind
 * 4-byte lengths. */
#include "oci/channel.h"

#include "base/buf.h"
#include "base/limits.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define READ_STEP KiB(64)
#define FILE_STEP KiB(256)

/* What waits to leave: bytes, or a file of them. */
typedef struct Outgoing {
    struct Outgoing *next;
    uint8_t *data; /* the bytes; of a file: its next piece */
    size_t n, at;  /* of `data` */
    int fd;        /* file, or -EBADF */
    uint64_t file_bytes, file_at;
} Outgoing;

struct Channel {
    int fd;
    int passed_fd; /* that came with what was read, or -EBADF */
    sd_event_source *source;
    ChannelMessage on_message;
    ChannelClosed on_closed;
    void *arg;
    Buf in;
    Outgoing *first, *last;
    bool *freed; /* set when a callback frees the channel */
};

typedef Modelcached__Worker__ToWorker ToWorker;

void channel_new(Channel **ret, int fd) {
    Channel *c = xnew(Channel);

    c->fd = fd;
    c->passed_fd = -EBADF;
    c->in = BUF_INIT(CHANNEL_LENGTH_BYTES + LIMIT_WORKER_MESSAGE_BYTES + READ_STEP);
    *ret = c;
}

static Outgoing *outgoing_free(Outgoing *o) {
    (void)safe_close(o->fd);
    free(o->data);
    free(o);
    return NULL;
}

static void outgoing_pop(Channel *c) {
    Outgoing *o = c->first;

    c->first = o->next;
    if (!c->first)
        c->last = NULL;
    (void)outgoing_free(o);
}

Channel *channel_free(Channel *c) {
    if (!c)
        return NULL;
    if (c->freed)
        *c->freed = true;
    while (c->first)
        outgoing_pop(c);
    (void)sd_event_source_disable_unref(c->source);
    (void)safe_close(c->fd);
    (void)safe_close(c->passed_fd);
    buf_done(&c->in);
    free(c);
    return NULL;
}

uint8_t *channel_frame(const Modelcached__Worker__FromWorker *message, size_t *ret_n) {
    size_t n = modelcached__worker__from_worker__get_packed_size(message);
    uint8_t *frame = xcalloc(1, CHANNEL_LENGTH_BYTES + n);

    for (unsigned i = 0; i < CHANNEL_LENGTH_BYTES; i++)
        frame[i] = (uint8_t)(n >> (8 * i));
    (void)modelcached__worker__from_worker__pack(message,
                                                 frame + CHANNEL_LENGTH_BYTES); /* returns n */
    *ret_n = CHANNEL_LENGTH_BYTES + n;
    return frame;
}

size_t channel_length(const uint8_t data[static CHANNEL_LENGTH_BYTES]) {
    return (size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16 | (size_t)data[3] << 24;
}

ssize_t channel_parse(const uint8_t *data, size_t n, ToWorker **ret, Err *err) {
    size_t length;
    ToWorker *message;

    if (n < CHANNEL_LENGTH_BYTES)
        return 0;
    length = channel_length(data);
    if (length > LIMIT_WORKER_MESSAGE_BYTES)
        return err_set(err, -E2BIG, "the daemon sent a message of %zu bytes", length);
    if (n < CHANNEL_LENGTH_BYTES + length)
        return 0;
    message = modelcached__worker__to_worker__unpack(NULL, length, data + CHANNEL_LENGTH_BYTES);
    if (!message)
        return err_set(err, -EPROTO, "the daemon sent a malformed message of %zu bytes", length);
    *ret = message;
    return (ssize_t)(CHANNEL_LENGTH_BYTES + length);
}

/* Takes the next message out of `in`: 1, or 0 when there is none yet. */
static int take(Channel *c, ToWorker **ret, Err *err) {
    ssize_t n = channel_parse(c->in.data, c->in.len, ret, err);

    if (n <= 0)
        return (int)n;
    explicit_bzero(c->in.data, (size_t)n); /* a job holds credentials */
    buf_consume(&c->in, (size_t)n);
    return 1;
}

/* As recv(2); one descriptor that comes with the bytes is kept (SCM_RIGHTS, unix(7)). */
static ssize_t receive(Channel *c, void *to, size_t n, int flags) {
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = { to, n };
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
    };
    ssize_t got = recvmsg(c->fd, &m, flags | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *cmsg = got > 0 ? CMSG_FIRSTHDR(&m) : NULL;

    if (cmsg && cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS) {
        safe_close(c->passed_fd);
        memcpy(&c->passed_fd, CMSG_DATA(cmsg), sizeof(int));
    }
    return got;
}

/* Reads what there is: 1, or 0 when nothing is there now. */
static int fill(Channel *c, int flags, Err *err) {
    uint8_t *to;
    ssize_t n;
    int r = buf_reserve(&c->in, READ_STEP, &to);

    if (r < 0)
        return err_errnum(err, r, "cannot read from the daemon");
    do
        n = receive(c, to, READ_STEP, flags);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n == 0 || (n < 0 && errno == ECONNRESET))
        return err_set(err, -ECANCELED, "the daemon has ended this pull");
    if (n < 0)
        return err_errno(err, "cannot read from the daemon");
    c->in.len += (size_t)n;
    return 1;
}

int channel_receive(Channel *c, ToWorker **ret, Err *err) {
    int r = take(c, ret, err);

    while (r == 0) {
        r = fill(c, 0, err);
        if (r >= 0)
            r = take(c, ret, err);
    }
    return r < 0 ? r : 0;
}

bool channel_has_more(const Channel *c) {
    return c->in.len > 0 || poll(&(struct pollfd){ .fd = c->fd, .events = POLLIN }, 1, 0) > 0;
}

int channel_take_fd(Channel *c) {
    return TAKE_FD(c->passed_fd);
}

/* The next piece of a file that is to leave. */
static int load(Outgoing *o, Err *err) {
    size_t want = (size_t)MIN(o->file_bytes - o->file_at, (uint64_t)FILE_STEP);
    ssize_t n;

    if (!o->data)
        o->data = xcalloc(1, FILE_STEP);
    n = pread(o->fd, o->data, want, (off_t)o->file_at);
    if (n < 0)
        return err_errno(err, "cannot read the list of entries back");
    if (n == 0)
        return err_set(err, -EIO, "the list of entries became shorter");
    o->file_at += (uint64_t)n;
    o->n = (size_t)n;
    o->at = 0;
    return 0;
}

/* Sends until all has left (0) or the socket is full (1). */
static int drain(Channel *c, Err *err) {
    while (c->first) {
        Outgoing *o = c->first;
        ssize_t n;

        if (o->at == o->n) {
            int r = 0;

            if (o->fd < 0 || o->file_at == o->file_bytes)
                outgoing_pop(c);
            else
                r = load(o, err);
            if (r < 0)
                return r;
            continue;
        }
        n = send(c->fd, o->data + o->at, o->n - o->at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 1;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return err_set(err, -ECANCELED, "the daemon has ended this pull");
        if (n < 0)
            return err_errno(err, "cannot send to the daemon");
        o->at += (size_t)n;
    }
    return 0;
}

static void watch(Channel *c) {
    if (c->source)
        (void)sd_event_source_set_io_events(c->source, EPOLLIN | (c->first ? EPOLLOUT : 0U));
}

static void closed(Channel *c, int r, const Err *err) {
    (void)sd_event_source_set_enabled(c->source, SD_EVENT_OFF);
    c->on_closed(c->arg, r, err);
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *arg) {
    Channel *c = arg;
    bool freed = false;
    Err err;
    int r = 0;

    (void)source;
    (void)fd;
    if (revents & EPOLLOUT)
        r = drain(c, &err);
    if (r >= 0 && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        r = fill(c, MSG_DONTWAIT, &err);
    c->freed = &freed;
    while (r >= 0) {
        ToWorker *message = NULL;

        r = take(c, &message, &err);
        if (r <= 0)
            break;
        c->on_message(c->arg, message);
        modelcached__worker__to_worker__free_unpacked(message, NULL);
        if (freed)
            return 0;
    }
    c->freed = NULL;
    watch(c);
    if (r < 0)
        closed(c, r, &err);
    return 0;
}

int channel_attach(Channel *c, sd_event *event, ChannelMessage on_message, ChannelClosed on_closed,
                   void *arg) {
    c->on_message = on_message;
    c->on_closed = on_closed;
    c->arg = arg;
    return sd_event_add_io(event, &c->source, c->fd, EPOLLIN | (c->first ? EPOLLOUT : 0U),
                           on_socket, c);
}

static void queue(Channel *c, Outgoing *o) {
    if (c->last)
        c->last->next = o;
    else
        c->first = o;
    c->last = o;
    watch(c);
}

void channel_send(Channel *c, const Modelcached__Worker__FromWorker *message) {
    Outgoing *o = xnew(Outgoing);

    o->fd = -EBADF;
    o->data = channel_frame(message, &o->n);
    queue(c, o);
}

void channel_send_file(Channel *c, int fd, uint64_t bytes) {
    Outgoing *o = xnew(Outgoing);

    o->fd = fd;
    o->file_bytes = bytes;
    queue(c, o);
}

bool channel_is_idle(const Channel *c) {
    return !c->first;
}

int channel_flush(Channel *c, Err *err) {
    for (;;) {
        struct pollfd p = { .fd = c->fd, .events = POLLOUT };
        int r = drain(c, err);

        if (r <= 0)
            return r;
        if (poll(&p, 1, -1) < 0 && errno != EINTR)
            return err_errno(err, "cannot wait for the daemon");
    }
}
