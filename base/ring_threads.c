/* SPDX-License-Identifier: Apache-2.0 */
/* ring_threads: operations of a ring by pwrite(2), pread(2) and fdatasync(2) in a pool. */
#include "base/ring_internal.h"

static int perform(const RingOp *op) {
    size_t n = op->n - op->at;
    ssize_t k;

    if (op->kind == RING_FDATASYNC)
        return fdatasync(op->fd) < 0 ? -errno : 0;
    if (op->ring->faults.max_write > 0)
        n = MIN(n, op->ring->faults.max_write);
    if (op->kind == RING_READ)
        k = pread(op->fd, op->buffer->data + op->from + op->at, n, (off_t)(op->offset + op->at));
    else
        k = pwrite(op->fd, op->buffer->data + op->from + op->at, n, (off_t)(op->offset + op->at));
    return k < 0 ? -errno : (int)k; /* a buffer has at most 1 GiB */
}

static int run(void *arg, Err *err) {
    RingOp *op = arg;
    Ring *r = op->ring;

    (void)err;
    op->r = perform(op);
    (void)pthread_mutex_lock(&r->mutex);
    r->n_in_pool--;
    (void)pthread_cond_signal(&r->ended);
    (void)pthread_mutex_unlock(&r->mutex); /* from here on ring_free() may have freed the ring */
    return 0;
}

static void on_done(void *arg, int result, const Err *err) {
    RingOp *op = arg;
    Ring *r = op->ring;

    (void)result;
    (void)err;
    if (!r) {
        free(op);
        return;
    }
    r->dispatching = true;
    ring_op_ended(op, op->r);
    r->dispatching = false;
    ring_pump(r);
}

void ring_threads_start(RingOp *op) {
    Ring *r = op->ring;

    (void)pthread_mutex_lock(&r->mutex);
    r->n_in_pool++;
    (void)pthread_mutex_unlock(&r->mutex);
    pool_submit(r->pool, run, on_done, op);
}

/* The pool calls on_done() when the loop runs next, which may be after the ring is gone.  So it
 * keeps an empty shell, and a copy ends here; other users of the pool are not called. */
void ring_threads_wait(Ring *r) {
    RingOp *op;

    (void)pthread_mutex_lock(&r->mutex);
    while (r->n_in_pool > 0)
        (void)pthread_cond_wait(&r->ended, &r->mutex);
    (void)pthread_mutex_unlock(&r->mutex);
    while ((op = r->running.first)) {
        RingOp *copy = xnew(RingOp);
        ring_ops_remove(&r->running, op);
        *copy = *op;
        op->ring = NULL;
        ring_ops_push(&r->running, copy);
        ring_op_ended(copy, copy->r);
    }
}
