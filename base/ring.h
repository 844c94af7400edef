/* SPDX-License-Identifier: Apache-2.0 */
/* ring: asynchronous file writes and reads with registered, aligned buffers: io_uring, or threads
 * where it is refused. */
#pragma once

#include "base/pool.h"
#include "base/ring_memory.h"

typedef struct Ring Ring;

typedef enum RingMode {
    RING_AUTO,    /* io_uring where the kernel gives it, else threads */
    RING_URING,   /* io_uring or an error */
    RING_THREADS, /* pwrite(2), pread(2) and fdatasync(2) in `pool` */
} RingMode;

/* Called in the loop's thread when an operation ended: bytes written (always all of them) or read
 * (fewer: the file ends there), 0, or negative errno. */
typedef void (*RingDone)(void *arg, int r);

typedef struct RingOptions {
    sd_event *event; /* a reference is kept */
    Pool *pool;      /* borrowed; used by RING_THREADS */
    RingMode mode;
    unsigned depth; /* operations in flight at most, whatever ring_limit() says; more are queued.
                       Beyond 16 only as many as the disk does in 100 ms */
    unsigned n_buffers;  /* buffers of the pool … */
    size_t buffer_bytes; /* … each of this size, a multiple of 4096 … */
    unsigned n_first; /* … of which, before Linux 5.19, so many are registered, and others never */
    RingMemory *memory; /* for them, taken over if it is as large; after an error the caller has it,
                           or what was mapped where it was nothing; or NULL */
    bool restrict_ops;  /* only writes, reads and fdatasync may ever be submitted
                           (IORING_REGISTER_RESTRICTIONS, 5.10) */
} RingOptions;

/* Maps the buffers; with io_uring they are registered, some at once and the others when they are
 * first used.  A seccomp filter may come later, and has to let io_uring_enter(2) pass, and of
 * io_uring_register(2) IORING_REGISTER_BUFFERS_UPDATE.  Errors: -ENOMEM; -EPERM or -ENOSYS with
 * RING_URING. */
int ring_new(Ring **ret, const RingOptions *options, Err *err) _must_check_;
/* RING_URING or RING_THREADS, and with threads one sentence that says why (NULL when it was asked
 * for). */
RingMode ring_mode(const Ring *r, const char **ret_why);

/* So many operations are in flight at most from now on. */
void ring_limit(Ring *r, unsigned depth);

/* One aligned buffer of the fixed set; NULL when all are in use.  Two users may hold one: every ref
 * needs an unref. */
typedef struct RingBuffer {
    uint8_t *data;  /* borrowed from the ring, 4096-aligned */
    size_t len;     /* bytes used; the holder sets it */
    unsigned refs;  /* owners: the writer and the hasher */
    unsigned index; /* registered index */
    Ring *ring;
} RingBuffer;
RingBuffer *ring_buffer_get(Ring *r) _must_check_;
/* Only so many of them, the first, are handed out from now on.  It may fall only while none is in
 * use; all are at first. */
void ring_limit_buffers(Ring *r, unsigned n);
RingBuffer *ring_buffer_ref(RingBuffer *b);
/* Gives it back; when one becomes free, `on_free` of ring_set_on_free is called from the loop
 * (transfers resume). */
RingBuffer *ring_buffer_unref(RingBuffer *b);
void ring_set_on_free(Ring *r, void (*on_free)(void *arg), void *arg);
size_t ring_buffer_bytes(const Ring *r);
unsigned ring_buffers_free(const Ring *r);

/* Writes `n` bytes of `b` at `offset`; short writes go on by themselves.  The buffer is referenced
 * until done.  `n` may be rounded up by the caller for O_DIRECT. */
void ring_write(int fd, RingBuffer *b, size_t n, uint64_t offset, RingDone done, void *arg);
/* The bytes [from, from + n) of `b` only; the rest of it may change meanwhile. */
typedef struct RingSpan {
    size_t from, n;
} RingSpan;
void ring_write_span(int fd, RingBuffer *b, RingSpan span, uint64_t offset, RingDone done,
                     void *arg);
/* Reads `n` bytes at `offset` into the start of `b`; the rest as above.  The holder sets `b->len`.
 */
void ring_read(int fd, RingBuffer *b, size_t n, uint64_t offset, RingDone done, void *arg);
void ring_fdatasync(Ring *r, int fd, RingDone done, void *arg);
/* Waits for what is in flight (the kernel holds the buffers), calls every done.  Not from within a
 * done, and before the pool is freed.  Buffers that somebody still holds stay valid; the last unref
 * frees them.  NULL is fine; returns NULL. */
Ring *ring_free(Ring *r);
DEFINE_CLEANUP(Ring, ring_free);
