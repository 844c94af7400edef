/* SPDX-License-Identifier: Apache-2.0 */
/* h2: one HTTP/2 connection that carries gRPC: the socket, the session's life, and its limits. */
#include "proto/h2.h"

#include "base/limits.h"
#include "proto/h2_internal.h"

#include <sys/epoll.h>
#include <sys/socket.h>

enum {
    READ_BYTES = 64 << 10,        /* of one recv() */
    WRITE_BYTES = 64 << 10,       /* of one send() */
    FRAME_BYTES = (16 << 10) + 9, /* the longest frame that nghttp2 makes for us */
    READS_A_TURN = 4,             /* then the other sources of the loop have theirs */
    OUTBOUND_FRAMES = 1024,       /* a peer that does not read is not read from beyond this */
    RESETS_BURST = 256,           /* CVE-2023-44487, CVE-2025-8671: streams reset by either side */
    RESETS_A_SECOND = 64,
    CONTINUATIONS = 8, /* CVE-2024-28182; headers of LIMIT_GRPC_HEADER_BYTES need 5 */
    STREAM_WINDOW = 1 << 20,
    CONNECTION_WINDOW = 4 << 20,
};

static void h2_destroy(H2 *h) {
    while (h->streams)
        h2_stream_free(h->streams);
    h->io = sd_event_source_disable_unref(h->io);
    h->kick = sd_event_source_disable_unref(h->kick);
    nghttp2_session_del(h->session);
    buf_done(&h->pending);
    h->fd = safe_close(h->fd);
    h->event = sd_event_unref(h->event);
    free(h);
}

H2 *h2_free(H2 *h) {
    if (!h)
        return NULL;
    h->dead = true;
    for (H2Stream *s = h->streams; s; s = s->next)
        s->user = NULL;
    if (!h->busy) /* else the one who is busy does it */
        h2_destroy(h);
    return NULL;
}

const char *h2_why(const H2 *h) {
    return isempty(h->why) ? "the peer said goodbye" : h->why;
}

/* Tells everybody that it is over; the owner frees `h` in on_down. */
static void h2_down(H2 *h) {
    h->is_down = true;
    h->io = sd_event_source_disable_unref(h->io);
    h->kick = sd_event_source_disable_unref(h->kick);
    for (H2Stream *s; (s = h->streams) && !h->dead;)
        h2_stream_close(s, NGHTTP2_REFUSED_STREAM);
    if (!h->dead)
        h->handlers->on_down(h->arg, h2_why(h));
}

void h2_fail(H2 *h, const char *why) {
    if (!h->failed)
        (void)snprintf(h->why, sizeof(h->why), "%s", why);
    h->failed = true;
}

void h2_abort(H2 *h, const char *why) {
    h2_fail(h, why);
    h2_kick(h);
}

void h2_kick(H2 *h) {
    if (!h->busy && !h->is_down)
        /* Fails only for a source that is gone. */
        (void)sd_event_source_set_enabled(h->kick, SD_EVENT_ONESHOT);
}

/* Sends `n` bytes or keeps what the socket does not take. */
static void h2_send(H2 *h, const uint8_t *data, size_t n) {
    ssize_t k = send(h->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (k < 0 && errno != EAGAIN && errno != EINTR) {
        h->write_closed = true; /* there may still be something to read */
        return;
    }
    k = MAX(k, (ssize_t)0);
    if ((size_t)k < n && buf_append(&h->pending, data + k, n - (size_t)k) < 0)
        h2_fail(h, "no memory for output");
}

static void h2_send_pending(H2 *h) {
    ssize_t k = send(h->fd, h->pending.data, h->pending.len, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (k >= 0)
        buf_consume(&h->pending, (size_t)k);
    else if (errno != EAGAIN && errno != EINTR)
        h->write_closed = true;
    if (h->write_closed || h->pending.len == 0)
        buf_done(&h->pending);
}

/* Collects frames into `buffer`.  0: there are none. */
static size_t h2_collect(H2 *h, uint8_t buffer[static WRITE_BYTES]) {
    size_t n = 0;

    while (n + FRAME_BYTES <= WRITE_BYTES && !h->dead) {
        const uint8_t *data;
        ssize_t k = nghttp2_session_mem_send(h->session, &data);

        if (k < 0)
            h2_fail(h, nghttp2_strerror((int)k));
        if (k <= 0)
            break;
        assert(n + (size_t)k <= WRITE_BYTES);
        memcpy(buffer + n, data, (size_t)k);
        n += (size_t)k;
    }
    return n;
}

static void h2_write(H2 *h) {
    uint8_t buffer[WRITE_BYTES];

    if (h->pending.len > 0)
        h2_send_pending(h);
    while (h->pending.len == 0 && !h->dead) {
        size_t n = h2_collect(h, buffer);

        if (n == 0 || h->dead)
            break;
        if (!h->write_closed)
            h2_send(h, buffer, n);
    }
}

static void h2_read(H2 *h, bool hung_up) {
    uint8_t buffer[READ_BYTES];

    for (int i = 0; i < READS_A_TURN && !h->read_closed && !h->failed && !h->dead; i++) {
        ssize_t n = recv(h->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
        ssize_t k;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            /* A peer that only ended its writing still gets what it asked for. */
            h->read_closed = true;
            if (n < 0 || hung_up || !h->server)
                h2_fail(h, "the connection was closed by the peer");
            else
                h2_streams_end_input(h);
            return;
        }
        h->heard = true;
        k = nghttp2_session_mem_recv(h->session, buffer, (size_t)n);
        if (k < 0)
            h2_fail(h, nghttp2_strerror((int)k));
        if (n < (ssize_t)sizeof(buffer) && !hung_up)
            return;
    }
}

/* Is there nothing that could still happen? */
static bool h2_is_done(const H2 *h) {
    if (h->failed)
        return true;
    if (h->read_closed && (h->write_closed || !h->streams) && h->pending.len == 0)
        return true;
    return h->pending.len == 0 && !nghttp2_session_want_read(h->session) &&
           !nghttp2_session_want_write(h->session);
}

/* Ends what h2_enter() began: goes down, is freed, or waits for the next event. */
static void h2_leave(H2 *h) {
    uint32_t events = 0;

    if (!h->dead && h2_is_done(h))
        h2_down(h);
    h->busy = false;
    if (h->dead) {
        h2_destroy(h);
        return;
    }
    if (h->is_down)
        return;
    if (!h->read_closed && !(h->server && h->pending.len > 0 &&
                             nghttp2_session_get_outbound_queue_size(h->session) > OUTBOUND_FRAMES))
        events |= EPOLLIN;
    if (h->pending.len > 0 && !h->write_closed)
        events |= EPOLLOUT;
    if (events != h->events) {
        h->events = events;
        (void)sd_event_source_set_io_events(h->io,
                                            events); /* fails only for a source that is gone */
    }
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
    H2 *h = userdata;

    (void)source, (void)fd;
    h->busy = true;
    if (h->read_closed && (revents & (EPOLLHUP | EPOLLERR)))
        h2_fail(h, "the connection was closed by the peer");
    else if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
        h2_read(h, revents & (EPOLLHUP | EPOLLERR));
    h2_write(h);
    h2_leave(h);
    return 0;
}

static int on_kick(sd_event_source *source, void *userdata) {
    H2 *h = userdata;

    (void)source;
    h->busy = true;
    h2_write(h);
    h2_leave(h);
    return 0;
}

void h2_count_reset(H2 *h) {
    uint64_t now = now_usec();
    uint64_t earned = (now - h->resets_usec) * RESETS_A_SECOND / USEC_PER_SEC;

    if (earned > 0) {
        h->resets_left = MIN(h->resets_left + earned, (uint64_t)RESETS_BURST);
        h->resets_usec = now;
    }
    if (h->resets_left > 0) {
        h->resets_left--;
        return;
    }
    h2_fail(h, "the peer opens and resets too many streams");
    (void)nghttp2_session_terminate_session(h->session,
                                            NGHTTP2_ENHANCE_YOUR_CALM); /* to be polite */
}

void h2_goaway(H2 *h) {
    int32_t last = nghttp2_session_get_last_proc_stream_id(h->session);

    h->goaway_sent = true;
    /* Without memory the connection stays, and is closed with its owner. */
    (void)nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
    h2_kick(h);
}

void h2_ping(H2 *h) {
    /* Without memory nothing is heard, and the peer is thought dead. */
    (void)nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL);
    h2_kick(h);
}

bool h2_take_heard(H2 *h) {
    bool heard = h->heard;

    h->heard = false;
    return heard;
}

bool h2_is_open(const H2 *h) {
    return !h->goaway_sent && !h->goaway_received && !h->failed && !h->is_down &&
           !h->write_closed && nghttp2_session_check_request_allowed(h->session);
}

static int submit_settings(H2 *h) {
    nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, LIMIT_GRPC_HEADER_BYTES },
        { h->server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
          h->server ? LIMIT_GRPC_STREAMS : 0 },
    };
    int r = nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, ELEMENTSOF(settings));

    if (r == 0)
        r = nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0,
                                                  CONNECTION_WINDOW);
    return r == 0 ? 0 : -ENOMEM;
}

static int session_new(H2 *h) {
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int r = -ENOMEM;

    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
        goto finish;
    h2_set_callbacks(callbacks);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_continuations(option, CONTINUATIONS);
    nghttp2_option_set_max_outbound_ack(option, OUTBOUND_FRAMES);
    if (h->server) {
        /* Its checks of :authority refuse the socket path that kubelets up to 1.25 send; what we
         * need of the headers is judged in grpc_call.c. */
        nghttp2_option_set_no_http_messaging(option, 1);
        r = nghttp2_session_server_new2(&h->session, callbacks, h, option);
    } else
        r = nghttp2_session_client_new2(&h->session, callbacks, h, option);
    r = r == 0 ? submit_settings(h) : -ENOMEM;
finish:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return r;
}

int h2_new(H2 **ret, const H2Options *options, Err *err) {
    _cleanup_(h2_freep) H2 *h = xnew(H2);
    int r;

    *h = (H2){
        .event = sd_event_ref(options->event),
        .fd = -EBADF, /* until it is ours */
        .server = options->server,
        .handlers = options->handlers,
        .arg = options->arg,
        .pending = BUF_INIT(WRITE_BYTES),
        .events = EPOLLIN,
        .resets_left = RESETS_BURST,
        .resets_usec = now_usec(),
    };
    r = session_new(h);
    if (r < 0)
        return err_errnum(err, r, "start an HTTP/2 session");
    r = sd_event_add_io(h->event, &h->io, options->fd, h->events, on_io, h);
    if (r < 0)
        return err_errnum(err, r, "watch a connection");
    r = sd_event_add_defer(h->event, &h->kick, on_kick, h); /* enabled: sends our SETTINGS */
    if (r < 0)
        return err_errnum(err, r, "watch a connection");
    h->fd = options->fd;
    *ret = TAKE_PTR(h);
    return 0;
}
