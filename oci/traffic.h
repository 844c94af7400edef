/* SPDX-License-Identifier: Apache-2.0 */
/* traffic: what the transfers of one pull share: connections, a bandwidth limit, the registry's
 * wish to be left alone for a while, and how long nothing moved. */
#pragma once

#include "base/loop.h"

typedef struct Traffic Traffic;

typedef struct TrafficOptions {
    sd_event *event;         /* a reference is kept */
    unsigned connections;    /* at once at most, whatever the daemon says */
    uint64_t retry_usec;     /* the first wait after a failure */
    uint64_t give_up_usec;   /* after so long of failures without any new byte */
    void (*wake)(void *arg); /* connections, bandwidth or time have become free; from the loop */
    void *arg;
} TrafficOptions;

/* Errors: those of the loop. */
int traffic_new(Traffic **ret, const TrafficOptions *options, Err *err) _must_check_;
Traffic *traffic_free(Traffic *t);
DEFINE_CLEANUP(Traffic, traffic_free);

/* What this pull may use from now on: transfers at once (0: none for now; that time does not count
 * as one without new bytes), bytes a second (0: no limit). */
void traffic_limit(Traffic *t, unsigned connections, uint64_t bytes_per_second);
unsigned traffic_connections(const Traffic *t);

/* Takes a connection; false: none is free.  An `extra` one is the second or a later of one blob:
 * only up to traffic_limit_extras(). */
bool traffic_take(Traffic *t, bool extra) _must_check_;
void traffic_give(Traffic *t, bool extra);
/* How many extra ones there may be: not those that other blobs will want as their first. */
void traffic_limit_extras(Traffic *t, unsigned max);
/* So many a blob could take now, one of them as its `first`, all others as extra ones. */
unsigned traffic_free_for(const Traffic *t, bool first);
unsigned traffic_used(const Traffic *t);
/* Was an extra one refused, or would have been, since traffic_forget_hunger()? */
bool traffic_is_hungry(const Traffic *t);
void traffic_mark_hungry(Traffic *t);
void traffic_forget_hunger(Traffic *t);
bool traffic_has_free(const Traffic *t);
/* More are in use than may be, since the limit fell. */
bool traffic_is_over(const Traffic *t);

/* May bytes be taken from the network now?  If not, wake() comes when they may. */
bool traffic_may_receive(Traffic *t);
/* `n` bytes came, of which some were new. */
void traffic_received(Traffic *t, size_t n, bool new_bytes);

/* Nothing is asked for until `usec` from now; wake() comes then. */
void traffic_hold(Traffic *t, uint64_t usec);
bool traffic_is_held(const Traffic *t);

/* How long to wait after failure number `tries` (1: the first since the last byte), when the
 * registry asked for `after_usec` (0: nothing).  Returns 1 and the wait, or 0: it is time to give
 * up. */
int traffic_wait(Traffic *t, unsigned tries, uint64_t after_usec, uint64_t *ret_usec);
/* The time that traffic_wait() gives up after. */
uint64_t traffic_give_up_usec(const Traffic *t);

/* An answer took so long, from the request to its first byte: one with a manifest, or with a blob,
 * which may come from elsewhere and counts more.  Of blobs the least is kept: others waited in a
 * queue, ours perhaps. */
void traffic_answered(Traffic *t, uint64_t usec, bool blob);
/* 0: there was none. */
uint64_t traffic_answer_usec(const Traffic *t);
/* The least of all: how far away the registry is, when others took longer because somebody was
 * busy.  0: there was none. */
uint64_t traffic_nearest_usec(const Traffic *t);

/* This registry was found to mishandle ranges, or gave one as it was asked for: bad ones count. */
void traffic_mark_ranges_bad(Traffic *t);
bool traffic_ranges_are_bad(const Traffic *t);
void traffic_mark_ranges_good(Traffic *t);
bool traffic_ranges_are_good(const Traffic *t);
