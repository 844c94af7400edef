/* SPDX-License-Identifier: Apache-2.0 */
/* pool: worker threads for what may block; results come back to the loop. */
#include "base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define PATIENCE_USEC (2 * USEC_PER_MSEC) /* a work waits so long for one to run it with */
#define BEHIND_MAX    4                   /* with so many of its strand behind it, not at all */

typedef struct Work {
    struct Work *next;
    PoolRun run;
    PoolRunPair run_pair; /* NULL: only alone */
    PoolDone done;
    void *arg;
    PoolStrand *strand;  /* NULL: any order */
    uint64_t since_usec; /* its patience counts from then on; with a `run_pair` only */
    int r;
    Err err;
} Work;

typedef struct WorkQueue {
    Work *first, *last;
} WorkQueue;

struct PoolStrand {
    Pool *pool;        /* borrowed */
    WorkQueue waiting; /* behind the one that is in the pool's hands */
    unsigned n_waiting;
    bool busy;     /* one work of the strand is queued or runs */
    bool pairable; /* it had works with a `run_pair`, and may have more */
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
    unsigned n_pairable; /* strands that are */
    unsigned n_idle;     /* threads that wait for work, or for the time of one */
    size_t n_pending;    /* accepted and not yet handed to `done` */
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

static void queue_remove(WorkQueue *q, Work *before, Work *w) {
    if (before)
        before->next = w->next;
    else
        q->first = w->next;
    if (q->last == w)
        q->last = before;
}

/* What follows, up to the threads, has the mutex. */

/* The next one of a strand.  What came while one waited in vain has waited with it: else the last
 * works of a strand, for which nobody comes, would do so one after the other. */
static void count_patience(Work *next, const Work *before, bool alone) {
    if (next->run_pair)
        next->since_usec = alone ? MAX(next->since_usec, before->since_usec) : now_usec();
}

/* The result goes to the loop, the next work of the strand to the queue, where the thread that
 * calls this looks next. */
static void work_ended(Pool *p, Work *w, bool alone) {
    PoolStrand *s = w->strand;
    bool first = !p->ended.first;
    Work *next = s ? queue_pop(&s->waiting) : NULL;

    if (next) {
        s->n_waiting--;
        count_patience(next, w, alone);
        queue_push(&p->queue, next);
    } else if (s) {
        s->busy = false;
    }
    queue_push(&p->ended, w);
    if (first)
        (void)!write(p->event_fd, &(uint64_t){ 1 },
                     sizeof(uint64_t)); /* cannot fill up: it is read before 2^64 */
    (void)pthread_cond_signal(&p->result);
}

/* Takes the first work that `w` can be run with from behind it in the queue.  That is of another
 * strand: of each only one is there. */
static Work *take_partner(Pool *p, Work *w) {
    Work *before = w, *o = w->next;

    while (o && o->run_pair != w->run_pair) {
        before = o;
        o = o->next;
    }
    if (o)
        queue_remove(&p->queue, before, o);
    return o;
}

/* Until when a work waits for another strand to bring a partner; 0: it does not. */
static uint64_t patience(const Pool *p, const Work *w) {
    return p->n_pairable > 1 && w->strand->n_waiting < BEHIND_MAX ? w->since_usec + PATIENCE_USEC
                                                                  : 0;
}

/* Takes what is to be run next from the queue, with its partner; or there is nothing before
 * `*ret_usec` (UINT64_MAX: before more is queued).  A work that waits for a partner is passed over
 * for another one only when a thread is left for it. */
static Work *take(Pool *p, Work **ret_partner, uint64_t *ret_usec) {
    Work *before = NULL, *w = p->queue.first;
    uint64_t now = w && w->run_pair ? now_usec() : 0;

    *ret_partner = NULL;
    *ret_usec = UINT64_MAX;
    for (; w && w->run_pair; before = w, w = w->next) {
        uint64_t until = patience(p, w);

        *ret_partner = take_partner(p, w);
        if (*ret_partner || until <= now)
            break;
        *ret_usec = MIN(*ret_usec, until);
    }
    if (w && before && !*ret_partner && p->n_idle == 0) {
        before = NULL;
        w = p->queue.first;
    }
    if (w)
        queue_remove(&p->queue, before, w);
    return w;
}

static void wait_until(Pool *p, uint64_t usec) {
    struct timespec until = { .tv_sec = (time_t)(usec / USEC_PER_SEC),
                              .tv_nsec = (long)(usec % USEC_PER_SEC * 1000) };

    p->n_idle++;
    if (usec == UINT64_MAX)
        (void)pthread_cond_wait(&p->queued, &p->mutex);
    else
        (void)pthread_cond_clockwait(&p->queued, &p->mutex, CLOCK_MONOTONIC, &until);
    p->n_idle--;
}

static void run_taken(Pool *p, Work *w, Work *partner) {
    /* What is left has perhaps woken nobody, or only this thread, which waited for its time. */
    if (p->queue.first)
        (void)pthread_cond_signal(&p->queued);
    (void)pthread_mutex_unlock(&p->mutex);
    if (partner)
        w->run_pair((void *[]){ w->arg, partner->arg });
    else
        w->r = w->run(w->arg, &w->err);
    (void)pthread_mutex_lock(&p->mutex);
    work_ended(p, w, !partner);
    if (partner)
        work_ended(p, partner, false);
}

static void *worker(void *arg) {
    Pool *p = arg;
    Work *w, *partner;
    uint64_t usec;

    (void)pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (!(w = take(p, &partner, &usec)) && !p->stop)
            wait_until(p, usec);
        if (!w)
            break;
        run_taken(p, w, partner);
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

static void submit(Pool *p, Work work) {
    Work *w = xnew(Work);
    PoolStrand *s = work.strand;

    *w = work;
    if (w->run_pair)
        w->since_usec = now_usec();
    (void)pthread_mutex_lock(&p->mutex);
    assert(!p->stop);
    p->n_pending++;
    if (w->run_pair && !s->pairable) {
        s->pairable = true;
        p->n_pairable++;
    }
    if (s && s->busy) {
        queue_push(&s->waiting, w);
        if (++s->n_waiting == BEHIND_MAX) /* that ends the patience of the one before */
            (void)pthread_cond_signal(&p->queued);
    } else {
        if (s)
            s->busy = true;
        queue_push(&p->queue, w);
        (void)pthread_cond_signal(&p->queued);
    }
    (void)pthread_mutex_unlock(&p->mutex);
}

void pool_submit(Pool *p, PoolRun run, PoolDone done, void *arg) {
    submit(p, (Work){ .run = run, .done = done, .arg = arg });
}

PoolStrand *pool_strand_new(Pool *p) {
    PoolStrand *s = xnew(PoolStrand);

    s->pool = p;
    return s;
}

void pool_strand_submit(PoolStrand *s, PoolRun run, PoolDone done, void *arg) {
    submit(s->pool, (Work){ .run = run, .done = done, .arg = arg, .strand = s });
}

void pool_strand_submit_pairable(PoolStrand *s, PoolRun run, PoolRunPair run_pair, PoolDone done,
                                 void *arg) {
    submit(s->pool,
           (Work){ .run = run, .run_pair = run_pair, .done = done, .arg = arg, .strand = s });
}

PoolStrand *pool_strand_free(PoolStrand *s) {
    if (s) {
        (void)pthread_mutex_lock(&s->pool->mutex);
        assert(!s->busy);
        s->pool->n_pairable -= s->pairable;
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
