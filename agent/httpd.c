/* SPDX-License-Identifier: Apache-2.0 */
/* httpd: a small HTTP/1.1 server on the loop. */
#include "agent/httpd.h"
#include "agent/address.h"
#include "base/limits.h"
#include "base/log.h"

#include <microhttpd.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define ACCEPTS_A_TURN 8
#define BACKLOG        256 /* a flood fills it, and whoever comes then tries again in a second */
#define PAUSE_USEC     (100 * USEC_PER_MSEC) /* when there are no descriptors left */

/* Debian's libmicrohttpd is linked with GnuTLS, whose start takes 1 MiB of memory from every daemon
 * and which nothing here uses (no MHD_USE_TLS).  The first is what GNUTLS_SKIP_GLOBAL_INIT of
 * gnutls.h defines; the others stand before GnuTLS's own for libmicrohttpd's call of them.
 * CMakeLists.txt exports them. */
int _gnutls_global_init_skip(void);
int gnutls_global_init(void);
void gnutls_global_deinit(void);

int _gnutls_global_init_skip(void) {
    return 1;
}

int gnutls_global_init(void) {
    return 0;
}

void gnutls_global_deinit(void) {
}

typedef struct Client {
    int fd; /* of a connection that libmicrohttpd has; -EBADF: none */
    uint64_t since_usec;
    struct in6_addr owner; /* as address_owner() */
} Client;

struct Httpd {
    HttpdOptions o;
    int fd; /* listens */
    struct MHD_Daemon *mhd;
    sd_event_source *accepting, *serving, *timer;
    Client clients[LIMIT_HTTPD_CONNECTIONS];
    bool paused; /* nothing is accepted until the timer */
};

/* Connections. */

static Client *oldest_client(Httpd *h) {
    Client *oldest = NULL;

    for (size_t i = 0; i < ELEMENTSOF(h->clients); i++)
        if (h->clients[i].fd >= 0 && (!oldest || h->clients[i].since_usec < oldest->since_usec))
            oldest = &h->clients[i];
    return oldest;
}

static size_t n_of_owner(const Httpd *h, const struct in6_addr *owner) {
    size_t n = 0;

    for (size_t i = 0; i < ELEMENTSOF(h->clients); i++)
        n += h->clients[i].fd >= 0 && IN6_ARE_ADDR_EQUAL(&h->clients[i].owner, owner);
    return n;
}

/* Who has to give way to a new one: the oldest of whoever has the most. */
static Client *client_to_drop(Httpd *h) {
    Client *drop = NULL;
    size_t most = 0;

    for (size_t i = 0; i < ELEMENTSOF(h->clients); i++) {
        Client *c = &h->clients[i];
        size_t n = c->fd >= 0 ? n_of_owner(h, &c->owner) : 0;

        if (n > most || (n > 0 && n == most && c->since_usec < drop->since_usec)) {
            most = n;
            drop = c;
        }
    }
    return drop;
}

static Client *free_client(Httpd *h) {
    for (size_t i = 0; i < ELEMENTSOF(h->clients); i++)
        if (h->clients[i].fd < 0)
            return &h->clients[i];
    return NULL;
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code) {
    Httpd *h = arg;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        Client *c = free_client(h);

        assert(c); /* accept_one() has made room */
        *c = (Client){
            .fd =
                MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
            .since_usec = now_usec()
        };
        address_owner(
            &c->owner,
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
        *context = c;
    } else
        ((Client *)*context)->fd = -EBADF;
}

/* libmicrohttpd sees the end of the stream then, and frees the connection; if ever it does not,
 * this is not done again at once. */
static void drop_client(Client *c) {
    (void)shutdown(c->fd, SHUT_RDWR); /* fails when the client was faster */
    c->since_usec = now_usec();
}

/* Requests. */

static struct MHD_Response *make_response(HttpAnswer *a) {
    struct MHD_Response *r = MHD_create_response_from_buffer(a->n, a->body, MHD_RESPMEM_MUST_FREE);

    if (!r)
        return NULL;
    if (MHD_add_response_header(r, "Content-Type", a->type) == MHD_NO ||
        MHD_add_response_header(r, "Cache-Control", "no-store") == MHD_NO ||
        MHD_add_response_header(r, "Connection", "close") == MHD_NO ||
        (a->status == MHD_HTTP_METHOD_NOT_ALLOWED &&
         MHD_add_response_header(r, "Allow", "GET, HEAD") == MHD_NO)) {
        MHD_destroy_response(r);
        return NULL;
    }
    return r;
}

static enum MHD_Result answer(struct MHD_Connection *connection, HttpAnswer *a) {
    struct MHD_Response *response = make_response(a);
    enum MHD_Result queued;

    if (!response)
        return MHD_NO; /* for want of memory: the connection is closed */
    queued = MHD_queue_response(connection, a->status, response);
    MHD_destroy_response(response); /* the queue has a reference */
    return queued;
}

/* What libmicrohttpd hands to its MHD_AccessHandlerCallback. */
#define MHD_REQUEST                                                                    \
    void *arg, struct MHD_Connection *connection, const char *url, const char *method, \
        _unused_ const char *version, _unused_ const char *upload, size_t *n_upload,   \
        void **context

/* Called first when the headers are in, then for each part of a body, which is thrown away, then at
 * the end. */
static enum MHD_Result on_request(MHD_REQUEST) {
    static const char seen;
    Httpd *h = arg;
    HttpAnswer a = { .status = MHD_HTTP_METHOD_NOT_ALLOWED, .type = "text/plain; charset=utf-8" };

    if (!*context) {
        *context = (void *)&seen;
        return MHD_YES;
    }
    if (*n_upload > 0) {
        *n_upload = 0;
        return MHD_YES;
    }
    if (streq(method, MHD_HTTP_METHOD_GET) || streq(method, MHD_HTTP_METHOD_HEAD))
        h->o.handle(h->o.arg, url, &a);
    else {
        a.body = xstrdup("only GET and HEAD are served\n");
        a.n = strlen(a.body);
    }
    return answer(connection, &a);
}

/* The loop. */

static int on_timer(sd_event_source *source, uint64_t usec, void *arg);

/* When does libmicrohttpd want to run, the oldest client has had its time, or the pause ends? */
static int set_timer(Httpd *h) {
    const Client *oldest = oldest_client(h);
    uint64_t usec = UINT64_MAX, now = now_usec(), end;
    MHD_UNSIGNED_LONG_LONG msec;

    if (MHD_get_timeout(h->mhd, &msec) == MHD_YES)
        usec = (uint64_t)msec * USEC_PER_MSEC;
    if (oldest) {
        end = oldest->since_usec + LIMIT_HTTPD_USEC;
        usec = MIN(usec, end > now ? end - now : 0);
    }
    if (h->paused)
        usec = MIN(usec, PAUSE_USEC);
    if (usec == UINT64_MAX)
        return h->timer ? sd_event_source_set_enabled(h->timer, SD_EVENT_OFF) : 0;
    return loop_timer_after(h->o.event, &h->timer, usec, on_timer, h);
}

static int run(Httpd *h) {
    if (MHD_run(h->mhd) == MHD_NO)
        log_debug("httpd: libmicrohttpd did not run");
    return set_timer(h);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg) {
    Httpd *h = arg;
    uint64_t now = now_usec();

    (void)source;
    (void)usec;
    for (size_t i = 0; i < ELEMENTSOF(h->clients); i++)
        if (h->clients[i].fd >= 0 && now >= h->clients[i].since_usec + LIMIT_HTTPD_USEC)
            drop_client(&h->clients[i]);
    if (h->paused) {
        h->paused = false;
        (void)sd_event_source_set_enabled(h->accepting,
                                          SD_EVENT_ON); /* fails for no valid source */
    }
    return run(h);
}

static int on_serving(_unused_ sd_event_source *source, _unused_ int fd, _unused_ uint32_t revents,
                      void *arg) {
    return run(arg);
}

/* A new client takes the place of another: those that are slow cannot keep it out, and those that
 * are many drop their own. */
static void accept_one(Httpd *h, int fd, const Address *peer, socklen_t n) {
    if (!free_client(h)) {
        drop_client(client_to_drop(h));
        (void)MHD_run(h->mhd); /* cannot fail in this mode */
    }
    if (!free_client(h)) {
        (void)safe_close(fd);
        return;
    }
    if (MHD_add_connection(h->mhd, fd, &peer->sa, n) == MHD_NO)
        log_debug("httpd: a connection was refused: %s", strerror(errno));
    else /* on_connection() may be called only now */
        (void)MHD_run(h->mhd);
}

static void pause_accepting(Httpd *h) {
    h->paused = true;
    (void)sd_event_source_set_enabled(h->accepting, SD_EVENT_OFF); /* as above */
}

static int on_accepting(_unused_ sd_event_source *source, int fd, _unused_ uint32_t revents,
                        void *arg) {
    Httpd *h = arg;

    for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
        Address peer = { 0 };
        socklen_t n = sizeof(peer);
        int client = accept4(fd, &peer.sa, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (client >= 0)
            accept_one(h, client, &peer, n);
        else {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
                pause_accepting(h); /* out of descriptors or memory: the loop would spin */
            break;
        }
    }
    return run(h);
}

static int start_mhd(Httpd *h, Err *err) {
    h->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC, 0, NULL, NULL,
                              on_request, h, MHD_OPTION_CONNECTION_LIMIT,
                              (unsigned)LIMIT_HTTPD_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                              (size_t)LIMIT_HTTPD_HEADER_BYTES, MHD_OPTION_NOTIFY_CONNECTION,
                              on_connection, h, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    return h->mhd ? 0 : err_set(err, -ENOMEM, "libmicrohttpd cannot start");
}

/* What the kubelet and the workers want goes first. */
static int watch(Httpd *h, Err *err) {
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->mhd, MHD_DAEMON_INFO_EPOLL_FD);
    int r = info ? sd_event_add_io(h->o.event, &h->serving, info->epoll_fd, EPOLLIN, on_serving, h)
                 : -EOPNOTSUPP;

    if (r >= 0)
        r = sd_event_add_io(h->o.event, &h->accepting, h->fd, EPOLLIN, on_accepting, h);
    if (r >= 0)
        r = sd_event_source_set_priority(h->serving, SD_EVENT_PRIORITY_IDLE);
    if (r >= 0)
        r = sd_event_source_set_priority(h->accepting, SD_EVENT_PRIORITY_IDLE);
    return r < 0 ? err_errnum(err, r, "cannot watch the sockets of HTTP") : 0;
}

int httpd_new(Httpd **ret, const HttpdOptions *options, Err *err) {
    _cleanup_(httpd_freep) Httpd *h = xnew(Httpd);
    Address address;
    int r;

    h->o = *options;
    h->o.event = sd_event_ref(options->event);
    h->fd = -EBADF;
    for (size_t i = 0; i < ELEMENTSOF(h->clients); i++)
        h->clients[i].fd = -EBADF;
    r = address_parse(&address, options->address);
    if (r < 0)
        return err_set(err, r, "\"%.100s\" is no address to listen on", options->address);
    h->fd = address_listen(&address, BACKLOG);
    if (h->fd < 0)
        return err_errnum(err, h->fd, "cannot listen on %s", options->address);
    r = start_mhd(h, err);
    if (r >= 0)
        r = watch(h, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(h);
    return 0;
}

Httpd *httpd_free(Httpd *h) {
    if (!h)
        return NULL;
    (void)sd_event_source_disable_unref(h->accepting);
    (void)sd_event_source_disable_unref(h->serving);
    (void)sd_event_source_disable_unref(h->timer);
    if (h->mhd)
        MHD_stop_daemon(h->mhd);
    (void)safe_close(h->fd);
    (void)sd_event_unref(h->o.event);
    free(h);
    return NULL;
}
