/* SPDX-License-Identifier: Apache-2.0 */
/* ring_internal: what the parts of ring share (queue and buffers, io_uring, threads), and its
 * test's failpoints. */
#pragma once

#include "base/ring.h"

#include <liburing.h>
#include <pthread.h>

typedef enum RingKind {
    RING_WRITE,
    RING_READ,
    RING_FDATASYNC,
} RingKind;

/* One operation, from ring_write() or its like to its `done`. */
typedef struct RingOp {
    struct RingOp *next, *prev; /* in `queue` or `running` */
    Ring *ring; /* NULL: ring_free() has called `done`, the pool still holds the operation */
    RingKind kind;
    int fd;
    RingBuffer *buffer; /* referenced; NULL for fdatasync */
    size_t n, at;       /* bytes to write or read, and done */
    size_t from;        /* … from this byte of the buffer on */
    uint64_t offset;
    uint64_t started_usec;
    RingDone done;
    void *arg;
    bool taken; /* io_uring: the kernel has it */
    int r;      /* threads: the result */
} RingOp;

typedef struct RingOps {
    RingOp *first, *last;
} RingOps;

/* For the test only; all zero otherwise. */
typedef struct RingFaults {
    size_t max_write;   /* at most so many bytes in one submission: makes short writes and reads */
    unsigned again;     /* so many results are replaced by -EAGAIN */
    uint64_t late_usec; /* writes seem to have taken so much longer */
    int submit;         /* io_uring: the result of the next submission, negative */
} RingFaults;

struct Ring {
    sd_event *event;
    Pool *pool; /* borrowed; threads only */
    RingMode mode;
    char *why;        /* why threads, when they were not asked for */
    unsigned depth;   /* so many at most … */
    unsigned limit;   /* … of which so many are wanted … */
    unsigned fitting; /* … and so many the disk does soon enough */
    RingOps queue;    /* not started */
    RingOps running;  /* in the hands of the kernel or the pool */
    unsigned n_running;
    sd_event_source *retry; /* timer: tries again what was refused for the moment */
    bool retrying;          /* the timer runs; nothing is started until it ends */
    bool dispatching;       /* results are being handed out; ring_pump() comes after them */
    bool closed; /* ring_free() was called; only buffers that are still held keep the object */

    RingMemory memory; /* n_buffers * buffer_bytes */
    RingBuffer *buffers;
    size_t buffer_bytes;
    unsigned n_buffers;
    unsigned n_usable; /* of these, the first */
    unsigned n_first;
    unsigned *free_index; /* stack of usable buffers that nobody holds */
    unsigned n_free;
    sd_event_source *freed; /* deferred call of on_free */
    void (*on_free)(void *arg);
    void *on_free_arg;

    struct io_uring uring;
    bool uring_open;
    unsigned n_registered; /* so many buffers are, the first: WRITE_FIXED, READ_FIXED */
    bool grows;            /* more will be, when they are first used */
    int broken;            /* negative: the kernel takes no submissions any more, and why */
    int event_fd;
    sd_event_source *completion;

    pthread_mutex_t mutex; /* threads: guards n_in_pool */
    pthread_cond_t ended;
    unsigned n_in_pool; /* operations that a thread has not finished */
    RingFaults faults;
};

void ring_ops_push(RingOps *ops, RingOp *op);
void ring_ops_remove(RingOps *ops, RingOp *op);

/* A running operation ended with `result`: it goes on after a short write or -EAGAIN, else `done`
 * is called and it is freed.  The caller calls ring_pump() after the last one. */
void ring_op_ended(RingOp *op, int result);
/* Starts what the depth allows; nothing while results are handed out. */
void ring_pump(Ring *r);
/* Starts nothing for a moment, then calls ring_pump(). */
void ring_retry_later(Ring *r);

/* Sets the ring up for io_uring, or leaves it as it was. */
int ring_uring_open(Ring *r, bool restrict_ops, Err *err) _must_check_;
void ring_uring_close(Ring *r);
/* Registers some more buffers, if the kernel likes. */
void ring_uring_grow(Ring *r);
/* Prepares one operation; ring_uring_submit() hands all prepared ones to the kernel. */
void ring_uring_start(RingOp *op);
void ring_uring_submit(Ring *r);
/* Waits for a completion when the kernel has an operation, and handles all there are. */
void ring_uring_wait(Ring *r);

void ring_threads_start(RingOp *op);
/* Waits for the threads, then ends all that run. */
void ring_threads_wait(Ring *r);
