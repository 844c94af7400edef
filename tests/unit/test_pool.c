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
    atomic_int paired;                /* works that were run by twos … */
    useconds_t pair_usec;             /* … which takes so long more */
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

static void step_run_pair(void *const args[2]) {
    Err err = { 0 };

    for (int i = 0; i < 2; i++) {
        Step *s = args[i];
        s->job->paired++;
        (void)usleep(s->job->pair_usec);
        (void)step_run(s, &err);
    }
    if (((Step *)args[0])->job == ((Step *)args[1])->job) /* two of one strand */
        abort();
}

typedef struct Pause {
    atomic_int over;
    bool done;
} Pause;

static int pause_run(void *arg, Err *err) {
    Pause *p = arg;

    (void)err;
    while (!p->over)
        (void)usleep(100);
    return 0;
}

static void pause_done(void *arg, int r, const Err *err) {
    Pause *p = arg;

    (void)r;
    (void)err;
    p->done = true;
}

static void submit_step(Step *s, Job *job, int number) {
    *s = (Step){ job, number };
    pool_strand_submit_pairable(job->strand, step_run, step_run_pair, step_done, s);
}

typedef struct Pairs {
    sd_event *event;
    Pool *pool;
    Job jobs[3];
    Err err;
} Pairs;

static void pairs_begin(Pairs *p, unsigned n_threads) {
    ASSERT_OK(sd_event_new(&p->event));
    ASSERT_OK(pool_new(&p->pool, p->event, n_threads, &p->err));
    for (size_t i = 0; i < ELEMENTSOF(p->jobs); i++)
        p->jobs[i].strand = pool_strand_new(p->pool);
}

static void pairs_await(Pairs *p, size_t job, int n) {
    while (p->jobs[job].done < n)
        ASSERT_TRUE(sd_event_run(p->event, 5 * USEC_PER_SEC) > 0);
    ASSERT_EQ(p->jobs[job].overlaps, 0);
    ASSERT_EQ(p->jobs[job].wrong, 0);
}

static void pairs_end(Pairs *p) {
    for (size_t i = 0; i < ELEMENTSOF(p->jobs); i++)
        p->jobs[i].strand = pool_strand_free(p->jobs[i].strand);
    p->pool = pool_free(p->pool);
    p->event = sd_event_unref(p->event);
}

/* All are queued when the only thread comes to them: three strands, so one work of three steps is
 * left over and takes the next step of another. */
TEST(works_of_two_strands_run_at_once) {
    enum { STEPS = 100 };
    static Step steps[3][STEPS];
    Pause pause = { 0 };
    Pairs p = { 0 };

    pairs_begin(&p, 1);
    pool_submit(p.pool, pause_run, pause_done, &pause);
    for (int i = 0; i < STEPS; i++)
        for (int s = 0; s < 3; s++)
            submit_step(&steps[s][i], &p.jobs[s], i);
    pause.over = 1;
    for (size_t s = 0; s < 3; s++)
        pairs_await(&p, s, STEPS);
    ASSERT_TRUE(p.jobs[0].paired + p.jobs[1].paired + p.jobs[2].paired >= 3 * STEPS * 2 / 3);
    pairs_end(&p);
}

/* Half a millisecond is longer than a thread needs to take a work, if nothing makes it wait, and
 * 2 ms are long enough most of the time. */
TEST(a_work_waits_for_another_strand) {
    enum { ROUNDS = 1000, LEAD = 10 };
    static Step steps[2][ROUNDS];
    Pairs p = { 0 };
    int lead = 0;

    pairs_begin(&p, 3);
    for (int i = 0; i < ROUNDS && lead < LEAD; i++) {
        int before = p.jobs[1].paired;

        submit_step(&steps[0][i], &p.jobs[0], i);
        (void)usleep(500);
        submit_step(&steps[1][i], &p.jobs[1], i);
        pairs_await(&p, 0, i + 1);
        pairs_await(&p, 1, i + 1);
        lead = MAX(lead + (p.jobs[1].paired > before ? 1 : -1), 0);
    }
    ASSERT_EQ(lead, LEAD);
    pairs_end(&p);
}

/* Nobody comes: each has its end all the same, and one that is behind waits for nobody (5,000 times
 * 2 ms would be 10 s). */
TEST(a_work_does_not_wait_for_ever) {
    enum { STEPS = 5000 };
    static Step steps[2][STEPS];
    Pairs p = { 0 };
    uint64_t begin;

    pairs_begin(&p, 2);
    submit_step(&steps[1][0], &p.jobs[1], 0);
    pairs_await(&p, 1, 1);
    submit_step(&steps[0][0], &p.jobs[0], 0);
    pairs_await(&p, 0, 1);
    begin = now_usec();
    for (int i = 1; i < STEPS; i++)
        submit_step(&steps[0][i], &p.jobs[0], i);
    pairs_await(&p, 0, STEPS);
    ASSERT_TRUE(now_usec() - begin < 5 * USEC_PER_SEC);
    pairs_end(&p);
}

/* Nor one after the other: what is queued at the end of a blob is not hashed 8 ms later. */
TEST(works_wait_together_for_nobody) {
    enum { ROUNDS = 200, STEPS = 4 };
    static Step steps[2][ROUNDS * STEPS];
    uint64_t least = UINT64_MAX;
    Pairs p = { 0 };

    pairs_begin(&p, 2);
    submit_step(&steps[1][0], &p.jobs[1], 0);
    pairs_await(&p, 1, 1);
    for (int i = 0; i < ROUNDS && least >= 4 * USEC_PER_MSEC; i++) { /* the machine may be busy */
        uint64_t begin = now_usec();

        for (int k = i * STEPS; k < (i + 1) * STEPS; k++)
            submit_step(&steps[0][k], &p.jobs[0], k);
        pairs_await(&p, 0, (i + 1) * STEPS);
        least = MIN(least, now_usec() - begin);
    }
    ASSERT_TRUE(least < 4 * USEC_PER_MSEC);
    pairs_end(&p);
}

/* Behind a pair that one thread has run come a work that waits for a partner and one that takes
 * long: the other thread, which sleeps by then, has to see to one of them. */
TEST(nothing_is_left_behind_a_pair) {
    static Step steps[2][3];
    Pause pause = { 0 };
    Pairs p = { 0 };

    pairs_begin(&p, 2);
    for (int s = 0; s < 2; s++)
        submit_step(&steps[s][0], &p.jobs[s], 0);
    pairs_await(&p, 0, 1);
    pairs_await(&p, 1, 1);
    p.jobs[0].pair_usec = 20 * USEC_PER_MSEC;
    for (int s = 0; s < 2; s++)
        submit_step(&steps[s][1], &p.jobs[s], 1);
    submit_step(&steps[0][2], &p.jobs[0], 2);
    pool_strand_submit(p.jobs[1].strand, pause_run, pause_done, &pause);
    pairs_await(&p, 0, 3);
    pause.over = 1;
    while (!pause.done)
        ASSERT_TRUE(sd_event_run(p.event, 5 * USEC_PER_SEC) > 0);
    pairs_end(&p);
}

/* The only thread may not pass over a work that waits for one that takes long. */
TEST(a_work_that_waits_is_not_left_alone) {
    static Step steps[2][2];
    Pause before = { 0 }, behind = { 0 };
    Pairs p = { 0 };

    pairs_begin(&p, 1);
    for (int s = 0; s < 2; s++)
        submit_step(&steps[s][0], &p.jobs[s], 0);
    pairs_await(&p, 0, 1);
    pairs_await(&p, 1, 1);
    pool_submit(p.pool, pause_run, pause_done, &before);
    submit_step(&steps[0][1], &p.jobs[0], 1);
    pool_submit(p.pool, pause_run, pause_done, &behind);
    before.over = 1;
    pairs_await(&p, 0, 2);
    behind.over = 1;
    while (!behind.done)
        ASSERT_TRUE(sd_event_run(p.event, 5 * USEC_PER_SEC) > 0);
    pairs_end(&p);
}
