/* SPDX-License-Identifier: Apache-2.0 */
/* test_pool: every done once and on the loop, strands in order, nothing lost at the end. */
#include "base/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "tests/unit/test.h"

typedef struct Job {
    Pool *pool;
    PoolStrand *strand;
    pthread_t loop;
    atomic_int active, overlaps, ran; /* written by threads */
    int order, wrong;                 /* written by works of one strand, one after the other */
    int done;
    int r;
    char sentence[64];
} Job;

typedef struct Step {
    Job *job;
    int number;
} Step;

static int job_run(void *arg, Err *err) {
    Job *j = arg;
    sigset_t blocked;

    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (pthread_equal(pthread_self(), j->loop) || sigismember(&blocked, SIGTERM) != 1)
        return err_set(err, -EPERM, "in the loop's thread, or open to signals");
    (void)usleep(1000);
    j->ran++;
    return err_set(err, -ENOSPC, "run %d", 7);
}

static void job_done(void *arg, int r, const Err *err) {
    Job *j = arg;

    if (!pthread_equal(pthread_self(), j->loop))
        abort();
    j->done++;
    j->r = r;
    (void)snprintf(j->sentence, sizeof(j->sentence), "%s", err_text(err, r));
}

TEST(results_come_back_to_the_loop_once) {
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(pool_freep) Pool *pool = NULL;
    Job j = { .loop = pthread_self() };
    Err err = { 0 };

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(pool_new(&pool, event, 3, &err));
    for (int i = 0; i < 20; i++)
        pool_submit(pool, job_run, job_done, &j);
    ASSERT_EQ(j.done, 0);
    while (j.done < 20)
        ASSERT_OK(sd_event_run(event, 5 * USEC_PER_SEC));
    ASSERT_EQ(j.ran, 20);
    ASSERT_ERR(j.r, -ENOSPC);
    ASSERT_STREQ(j.sentence, "run 7");
    ASSERT_EQ(sd_event_run(event, 5 * USEC_PER_MSEC), 0);
    ASSERT_EQ(j.done, 20);
}

TEST(free_calls_what_is_queued) {
    _cleanup_event_ sd_event *event = NULL;
    Pool *pool = NULL;
    Job j = { .loop = pthread_self() };
    Err err = { 0 };

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(pool_new(&pool, event, 2, &err));
    for (int i = 0; i < 50; i++)
        pool_submit(pool, job_run, job_done, &j);
    pool = pool_free(pool);
    ASSERT_TRUE(pool == NULL);
    ASSERT_EQ(j.done, 50);
    ASSERT_TRUE(pool_free(NULL) == NULL);
}

static void chain_done(void *arg, int r, const Err *err) {
    Job *j = arg;

    job_done(arg, r, err);
    if (j->done < 5)
        pool_submit(j->pool, job_run, chain_done, j);
}

TEST(free_goes_on_with_what_done_submits) {
    _cleanup_event_ sd_event *event = NULL;
    Job j = { .loop = pthread_self() };
    Err err = { 0 };

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(pool_new(&j.pool, event, 2, &err));
    pool_submit(j.pool, job_run, chain_done, &j);
    (void)pool_free(j.pool);
    ASSERT_EQ(j.done, 5);
}

static int step_run(void *arg, Err *err) {
    Step *s = arg;
    Job *j = s->job;

    (void)err;
    if (++j->active != 1)
        j->overlaps++;
    if (j->order++ != s->number) /* no lock: the strand is one */
        j->wrong++;
    j->active--;
    return 0;
}

static void step_done(void *arg, int r, const Err *err) {
    Step *s = arg;

    (void)err;
    if (r < 0 || s->job->done++ != s->number)
        abort();
}

TEST(strands_keep_order_beside_each_other) {
    enum { STRANDS = 4, STEPS = 500 };
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(pool_freep) Pool *pool = NULL;
    static Step steps[STRANDS][STEPS];
    Job jobs[STRANDS] = { 0 };
    Err err = { 0 };

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(pool_new(&pool, event, 3, &err));
    for (int s = 0; s < STRANDS; s++)
        jobs[s].strand = pool_strand_new(pool);
    for (int i = 0; i < STEPS; i++)
        for (int s = 0; s < STRANDS; s++) {
            steps[s][i] = (Step){ &jobs[s], i };
            pool_strand_submit(jobs[s].strand, step_run, step_done, &steps[s][i]);
        }
    for (int s = 0; s < STRANDS; s++) {
        while (jobs[s].done < STEPS)
            ASSERT_OK(sd_event_run(event, 5 * USEC_PER_SEC));
        ASSERT_EQ(jobs[s].overlaps, 0);
        ASSERT_EQ(jobs[s].wrong, 0);
        jobs[s].strand = pool_strand_free(jobs[s].strand);
    }
    ASSERT_TRUE(pool_strand_free(NULL) == NULL);
}

static void last_done(void *arg, int r, const Err *err) {
    Step *s = arg;

    step_done(arg, r, err);
    if (s->job->done == 3)
        s->job->strand = pool_strand_free(s->job->strand);
}

TEST(strand_is_freed_in_its_last_done) {
    _cleanup_event_ sd_event *event = NULL;
    Step steps[3];
    Pool *pool = NULL;
    Job j = { 0 };
    Err err = { 0 };

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(pool_new(&pool, event, 2, &err));
    j.strand = pool_strand_new(pool);
    for (int i = 0; i < 3; i++) {
        steps[i] = (Step){ &j, i };
        pool_strand_submit(j.strand, step_run, last_done, &steps[i]);
    }
    (void)pool_free(pool);
    ASSERT_TRUE(j.strand == NULL);
    ASSERT_EQ(j.done, 3);
}
