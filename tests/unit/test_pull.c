/* SPDX-License-Identifier: Apache-2.0 */
/* test_pull: what the daemon's limits do to the disk. */
#include "oci/pull.h"

#include "base/ring_internal.h"
#include "tests/unit/test.h"

#include <fcntl.h>

#define DEPTH  32U
#define BUFFER KiB(4)

static void on_written(void *arg, int r) {
    (void)arg;
    ASSERT_EQ(r, BUFFER);
}

static void limit(Pull *p, bool background) {
    Modelcached__Worker__Limits limits = MODELCACHED__WORKER__LIMITS__INIT;
    Modelcached__Worker__ToWorker message = MODELCACHED__WORKER__TO_WORKER__INIT;

    limits.connections = 1;
    limits.background = background;
    message.message_case = MODELCACHED__WORKER__TO_WORKER__MESSAGE_LIMITS;
    message.limits = &limits;
    pull_on_message(p, &message);
}

/* As many as there are buffers; the loop does not run, so none ends. */
static void write_all(Ring *ring, int fd) {
    RingBuffer *b;

    while ((b = ring_buffer_get(ring))) {
        memset(b->data, 7, BUFFER);
        ring_write(fd, b, BUFFER, 0, on_written, NULL);
        (void)ring_buffer_unref(b);
    }
}

/* On a disk that is known to be quick, so that nothing else holds them back. */
static void check_writes(bool from_the_start) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int fd = openat(tmpdir_fd(dir), "f", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    Modelcached__Worker__Limits limits = MODELCACHED__WORKER__LIMITS__INIT;
    Modelcached__Worker__Job job = MODELCACHED__WORKER__JOB__INIT;
    RingOptions o = {
        .mode = RING_THREADS, .depth = DEPTH, .n_buffers = DEPTH, .buffer_bytes = BUFFER
    };
    PullOptions options = { .job = &job, .connections = 1, .n_buffers = DEPTH };
    Pull *p;
    Err err;

    ASSERT_OK(fd);
    ASSERT_OK(sd_event_new(&o.event));
    ASSERT_OK(pool_new(&o.pool, o.event, 1, &err));
    ASSERT_OK(ring_new(&options.ring, &o, &err));
    options.ring->fitting = DEPTH;
    options.event = o.event;
    job.tag = (char[]){ "v1" };
    job.limits = &limits;
    limits.connections = 1;
    limits.background = from_the_start;
    limits.memory_bytes = DEPTH * BUFFER;
    ASSERT_OK(pull_new(&p, &options, &err));
    if (!from_the_start)
        limit(p, true);
    write_all(options.ring, fd);
    ASSERT_EQ(options.ring->n_running, 16);
    limit(p, false);
    ASSERT_EQ(options.ring->n_running, DEPTH);
    pull_cancel(p);
    (void)ring_free(options.ring);
    (void)pool_free(o.pool);
    (void)pull_free(p);
    (void)sd_event_unref(o.event);
}

TEST(pull_that_nobody_waits_for_writes_little_at_once) {
    check_writes(true);
}

TEST(pull_that_somebody_waited_for_writes_little_at_once_then) {
    check_writes(false);
}
