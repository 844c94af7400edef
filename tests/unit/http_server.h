/* SPDX-License-Identifier: Apache-2.0 */
/* http_server: a small HTTP/1.1 server in threads, with or without TLS, for tests of the client; it
 * answers what a test's handler writes, however wrong. */
#pragma once

#include "base/buf.h"
#include "base/loop.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>

#define SERVER_CONNECTIONS 64

typedef struct ServerConn {
    struct Server *server;
    int fd;
    SSL *ssl;
    bool end; /* set by a handler: close after this answer */
    pthread_t thread;
} ServerConn;

typedef struct ServerRequest {
    char method[8], path[4096];
    char head[16384]; /* all lines */
    char body[16384];
} ServerRequest;

typedef void (*ServerHandler)(ServerConn *c, const ServerRequest *q, void *arg);

typedef struct Server {
    int fd, stop[2];
    unsigned port;
    ServerHandler handler;
    void *arg;
    SSL_CTX *tls;
    char *ca_pem; /* of its own certificate */
    pthread_t thread;
    pthread_mutex_t lock;
    ServerConn conns[SERVER_CONNECTIONS];
    size_t n_conns;
    char log[65536]; /* "GET /path auth\n", under the lock */
} Server;

static inline void server_write(ServerConn *c, const void *data, size_t n) {
    const char *p = data;
    while (n > 0) {
        ssize_t k = c->ssl ? SSL_write(c->ssl, p, (int)n) : send(c->fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) {
            c->end = true; /* the client has gone: tests see it there */
            return;
        }
        p += k;
        n -= (size_t)k;
    }
}

static inline _printf_(2, 3) void server_printf(ServerConn *c, const char *format, ...) {
    char text[8192];
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    server_write(c, text, (size_t)n);
}

/* `headers`: lines with \r\n, may be empty. */
static inline void server_reply(ServerConn *c, int status, const char *headers, const char *body) {
    server_printf(c, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n%s", status, headers,
                  strlen(body), body);
}

/* Value of a header in the request, in `buf`; empty when there is none. */
static inline const char *server_header(const ServerRequest *q, const char *name, char *buf,
                                        size_t size) {
    const char *s = strcasestr(q->head, name);
    size_t n;

    buf[0] = 0;
    if (!s || s[strlen(name)] != ':' || s[-1] != '\n')
        return buf;
    s += strlen(name) + 1;
    s += strspn(s, " ");
    n = MIN(strcspn(s, "\r\n"), size - 1);
    memcpy(buf, s, n);
    buf[n] = 0;
    return buf;
}

static inline ssize_t server_read(ServerConn *c, void *data, size_t n) {
    return c->ssl ? SSL_read(c->ssl, data, (int)n) : recv(c->fd, data, n, 0);
}

static inline bool server_read_request(ServerConn *c, ServerRequest *q) {
    char number[32];
    size_t n = 0, body;

    memset(q, 0, sizeof(*q));
    while (n < 4 || memcmp(q->head + n - 4, "\r\n\r\n", 4) != 0) {
        if (n + 1 >= sizeof(q->head) || server_read(c, q->head + n, 1) != 1)
            return false;
        if (q->head[0] == 0x16 && n == 0) { /* a TLS handshake: what servers say to it */
            server_printf(c, "HTTP/1.1 400 Bad Request\r\n\r\n");
            return false;
        }
        n++;
    }
    body = strtoul(server_header(q, "Content-Length", number, sizeof(number)), NULL, 10);
    for (size_t i = 0; i < body; i++)
        if (body >= sizeof(q->body) || server_read(c, q->body + i, 1) != 1)
            return false;
    return sscanf(q->head, "%7s %4095s", q->method, q->path) == 2;
}

static inline void *server_serve(void *arg) {
    ServerRequest *q = xnew(ServerRequest);
    ServerConn *c = arg;
    char auth[1024];

    if (c->ssl && SSL_accept(c->ssl) != 1)
        c->end = true;
    while (!c->end && server_read_request(c, q)) {
        size_t n;
        pthread_mutex_lock(&c->server->lock);
        n = strlen(c->server->log);
        (void)snprintf(c->server->log + n, sizeof(c->server->log) - n, "%s %s %s\n", q->method,
                       q->path, server_header(q, "Authorization", auth, sizeof(auth)));
        pthread_mutex_unlock(&c->server->lock);
        c->server->handler(c, q, c->server->arg);
    }
    (void)shutdown(c->fd, SHUT_RDWR);
    free(q);
    return NULL;
}

static inline void *server_run(void *arg) {
    Server *s = arg;

    for (;;) {
        struct pollfd fds[2] = { { s->fd, POLLIN, 0 }, { s->stop[0], POLLIN, 0 } };
        ServerConn *c = &s->conns[s->n_conns];
        if (poll(fds, 2, -1) < 0 || fds[1].revents)
            return NULL;
        assert(s->n_conns < SERVER_CONNECTIONS);
        *c = (ServerConn){ .server = s, .fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC) };
        if (s->tls) {
            c->ssl = SSL_new(s->tls);
            SSL_set_fd(c->ssl, c->fd);
        }
        pthread_mutex_lock(&s->lock);
        s->n_conns++;
        pthread_mutex_unlock(&s->lock);
        pthread_create(&c->thread, NULL, server_serve, c);
    }
}

/* A self-signed certificate for 127.0.0.1 and localhost. */
static inline void server_make_certificate(Server *s) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_EXTENSION *names =
        X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
    X509_EXTENSION *basic =
        X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, "critical,CA:TRUE");
    BIO *out = BIO_new(BIO_s_mem());
    char *text = NULL;
    long n;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_add_ext(x, names, -1);
    X509_add_ext(x, basic, -1);
    X509_set_pubkey(x, key);
    X509_sign(x, key, EVP_sha256());
    s->tls = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(s->tls, x);
    SSL_CTX_use_PrivateKey(s->tls, key);
    PEM_write_bio_X509(out, x);
    n = BIO_get_mem_data(out, &text);
    s->ca_pem = xcalloc((size_t)n + 1, 1);
    memcpy(s->ca_pem, text, (size_t)n);
    BIO_free(out);
    X509_EXTENSION_free(names);
    X509_EXTENSION_free(basic);
    X509_free(x);
    EVP_PKEY_free(key);
}

static inline Server *server_new(ServerHandler handler, void *arg, bool tls) {
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof(address);
    Server *s = xnew(Server);

    (void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes to clients that are gone */
    s->handler = handler;
    s->arg = arg;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(s->fd, 64) < 0 || getsockname(s->fd, (struct sockaddr *)&address, &n) < 0 ||
        pipe(s->stop) < 0)
        test_fail(__FILE__, __LINE__, "cannot listen: %s", strerror(errno));
    s->port = ntohs(address.sin_port);
    pthread_mutex_init(&s->lock, NULL);
    if (tls)
        server_make_certificate(s);
    pthread_create(&s->thread, NULL, server_run, s);
    return s;
}

static inline Server *server_free(Server *s) {
    if (write(s->stop[1], "x", 1) != 1)
        test_fail(__FILE__, __LINE__, "cannot stop the server");
    pthread_join(s->thread, NULL);
    for (size_t i = 0; i < s->n_conns; i++) {
        (void)shutdown(s->conns[i].fd, SHUT_RDWR);
        pthread_join(s->conns[i].thread, NULL);
        SSL_free(s->conns[i].ssl);
        (void)close(s->conns[i].fd);
    }
    (void)close(s->fd);
    (void)close(s->stop[0]);
    (void)close(s->stop[1]);
    SSL_CTX_free(s->tls);
    pthread_mutex_destroy(&s->lock);
    free(s->ca_pem);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(Server, server_free);

/* What was asked so far; the caller frees. */
static inline char *server_log(Server *s) {
    char *text;

    pthread_mutex_lock(&s->lock);
    text = xstrdup(s->log);
    pthread_mutex_unlock(&s->lock);
    return text;
}

/* Runs the loop until `*flag` is at least `want`, at most 20 s. */
static inline void run_until(sd_event *event, const int *flag, int want) {
    uint64_t end = now_usec() + 20 * USEC_PER_SEC;

    while (*flag < want) {
        if (now_usec() > end)
            test_fail(__FILE__, __LINE__, "nothing happened for 20 s");
        if (sd_event_run(event, 100 * USEC_PER_MSEC) < 0)
            test_fail(__FILE__, __LINE__, "the event loop failed");
    }
}

/* Of these CAs; NULL: of none. */
_unused_ static Trust *trust_of(const char *pem) {
    Trust *t = trust_new();

    if (pem)
        trust_add(t, pem, strlen(pem));
    return t;
}
