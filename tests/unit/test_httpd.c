/* SPDX-License-Identifier: Apache-2.0 */
/* test_httpd: answers, refusals, and clients that want to do harm. */
#include "agent/address.h"
#include "agent/httpd.h"
#include "base/limits.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

typedef struct Served {
    sd_event *event;
    Httpd *httpd;
    char address[32];
    struct sockaddr_in sa;
    unsigned n_handled;
    char path[64];
} Served;

static void handle(void *arg, const char *path, HttpAnswer *ret) {
    Served *s = arg;

    s->n_handled++;
    (void)snprintf(s->path, sizeof(s->path), "%s", path);
    ret->status = streq(path, "/bad") ? 503 : 200;
    ret->type = "text/plain";
    ret->n = streq(path, "/big") ? MiB(1) : 5;
    ret->body = xcalloc(1, ret->n);
    memset(ret->body, 'x', ret->n);
}

/* A port that was free a moment ago. */
static void choose_port(Served *s) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof(s->sa);

    s->sa =
        (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    ASSERT_OK(bind(fd, (struct sockaddr *)&s->sa, n));
    ASSERT_OK(getsockname(fd, (struct sockaddr *)&s->sa, &n));
    (void)close(fd);
    (void)snprintf(s->address, sizeof(s->address), "127.0.0.1:%u", ntohs(s->sa.sin_port));
}

static int serve(Served *s, Err *err) {
    return httpd_new(&s->httpd, &(HttpdOptions){ s->event, s->address, handle, s }, err);
}

static Served *served_new(void) {
    Served *s = xnew(Served);
    Err err;

    ASSERT_OK(sd_event_new(&s->event));
    choose_port(s);
    ASSERT_OK(serve(s, &err));
    return s;
}

static Served *served_free(Served *s) {
    s->httpd = httpd_free(s->httpd);
    s->event = sd_event_unref(s->event);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(Served, served_free);

static int connect_to(const Served *s) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ASSERT_OK(connect(fd, (const struct sockaddr *)&s->sa, sizeof(s->sa)));
    return fd;
}

static int send_text(const Served *s, const char *text) {
    int fd = connect_to(s);

    ASSERT_EQ(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    return fd;
}

/* Runs the loop until the server has closed the connection, at most `usec`; true: it has.  What
 * came is in `buf`. */
static bool read_all(const Served *s, int fd, char *buf, size_t size, uint64_t usec) {
    uint64_t end = now_usec() + usec;
    size_t used = 0;

    buf[0] = 0;
    while (now_usec() < end) {
        ssize_t n = recv(fd, buf + used, size - 1 - used, MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno == ECONNRESET))
            return true;
        if (n > 0)
            buf[used += (size_t)n] = 0;
        else
            ASSERT_OK(sd_event_run(s->event, 10 * USEC_PER_MSEC));
    }
    return false;
}

#define HOST " HTTP/1.1\r\nHost: a\r\n"

static const struct {
    const char *request, *want, *without;
    unsigned n_handled;
} requests[] = {
    { "GET /ok?a=b" HOST "\r\n", "HTTP/1.1 200 OK\r\n", NULL, 1 },
    { "GET /ok" HOST "\r\n", "\r\n\r\nxxxxx", NULL, 1 },
    { "GET /ok" HOST "\r\n", "Connection: close\r\n", NULL, 1 },
    { "GET /ok" HOST "Connection: keep-alive\r\n\r\n", "Connection: close\r\n", NULL, 1 },
    { "GET /ok" HOST "\r\nGET /two" HOST "\r\n", "\r\n\r\nxxxxx", "xxxxxHTTP", 1 },
    { "GET /ok HTTP/1.0\r\n\r\n", " 200 OK\r\n", NULL, 1 },
    { "HEAD /ok" HOST "\r\n", "Content-Length: 5\r\n", "xxxxx", 1 },
    { "GET /bad" HOST "\r\n", "HTTP/1.1 503 ", NULL, 1 },
    { "GET /ok" HOST "Content-Length: 3\r\n\r\nabc", "HTTP/1.1 200 OK\r\n", NULL, 1 },
    { "POST /ok" HOST "Content-Length: 3\r\n\r\nabc", "HTTP/1.1 405 ", NULL, 0 },
    { "DELETE /ok" HOST "\r\n", "Allow: GET, HEAD\r\n", NULL, 0 },
    { "BREW /ok" HOST "\r\n", "HTTP/1.1 405 ", NULL, 0 },
    { "GET /ok HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", NULL, 0 }, /* no Host */
};

TEST(answers) {
    _cleanup_(served_freep) Served *s = served_new();

    for (size_t i = 0; i < ELEMENTSOF(requests); i++) {
        int fd = send_text(s, requests[i].request);
        char got[4096];

        s->n_handled = 0;
        if (!read_all(s, fd, got, sizeof(got), 5 * USEC_PER_SEC) ||
            !strstr(got, requests[i].want) ||
            (requests[i].without && strstr(got, requests[i].without)) ||
            s->n_handled != requests[i].n_handled)
            test_fail(__FILE__, __LINE__, "case %zu: %u handled: %s", i, s->n_handled, got);
        (void)close(fd);
    }
}

TEST(a_path_comes_without_its_query) {
    _cleanup_(served_freep) Served *s = served_new();
    int fd = send_text(s, "GET /a/b?c=d" HOST "\r\n");
    char got[4096];

    ASSERT_TRUE(read_all(s, fd, got, sizeof(got), 5 * USEC_PER_SEC));
    ASSERT_STREQ(s->path, "/a/b");
    (void)close(fd);
}

TEST(a_large_answer_comes_whole) {
    _cleanup_(served_freep) Served *s = served_new();
    _cleanup_free_ char *got = xcalloc(1, MiB(2));
    int fd = send_text(s, "GET /big" HOST "\r\n");

    ASSERT_TRUE(read_all(s, fd, got, MiB(2), 5 * USEC_PER_SEC));
    ASSERT_TRUE(strstr(got, "\r\n\r\nx"));
    ASSERT_EQ(strlen(strstr(got, "\r\n\r\n") + 4), MiB(1));
    (void)close(fd);
}

static const char *const garbage[] = {
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", /* TLS */
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\r\n\r\n\r\n\r\n",
    "GET\r\n\r\n",
    "GET /ok HTTP/9.9\r\nHost: a\r\n\r\n",
    "GET /ok" HOST "Content-Length: -1\r\n\r\n",
    "GET /ok" HOST "Transfer-Encoding: chunked\r\n\r\nzzzz\r\n",
    "\xff\xfe\x00",
};

/* Nothing of it ends the server, which answers the next one; in time all are gone. */
TEST(garbage_is_survived) {
    _cleanup_(served_freep) Served *s = served_new();
    _cleanup_free_ char *header = xcalloc(1, KiB(64));
    int fds[ELEMENTSOF(garbage) + 1];
    char got[4096];

    memset(header, 'a', KiB(64) - 1);
    memcpy(header, "GET /ok" HOST "X: ", strlen("GET /ok" HOST "X: "));
    for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
        const char *text = i < ELEMENTSOF(garbage) ? garbage[i] : header;
        int good;

        fds[i] = connect_to(s);
        (void)send(fds[i], text, strlen(text), MSG_NOSIGNAL);
        (void)shutdown(fds[i], SHUT_WR);
        good = send_text(s, "GET /ok" HOST "\r\n");
        ASSERT_TRUE(read_all(s, good, got, sizeof(got), 5 * USEC_PER_SEC));
        ASSERT_STRSTR(got, "200 OK");
        (void)close(good);
    }
    for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
        if (!read_all(s, fds[i], got, sizeof(got), LIMIT_HTTPD_USEC + 5 * USEC_PER_SEC))
            test_fail(__FILE__, __LINE__, "case %zu is not ended", i);
        (void)close(fds[i]);
    }
}

/* More clients than may be, all of them silent: a new one is served at once, the oldest go. */
TEST(the_oldest_client_gives_way) {
    _cleanup_(served_freep) Served *s = served_new();
    int fds[LIMIT_HTTPD_CONNECTIONS * 3];
    char got[4096];
    int good;

    for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
        fds[i] = send_text(s, "GET /ok HTTP/1.1\r\nHos");
        for (unsigned k = 0; k < 3; k++)
            ASSERT_OK(sd_event_run(s->event, 0));
    }
    good = send_text(s, "GET /ok" HOST "\r\n");
    ASSERT_TRUE(read_all(s, good, got, sizeof(got), USEC_PER_SEC));
    ASSERT_STRSTR(got, "200 OK");
    ASSERT_TRUE(read_all(s, fds[0], got, sizeof(got), USEC_PER_SEC));
    ASSERT_TRUE(!read_all(s, fds[ELEMENTSOF(fds) - 1], got, sizeof(got), 100 * USEC_PER_MSEC));
    (void)close(good);
    for (size_t i = 0; i < ELEMENTSOF(fds); i++)
        (void)close(fds[i]);
}

/* 127.0.0.2 connects, and asks only after a flood from 127.0.0.1. */
TEST(a_flood_crowds_nobody_else_out) {
    _cleanup_(served_freep) Served *s = served_new();
    const struct sockaddr_in other = { .sin_family = AF_INET,
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1) };
    int fds[LIMIT_HTTPD_CONNECTIONS * 3], good = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char got[4096];

    ASSERT_OK(bind(good, (const struct sockaddr *)&other, sizeof(other)));
    ASSERT_OK(connect(good, (const struct sockaddr *)&s->sa, sizeof(s->sa)));
    for (size_t i = 0; i < ELEMENTSOF(fds); i++) {
        fds[i] = connect_to(s);
        for (unsigned k = 0; k < 3; k++)
            ASSERT_OK(sd_event_run(s->event, 0));
    }
    ASSERT_OK(send(good, "GET /ok" HOST "\r\n", strlen("GET /ok" HOST "\r\n"), MSG_NOSIGNAL));
    ASSERT_TRUE(read_all(s, good, got, sizeof(got), USEC_PER_SEC));
    ASSERT_STRSTR(got, "200 OK");
    (void)close(good);
    for (size_t i = 0; i < ELEMENTSOF(fds); i++)
        (void)close(fds[i]);
}

/* A byte now and then, and nothing read: neither holds a connection beyond its time. */
TEST(slow_clients_are_dropped) {
    _cleanup_(served_freep) Served *s = served_new();
    int slow = send_text(s, "GET /ok" HOST), deaf = send_text(s, "GET /big" HOST "\r\n");
    uint64_t begin = now_usec();
    bool dropped = false;
    char got[4096];

    while (!dropped && now_usec() < begin + 2 * LIMIT_HTTPD_USEC) {
        (void)send(slow, "X: y\r\n", 6, MSG_NOSIGNAL);
        dropped = read_all(s, slow, got, sizeof(got), 500 * USEC_PER_MSEC);
    }
    ASSERT_TRUE(dropped);
    ASSERT_TRUE(now_usec() - begin > LIMIT_HTTPD_USEC - USEC_PER_SEC);
    for (unsigned i = 0; i < 50; i++)
        ASSERT_OK(sd_event_run(s->event, 10 * USEC_PER_MSEC));
    ASSERT_EQ(send(deaf, "x", 1, MSG_NOSIGNAL), 1);
    ASSERT_OK(sd_event_run(s->event, 100 * USEC_PER_MSEC));
    ASSERT_TRUE(send(deaf, "x", 1, MSG_NOSIGNAL) < 0 || read_all(s, deaf, got, 1, 1));
    (void)close(slow);
    (void)close(deaf);
}

TEST(an_address_that_cannot_be_had) {
    _cleanup_(served_freep) Served *s = served_new();
    Served other = { .event = s->event };
    Err err;

    (void)snprintf(other.address, sizeof(other.address), "%s", s->address);
    ASSERT_ERR(serve(&other, &err), -EADDRINUSE);
    ASSERT_STRSTR(err.text, s->address);
    (void)snprintf(other.address, sizeof(other.address), "nowhere");
    ASSERT_ERR(serve(&other, &err), -EINVAL);
}
