/* SPDX-License-Identifier: Apache-2.0 */
/* test_feed: buffers go to a thread in order and come back, at the end and at a failure. */
#include "oci/feed.h"

#include "tests/unit/test.h"

#include <pthread.h>

#define BUFFER_BYTES 4096
#define N            100

typedef struct Fixture {
    sd_event *event;
    Pool *pool;
    Ring *ring;
    Feed *feed;
} Fixture;

/* What the thread saw. */
typedef struct Reader {
    Feed *feed;
    unsigned n;
    bool in_order;
    int r;
    Err err;
} Reader;

static void fixture_open(Fixture *f, unsigned n_buffers, unsigned max) {
    RingOptions options = {
        .mode = RING_THREADS, .depth = 4, .n_buffers = n_buffers, .buffer_bytes = BUFFER_BYTES
    };
    Err err;

    ASSERT_OK(sd_event_new(&f->event));
    ASSERT_OK(pool_new(&f->pool, f->event, 1, &err));
    options.event = f->event;
    options.pool = f->pool;
    ASSERT_OK(ring_new(&f->ring, &options, &err));
    ASSERT_OK(feed_new(&f->feed, f->event, max, &err));
}

static void fixture_close(Fixture *f) {
    f->feed = feed_free(f->feed);
    ASSERT_EQ(ring_buffers_free(f->ring), 3);
    f->ring = ring_free(f->ring);
    f->pool = pool_free(f->pool);
    f->event = sd_event_unref(f->event);
}

static void *reader(void *arg) {
    Reader *t = arg;
    const uint8_t *data;
    size_t n;

    t->in_order = true;
    while ((t->r = feed_next(t->feed, &data, &n, &t->err)) > 0) {
        t->in_order = t->in_order && n == 10 && data[0] == (uint8_t)t->n;
        t->n++;
    }
    return NULL;
}

TEST(buffers_arrive_in_order_and_come_back) {
    Fixture f = { 0 };
    Reader t;
    pthread_t thread;

    fixture_open(&f, 3, 2);
    t = (Reader){ .feed = f.feed };
    ASSERT_EQ(pthread_create(&thread, NULL, reader, &t), 0);
    for (unsigned i = 0; i < N; i++) {
        RingBuffer *b;
        while (!feed_has_room(f.feed))
            ASSERT_OK(sd_event_run(f.event, UINT64_MAX));
        b = ring_buffer_get(f.ring);
        ASSERT_TRUE(b);
        b->data[0] = (uint8_t)i;
        b->len = 10;
        feed_push(f.feed, b);
        (void)ring_buffer_unref(b);
    }
    feed_end(f.feed, 0, NULL);
    ASSERT_EQ(pthread_join(thread, NULL), 0);
    ASSERT_EQ(t.r, 0);
    ASSERT_EQ(t.n, N);
    ASSERT_TRUE(t.in_order);
    fixture_close(&f);
}

TEST(a_failure_is_told_at_once_and_what_waits_comes_back) {
    Fixture f = { 0 };
    RingBuffer *b;
    Err err;

    fixture_open(&f, 3, 2);
    b = ring_buffer_get(f.ring);
    b->len = 10;
    feed_push(f.feed, b);
    feed_push(f.feed, b);
    (void)ring_buffer_unref(b);
    ASSERT_TRUE(!feed_has_room(f.feed));
    feed_end(f.feed, -EBADMSG, &(Err){ "other content" });
    ASSERT_ERR(feed_drain(f.feed, &err), -EBADMSG);
    ASSERT_STREQ(err.text, "other content");
    fixture_close(&f);
}

TEST(drain_reads_to_the_end) {
    Fixture f = { 0 };
    RingBuffer *b;
    Err err;

    fixture_open(&f, 3, 2);
    b = ring_buffer_get(f.ring);
    b->len = 10;
    feed_push(f.feed, b);
    (void)ring_buffer_unref(b);
    feed_end(f.feed, 0, NULL);
    ASSERT_OK(feed_drain(f.feed, &err));
    fixture_close(&f);
}

/* The reader's marks are before and behind the bytes of one buffer, once they are hashed. */
TEST(a_mark_waits_for_the_hash) {
    FeedMark begin = { .offset = 128, .hash.words = { 1 } }, mark = { 0 };
    HasherState state = { { 0 } };
    Fixture f = { 0 };
    const uint8_t *data;
    uint64_t skip;
    size_t n;
    Err err;

    fixture_open(&f, 3, 2);
    feed_begin(f.feed, &begin);
    for (unsigned i = 0; i < 3; i++) {
        RingBuffer *b = ring_buffer_get(f.ring);

        b->len = i == 2 ? 60 : 64; /* the last one is not whole blocks */
        feed_push(f.feed, b);
        (void)ring_buffer_unref(b);
        state.words[0] = i + 2;
        feed_hashed(f.feed, &state);
        ASSERT_EQ(feed_next(f.feed, &data, &n, &err), 1);
        ASSERT_OK(feed_mark(f.feed, 20, &mark, &skip, &err));
        ASSERT_EQ(mark.offset, 128 + i * 64);
        ASSERT_EQ(mark.hash.words[0], i + 1);
        ASSERT_EQ(skip, n - 20);
        ASSERT_EQ(feed_mark(f.feed, 0, &mark, &skip, &err), i == 2 ? -EAGAIN : 0);
        ASSERT_EQ(mark.offset, 128 + i * 64 + n);
        ASSERT_EQ(skip, 0);
        if (i < 2)
            ASSERT_EQ(mark.hash.words[0], i + 2);
        ASSERT_OK(sd_event_run(f.event, 0)); /* buffers come back */
    }
    fixture_close(&f);
}

static void *marker(void *arg) {
    Reader *t = arg;
    const uint8_t *data;
    FeedMark mark;
    uint64_t skip;
    size_t n;

    t->r = feed_next(t->feed, &data, &n, &t->err);
    t->n = 1;
    if (t->r > 0)
        t->r = feed_mark(t->feed, 0, &mark, &skip, &t->err);
    return NULL;
}

TEST(a_mark_whose_hash_never_comes_fails_as_the_stream_does) {
    Fixture f = { 0 };
    RingBuffer *b;
    pthread_t thread;
    Reader t;

    fixture_open(&f, 3, 2);
    t = (Reader){ .feed = f.feed };
    b = ring_buffer_get(f.ring);
    b->len = 64;
    feed_push(f.feed, b);
    (void)ring_buffer_unref(b);
    ASSERT_EQ(pthread_create(&thread, NULL, marker, &t), 0);
    usleep(20000);
    feed_end(f.feed, -ECONNRESET, &(Err){ "the network is gone" });
    ASSERT_EQ(pthread_join(thread, NULL), 0);
    ASSERT_EQ(t.r, -ECONNRESET);
    ASSERT_STREQ(t.err.text, "the network is gone");
    fixture_close(&f);
}

/* A decoder may still give bytes when its source has ended. */
TEST(a_mark_at_the_end_is_none) {
    Fixture f = { 0 };
    const uint8_t *data;
    FeedMark mark;
    uint64_t skip;
    size_t n;
    Err err;

    fixture_open(&f, 3, 2);
    feed_end(f.feed, 0, NULL);
    ASSERT_EQ(feed_next(f.feed, &data, &n, &err), 0);
    ASSERT_ERR(feed_mark(f.feed, 0, &mark, &skip, &err), -EAGAIN);
    fixture_close(&f);
}
