/* SPDX-License-Identifier: Apache-2.0 */
/* loop: what every user of sd-event needs: cleanup, timers after a delay, monotonic time. */
#include "base/loop.h"

#include <time.h>

/* sd-event's default of 250 ms is for background work.  And what may come late comes late: a
 * millisecond here was one before each request, as libcurl begins them by a timer of 0. */
#define TIMER_ACCURACY_USEC 1

static uint64_t clock_usec(clockid_t clock) {
    struct timespec ts;

    (void)clock_gettime(clock, &ts); /* cannot fail for the two clocks below */
    return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / NSEC_PER_USEC;
}

uint64_t now_usec(void) {
    return clock_usec(CLOCK_MONOTONIC);
}

uint64_t now_realtime_usec(void) {
    return clock_usec(CLOCK_REALTIME);
}

uint64_t now_thread_usec(void) {
    return clock_usec(CLOCK_THREAD_CPUTIME_ID);
}

int loop_timer_after(sd_event *event, sd_event_source **source, uint64_t usec,
                     sd_event_time_handler_t callback, void *arg) {
    uint64_t at;
    int r;

    if (__builtin_add_overflow(now_usec(), usec, &at))
        at = UINT64_MAX; /* never */
    if (!*source)
        return sd_event_add_time(event, source, CLOCK_MONOTONIC, at, TIMER_ACCURACY_USEC, callback,
                                 arg);
    (void)sd_event_source_set_userdata(*source, arg); /* gives the old one */
    r = sd_event_source_set_time(*source, at);
    if (r < 0)
        return r;
    return sd_event_source_set_enabled(*source, SD_EVENT_ONESHOT);
}
