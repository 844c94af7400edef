/* SPDX-License-Identifier: Apache-2.0 */
/* bound: the least that a verified download costs: receive over plain HTTP, SHA-256, O_DIRECT
 * writes by io_uring, one fsync.  No resume, no limits, no errors handled but by ending.
 *
 * bound [-n|-w] THREADS DIRECTORY PORT REPOSITORY {DIGEST SIZE}...   (a registry on 127.0.0.1)
 * -n: nothing is hashed, which shows what the server and the disk alone allow.
 * -w: nor is anything received: what the disk alone allows. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    DEPTH = 8,
    BUFFERS = DEPTH + 1,
    BUFFER_BYTES = 1 << 20,
    PIECE_BYTES = 256 << 10, /* received and hashed while it is in the CPU's cache */
    BLOCK_BYTES = 4096,
    HEAD_BYTES = 4096,
    THREADS_MAX = 16,
};

/* What all threads share. */
typedef struct Job {
    char **blobs; /* digest, size, digest, … */
    int n_blobs;
    const char *directory, *repository;
    uint16_t port;
    bool receive, hash;
    atomic_int next;
} Job;

/* What one thread keeps from blob to blob. */
typedef struct Lane {
    const Job *job;
    struct io_uring ring;
    uint8_t *memory; /* BUFFERS, registered */
    unsigned idle[BUFFERS], n_idle;
    int fd;
    EVP_MD_CTX *hash;
} Lane;

static void lane_open(Lane *l, const Job *job) {
    struct iovec iov[BUFFERS];
    int r = io_uring_queue_init(DEPTH, &l->ring,
                                IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

    if (r == -EINVAL) /* before Linux 6.1 */
        r = io_uring_queue_init(DEPTH, &l->ring, 0);
    if (r < 0)
        errx(1, "io_uring: %s", strerror(-r));
    l->job = job;
    l->memory = aligned_alloc(BLOCK_BYTES, (size_t)BUFFERS * BUFFER_BYTES);
    l->hash = EVP_MD_CTX_new();
    if (!l->memory || !l->hash)
        errx(1, "no memory");
    for (unsigned i = 0; i < BUFFERS; i++) {
        iov[i] = (struct iovec){ l->memory + (size_t)i * BUFFER_BYTES, BUFFER_BYTES };
        l->idle[l->n_idle++] = i;
    }
    r = io_uring_register_buffers(&l->ring, iov, BUFFERS);
    if (r < 0)
        errx(1, "registering buffers: %s", strerror(-r));
}

static void lane_close(Lane *l) {
    io_uring_queue_exit(&l->ring);
    EVP_MD_CTX_free(l->hash);
    free(l->memory);
}

/* Takes back the buffer of one write that ended; waits for it. */
static void reap(Lane *l) {
    struct io_uring_cqe *cqe;
    int r = io_uring_wait_cqe(&l->ring, &cqe);

    if (r < 0)
        errx(1, "waiting for a write: %s", strerror(-r));
    if (cqe->res <= 0)
        errx(1, "write: %s", strerror(-cqe->res));
    l->idle[l->n_idle++] = (unsigned)io_uring_cqe_get_data64(cqe);
    io_uring_cqe_seen(&l->ring, cqe);
}

static void write_out(Lane *l, unsigned buffer, size_t n, uint64_t offset) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&l->ring);
    uint8_t *data = l->memory + (size_t)buffer * BUFFER_BYTES;
    size_t padded = (n + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;

    memset(data + n, 0, padded - n);
    io_uring_prep_write_fixed(sqe, l->fd, data, (unsigned)padded, offset, (int)buffer);
    io_uring_sqe_set_data64(sqe, buffer);
    if (io_uring_submit(&l->ring) < 0)
        errx(1, "submitting a write failed");
}

/* Reads the head of the answer, one byte of it beyond none; returns the socket. */
static int ask(const Job *job, const char *digest) {
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(job->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    char head[HEAD_BYTES] = "";
    size_t n = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        err(1, "connect");
    (void)dprintf(fd,
                  "GET /v2/%s/blobs/%s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nConnection: close\r\n\r\n",
                  job->repository, digest, job->port);
    while (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4) != 0)
        if (n + 1 >= sizeof(head) || read(fd, head + n++, 1) != 1)
            errx(1, "no answer for %s", digest);
    if (strncmp(head, "HTTP/1.1 200", 12) != 0)
        errx(1, "%s: %.40s", digest, head);
    return fd;
}

/* Fills one buffer as far as the body goes, hashing on the way. */
static void fill(Lane *l, int from, uint8_t *data, size_t n) {
    for (size_t at = 0; at < n;) {
        size_t want = n - at < PIECE_BYTES ? n - at : PIECE_BYTES;
        ssize_t got = recv(from, data + at, want, MSG_WAITALL);

        if (got <= 0)
            errx(1, "the body ended early");
        if (l->job->hash)
            EVP_DigestUpdate(l->hash, data + at, (size_t)got);
        at += (size_t)got;
    }
}

static void prove(Lane *l, const char *digest) {
    unsigned char md[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE + 1];
    unsigned n;

    EVP_DigestFinal_ex(l->hash, md, &n);
    for (unsigned i = 0; i < n; i++)
        (void)snprintf(hex + (size_t)2 * i, 3, "%02x", md[i]);
    if (strcmp(hex, digest + strlen("sha256:")) != 0)
        errx(1, "%s: got %s", digest, hex);
}

static void fetch(Lane *l, const char *digest, uint64_t size) {
    char path[4096];
    int from = -1;

    (void)snprintf(path, sizeof(path), "%s/%s", l->job->directory, digest + strlen("sha256:"));
    l->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0644);
    if (l->fd < 0)
        err(1, "%s", path);
    if (fallocate(l->fd, 0, 0, (off_t)size) < 0)
        err(1, "fallocate");
    if (l->job->receive)
        from = ask(l->job, digest);
    EVP_DigestInit_ex(l->hash, EVP_sha256(), NULL);
    for (uint64_t at = 0; at < size;) {
        size_t n = size - at < BUFFER_BYTES ? (size_t)(size - at) : BUFFER_BYTES;
        unsigned buffer;

        if (l->n_idle == 0)
            reap(l);
        buffer = l->idle[--l->n_idle];
        if (l->job->receive)
            fill(l, from, l->memory + (size_t)buffer * BUFFER_BYTES, n);
        write_out(l, buffer, n, at);
        at += n;
    }
    while (l->n_idle < BUFFERS)
        reap(l);
    if (l->job->hash)
        prove(l, digest);
    if (ftruncate(l->fd, (off_t)size) < 0 || fsync(l->fd) < 0)
        err(1, "%s", path);
    (void)close(l->fd);
    if (from >= 0)
        (void)close(from);
}

static void *run(void *arg) {
    Job *job = arg;
    Lane l = { 0 };
    int i;

    lane_open(&l, job);
    while ((i = atomic_fetch_add(&job->next, 2)) < job->n_blobs)
        fetch(&l, job->blobs[i], strtoull(job->blobs[i + 1], NULL, 10));
    lane_close(&l);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS_MAX];
    bool writes = argc > 1 && strcmp(argv[1], "-w") == 0;
    bool hash = !writes && (argc < 2 || strcmp(argv[1], "-n") != 0);
    Job job;
    int n;

    argc -= !hash;
    argv += !hash;
    if (argc < 5 || argc % 2 == 0 || strncmp(argc > 5 ? argv[5] : "sha256:", "sha256:", 7) != 0)
        errx(2, "usage: bound [-n|-w] THREADS DIRECTORY PORT REPOSITORY {DIGEST SIZE}...");
    job = (Job){ .blobs = argv + 5,
                 .n_blobs = argc - 5,
                 .directory = argv[2],
                 .repository = argv[4],
                 .port = (uint16_t)strtoul(argv[3], NULL, 10),
                 .receive = !writes,
                 .hash = hash };
    n = atoi(argv[1]);
    if (n < 1 || n > THREADS_MAX)
        errx(2, "1 to %d threads", THREADS_MAX);
    for (int i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, run, &job) != 0)
            errx(1, "pthread_create failed");
    for (int i = 0; i < n; i++)
        (void)pthread_join(threads[i], NULL);
    return 0;
}
