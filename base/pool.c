/* SPDX-License-Identifier: Apache-2.0 */
/* pool: worker threads for what may block; results come back to the loop. */
#include "base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

typedef struct Work {
    struct Work *next;
    PoolRun run;
    PoolDone done;
    void *arg;
    PoolStrand *strand; /* NULL: any order */
    int r;
    Err err;
} Work;

typedef struct WorkQueue {
    Work *first, *last;
} WorkQueue;

struct PoolStrand {
    Pool *pool;        /* borrowed */
    WorkQueue waiting; /* behind the one that is in the pool's hands */
    bool busy;         /* one work of the strand is queued or runs */
};

struct Pool {
    sd_event *event;
    sd_event_source *source;
    int event_fd; /* readable: there is something in `ended` */
    pthread_t *threads;
    unsigned n_threads;
    bool dispatching; /* loop thread only */

    pthread_mutex_t mutex; /* guards what follows, and the strands */
    pthread_cond_t queued; /* `queue` grew, or `stop` */
    pthread_cond_t result; /* `ended` grew; pool_free() waits for it */
    WorkQueue queue;
    WorkQueue ended;
    size_t n_pending; /* accepted and not yet handed to `done` */
    bool stop;
};

static void queue_push(WorkQueue *q, Work *w) {
    w->next = NULL;
    if (q->last)
        q->last->next = w;
    else
        q->first = w;
    q->last = w;
}

static Work *queue_pop(WorkQueue *q) {
    Work *w = q->first;

    if (w) {
        q->first = w->next;
        if (!q->first)
            q->last = NULL;
    }
    return w;
}

/* With the mutex held: the result goes to the loop, the next work of the strand to the queue.
 * Nobody is woken for that one: the thread that calls this takes it from the queue next, or leaves
 * it to threads that are busy. */
static void work_ended(Pool *p, Work *w) {
    PoolStrand *s = w->strand;
    bool first = !p->ended.first;

    if (s) {
        Work *next = queue_pop(&s->waiting);
        if (next)
            queue_push(&p->queue, next);
        else
            s->busy = false;
    }
    queue_push(&p->ended, w);
    if (first)
        (void)!write(p->event_fd, &(uint64_t){ 1 },
                     sizeof(uint64_t)); /* cannot fill up: it is read before 2^64 */
    (void)pthread_cond_signal(&p->result);
}

static void *worker(void *arg) {
    Pool *p = arg;
    Work *w;

    (void)pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!(w = queue_pop(&p->queue)) && !p->stop)
            (void)pthread_cond_wait(&p->queued, &p->mutex);
        if (!w)
            break;
        (void)pthread_mutex_unlock(&p->mutex);
        w->r = w->run(w->arg, &w->err);
        (void)pthread_mutex_lock(&p->mutex);
        work_ended(p, w);
    }
    (void)pthread_mutex_unlock(&p->mutex);
    return NULL;
}

/* Calls `done` for all that ended up to now.  The list is taken as a whole, so that works which
 * submit others do not keep the loop here. */
static void dispatch(Pool *p) {
    WorkQueue ended;
    size_t n = 0;

    assert(!p->dispatching); /* pool_free() from a `done` */
    p->dispatching = true;
    (void)pthread_mutex_lock(&p->mutex);
    ended = p->ended;
    p->ended = (WorkQueue){ 0 };
    (void)pthread_mutex_unlock(&p->mutex);
    for (Work *w; (w = queue_pop(&ended)); n++) {
        w->done(w->arg, w->r, &w->err);
        free(w);
    }
    (void)pthread_mutex_lock(&p->mutex);
    p->n_pending -= n;
    (void)pthread_mutex_unlock(&p->mutex);
    p->dispatching = false;
}

static int on_ended(sd_event_source *source, int fd, uint32_t revents, void *arg) {
    uint64_t n;

    (void)source;
    (void)revents;
    (void)!read(fd, &n,
                sizeof(n)); /* before the list is taken: a later result makes it readable again */
    dispatch(arg);
    return 0;
}

static int start_threads(Pool *p, unsigned n_threads, Err *err) {
    sigset_t all, old;
    int r = 0;

    p->threads = xnew_n(pthread_t, n_threads);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
    while (p->n_threads < n_threads && r == 0) {
        r = pthread_create(&p->threads[p->n_threads], NULL, worker, p);
        if (r == 0)
            (void)pthread_setname_np(p->threads[p->n_threads++], "pool"); /* for people only */
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return err_errnum(err, -r, "cannot start worker thread %u of %u; check the limit of tasks",
                          p->n_threads + 1, n_threads);
    return 0;
}

int pool_new(Pool **ret, sd_event *event, unsigned n_threads, Err *err) {
    _cleanup_(pool_freep) Pool *p = xnew(Pool);
    int r;

    assert(n_threads > 0);
    p->event = sd_event_ref(event);
    (void)pthread_mutex_init(&p->mutex, NULL);
    (void)pthread_cond_init(&p->queued, NULL);
    (void)pthread_cond_init(&p->result, NULL);
    p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (p->event_fd < 0)
        return err_errno(err, "cannot make an eventfd for worker threads");
    r = sd_event_add_io(event, &p->source, p->event_fd, EPOLLIN, on_ended, p);
    if (r < 0)
        return err_errnum(err, r, "cannot watch the eventfd of worker threads");
    r = start_threads(p, n_threads, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(p);
    return 0;
}

static void submit(Pool *p, PoolStrand *s, PoolRun run, PoolDone done, void *arg) {
    Work *w = xnew(Work);

    *w = (Work){ .run = run, .done = done, .arg = arg, .strand = s };
    (void)pthread_mutex_lock(&p->mutex);
    assert(!p->stop);
    p->n_pending++;
    if (s && s->busy) {
        queue_push(&s->waiting, w);
    } else {
        if (s)
            s->busy = true;
        queue_push(&p->queue, w);
        (void)pthread_cond_signal(&p->queued);
    }
    (void)pthread_mutex_unlock(&p->mutex);
}

void pool_submit(Pool *p, PoolRun run, PoolDone done, void *arg) {
    submit(p, NULL, run, done, arg);
}

PoolStrand *pool_strand_new(Pool *p) {
    PoolStrand *s = xnew(PoolStrand);

    s->pool = p;
    return s;
}

void pool_strand_submit(PoolStrand *s, PoolRun run, PoolDone done, void *arg) {
    submit(s->pool, s, run, done, arg);
}

PoolStrand *pool_strand_free(PoolStrand *s) {
    if (s) {
        (void)pthread_mutex_lock(&s->pool->mutex);
        assert(!s->busy);
        (void)pthread_mutex_unlock(&s->pool->mutex);
        free(s);
    }
    return NULL;
}

static void drain(Pool *p) {
    (void)pthread_mutex_lock(&p->mutex);
    while (p->n_pending > 0) {
        while (!p->ended.first)
            (void)pthread_cond_wait(&p->result, &p->mutex);
        (void)pthread_mutex_unlock(&p->mutex);
        dispatch(p);
        (void)pthread_mutex_lock(&p->mutex);
    }
    p->stop = true;
    (void)pthread_cond_broadcast(&p->queued);
    (void)pthread_mutex_unlock(&p->mutex);
}

Pool *pool_free(Pool *p) {
    if (!p)
        return NULL;
    drain(p);
    for (unsigned i = 0; i < p->n_threads; i++)
        (void)pthread_join(p->threads[i], NULL); /* fails only for threads that are not ours */
    (void)sd_event_source_disable_unref(p->source);
    (void)safe_close(p->event_fd);
    (void)pthread_cond_destroy(&p->result);
    (void)pthread_cond_destroy(&p->queued);
    (void)pthread_mutex_destroy(&p->mutex);
    (void)sd_event_unref(p->event);
    free(p->threads);
    free(p);
    return NULL;
}
