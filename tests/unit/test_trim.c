/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of agent/trim: freed memory goes back when the loop has become quiet, and only then. */
#include "agent/trim.h"

#include "tests/unit/test.h"

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
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(trim_freep) Trim *t = NULL;
    _cleanup_source_ sd_event_source *busy = NULL;
    unsigned n = 0;
    Err err;

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(trim_new(&t, event, &err));
    ASSERT_EQ(run_for(event, 1500 * USEC_PER_MSEC), 0); /* nothing happened at all */
    ASSERT_OK(sd_event_add_time_relative(event, &busy, CLOCK_MONOTONIC, 0, 1, on_busy, &n));
    ASSERT_OK(sd_event_source_set_enabled(busy, SD_EVENT_ON));
    (void)run_for(event, 1500 * USEC_PER_MSEC);
    ASSERT_TRUE(n > 1);
    ASSERT_OK(sd_event_source_set_enabled(busy, SD_EVENT_OFF));
    ASSERT_TRUE(run_for(event, 2500 * USEC_PER_MSEC) >= 1); /* trims */
    ASSERT_EQ(run_for(event, 2500 * USEC_PER_MSEC), 0);     /* and sleeps */
}
