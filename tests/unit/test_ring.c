/* SPDX-License-Identifier: Apache-2.0 */
/* test_ring: both modes: data, order of nothing but completeness, errors, short writes, buffers,
 * refusals. */
#include "base/ring.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/ring_internal.h"
#include "tests/unit/test.h"

#define BUFFER 65536U

typedef struct Bench {
    sd_event *event;
    Pool *pool;
    Ring *ring;
    int done; /* how many */
    int errors;
    int r;     /* of the last one */
    int freed; /* calls of on_free */
    unsigned max_running;
} Bench;

static void on_done(void *arg, int r) {
    Bench *b = arg;

    b->done++;
    b->r = r;
    b->errors += r < 0;
}

static int bench_open(Bench *b, RingMode mode, unsigned depth, unsigned n_buffers, Err *err) {
    RingOptions options = { .mode = mode,
                            .depth = depth,
                            .n_buffers = n_buffers,
                            .n_first = n_buffers,
                            .buffer_bytes = BUFFER,
                            .restrict_ops = true };
    int r = sd_event_new(&b->event);

    if (r >= 0)
        r = pool_new(&b->pool, b->event, 2, err);
    options.event = b->event;
    options.pool = b->pool;
    return r < 0 ? r : ring_new(&b->ring, &options, err);
}

static void bench_done(Bench *b) {
    b->ring = ring_free(b->ring);
    b->pool = pool_free(b->pool);
    b->event = sd_event_unref(b->event);
}

static void run_until(Bench *b, int done) {
    while (b->done < done) {
        b->max_running = MAX(b->max_running, b->ring->n_running);
        if (sd_event_run(b->event, 10 * USEC_PER_SEC) <= 0)
            test_fail(__FILE__, __LINE__, "%d of %d ended", b->done, done);
    }
}

/* Writes `n` bytes whose content tells their place. */
static void put(Bench *b, int fd, unsigned number, size_t n) {
    RingBuffer *buffer = ring_buffer_get(b->ring);

    if (!buffer)
        test_fail(__FILE__, __LINE__, "no buffer");
    memset(buffer->data, (int)(number + 1), n);
    ring_write(fd, buffer, n, (uint64_t)number * BUFFER, on_done, b);
    (void)ring_buffer_unref(buffer);
}

static bool content_is(int fd, unsigned n_parts, size_t n) {
    _cleanup_free_ uint8_t *got = NULL;

    if (posix_memalign((void **)&got, 4096, BUFFER) != 0)
        return false;
    for (unsigned i = 0; i < n_parts; i++) {
        if (pread(fd, got, BUFFER, (off_t)i * BUFFER) < (ssize_t)n)
            return false;
        for (size_t k = 0; k < n; k++)
            if (got[k] != (uint8_t)(i + 1))
                return false;
    }
    return true;
}

/* The same for both modes; false: this kernel has no io_uring for us. */
static bool have(RingMode mode) {
    Bench b = { 0 };
    Err err = { 0 };
    int r = bench_open(&b, mode, 1, 1, &err);

    bench_done(&b);
    return r >= 0;
}

static void check_direct(RingMode mode) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd =
        openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
    Bench b = { 0 };
    Err err = { 0 };

    if (fd < 0) /* tmpfs before 6.6 */
        fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    ASSERT_OK(fd);
    ASSERT_OK(bench_open(&b, mode, 3, 16, &err));
    ASSERT_EQ(ring_mode(b.ring, NULL), mode);
    for (unsigned i = 0; i < 16; i++) /* more than the depth */
        put(&b, fd, i, BUFFER);
    ASSERT_EQ(b.ring->n_registered, mode == RING_URING ? 16 : 0);
    ASSERT_EQ(b.done, 0); /* never from within */
    ASSERT_EQ(ring_buffers_free(b.ring), 0);
    ASSERT_TRUE(ring_buffer_get(b.ring) == NULL);
    run_until(&b, 16);
    ASSERT_TRUE(b.max_running == 3);
    ASSERT_EQ(b.r, BUFFER);
    ASSERT_EQ(b.errors, 0);
    ring_fdatasync(b.ring, fd, on_done, &b);
    run_until(&b, 17);
    ASSERT_EQ(b.r, 0);
    ASSERT_EQ(ring_buffers_free(b.ring), 16);
    ASSERT_TRUE(content_is(fd, 16, BUFFER));
    bench_done(&b);
}

/* Fewer than the depth, and what waits for that goes on when more are allowed. */
static void check_limit(RingMode mode) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    Bench b = { 0 };
    Err err = { 0 };

    ASSERT_OK(fd);
    ASSERT_OK(bench_open(&b, mode, 6, 16, &err));
    ring_limit(b.ring, 2);
    for (unsigned i = 0; i < 8; i++)
        put(&b, fd, i, BUFFER);
    ASSERT_EQ(b.ring->n_running, 2);
    run_until(&b, 8);
    ASSERT_EQ(b.max_running, 2);
    for (unsigned i = 8; i < 16; i++)
        put(&b, fd, i, BUFFER);
    ring_limit(b.ring, UINT_MAX);
    ASSERT_EQ(b.ring->n_running, 6);
    run_until(&b, 16);
    ASSERT_TRUE(content_is(fd, 16, BUFFER));
    bench_done(&b);
}

static unsigned put_all(Bench *b, int fd, unsigned n) {
    int done = b->done;

    b->max_running = 0;
    for (unsigned i = 0; i < n; i++)
        put(b, fd, i, BUFFER);
    run_until(b, done + (int)n);
    return b->max_running;
}

/* As many as the depth allows while the disk is quick, few when it is slow, and again many. */
static void check_fitting(RingMode mode) {
    enum { DEPTH = 40 };
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    Bench b = { 0 };
    Err err = { 0 };
    unsigned tries = 0;

    ASSERT_OK(fd);
    ASSERT_OK(bench_open(&b, mode, DEPTH, DEPTH, &err));
    ASSERT_EQ(put_all(&b, fd, DEPTH) >= 16, 1);
    while (put_all(&b, fd, DEPTH) < DEPTH) /* a busy machine may seem to be a slow disk */
        ASSERT_TRUE(++tries < 1000);
    b.ring->faults.late_usec = USEC_PER_SEC;
    (void)put_all(&b, fd, DEPTH);
    ASSERT_EQ(put_all(&b, fd, DEPTH), 16);
    b.ring->faults.late_usec = 0;
    while (put_all(&b, fd, DEPTH) < DEPTH)
        ASSERT_TRUE(++tries < 1000);
    ASSERT_TRUE(content_is(fd, DEPTH, BUFFER));
    bench_done(&b);
}

/* What is written in spans comes back, also in short reads; the end of the file ends a read. */
static void check_reading(RingMode mode) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    RingBuffer *out, *in;
    Bench b = { 0 };
    Err err = { 0 };

    ASSERT_OK(fd);
    ASSERT_OK(bench_open(&b, mode, 2, 2, &err));
    out = ring_buffer_get(b.ring);
    in = ring_buffer_get(b.ring);
    ASSERT_TRUE(out && in);
    for (size_t i = 0; i < BUFFER; i++)
        out->data[i] = (uint8_t)(i * 31 + i / 257);
    ring_write_span(fd, out, (RingSpan){ 8192, BUFFER - 8192 }, 8192, on_done, &b);
    ring_write_span(fd, out, (RingSpan){ 0, 8192 }, 0, on_done, &b);
    run_until(&b, 2);
    b.ring->faults.max_write = 4096;
    ring_read(fd, in, BUFFER, 0, on_done, &b);
    run_until(&b, 3);
    ASSERT_EQ(b.r, BUFFER);
    ASSERT_MEMEQ(in->data, out->data, BUFFER);
    ring_read(fd, in, BUFFER, BUFFER - 4097, on_done, &b);
    run_until(&b, 4);
    ASSERT_EQ(b.r, 4097);
    ring_read(fd, in, BUFFER, BUFFER, on_done, &b);
    run_until(&b, 5);
    ASSERT_EQ(b.r, 0);
    ring_read(-1, in, BUFFER, 0, on_done, &b);
    run_until(&b, 6);
    ASSERT_EQ(b.r, -EBADF);
    (void)ring_buffer_unref(in);
    (void)ring_buffer_unref(out);
    bench_done(&b);
}

TEST(reads_and_spans) {
    check_reading(RING_THREADS);
    if (have(RING_URING))
        check_reading(RING_URING);
}

static void check_errors(RingMode mode) {
    static const char *const paths[] = { "/dev/full", "/dev/null" };
    static const int want[] = { -ENOSPC, -EBADF };
    Bench b = { 0 };
    Err err = { 0 };

    ASSERT_OK(bench_open(&b, mode, 2, 2, &err));
    for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
        _cleanup_close_ int fd = open(paths[i], (i == 0 ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
        put(&b, fd, 0, 4096);
        run_until(&b, (int)i + 1);
        ASSERT_EQ(b.r, want[i]);
    }
    put(&b, 1000000, 0, 4096);
    ring_fdatasync(b.ring, 1000000, on_done, &b);
    run_until(&b, 4);
    ASSERT_EQ(b.errors, 4);
    ASSERT_EQ(ring_buffers_free(b.ring), 2);
    bench_done(&b);
}

static void check_short_and_again(RingMode mode) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    Bench b = { 0 };
    Err err = { 0 };

    ASSERT_OK(bench_open(&b, mode, 2, 5, &err));
    b.ring->faults.max_write = 5000;
    b.ring->faults.again = 3;
    for (unsigned i = 0; i < 4; i++)
        put(&b, fd, i, BUFFER - 7);
    put(&b, fd, 0, 0);
    run_until(&b, 5);
    ASSERT_EQ(b.errors, 0);
    ASSERT_TRUE(content_is(fd, 4, BUFFER - 7));
    bench_done(&b);
}

static void check_free_waits(RingMode mode) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    Bench b = { 0 };
    RingBuffer *held;
    Err err = { 0 };

    ASSERT_OK(bench_open(&b, mode, 2, 9, &err));
    held = ring_buffer_get(b.ring);
    b.ring->faults.again = 1;
    for (unsigned i = 0; i < 8; i++)
        put(&b, fd, i, BUFFER);
    b.ring = ring_free(b.ring);
    ASSERT_EQ(b.done, 8);
    ASSERT_EQ(b.errors, 0);
    held->data[BUFFER - 1] = 1; /* stays until it is given back */
    held = ring_buffer_unref(held);
    ASSERT_EQ(sd_event_run(b.event, 0) < 0, 0);
    bench_done(&b);
    ASSERT_TRUE(content_is(fd, 8, BUFFER));
}

#define BOTH_MODES(name)              \
    TEST(name##_threads) {            \
        check_##name(RING_THREADS);   \
    }                                 \
    TEST(name##_uring) {              \
        if (!have(RING_URING))        \
            SKIP("no io_uring here"); \
        check_##name(RING_URING);     \
    }

BOTH_MODES(direct)
BOTH_MODES(limit)
BOTH_MODES(fitting)
BOTH_MODES(errors)
BOTH_MODES(short_and_again)
BOTH_MODES(free_waits)

static void on_free(void *arg) {
    ((Bench *)arg)->freed++;
}

TEST(buffers_are_aligned_shared_and_announced) {
    RingBuffer *x, *y;
    Bench b = { 0 };
    Err err = { 0 };

    ASSERT_OK(bench_open(&b, RING_AUTO, 1, 2, &err));
    ring_set_on_free(b.ring, on_free, &b);
    ASSERT_EQ(ring_buffer_bytes(b.ring), BUFFER);
    x = ring_buffer_get(b.ring);
    y = ring_buffer_get(b.ring);
    ASSERT_EQ((uintptr_t)x->data % 4096, 0);
    ASSERT_EQ((uintptr_t)y->data % 4096, 0);
    ASSERT_TRUE(ring_buffer_get(b.ring) == NULL);
    (void)ring_buffer_ref(x);
    (void)ring_buffer_unref(x);
    ASSERT_EQ(ring_buffers_free(b.ring), 0);
    (void)ring_buffer_unref(x);
    (void)ring_buffer_unref(y);
    ASSERT_EQ(b.freed, 0); /* from the loop, not from within */
    ASSERT_EQ(sd_event_run(b.event, USEC_PER_SEC), 1);
    ASSERT_EQ(b.freed, 1);
    bench_done(&b);
}

TEST(a_denied_submission_ends_all_with_the_reason) {
    Bench b = { 0 };
    Err err = { 0 };

    if (!have(RING_URING))
        SKIP("no io_uring here");
    ASSERT_OK(bench_open(&b, RING_URING, 2, 4, &err));
    b.ring->faults.submit = -EPERM;
    for (unsigned i = 0; i < 3; i++)
        put(&b, STDERR_FILENO, i, 0);
    ASSERT_EQ(b.done, 0);
    run_until(&b, 3);
    ASSERT_EQ(b.errors, 3);
    ASSERT_EQ(b.r, -EPERM);
    put(&b, STDERR_FILENO, 0, 0);
    b.ring = ring_free(b.ring);
    ASSERT_EQ(b.errors, 4);
    bench_done(&b);
}

TEST(a_submission_refused_for_the_moment_is_tried_again) {
    _cleanup_close_ int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Bench b = { 0 };
    Err err = { 0 };

    if (!have(RING_URING))
        SKIP("no io_uring here");
    ASSERT_OK(bench_open(&b, RING_URING, 2, 4, &err));
    b.ring->faults.submit = -EBUSY;
    for (unsigned i = 0; i < 3; i++)
        put(&b, fd, i, BUFFER);
    run_until(&b, 3);
    b.ring->faults.submit = -EAGAIN;
    put(&b, fd, 0, BUFFER);
    b.ring = ring_free(b.ring);
    ASSERT_EQ(b.done, 4);
    ASSERT_EQ(b.errors, 0);
    bench_done(&b);
}

TEST(restrictions_hold) {
    struct io_uring_sqe *sqe;
    struct io_uring_cqe *cqe;
    Bench b = { 0 };
    Err err = { 0 };

    if (!have(RING_URING))
        SKIP("no io_uring here");
    ASSERT_OK(bench_open(&b, RING_URING, 2, 1, &err));
    sqe = io_uring_get_sqe(&b.ring->uring);
    io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
    ASSERT_EQ(io_uring_submit(&b.ring->uring), 1);
    ASSERT_OK(io_uring_wait_cqe(&b.ring->uring, &cqe));
    ASSERT_EQ(cqe->res, -EACCES);
    io_uring_cqe_seen(&b.ring->uring, cqe);
    ASSERT_ERR(io_uring_unregister_buffers(&b.ring->uring), -EACCES);
    bench_done(&b);
}

/* From Linux 5.19 on; before it all are registered at once. */
TEST(buffers_are_registered_when_they_are_first_used) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    RingBuffer *held[40];
    Bench b = { 0 };
    Err err = { 0 };
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    if (!have(RING_URING))
        SKIP("no io_uring here");
    ASSERT_OK(fd);
    ASSERT_OK(bench_open(&b, RING_URING, 2, ELEMENTSOF(held), &err));
    if (!b.ring->grows && b.ring->n_registered == ELEMENTSOF(held)) {
        bench_done(&b);
        SKIP("this kernel registers all buffers at once");
    }
    ASSERT_EQ(b.ring->n_registered, 0);
    for (unsigned i = 0; i < ELEMENTSOF(held); i++) {
        held[i] = ring_buffer_get(b.ring);
        ASSERT_TRUE(held[i]->index < b.ring->n_registered);
        ASSERT_TRUE(b.ring->n_registered <= i + 4);
    }
    ASSERT_EQ(b.ring->n_registered, ELEMENTSOF(held));
    ASSERT_TRUE(!b.ring->grows);
    for (unsigned i = 0; i < ELEMENTSOF(held); i++)
        (void)ring_buffer_unref(held[i]);
    for (unsigned i = 0; i < ELEMENTSOF(held); i++)
        put(&b, fd, i, BUFFER);
    run_until(&b, ELEMENTSOF(held));
    ASSERT_EQ(b.errors, 0);
    ASSERT_TRUE(content_is(fd, ELEMENTSOF(held), BUFFER));
    bench_done(&b);
}

/* Denies `numbers` with EPERM from here on, for this process. */
static bool deny(const int *numbers, size_t n) {
    struct sock_filter code[16] = { BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                             offsetof(struct seccomp_data, nr)) };
    struct sock_fprog program = { .filter = code };
    unsigned short k = 1;

    for (size_t i = 0; i < n; i++) {
        code[k++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)numbers[i], 0, 1);
        code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    }
    code[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program.len = k;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* In a child: its result is the exit status, 0 when all is well. */
static int in_child(int (*run)(void)) {
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(run());
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                           : -1;
}

static int write_one(Bench *b) {
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    put(b, fd, 0, BUFFER);
    run_until(b, 1);
    (void)close(fd);
    return b->r == (int)BUFFER ? 0 : 10;
}

static int auto_under_seccomp(void) {
    const char *why = NULL;
    Bench b = { 0 };
    Err err = { 0 };
    int r;

    if (!deny((const int[]){ SYS_io_uring_setup }, 1))
        return 77;
    if (bench_open(&b, RING_AUTO, 2, 2, &err) < 0)
        return 1;
    if (ring_mode(b.ring, &why) != RING_THREADS || !why ||
        !strstr(why, "io_uring is not available"))
        return 2;
    r = write_one(&b);
    bench_done(&b);
    return r;
}

static int uring_under_seccomp(void) {
    Bench b = { 0 };
    Err err = { 0 };

    if (!deny((const int[]){ SYS_io_uring_setup }, 1))
        return 77;
    if (bench_open(&b, RING_URING, 2, 2, &err) != -EPERM || !strstr(err.text, "seccomp"))
        return 1;
    bench_done(&b);
    return 0;
}

static int opened_before_seccomp(void) {
    Bench b = { 0 };
    Err err = { 0 };
    int r;

    if (bench_open(&b, RING_URING, 2, 2, &err) < 0)
        return 77;
    if (!deny((const int[]){ SYS_io_uring_setup, SYS_io_uring_register }, 2))
        return 77;
    r = write_one(&b);
    bench_done(&b);
    return r;
}

/* As kernels before 5.19, which know no tables with gaps, and so no registration of one buffer. */
static bool deny_tables(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IORING_REGISTER_BUFFERS2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER,
                 &(struct sock_fprog){ ELEMENTSOF(code), code }) == 0;
}

static int without_tables(void) {
    RingOptions o = {
        .mode = RING_URING, .depth = 4, .n_buffers = 4, .n_first = 2, .buffer_bytes = BUFFER
    };
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Bench b = { 0 };
    Err err = { 0 };

    if (!deny_tables() || sd_event_new(&b.event) < 0)
        return 77;
    o.event = b.event;
    if (ring_new(&b.ring, &o, &err) < 0)
        return 1;
    if (b.ring->n_registered != 2 || b.ring->grows)
        return 2;
    for (unsigned i = 0; i < 4; i++)
        put(&b, fd, i, BUFFER);
    run_until(&b, 4);
    bench_done(&b);
    (void)close(fd);
    return b.errors == 0 ? 0 : 3;
}

static int without_memlock(void) {
    Bench b = { 0 };
    Err err = { 0 };
    int r;

    if (setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){ 16384, 16384 }) < 0 ||
        (geteuid() == 0 && setuid(65534) < 0))
        return 77;
    if (bench_open(&b, RING_URING, 2, 8, &err) < 0)
        return 77; /* before 5.12 the ring itself counts */
    if (b.ring->n_registered > 0)
        return 1;
    r = write_one(&b);
    bench_done(&b);
    return r;
}

TEST(seccomp_that_denies_setup_gives_threads_and_a_reason) {
    ASSERT_EQ(in_child(auto_under_seccomp), 0);
    ASSERT_EQ(in_child(uring_under_seccomp), 0);
}

TEST(seccomp_after_opening_changes_nothing) {
    if (!have(RING_URING))
        SKIP("no io_uring here");
    ASSERT_EQ(in_child(opened_before_seccomp), 0);
}

TEST(the_first_buffers_are_registered_where_there_are_no_tables) {
    if (!have(RING_URING))
        SKIP("no io_uring here");
    ASSERT_EQ(in_child(without_tables), 0);
}

TEST(a_small_memlock_limit_costs_registration_only) {
    int r = in_child(without_memlock);

    if (r == 77)
        SKIP("no io_uring here, or none without memory");
    ASSERT_EQ(r, 0);
}

/* A ring of two buffers in threads, or none. */
static int open_with(Bench *b, RingMemory *memory, Pool *pool, Err *err) {
    return ring_new(&b->ring,
                    &(RingOptions){ .event = b->event,
                                    .pool = pool,
                                    .mode = RING_THREADS,
                                    .depth = 1,
                                    .n_buffers = 2,
                                    .buffer_bytes = BUFFER,
                                    .memory = memory },
                    err);
}

TEST(memory_that_is_there_before_is_used_if_it_fits) {
    RingMemory fits = { 0 }, small = { 0 }, none = { 0 };
    const uint8_t *data;
    Bench b = { 0 };
    Err err = { 0 };

    ASSERT_OK(bench_open(&b, RING_THREADS, 1, 1, &err));
    b.ring = ring_free(b.ring);
    ASSERT_OK(ring_memory_map(&fits, 2, BUFFER, &err));
    ASSERT_OK(ring_memory_map(&small, 1, BUFFER, &err));
    ring_memory_fill(&fits, BUFFER, SIZE_MAX);
    ring_memory_fill(&fits, SIZE_MAX, 1);
    data = fits.data;
    ASSERT_OK(open_with(&b, &small, b.pool, &err));
    ASSERT_TRUE(small.mapped);
    b.ring = ring_free(b.ring);
    ASSERT_ERR(open_with(&b, &fits, NULL, &err), -EINVAL);
    ASSERT_TRUE(fits.data == data); /* for the next try */
    ASSERT_ERR(open_with(&b, &none, NULL, &err), -EINVAL);
    ASSERT_EQ(none.bytes, 2 * BUFFER);
    ASSERT_OK(open_with(&b, &fits, b.pool, &err));
    ASSERT_TRUE(!fits.mapped);
    ASSERT_TRUE(b.ring->buffers[0].data == data);
    ring_memory_done(&small);
    ring_memory_done(&fits);
    ring_memory_done(&none);
    bench_done(&b);
}

static unsigned take_all(Ring *r, RingBuffer **taken) {
    unsigned n = 0;

    while ((taken[n] = ring_buffer_get(r)))
        n++;
    return n;
}

TEST(buffers_come_as_they_are_allowed) {
    RingBuffer *taken[9], *more[9];
    Bench b = { 0 };
    Err err;

    ASSERT_OK(bench_open(&b, RING_THREADS, 1, 8, &err));
    ASSERT_EQ(take_all(b.ring, taken), 8);
    for (unsigned i = 0; i < 8; i++)
        (void)ring_buffer_unref(taken[i]);
    ring_limit_buffers(b.ring, 0);
    ASSERT_EQ(take_all(b.ring, taken), 0);
    ring_limit_buffers(b.ring, 3);
    ASSERT_EQ(ring_buffers_free(b.ring), 3);
    ASSERT_EQ(take_all(b.ring, taken), 3);
    for (unsigned i = 0; i < 3; i++)
        ASSERT_EQ(taken[i]->index, i);
    (void)ring_buffer_unref(taken[1]);
    ring_limit_buffers(b.ring, 8);
    ASSERT_EQ(take_all(b.ring, more), 6);
    ASSERT_EQ(more[0]->index, 1); /* what has been used comes before what has not */
    for (unsigned i = 1; i < 6; i++)
        ASSERT_EQ(more[i]->index, i + 2);
    for (unsigned i = 0; i < 6; i++)
        (void)ring_buffer_unref(more[i]);
    (void)ring_buffer_unref(taken[0]);
    (void)ring_buffer_unref(taken[2]);
    ASSERT_EQ(ring_buffers_free(b.ring), 8);
    bench_done(&b);
}

TEST(threads_need_a_pool) {
    RingOptions options = {
        .mode = RING_THREADS, .depth = 1, .n_buffers = 1, .buffer_bytes = BUFFER
    };
    _cleanup_event_ sd_event *event = NULL;
    Ring *ring = NULL;
    Err err = { 0 };

    ASSERT_OK(sd_event_new(&event));
    options.event = event;
    ASSERT_ERR(ring_new(&ring, &options, &err), -EINVAL);
    options.n_buffers = UINT32_MAX;
    options.buffer_bytes = GiB(1);
    ASSERT_ERR(ring_new(&ring, &options, &err), -ENOMEM);
    ASSERT_TRUE(ring_free(NULL) == NULL);
}
