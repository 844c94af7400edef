/* SPDX-License-Identifier: Apache-2.0 */
/* feed: ring buffers in order from the loop to one thread that decodes them; bounded. */
#include "oci/feed.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

struct Feed {
    sd_event_source *source;
    int event_fd; /* readable: `used` is not empty */
    unsigned max;
    unsigned n_out; /* loop: pushed and not yet given back */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t pushed;
    RingBuffer **waiting; /* circle of `max` */
    unsigned first, n_waiting;
    RingBuffer **used; /* read by the thread, for the loop to give back */
    unsigned n_used;
    RingBuffer *current;        /* the thread reads it */
    uint64_t n_taken, n_hashed; /* buffers, from the start */
    FeedMark *marks;            /* circle of `n_marks`: where buffer i begins */
    unsigned n_marks;
    bool ended;
    int r;
    Err why;
};

/* Gives back what the thread has read. */
static void give_back(Feed *f) {
    for (;;) {
        RingBuffer *b = NULL;

        (void)pthread_mutex_lock(&f->mutex);
        if (f->n_used > 0)
            b = f->used[--f->n_used];
        (void)pthread_mutex_unlock(&f->mutex);
        if (!b)
            return;
        f->n_out--;
        (void)ring_buffer_unref(b);
    }
}

static int on_used(sd_event_source *source, int fd, uint32_t revents, void *arg) {
    uint64_t n;

    (void)source;
    (void)revents;
    (void)!read(fd, &n,
                sizeof(n)); /* before the list is taken: a later one makes it readable again */
    give_back(arg);
    return 0;
}

int feed_new(Feed **ret, sd_event *event, unsigned max, Err *err) {
    _cleanup_(feed_freep) Feed *f = xnew(Feed);
    int r;

    assert(max > 0);
    (void)pthread_mutex_init(&f->mutex, NULL);
    (void)pthread_cond_init(&f->pushed, NULL);
    f->max = max;
    f->waiting = xnew_n(RingBuffer *, max);
    f->used = xnew_n(RingBuffer *, max);
    f->n_marks = max + 2; /* both ends of the one that is read, and of those that wait */
    f->marks = xnew_n(FeedMark, f->n_marks);
    f->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (f->event_fd < 0)
        return err_errno(err, "cannot make an eventfd for a decoder");
    r = sd_event_add_io(event, &f->source, f->event_fd, EPOLLIN, on_used, f);
    if (r < 0)
        return err_errnum(err, r, "cannot watch the eventfd of a decoder");
    *ret = TAKE_PTR(f);
    return 0;
}

Feed *feed_free(Feed *f) {
    if (!f)
        return NULL;
    give_back(f);
    if (f->current)
        (void)ring_buffer_unref(f->current);
    for (; f->n_waiting > 0; f->n_waiting--, f->first = (f->first + 1) % f->max)
        (void)ring_buffer_unref(f->waiting[f->first]);
    (void)sd_event_source_disable_unref(f->source);
    (void)safe_close(f->event_fd);
    (void)pthread_cond_destroy(&f->pushed);
    (void)pthread_mutex_destroy(&f->mutex);
    free(f->waiting);
    free(f->used);
    free(f->marks);
    free(f);
    return NULL;
}

void feed_begin(Feed *f, const FeedMark *at) {
    f->marks[0] = *at; /* the thread comes later */
}

bool feed_has_room(const Feed *f) {
    return f->n_out < f->max;
}

void feed_push(Feed *f, RingBuffer *b) {
    assert(feed_has_room(f));
    (void)ring_buffer_ref(b);
    f->n_out++;
    (void)pthread_mutex_lock(&f->mutex);
    assert(!f->ended);
    f->waiting[(f->first + f->n_waiting++) % f->max] = b;
    (void)pthread_cond_signal(&f->pushed);
    (void)pthread_mutex_unlock(&f->mutex);
}

void feed_hashed(Feed *f, const HasherState *hash) {
    (void)pthread_mutex_lock(&f->mutex);
    f->n_hashed++;
    f->marks[f->n_hashed % f->n_marks].hash = *hash;
    (void)pthread_cond_signal(&f->pushed);
    (void)pthread_mutex_unlock(&f->mutex);
}

void feed_end(Feed *f, int r, const Err *why) {
    (void)pthread_mutex_lock(&f->mutex);
    assert(!f->ended);
    f->ended = true;
    f->r = r;
    if (why)
        f->why = *why;
    (void)pthread_cond_signal(&f->pushed);
    (void)pthread_mutex_unlock(&f->mutex);
}

/* A failure is told at once; bytes that still wait are worth nothing then. */
int feed_next(void *feed, const uint8_t **ret, size_t *ret_n, Err *err) {
    Feed *f = feed;
    int r = 0;

    (void)pthread_mutex_lock(&f->mutex);
    if (f->current) {
        f->used[f->n_used++] = TAKE_PTR(f->current);
        (void)!write(f->event_fd, &(uint64_t){ 1 }, sizeof(uint64_t)); /* cannot fill up */
    }
    while (f->n_waiting == 0 && !f->ended)
        (void)pthread_cond_wait(&f->pushed, &f->mutex);
    if (f->ended && f->r < 0) {
        r = f->r;
        if (err)
            *err = f->why;
    } else if (f->n_waiting > 0) {
        f->current = f->waiting[f->first];
        f->n_taken++;
        f->marks[f->n_taken % f->n_marks].offset =
            f->marks[(f->n_taken - 1) % f->n_marks].offset + f->current->len;
        f->first = (f->first + 1) % f->max;
        f->n_waiting--;
        *ret = f->current->data;
        *ret_n = f->current->len;
        r = 1;
    }
    (void)pthread_mutex_unlock(&f->mutex);
    return r;
}

int feed_mark(Feed *f, size_t left, FeedMark *ret, uint64_t *ret_skip, Err *err) {
    uint64_t i;
    int r = 0;

    (void)pthread_mutex_lock(&f->mutex);
    assert(!f->current || left <= f->current->len);
    i = left == 0 ? f->n_taken : f->n_taken - 1;
    while (f->n_hashed < i && !f->ended)
        (void)pthread_cond_wait(&f->pushed, &f->mutex);
    *ret = f->marks[i % f->n_marks];
    *ret_skip = left > 0 && f->current ? f->current->len - left : 0;
    if (f->ended && f->r < 0) {
        r = f->r;
        if (err)
            *err = f->why;
    } else if (!f->current || ret->offset % HASHER_BLOCK_BYTES != 0) {
        r = err_set(err, -EAGAIN, "the stream is at its end");
    }
    (void)pthread_mutex_unlock(&f->mutex);
    return r;
}

int feed_drain(Feed *f, Err *err) {
    const uint8_t *data;
    size_t n;
    int r;

    do
        r = feed_next(f, &data, &n, err);
    while (r > 0);
    return r;
}
