/* SPDX-License-Identifier: Apache-2.0 */
/* test_loop: timers after a delay, made once and armed again. */
#include "base/loop.h"

#include "tests/unit/test.h"

static int count(sd_event_source *source, uint64_t usec, void *arg) {
    (void)source;
    (void)usec;
    ++*(int *)arg;
    return 0;
}

TEST(timer_fires_once_and_is_reused) {
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_source_ sd_event_source *timer = NULL;
    sd_event_source *first;
    uint64_t begin = now_usec();
    int a = 0, b = 0;

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(loop_timer_after(event, &timer, 20 * USEC_PER_MSEC, count, &a));
    first = timer;
    ASSERT_EQ(sd_event_run(event, 5 * USEC_PER_SEC), 1);
    ASSERT_EQ(a, 1);
    ASSERT_TRUE(now_usec() - begin >= 20 * USEC_PER_MSEC);
    ASSERT_EQ(sd_event_run(event, 5 * USEC_PER_MSEC), 0);
    ASSERT_OK(loop_timer_after(event, &timer, 0, count, &b));
    ASSERT_TRUE(timer == first);
    ASSERT_EQ(sd_event_run(event, 5 * USEC_PER_SEC), 1);
    ASSERT_EQ(a, 1);
    ASSERT_EQ(b, 1);
}

TEST(timer_is_moved_and_never_comes_with_the_largest_delay) {
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_source_ sd_event_source *timer = NULL;
    int n = 0;

    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(loop_timer_after(event, &timer, 0, count, &n));
    ASSERT_OK(loop_timer_after(event, &timer, UINT64_MAX, count, &n));
    ASSERT_EQ(sd_event_run(event, 5 * USEC_PER_MSEC), 0);
    ASSERT_EQ(n, 0);
}

/* Most of many, as the machine may be busy. */
TEST(timer_of_no_time_comes_at_once) {
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_source_ sd_event_source *timer = NULL;
    int n = 0, late = 0;

    ASSERT_OK(sd_event_new(&event));
    for (int i = 1; i <= 100; i++) {
        uint64_t begin = now_usec();

        ASSERT_OK(loop_timer_after(event, &timer, 0, count, &n));
        while (n < i)
            ASSERT_OK(sd_event_run(event, UINT64_MAX));
        late += now_usec() - begin > USEC_PER_MSEC / 2;
    }
    ASSERT_TRUE(late < 50);
}

TEST(clocks_tell_time) {
    uint64_t a = now_usec();

    ASSERT_TRUE(a > 0 && now_usec() >= a);
    ASSERT_TRUE(now_realtime_usec() > 1600000000 * USEC_PER_SEC);
}
