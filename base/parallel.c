/* SPDX-License-Identifier: Apache-2.0 */
/* parallel: the same step for many items, by a few threads at once. */
#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#define THREADS_MAX 4  /* system calls on one file system hold each other up beyond */
#define BATCH       64 /* items that a thread takes at a time */

typedef struct Parallel {
    size_t n;
    ParallelStep step;
    void *arg;

    pthread_mutex_t mutex; /* guards what follows */
    size_t next;
    int r;
    Err err;
} Parallel;

/* Takes the next items: their number, 0 when there is nothing left to do. */
static size_t take(Parallel *p, size_t *ret_first) {
    size_t n;

    (void)pthread_mutex_lock(&p->mutex);
    n = p->r < 0 ? 0 : MIN(p->n - p->next, (size_t)BATCH);
    *ret_first = p->next;
    p->next += n;
    (void)pthread_mutex_unlock(&p->mutex);
    return n;
}

static void keep_failure(Parallel *p, int r, const Err *err) {
    (void)pthread_mutex_lock(&p->mutex);
    if (p->r == 0) {
        p->r = r;
        p->err = *err;
    }
    (void)pthread_mutex_unlock(&p->mutex);
}

static void *run(void *arg) {
    Parallel *p = arg;
    size_t first, n;
    Err err;

    while ((n = take(p, &first)) > 0)
        for (size_t i = first; i < first + n; i++) {
            int r = p->step(p->arg, i, &err);

            if (r < 0) {
                keep_failure(p, r, &err);
                return NULL;
            }
        }
    return NULL;
}

static unsigned threads_for(size_t n) {
    cpu_set_t set;
    unsigned cpus = sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : (unsigned)CPU_COUNT(&set);

    return (unsigned)MIN(MIN(cpus, (unsigned)THREADS_MAX), n / BATCH + 1);
}

int parallel_each(size_t n, ParallelStep step, void *arg, Err *err) {
    Parallel p = { .n = n, .step = step, .arg = arg, .mutex = PTHREAD_MUTEX_INITIALIZER };
    unsigned want = threads_for(n), have = 0;
    pthread_t threads[THREADS_MAX];
    sigset_t all, old;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
    while (have + 1 < want && pthread_create(&threads[have], NULL, run, &p) == 0)
        have++; /* else there are fewer: the caller does the rest */
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)run(&p);
    for (unsigned i = 0; i < have; i++)
        (void)pthread_join(threads[i], NULL);
    if (p.r < 0 && err)
        *err = p.err;
    return p.r;
}
