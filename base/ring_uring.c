/* SPDX-License-Identifier: Apache-2.0 */
/* ring_uring: operations of a ring by io_uring, completions into the loop by an eventfd. */
#include "base/ring_internal.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* The only opcodes that may ever be submitted.  No flags of SQEs and, of all registrations, only
 * that of more buffers is in the list, so that the kernel refuses them too (io_uring_register(2),
 * IORING_REGISTER_RESTRICTIONS). */
static const unsigned allowed_ops[] = { IORING_OP_WRITE_FIXED, IORING_OP_WRITE, IORING_OP_FSYNC,
                                        IORING_OP_READ_FIXED, IORING_OP_READ };

#define GROW_BUFFERS 4U /* so many are registered at once */

/* liburing up to 2.3 declares functions for some of these and does not export them. */
static int uring_register(Ring *r, unsigned op, const void *arg, unsigned n) {
    long k = syscall(SYS_io_uring_register, r->uring.ring_fd, op, arg, n);

    return k < 0 ? -errno : (int)k;
}

static int restrict_operations(Ring *r, Err *err) {
    struct io_uring_restriction list[ELEMENTSOF(allowed_ops) + 2] = { 0 };
    unsigned n = ELEMENTSOF(allowed_ops);
    int k;

    for (size_t i = 0; i < ELEMENTSOF(allowed_ops); i++) {
        list[i].opcode = IORING_RESTRICTION_SQE_OP;
        list[i].sqe_op = (uint8_t)allowed_ops[i];
    }
    /* Useless once it is done; but some kernels restrict registrations only when one is listed. */
    list[n].opcode = IORING_RESTRICTION_REGISTER_OP;
    list[n++].register_op = IORING_REGISTER_ENABLE_RINGS;
    if (r->grows) {
        list[n].opcode = IORING_RESTRICTION_REGISTER_OP;
        list[n++].register_op = IORING_REGISTER_BUFFERS_UPDATE;
    }
    k = uring_register(r, IORING_REGISTER_RESTRICTIONS, list, n);
    return k < 0 ? err_errnum(err, k, "io_uring cannot be restricted; Linux 5.10 can") : 0;
}

void ring_uring_grow(Ring *r) {
    unsigned n = MIN(r->n_usable - r->n_registered, GROW_BUFFERS);
    struct iovec iov[GROW_BUFFERS];
    struct io_uring_rsrc_update2 update = { .offset = r->n_registered,
                                            .data = (uintptr_t)iov,
                                            .nr = n };
    int k;

    for (unsigned i = 0; i < n; i++)
        iov[i] = (struct iovec){ r->buffers[r->n_registered + i].data, r->buffer_bytes };
    k = uring_register(r, IORING_REGISTER_BUFFERS_UPDATE, &update, sizeof(update));
    r->n_registered += (unsigned)MAX(k, 0);
    r->grows = k == (int)n && r->n_registered < r->n_buffers;
}

/* Before Linux 5.19 all at once, and so only those that most pulls need. */
static void register_first(Ring *r) {
    _cleanup_free_ struct iovec *iov = xnew_n(struct iovec, r->n_first);

    for (unsigned i = 0; i < r->n_first; i++)
        iov[i] = (struct iovec){ r->buffers[i].data, r->buffer_bytes };
    if (r->n_first > 0 && io_uring_register_buffers(&r->uring, iov, r->n_first) == 0)
        r->n_registered = r->n_first;
}

/* Registering fills buffers with pages (0.1 ms a MiB, measured; 2 ms in a virtual machine that has
 * to get them from its host), so it is done as they are needed: most pulls need few.  Unregistered
 * buffers cost a page walk a write (0.2 CPU-s/GiB, measured); but a small RLIMIT_MEMLOCK is no
 * reason for threads. */
static void register_buffers(Ring *r) {
    struct io_uring_rsrc_register table = { .nr = r->n_buffers,
                                            .flags = IORING_RSRC_REGISTER_SPARSE };

    r->grows = uring_register(r, IORING_REGISTER_BUFFERS2, &table, sizeof(table)) >= 0;
    if (!r->grows)
        register_first(r);
}

static void reap(Ring *r) {
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&r->uring, &cqe) == 0) {
        RingOp *op = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&r->uring, cqe);
        ring_op_ended(op, result);
    }
}

static int on_completion(sd_event_source *source, int fd, uint32_t revents, void *arg) {
    Ring *r = arg;
    uint64_t n;

    (void)source;
    (void)revents;
    (void)!read(
        fd, &n,
        sizeof(n)); /* before the completions are taken: a later one makes it readable again */
    r->dispatching = true;
    reap(r);
    r->dispatching = false;
    ring_pump(r);
    return 0;
}

/* All but more buffers is registered before the ring is enabled; after that restrictions and
 * seccomp refuse it. */
static int prepare(Ring *r, bool restrict_ops, Err *err) {
    int k;

    r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->event_fd < 0)
        return err_errno(err, "cannot make an eventfd for io_uring");
    k = io_uring_register_eventfd(&r->uring, r->event_fd);
    if (k < 0)
        return err_errnum(err, k, "io_uring refuses an eventfd");
    register_buffers(r);
    if (restrict_ops) {
        k = restrict_operations(r, err);
        if (k < 0)
            return k;
    }
    k = uring_register(r, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (k < 0)
        return err_errnum(err, k, "io_uring cannot be enabled");
    k = sd_event_add_io(r->event, &r->completion, r->event_fd, EPOLLIN, on_completion, r);
    return k < 0 ? err_errnum(err, k, "cannot watch the eventfd of io_uring") : 0;
}

int ring_uring_open(Ring *r, bool restrict_ops, Err *err) {
    struct io_uring_params params = { .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CLAMP };
    int k = io_uring_queue_init_params(r->depth, &r->uring, &params);

    if (k < 0)
        return err_errnum(err, k, "io_uring is not available here (%s)",
                          k == -ENOSYS   ? "the kernel has none"
                          : k == -ENOMEM ? "memory, or RLIMIT_MEMLOCK on Linux before 5.12"
                          : k == -EINVAL ? "the kernel is older than 5.10"
                                         : "kernel.io_uring_disabled, or a seccomp filter");
    r->uring_open = true;
    r->depth =
        MIN(r->depth,
            params.sq_entries); /* the completion queue is twice as long: it never overflows */
    k = prepare(r, restrict_ops, err);
    if (k < 0)
        ring_uring_close(r);
    return k;
}

void ring_uring_close(Ring *r) {
    r->completion = sd_event_source_disable_unref(r->completion);
    if (r->uring_open)
        io_uring_queue_exit(&r->uring);
    r->uring_open = false;
    r->n_registered = 0;
    r->grows = false;
    r->event_fd = safe_close(r->event_fd);
}

void ring_uring_start(RingOp *op) {
    Ring *r = op->ring;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
    RingBuffer *b = op->buffer;

    assert(sqe); /* no more run than there are entries */
    if (op->kind == RING_FDATASYNC) {
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
    } else {
        uint8_t *data = b->data + op->from + op->at;
        size_t n = op->n - op->at;
        bool registered = b->index < r->n_registered;
        if (r->faults.max_write > 0)
            n = MIN(n, r->faults.max_write);
        if (op->kind == RING_READ && registered)
            io_uring_prep_read_fixed(sqe, op->fd, data, (unsigned)n, op->offset + op->at,
                                     (int)b->index);
        else if (op->kind == RING_READ)
            io_uring_prep_read(sqe, op->fd, data, (unsigned)n, op->offset + op->at);
        else if (registered)
            io_uring_prep_write_fixed(sqe, op->fd, data, (unsigned)n, op->offset + op->at,
                                      (int)b->index);
        else
            io_uring_prep_write(sqe, op->fd, data, (unsigned)n, op->offset + op->at);
    }
    io_uring_sqe_set_data(sqe, op);
}

/* Operations are taken in the order in which they were prepared, which is that of `running`. */
static void mark_taken(Ring *r, int n) {
    for (RingOp *op = r->running.first; op && n > 0; op = op->next)
        if (!op->taken) {
            op->taken = true;
            n--;
        }
}

void ring_uring_submit(Ring *r) {
    while (!r->broken && io_uring_sq_ready(&r->uring) > 0) {
        int k = r->faults.submit < 0 ? r->faults.submit : io_uring_submit(&r->uring);
        r->faults.submit = 0;
        if (k > 0) {
            mark_taken(r, k);
            continue;
        }
        if (k == -EINTR)
            continue;
        if (k < 0 && k != -EAGAIN && k != -EBUSY && k != -ENOMEM)
            r->broken = k; /* for good: a seccomp filter that denies io_uring_enter(2) */
        ring_retry_later(
            r); /* what was not taken stays in the submission queue; a later submission takes it */
        return;
    }
}

static bool any_taken(const Ring *r) {
    for (const RingOp *op = r->running.first; op; op = op->next)
        if (op->taken)
            return true;
    return false;
}

void ring_uring_wait(Ring *r) {
    struct io_uring_cqe *cqe;

    if (!any_taken(r))
        return;
    if (io_uring_wait_cqe(&r->uring, &cqe) < 0)
        (void)usleep(
            1000); /* a signal, or waiting is denied: completions are seen without a system call */
    reap(r);
}
