/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of agent/trim: memory goes back when the loop has become quiet, and only then. */
#include "agent/trim.h"

#include "tests/unit/store_env.h"

static int on_busy(sd_event_source *source, uint64_t usec, void *arg) {
    unsigned *n = arg;

    (void)usec;
    ++*n;
    ASSERT_OK(sd_event_source_set_time_relative(source, 100 * USEC_PER_MSEC));
    return 0;
}

/* How many rounds of the loop have something to do within the time. */
static unsigned run_for(sd_event *event, uint64_t usec) {
    uint64_t end = now_usec() + usec;
    unsigned n = 0;

    while (now_usec() < end) {
        int r = sd_event_run(event, 50 * USEC_PER_MSEC);

        ASSERT_OK(r);
        n += r > 0;
    }
    return n;
}

TEST(a_quiet_loop_is_woken_once) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *store = env_open(dir);
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(trim_freep) Trim *t = NULL;
    _cleanup_source_ sd_event_source *busy = NULL;
    unsigned n = 0;
    Err err;

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(trim_new(&t, event, store, &err));
    ASSERT_EQ(run_for(event, 1500 * USEC_PER_MSEC), 0); /* nothing happened at all */
    ASSERT_OK(sd_event_add_time_relative(event, &busy, CLOCK_MONOTONIC, 0, 1, on_busy, &n));
    ASSERT_OK(sd_event_source_set_enabled(busy, SD_EVENT_ON));
    (void)run_for(event, 1500 * USEC_PER_MSEC);
    ASSERT_TRUE(n > 1);
    ASSERT_OK(sd_event_source_set_enabled(busy, SD_EVENT_OFF));
    ASSERT_TRUE(run_for(event, 2500 * USEC_PER_MSEC) >= 1); /* trims */
    ASSERT_EQ(run_for(event, 2500 * USEC_PER_MSEC), 0);     /* and sleeps */
}

/* Half a MiB of the index is used, and stays in memory. */
static void use_index(Store *s) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    Err err;

    ASSERT_OK(index_begin(ix, false, &err));
    for (int64_t i = 0; i < 500; i++)
        ASSERT_OK(index_run(ix, &err,
                            "INSERT INTO objects (digest, exec, size, origin)"
                            " VALUES (randomblob(32), 0, ?, hex(zeroblob(500)))",
                            "i", i));
    ASSERT_OK(index_commit(ix, &err));
}

static void wake(sd_event *event) {
    _cleanup_source_ sd_event_source *once = NULL;
    unsigned n = 0;

    ASSERT_OK(sd_event_add_time_relative(event, &once, CLOCK_MONOTONIC, 0, 1, on_busy, &n));
    ASSERT_OK(sd_event_run(event, USEC_PER_SEC));
    ASSERT_EQ(n, 1);
}

TEST(a_quiet_store_keeps_no_pages_of_its_index) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *store = env_open(dir);
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(trim_freep) Trim *t = NULL;
    Index *held;
    int64_t used;
    Err err;

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(trim_new(&t, event, store, &err));
    use_index(store);
    used = sqlite3_memory_used();
    held = index_acquire(store->index);
    wake(event);
    (void)run_for(event, 1500 * USEC_PER_MSEC); /* does not wait for the thread that has it */
    ASSERT_EQ(sqlite3_memory_used(), used);
    index_releasep(&held);
    wake(event);
    for (int i = 0; i < 10 && sqlite3_memory_used() >= used - (int64_t)KiB(500); i++)
        (void)run_for(event, 1500 * USEC_PER_MSEC); /* once, unless the machine is busy */
    ASSERT_TRUE(sqlite3_memory_used() < used - (int64_t)KiB(500));
    use_index(store); /* as before */
}

/* As many objects as a pull of as many files leases. */
static void lease_objects(Store *s, const char *pull, int64_t n) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    Err err;

    ASSERT_OK(index_begin(ix, false, &err));
    for (int64_t i = 0; i < n; i++)
        ASSERT_OK(index_run(ix, &err, "INSERT INTO leases VALUES (?, ?)", "ti", pull, i));
    ASSERT_OK(index_commit(ix, &err));
}

TEST(a_pull_that_ended_leaves_no_memory_in_the_index) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *store = env_open(dir);
    int64_t used;
    Err err;

    store_shrink(store);
    used = sqlite3_memory_used();
    lease_objects(store, "a-pull", 20000);
    store_shrink(store);
    ASSERT_TRUE(sqlite3_memory_used() > used + (int64_t)KiB(500));
    ASSERT_OK(store_ingest_end(store, "a-pull", &err));
    store_shrink(store);
    ASSERT_TRUE(sqlite3_memory_used() < used + (int64_t)KiB(100));
}
