/* SPDX-License-Identifier: Apache-2.0 */
/* test_traffic: connections, bandwidth, waits, giving up. */
#include "oci/traffic.h"

#include "tests/unit/test.h"

typedef struct Fixture {
    sd_event *event;
    Traffic *t;
    unsigned woken;
} Fixture;

static void on_wake(void *arg) {
    ((Fixture *)arg)->woken++;
}

static void open_traffic(Fixture *f) {
    Err err = { "" };

    *f = (Fixture){ 0 };
    ASSERT_OK(sd_event_new(&f->event));
    ASSERT_OK(traffic_new(&f->t,
                          &(TrafficOptions){ .event = f->event,
                                             .connections = 4,
                                             .retry_usec = 1000,
                                             .give_up_usec = 50000,
                                             .wake = on_wake,
                                             .arg = f },
                          &err));
}

static void close_traffic(Fixture *f) {
    f->t = traffic_free(f->t);
    f->event = sd_event_unref(f->event);
}

static void until_woken(Fixture *f) {
    unsigned before = f->woken;

    while (f->woken == before)
        ASSERT_TRUE(sd_event_run(f->event, 5 * USEC_PER_SEC) > 0);
}

TEST(connections_are_counted) {
    Fixture f;

    open_traffic(&f);
    traffic_limit_extras(f.t, 1);
    ASSERT_EQ(traffic_free_for(f.t, true), 2);
    ASSERT_TRUE(traffic_take(f.t, false) && traffic_take(f.t, true));
    ASSERT_EQ(traffic_free_for(f.t, false), 0);
    ASSERT_EQ(traffic_free_for(f.t, true), 1);
    ASSERT_TRUE(!traffic_is_hungry(f.t) && !traffic_take(f.t, true) && traffic_is_hungry(f.t));
    traffic_forget_hunger(f.t);
    ASSERT_TRUE(!traffic_is_hungry(f.t));
    traffic_limit_extras(f.t, 0); /* fewer than there are */
    ASSERT_EQ(traffic_free_for(f.t, false), 0);
    ASSERT_EQ(traffic_free_for(f.t, true), 1);
    traffic_limit_extras(f.t, 4);
    ASSERT_EQ(traffic_free_for(f.t, false), 2); /* of four connections two are left */
    traffic_limit_extras(f.t, 1);
    ASSERT_TRUE(traffic_take(f.t, false) && traffic_take(f.t, false));
    ASSERT_TRUE(!traffic_take(f.t, false) && !traffic_has_free(f.t));
    traffic_limit(f.t, 2, 0);
    ASSERT_TRUE(traffic_is_over(f.t));
    until_woken(&f);
    traffic_give(f.t, true);
    traffic_give(f.t, false);
    ASSERT_TRUE(!traffic_is_over(f.t) && !traffic_has_free(f.t));
    until_woken(&f);
    traffic_limit(f.t, 1000, 0);
    ASSERT_EQ(traffic_connections(f.t), 4);
    traffic_give(f.t, false);
    traffic_give(f.t, false);
    ASSERT_EQ(traffic_used(f.t), 0);
    traffic_limit(f.t, 0, 0);
    ASSERT_TRUE(!traffic_take(f.t, false) && !traffic_has_free(f.t));
    ASSERT_EQ(traffic_free_for(f.t, true), 0);
    close_traffic(&f);
}

TEST(bandwidth_is_kept_over_time) {
    uint64_t begin = now_usec(), bytes = 0, usec;
    Fixture f;

    open_traffic(&f);
    traffic_limit(f.t, 4, MiB(10));
    while (bytes < MiB(3)) {
        if (traffic_may_receive(f.t)) {
            traffic_received(f.t, 16384, true);
            bytes += 16384;
        } else {
            until_woken(&f);
        }
    }
    usec = now_usec() - begin;
    ASSERT_TRUE(usec > 200 * USEC_PER_MSEC);
    ASSERT_TRUE(usec < 3 * USEC_PER_SEC); /* slow machines */
    traffic_limit(f.t, 4, 0);
    traffic_received(f.t, MiB(100), true);
    ASSERT_TRUE(traffic_may_receive(f.t));
    close_traffic(&f);
}

TEST(a_hold_ends_with_a_call) {
    Fixture f;

    open_traffic(&f);
    traffic_hold(f.t, 20000);
    traffic_hold(f.t, 1000);
    ASSERT_TRUE(traffic_is_held(f.t));
    while (traffic_is_held(f.t))
        until_woken(&f);
    close_traffic(&f);
}

TEST(only_failures_without_a_byte_give_up) {
    uint64_t wait;
    Fixture f;

    open_traffic(&f);
    ASSERT_EQ(traffic_wait(f.t, 1, 0, &wait), 1);
    ASSERT_TRUE(wait >= 750 && wait <= 1250);
    ASSERT_EQ(traffic_wait(f.t, 1, 10000, &wait), 1);
    ASSERT_TRUE(wait >= 10000 && wait < 20000);
    ASSERT_EQ(traffic_wait(f.t, 1, 60000, &wait), 0); /* longer than we would wait at all */
    usleep(60000);
    ASSERT_EQ(traffic_wait(f.t, 2, 0, &wait), 0);
    traffic_received(f.t, 1, false); /* bytes that were there already */
    ASSERT_EQ(traffic_wait(f.t, 2, 0, &wait), 0);
    traffic_received(f.t, 1, true);
    ASSERT_EQ(traffic_wait(f.t, 2, 0, &wait), 1);
    close_traffic(&f);
}

TEST(time_without_a_connection_gives_nothing_up) {
    uint64_t wait;
    Fixture f;

    open_traffic(&f);
    ASSERT_EQ(traffic_wait(f.t, 1, 0, &wait), 1); /* the first failure … */
    traffic_limit(f.t, 0, 0);
    (void)usleep(100000);
    for (unsigned i = 0; i < 2; i++) { /* … and those of what was still under way */
        ASSERT_EQ(traffic_wait(f.t, 2, 0, &wait), 1);
        (void)usleep(100000);
    }
    traffic_limit(f.t, 2, 0);
    ASSERT_EQ(traffic_wait(f.t, 2, 0, &wait), 1);
    traffic_limit(f.t, 1, 0);
    (void)usleep(100000);
    ASSERT_EQ(traffic_wait(f.t, 2, 0, &wait), 0);
    close_traffic(&f);
}

TEST(bad_ranges_are_remembered) {
    Fixture f;

    open_traffic(&f);
    ASSERT_TRUE(!traffic_ranges_are_bad(f.t) && !traffic_ranges_are_good(f.t));
    traffic_mark_ranges_good(f.t);
    ASSERT_TRUE(!traffic_ranges_are_bad(f.t) && traffic_ranges_are_good(f.t));
    traffic_mark_ranges_bad(f.t);
    ASSERT_TRUE(traffic_ranges_are_bad(f.t) && !traffic_ranges_are_good(f.t));
    close_traffic(&f);
}

TEST(answers_of_blobs_count_more_and_the_least_of_them) {
    Fixture f;

    open_traffic(&f);
    ASSERT_EQ(traffic_answer_usec(f.t), 0);
    ASSERT_EQ(traffic_nearest_usec(f.t), 0);
    traffic_answered(f.t, 2000, false);
    ASSERT_EQ(traffic_answer_usec(f.t), 2000);
    traffic_answered(f.t, 80000, true); /* from elsewhere */
    traffic_answered(f.t, 70000, true);
    traffic_answered(f.t, 90000, true);
    traffic_answered(f.t, 2000, false);
    ASSERT_EQ(traffic_answer_usec(f.t), 70000);
    ASSERT_EQ(traffic_nearest_usec(f.t), 2000);
    traffic_answered(f.t, 1500, true);
    ASSERT_EQ(traffic_nearest_usec(f.t), 1500);
    traffic_answered(f.t, 0, true);
    ASSERT_EQ(traffic_answer_usec(f.t), 1); /* there was one */
    close_traffic(&f);
}

TEST(a_higher_limit_of_extras_wakes) {
    Fixture f;

    open_traffic(&f);
    traffic_limit_extras(f.t, 0);
    traffic_limit_extras(f.t, 1);
    until_woken(&f);
    close_traffic(&f);
}
