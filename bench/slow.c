/* SPDX-License-Identifier: Apache-2.0 */
/* slow: a read-only registry that is far away: each answer comes after a delay, and each connection
 * gets no more than so many bytes a second.  It serves what docker-registry stored, with ranges.
 *
 * slow PORT STORAGE DELAY_MS MIB_PER_SECOND   (STORAGE has docker/registry/v2 in it) */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 16 << 10,
    NAME_MAX_BYTES = 255,
    TARGET_BYTES = 767,
    QUANTUM_BYTES = 128 << 10, /* sent at once; at 50 MiB/s every 2.5 ms */
    BACKLOG = 256,
    STACK_BYTES = 256 << 10,
    PATH_BYTES = 1024,
};

typedef struct Server {
    const char *storage;
    long delay_ms;
    uint64_t bytes_per_second;
    int fd;
} Server;

typedef struct Connection {
    const Server *server;
    int fd;
    char head[HEAD_BYTES];
    size_t n; /* bytes of head[] that were read */
} Connection;

typedef struct Request {
    char method[8], target[TARGET_BYTES + 1], digest[NAME_MAX_BYTES + 1];
    const char *name, *kind,
        *reference; /* in target[]; the reference in digest[], when it was resolved */
    uint64_t first, last;
    bool ranged, ping;
} Request;

static uint64_t now_nsec(void) {
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void sleep_until(uint64_t nsec) {
    struct timespec t = { .tv_sec = (time_t)(nsec / 1000000000U),
                          .tv_nsec = (long)(nsec % 1000000000U) };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void delay(const Server *s) {
    sleep_until(now_nsec() + (uint64_t)s->delay_ms * 1000000U);
}

/* Reads up to the empty line; false when the client went away. */
static bool read_head(Connection *c) {
    c->n = 0;
    for (;;) {
        ssize_t got = recv(c->fd, c->head + c->n, sizeof(c->head) - 1 - c->n, 0);

        if (got <= 0)
            return false;
        c->n += (size_t)got;
        c->head[c->n] = '\0';
        if (strstr(c->head, "\r\n\r\n"))
            return true;
        if (c->n == sizeof(c->head) - 1)
            return false;
    }
}

/* "/v2/NAME/blobs/sha256:…", "/v2/NAME/manifests/TAG", "/v2/". */
static bool parse_target(Request *q) {
    char *target = q->target, *slash, *kind;

    if (strncmp(target, "/v2/", 4) != 0 || strstr(target, ".."))
        return false;
    target += 4;
    q->ping = *target == '\0';
    if (q->ping)
        return true;
    slash = strrchr(target, '/');
    if (!slash)
        return false;
    *slash = '\0';
    kind = strrchr(target, '/');
    if (!kind)
        return false;
    *kind++ = '\0';
    q->name = target;
    q->kind = kind;
    q->reference = slash + 1;
    return true;
}

static bool parse(Request *q, Connection *c) {
    const char *range = strcasestr(c->head, "\r\nRange: bytes=");

    *q = (Request){ .last = UINT64_MAX };
    if (sscanf(c->head, "%7s %767s", q->method, q->target) != 2 || !parse_target(q))
        return false;
    if (range) {
        int n = sscanf(range + strlen("\r\nRange: bytes="), "%" SCNu64 "-%" SCNu64, &q->first,
                       &q->last);
        q->ranged = n >= 1;
    }
    return true;
}

/* The digest that a tag stands for, from docker-registry's link. */
static bool resolve(const Server *s, Request *q) {
    char path[PATH_BYTES];
    FILE *file;
    bool ok;

    if (strncmp(q->reference, "sha256:", 7) == 0)
        return true;
    (void)snprintf(path, sizeof(path),
                   "%s/docker/registry/v2/repositories/%s/_manifests/tags/%s/current/link",
                   s->storage, q->name, q->reference);
    file = fopen(path, "re");
    ok = file && fscanf(file, "%255s", q->digest) == 1;
    q->reference = q->digest;
    if (file)
        (void)fclose(file);
    return ok;
}

static int open_blob(const Server *s, Request *q, struct stat *st) {
    char path[PATH_BYTES];
    int fd;

    if (!resolve(s, q) || strlen(q->reference) != 7 + 64)
        return -ENOENT;
    (void)snprintf(path, sizeof(path), "%s/docker/registry/v2/blobs/sha256/%.2s/%s/data",
                   s->storage, q->reference + 7, q->reference + 7);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, st) < 0) {
        (void)close(fd);
        return -EIO;
    }
    return fd < 0 ? -ENOENT : fd;
}

/* Sends [first, last] no faster than is allowed: a client that was slow does not get a burst. */
static bool send_body(const Connection *c, int fd, uint64_t first, uint64_t last) {
    uint64_t due = now_nsec(), rate = c->server->bytes_per_second;
    off_t at = (off_t)first;

    while ((uint64_t)at <= last) {
        uint64_t left = last - (uint64_t)at + 1, now = now_nsec();
        ssize_t n = sendfile(c->fd, fd, &at, left < QUANTUM_BYTES ? (size_t)left : QUANTUM_BYTES);

        if (n <= 0)
            return false;
        if (due + 20000000U < now)
            due = now - 20000000U;
        due += (uint64_t)n * 1000000000U / rate;
        sleep_until(due);
    }
    return true;
}

static bool answer_empty(const Connection *c, const char *status) {
    return dprintf(c->fd,
                   "HTTP/1.1 %s\r\nDocker-Distribution-Api-Version: registry/2.0\r\n"
                   "Content-Length: 0\r\n\r\n",
                   status) > 0;
}

static bool answer_blob(const Connection *c, Request *q, int fd, uint64_t size) {
    bool manifest = strcmp(q->kind, "manifests") == 0;
    char range[128] = "";

    if (q->ranged && q->first >= size)
        return answer_empty(c, "416 Range Not Satisfiable");
    if (q->last >= size)
        q->last = size - 1;
    if (q->ranged)
        (void)snprintf(range, sizeof(range),
                       "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", q->first,
                       q->last, size);
    if (dprintf(c->fd,
                "HTTP/1.1 %s\r\nContent-Length: %" PRIu64
                "\r\nContent-Type: %s\r\nDocker-Content-Digest: %s\r\n"
                "Accept-Ranges: bytes\r\nEtag: \"%s\"\r\n%s\r\n",
                q->ranged ? "206 Partial Content" : "200 OK", size ? q->last - q->first + 1 : 0,
                manifest ? "application/vnd.oci.image.manifest.v1+json"
                         : "application/octet-stream",
                q->reference, q->reference, range) < 0)
        return false;
    if (strcmp(q->method, "GET") != 0 || size == 0)
        return true;
    return send_body(c, fd, q->first, q->last);
}

static bool answer(Connection *c) {
    Request q;
    struct stat st;
    bool ok;
    int fd;

    delay(c->server);
    if (!parse(&q, c))
        return answer_empty(c, "400 Bad Request");
    if (q.ping)
        return answer_empty(c, "200 OK");
    fd = open_blob(c->server, &q, &st);
    if (fd < 0)
        return answer_empty(c, "404 Not Found");
    ok = answer_blob(c, &q, fd, (uint64_t)st.st_size);
    (void)close(fd);
    return ok;
}

static void *serve(void *arg) {
    Connection *c = arg;

    delay(c->server); /* the handshake of TCP */
    while (read_head(c) && answer(c))
        ;
    (void)close(c->fd);
    free(c);
    return NULL;
}

static int listen_on(uint16_t port) {
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, BACKLOG) < 0)
        err(1, "port %u", port);
    return fd;
}

static void accept_one(const Server *s, const pthread_attr_t *attr) {
    Connection *c;
    pthread_t thread;
    int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC), on = 1;

    if (fd < 0)
        return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c = calloc(1, sizeof(*c));
    if (!c)
        errx(1, "no memory");
    c->server = s;
    c->fd = fd;
    if (pthread_create(&thread, attr, serve, c) != 0) {
        (void)close(fd);
        free(c);
    }
}

int main(int argc, char **argv) {
    pthread_attr_t attr;
    Server s;

    if (argc != 5 || atoi(argv[4]) < 1)
        errx(2, "usage: slow PORT STORAGE DELAY_MS MIB_PER_SECOND");
    (void)signal(SIGPIPE, SIG_IGN);
    (void)prctl(PR_SET_TIMERSLACK, 50000UL, 0UL, 0UL, 0UL);
    s = (Server){ .storage = argv[2],
                  .delay_ms = atol(argv[3]),
                  .bytes_per_second = strtoull(argv[4], NULL, 10) << 20,
                  .fd = listen_on((uint16_t)atoi(argv[1])) };
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attr, STACK_BYTES);
    for (;;)
        accept_one(&s, &attr);
}
