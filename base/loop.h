/* SPDX-License-Identifier: Apache-2.0 */
/* loop: what every user of sd-event needs: cleanup, timers after a delay, monotonic time. */
#pragma once

#include "base/err.h"

#include <systemd/sd-event.h>

static inline void sd_event_unrefp_(sd_event **p) {
    *p = sd_event_unref(*p);
}
static inline void sd_event_source_disable_unrefp_(sd_event_source **p) {
    *p = sd_event_source_disable_unref(*p);
}
#define _cleanup_event_  _cleanup_(sd_event_unrefp_)
#define _cleanup_source_ _cleanup_(sd_event_source_disable_unrefp_)

/* CLOCK_MONOTONIC, and CLOCK_REALTIME as stored in the index. */
uint64_t now_usec(void);
uint64_t now_realtime_usec(void);
/* Of a processor, that this thread has used. */
uint64_t now_thread_usec(void);

/* (Re)arms a one-shot timer: `*source` is made on first use and reused later.  The caller unrefs
 * it. */
int loop_timer_after(sd_event *event, sd_event_source **source, uint64_t usec,
                     sd_event_time_handler_t callback, void *arg) _must_check_;
