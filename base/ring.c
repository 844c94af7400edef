/* SPDX-License-Identifier: Apache-2.0 */
/* ring: asynchronous file writes and reads with registered, aligned buffers: io_uring, or threads
 * where it is refused. */
#include "base/ring.h"

#include "base/ring_internal.h"

#define RETRY_USEC   (2 * USEC_PER_MSEC)
#define BUFFER_ALIGN 4096U
#define READ_ALIGN   512U

#define FITTING_LEAST 16U                   /* operations in flight, however slow the disk is */
#define LATE_USEC     (100 * USEC_PER_MSEC) /* of a write */

void ring_ops_push(RingOps *ops, RingOp *op) {
    op->next = NULL;
    op->prev = ops->last;
    if (ops->last)
        ops->last->next = op;
    else
        ops->first = op;
    ops->last = op;
}

void ring_ops_remove(RingOps *ops, RingOp *op) {
    if (op->prev)
        op->prev->next = op->next;
    else
        ops->first = op->next;
    if (op->next)
        op->next->prev = op->prev;
    else
        ops->last = op->prev;
}

static void push_front(RingOps *ops, RingOp *op) {
    op->prev = NULL;
    op->next = ops->first;
    if (ops->first)
        ops->first->prev = op;
    else
        ops->last = op;
    ops->first = op;
}

/* The operation is in no list any more. */
static void finish(RingOp *op, int result) {
    (void)ring_buffer_unref(op->buffer);
    op->done(op->arg, result);
    free(op);
}

/* What others want from the disk waits behind all that is in flight: no more than it does in
 * LATE_USEC.  Less makes it wait for us: a busy loop comes to look only every 5 to 10 ms.  (One
 * that is later than that takes itself for a slow disk, for some writes.) */
static void adapt(Ring *r, const RingOp *op) {
    uint64_t usec = now_usec() - op->started_usec + r->faults.late_usec;

    if (usec > LATE_USEC)
        r->fitting = MAX(r->fitting - r->fitting / 8, MIN(r->depth, FITTING_LEAST));
    else if (r->n_running >= r->fitting)
        r->fitting = MIN(r->fitting + 1, r->depth);
}

void ring_op_ended(RingOp *op, int result) {
    Ring *r = op->ring;

    if (r->faults.again > 0) {
        r->faults.again--;
        result = -EAGAIN;
    }
    if (op->kind == RING_WRITE && result > 0)
        adapt(r, op);
    ring_ops_remove(&r->running, op);
    r->n_running--;
    op->taken = false;
    if (result > 0)
        op->at += (size_t)result;
    if (result == -EAGAIN || result == -EINTR) {
        push_front(&r->queue, op);
        ring_retry_later(r);
    } else if (result < 0) {
        finish(op, result);
    } else if (op->at == op->n) { /* for fdatasync both are 0 */
        finish(op, (int)op->n);
    } else if (op->kind == RING_READ && (result == 0 || op->at % READ_ALIGN != 0)) {
        finish(op, (int)op->at); /* the end of the file; O_DIRECT could not go on from there */
    } else if (result == 0) {
        finish(op, -EIO); /* a device that takes nothing more and says no reason */
    } else {
        push_front(&r->queue, op);
    }
}

void ring_pump(Ring *r) {
    RingOp *op;

    if (r->dispatching || r->retrying)
        return;
    if (r->broken) { /* no `done` from within ring_write() */
        ring_retry_later(r);
        return;
    }
    while (r->n_running < MIN(r->fitting, r->limit) && (op = r->queue.first)) {
        ring_ops_remove(&r->queue, op);
        ring_ops_push(&r->running, op);
        r->n_running++;
        op->started_usec = now_usec();
        if (r->mode == RING_URING)
            ring_uring_start(op);
        else
            ring_threads_start(op);
    }
    if (r->mode == RING_URING)
        ring_uring_submit(r);
}

/* Ends everything that the kernel will not take any more. */
static void fail_all(Ring *r) {
    RingOp *next;

    for (RingOp *op = r->running.first; op; op = next) {
        next = op->next;
        if (!op->taken) {
            ring_ops_remove(&r->running, op);
            r->n_running--;
            ring_ops_push(&r->queue, op);
        }
    }
    while (r->queue.first) {
        RingOp *op = r->queue.first;
        ring_ops_remove(&r->queue, op);
        finish(op, r->broken);
    }
}

static void retry(Ring *r) {
    r->retrying = false;
    if (r->broken) {
        bool dispatching = r->dispatching;
        r->dispatching = true;
        fail_all(r);
        r->dispatching = dispatching;
    } else {
        ring_pump(r);
    }
}

static int on_retry(sd_event_source *source, uint64_t usec, void *arg) {
    (void)source;
    (void)usec;
    retry(arg);
    return 0;
}

void ring_retry_later(Ring *r) {
    r->retrying = true;
    (void)!loop_timer_after(r->event, &r->retry, RETRY_USEC, on_retry,
                            r); /* made by ring_new(): setting cannot fail */
}

static int on_freed(sd_event_source *source, void *arg) {
    Ring *r = arg;

    (void)source;
    if (r->on_free)
        r->on_free(r->on_free_arg);
    return 0;
}

static int make_sources(Ring *r, Err *err) {
    int k = loop_timer_after(r->event, &r->retry, UINT64_MAX, on_retry, r);

    if (k >= 0)
        k = sd_event_source_set_enabled(r->retry, SD_EVENT_OFF);
    if (k >= 0)
        k = sd_event_add_defer(r->event, &r->freed, on_freed, r);
    if (k >= 0)
        k = sd_event_source_set_enabled(r->freed, SD_EVENT_OFF);
    return k < 0 ? err_errnum(err, k, "cannot make event sources for disk writes") : 0;
}

static int take_memory(Ring *r, const RingOptions *o, Err *err) {
    if (o->memory && o->memory->bytes == r->n_buffers * r->buffer_bytes) {
        r->memory = *o->memory;
        *o->memory = (RingMemory){ 0 };
        return 0;
    }
    return ring_memory_map(&r->memory, r->n_buffers, r->buffer_bytes, err);
}

/* The next try, with threads, may use it. */
static void leave_memory(Ring *r, const RingOptions *o) {
    if (!o->memory || o->memory->mapped)
        return;
    *o->memory = r->memory;
    r->memory = (RingMemory){ 0 };
}

static int make_buffers(Ring *r, const RingOptions *o, Err *err) {
    int k = take_memory(r, o, err);

    if (k < 0)
        return k;
    r->buffers = xnew_n(RingBuffer, r->n_buffers);
    r->free_index = xnew_n(unsigned, r->n_buffers);
    for (unsigned i = 0; i < r->n_buffers; i++)
        r->buffers[i] =
            (RingBuffer){ .data = r->memory.data + i * r->buffer_bytes, .index = i, .ring = r };
    ring_limit_buffers(r, r->n_buffers);
    return 0;
}

static int choose_mode(Ring *r, const RingOptions *o, Err *err) {
    Err why = { 0 };
    int k;

    if (o->mode == RING_THREADS)
        return 0;
    k = ring_uring_open(r, o->restrict_ops, &why);
    if (k >= 0) {
        r->mode = RING_URING;
        return 0;
    }
    if (o->mode == RING_URING)
        return err_set(err, k, "%s", err_text(&why, k));
    r->why = xstrdup(err_text(&why, k));
    return 0;
}

int ring_new(Ring **ret, const RingOptions *options, Err *err) {
    _cleanup_(ring_freep) Ring *r = xnew(Ring);
    int k;

    assert(options->depth > 0 && options->n_buffers > 0);
    assert(options->buffer_bytes > 0 && options->buffer_bytes % BUFFER_ALIGN == 0 &&
           options->buffer_bytes <= GiB(1));
    *r = (Ring){
        .event = sd_event_ref(options->event),
        .pool = options->pool,
        .mode = RING_THREADS,
        .depth = options->depth,
        .limit = options->depth,
        .fitting = MIN(options->depth, FITTING_LEAST),
        .n_buffers = options->n_buffers,
        .n_first = options->n_first,
        .buffer_bytes = options->buffer_bytes,
        .event_fd = -EBADF,
    };
    (void)pthread_mutex_init(&r->mutex, NULL);
    (void)pthread_cond_init(&r->ended, NULL);
    k = make_sources(r, err);
    if (k >= 0)
        k = make_buffers(r, options, err);
    if (k >= 0)
        k = choose_mode(r, options, err);
    if (k >= 0 && r->mode == RING_THREADS && !r->pool)
        k = err_set(err, -EINVAL, "no threads were given to write with, and %s",
                    r->why ? r->why : "io_uring was not asked for");
    if (k < 0) {
        leave_memory(r, options);
        return k;
    }
    *ret = TAKE_PTR(r);
    return 0;
}

void ring_limit(Ring *r, unsigned depth) {
    assert(depth > 0);
    r->limit = depth;
    ring_pump(r);
}

/* What has not been used yet comes last: it may have no pages. */
void ring_limit_buffers(Ring *r, unsigned n) {
    unsigned more;

    if (r->n_free == r->n_usable)
        r->n_free = r->n_usable = 0;
    assert(n >= r->n_usable && n <= r->n_buffers);
    more = n - r->n_usable;
    memmove(r->free_index + more, r->free_index, r->n_free * sizeof(*r->free_index));
    for (unsigned i = 0; i < more; i++)
        r->free_index[i] = n - 1 - i; /* the first one first */
    r->n_free += more;
    r->n_usable = n;
}

RingMode ring_mode(const Ring *r, const char **ret_why) {
    if (ret_why)
        *ret_why = r->why;
    return r->mode;
}

RingBuffer *ring_buffer_get(Ring *r) {
    RingBuffer *b;

    if (r->n_free == 0)
        return NULL;
    b = &r->buffers[r->free_index[--r->n_free]];
    if (r->grows && b->index >= r->n_registered)
        ring_uring_grow(r);
    b->refs = 1;
    b->len = 0;
    return b;
}

RingBuffer *ring_buffer_ref(RingBuffer *b) {
    assert(b->refs > 0);
    b->refs++;
    return b;
}

static void destroy(Ring *r) {
    ring_memory_done(&r->memory);
    (void)pthread_cond_destroy(&r->ended);
    (void)pthread_mutex_destroy(&r->mutex);
    free(r->free_index);
    free(r->buffers);
    free(r->why);
    free(r);
}

RingBuffer *ring_buffer_unref(RingBuffer *b) {
    Ring *r;

    if (!b)
        return NULL;
    assert(b->refs > 0);
    if (--b->refs > 0)
        return NULL;
    r = b->ring;
    r->free_index[r->n_free++] = b->index;
    if (!r->closed)
        (void)sd_event_source_set_enabled(
            r->freed, SD_EVENT_ONESHOT); /* fails only for a source of another process */
    else if (r->n_free == r->n_usable)
        destroy(r);
    return NULL;
}

void ring_set_on_free(Ring *r, void (*on_free)(void *arg), void *arg) {
    r->on_free = on_free;
    r->on_free_arg = arg;
}

size_t ring_buffer_bytes(const Ring *r) {
    return r->buffer_bytes;
}

unsigned ring_buffers_free(const Ring *r) {
    return r->n_free;
}

static void submit(Ring *r, const RingOp *what) {
    RingOp *op = xnew(RingOp);

    assert(!r->closed);
    *op = *what;
    op->ring = r;
    ring_ops_push(&r->queue, op);
    ring_pump(r);
}

void ring_write(int fd, RingBuffer *b, size_t n, uint64_t offset, RingDone done, void *arg) {
    ring_write_span(fd, b, (RingSpan){ .n = n }, offset, done, arg);
}

void ring_write_span(int fd, RingBuffer *b, RingSpan span, uint64_t offset, RingDone done,
                     void *arg) {
    assert(span.from + span.n <= b->ring->buffer_bytes);
    submit(b->ring, &(RingOp){ .kind = RING_WRITE,
                               .fd = fd,
                               .buffer = ring_buffer_ref(b),
                               .from = span.from,
                               .n = span.n,
                               .offset = offset,
                               .done = done,
                               .arg = arg });
}

void ring_read(int fd, RingBuffer *b, size_t n, uint64_t offset, RingDone done, void *arg) {
    assert(n <= b->ring->buffer_bytes);
    submit(b->ring, &(RingOp){ .kind = RING_READ,
                               .fd = fd,
                               .buffer = ring_buffer_ref(b),
                               .n = n,
                               .offset = offset,
                               .done = done,
                               .arg = arg });
}

void ring_fdatasync(Ring *r, int fd, RingDone done, void *arg) {
    submit(r, &(RingOp){ .kind = RING_FDATASYNC, .fd = fd, .done = done, .arg = arg });
}

/* Without the loop: what it would do is done here, until nothing is queued or runs. */
static void drain(Ring *r) {
    while (r->queue.first || r->running.first) {
        if (r->retrying)
            (void)usleep(RETRY_USEC); /* a signal shortens it */
        retry(r);
        r->dispatching = true;
        if (r->mode == RING_URING)
            ring_uring_wait(r);
        else
            ring_threads_wait(r);
        r->dispatching = false;
    }
}

Ring *ring_free(Ring *r) {
    if (!r)
        return NULL;
    assert(!r->dispatching && !r->closed); /* not from a `done` */
    drain(r);
    ring_uring_close(r);
    r->retry = sd_event_source_disable_unref(r->retry);
    r->freed = sd_event_source_disable_unref(r->freed);
    r->event = sd_event_unref(r->event);
    r->closed = true;
    if (r->n_free == r->n_usable || !r->memory.mapped)
        destroy(r);
    return NULL;
}
