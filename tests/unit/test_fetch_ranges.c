/* SPDX-License-Identifier: Apache-2.0 */
/* test_fetch_ranges: the connections of one blob: how many there are, what each asks for, and what
 * becomes of their failures. */
#include "tests/unit/fetch_env.h"

/* A fixture whose registry takes so long for an answer, the manifest before this blob included. */
static void fixture_open_at(Fixture *f, size_t n, uint64_t answer_usec) {
    fixture_open(f, n);
    f->context.range_min_bytes = KiB(128);
    f->registry.answer_usec = answer_usec;
    traffic_answered(f->traffic, answer_usec, false);
}

static void check_breaks(bool far, uint64_t at, unsigned breaks) {
    FetchOptions o;
    Fixture f;

    fixture_open_at(&f, MiB(1) + 77, far ? 20 * USEC_PER_MSEC : 2 * USEC_PER_MSEC);
    f.registry.piece = 7000;
    f.registry.breaks_at = at;
    f.registry.n_breaks = breaks;
    o = options(&f, MiB(1) + 77);
    ASSERT_OK(run(&f, &o));
    ASSERT_TRUE(f.registry.n_requests > (far ? 3 : 1));
    check_file(&f, MiB(1) + 77);
    fixture_close(&f);
}

TEST(ranges_over_connections_that_break) {
    for (unsigned breaks = 0; breaks < 4; breaks++)
        for (uint64_t at = 1; at < MiB(1); at += 130001)
            for (unsigned far = 0; far < 2; far++)
                check_breaks(far, at, breaks);
}

/* Up to three times in a row the rest of it is asked for in one stream; then there is no other way
 * than from the start. */
TEST(ranges_that_are_mishandled_cost_little) {
    const size_t size = MiB(1) + 77, on_the_way = 3 * 7000;

    for (unsigned bad = 0; bad <= 3; bad++)
        for (uint64_t from = 1; from < size; from += 170001) {
            Fixture f;
            FetchOptions o;

            fixture_open(&f, size);
            f.context.range_min_bytes = KiB(128);
            f.registry.piece = 7000;
            f.registry.bad_from = from;
            f.registry.n_bad = bad;
            o = options(&f, size);
            ASSERT_OK(run(&f, &o));
            ASSERT_TRUE(f.registry.sent + on_the_way >= size &&
                        f.registry.sent <= (bad < 3 ? size + on_the_way : 2 * size));
            check_file(&f, size);
            fixture_close(&f);
        }
}

/* One connection was asked for all the rest, and then brings too little. */
TEST(a_near_registry_that_is_slow_gets_more_connections) {
    Fixture f;
    FetchOptions o;

    fixture_open_at(&f, MiB(2), 2 * USEC_PER_MSEC);
    f.registry.turn_usec = 4000; /* hash and disk have the time, also on a busy machine */
    f.registry.piece = KiB(16);
    o = options(&f, MiB(2));
    ASSERT_OK(run(&f, &o));
    ASSERT_TRUE(f.registry.n_dropped > 0 && f.registry.n_dropped <= 2); /* not again and again */
    ASSERT_TRUE(f.registry.n_requests > 4);
    ASSERT_EQ(f.registry.sent, MiB(2)); /* nothing twice */
    check_file(&f, MiB(2));
    fixture_close(&f);
}

/* Its answer to the second request takes long, once: that says nothing of connections. */
TEST(a_near_registry_that_answers_late_gets_no_connection) {
    Fixture f;
    FetchOptions o;

    fixture_open_at(&f, MiB(2), 2 * USEC_PER_MSEC);
    f.registry.turn_usec = 15000;
    f.registry.turn_once = true;
    f.registry.piece = KiB(16);
    o = options(&f, MiB(2));
    ASSERT_OK(run(&f, &o));
    ASSERT_EQ(f.registry.n_requests, 2);
    ASSERT_EQ(f.registry.n_dropped, 0);
    check_file(&f, MiB(2));
    fixture_close(&f);
}

/* All connections begin before the first answer; it tells the others what they have to expect. */
TEST(nothing_waits_for_the_first_answer_of_a_far_registry) {
    for (unsigned far = 0; far < 2; far++) {
        Fixture f;
        FetchOptions o;

        fixture_open_at(&f, MiB(2), far ? 20 * USEC_PER_MSEC : 2 * USEC_PER_MSEC);
        f.registry.etag = "\"a\"";
        o = options(&f, MiB(2));
        ASSERT_OK(run(&f, &o));
        ASSERT_EQ(f.registry.n_before_head, far ? 3 : 1);
        ASSERT_EQ(f.registry.n_expecting, f.registry.n_before_head);
        check_file(&f, MiB(2));
        fixture_close(&f);
    }
}

/* The manifest took long, the blob does not: its three ranges go on, of which two wait for buffers
 * until their turn comes.  The lowest breaks, and takes the place of one other. */
TEST(a_registry_that_only_seemed_far_loses_no_connection) {
    Fixture f;
    FetchOptions o;

    fixture_open_at(&f, MiB(4), 20 * USEC_PER_MSEC);
    f.context.n_buffers = 64; /* so that they do not limit ranges */
    f.registry.piece = 7000;
    f.registry.breaks_at = 7000;
    f.registry.n_breaks = 1;
    f.registry.answer_usec = 2 * USEC_PER_MSEC;
    o = options(&f, MiB(4));
    ASSERT_OK(run(&f, &o));
    ASSERT_EQ(f.registry.n_before_head, 3);
    ASSERT_EQ(f.registry.n_dropped, 1);
    ASSERT_TRUE(f.registry.sent <= MiB(4) + 7000);
    check_file(&f, MiB(4));
    fixture_close(&f);
}

TEST(a_far_registry_that_ignores_ranges_sends_the_blob_once) {
    for (unsigned last = 0; last < 2; last++) {
        Fixture f;
        FetchOptions o;

        fixture_open_at(&f, MiB(2), 20 * USEC_PER_MSEC);
        f.registry.ignores = true;
        f.registry.whole_last = last;
        o = options(&f, MiB(2));
        ASSERT_OK(run(&f, &o));
        ASSERT_EQ(f.troubles, last);
        ASSERT_EQ(f.registry.n_requests, 3 + last);
        ASSERT_EQ(f.registry.sent, MiB(2));
        ASSERT_TRUE(traffic_ranges_are_bad(f.traffic));
        check_file(&f, MiB(2));
        fixture_close(&f);
    }
}

/* It has one connection and hopes for no other: nothing is shared. */
TEST(a_blob_without_more_connections_asks_for_long_ranges) {
    for (unsigned alone = 0; alone < 2; alone++) {
        Fixture f;
        FetchOptions o;

        fixture_open_at(&f, 3 * BUFFER_BYTES, 20 * USEC_PER_MSEC);
        f.context.n_buffers = 64; /* so that they do not limit ranges */
        traffic_limit_extras(f.traffic, alone ? 0 : 2);
        o = options(&f, 3 * BUFFER_BYTES);
        ASSERT_OK(run(&f, &o));
        ASSERT_EQ(f.registry.n_requests, alone ? 1 : 3);
        check_file(&f, 3 * BUFFER_BYTES);
        fixture_close(&f);
    }
}

TEST(a_registry_that_never_serves_a_range) {
    Fixture f;
    FetchOptions o;

    fixture_open(&f, MiB(1));
    f.registry.n_bad = UINT32_MAX;
    f.registry.breaks_at = 700000;
    f.registry.n_breaks = 1;
    o = options(&f, MiB(1));
    ASSERT_OK(run(&f, &o));
    ASSERT_EQ(f.registry.sent, MiB(1) + 700000);
    ASSERT_EQ(f.registry.n_requests, 5);
    check_file(&f, MiB(1));
    fixture_close(&f);
}

/* A blob of a slow registry, of which all the rest was asked for with the second request: it may
 * have no other connection.  From a far one it has always wanted more. */
static void start_long(Fixture *f, size_t n, bool far, unsigned breaks) {
    FetchOptions o;

    fixture_open_at(f, n, far ? 20 * USEC_PER_MSEC : 2 * USEC_PER_MSEC);
    traffic_limit_extras(f->traffic, 0);
    f->registry.turn_usec = 4000;
    f->registry.piece = KiB(16);
    f->registry.breaks_at = n / 6 * 5;
    f->registry.n_breaks = breaks;
    o = options(f, n);
    ASSERT_OK(fetch_new(&f->fetch, &o, &f->err));
    while (f->registry.n_requests < 2)
        ASSERT_OK(sd_event_run(f->event, UINT64_MAX));
    traffic_forget_hunger(f->traffic);
}

/* Until it would share that request. */
static void run_until_hungry(Fixture *f) {
    while (!f->ended && !traffic_is_hungry(f->traffic))
        ASSERT_OK(sd_event_run(f->event, UINT64_MAX));
    ASSERT_TRUE(!f->ended);
    ASSERT_EQ(f->registry.n_requests, 2);
    ASSERT_EQ(f->registry.n_dropped, 0);
}

static void run_to_end(Fixture *f, size_t n) {
    while (!f->ended)
        ASSERT_OK(sd_event_run(f->event, UINT64_MAX));
    ASSERT_OK(f->r);
    ASSERT_EQ(ring_buffers_free(f->ring), N_BUFFERS);
    check_file(f, n);
}

/* A request more would cost it the wait for an answer, also when the long one breaks. */
TEST(a_blob_of_several_windows_without_more_connections_takes_two_requests) {
    const size_t size = MiB(3);

    for (unsigned far = 0; far < 2; far++)
        for (unsigned breaks = 0; breaks < 2; breaks++) {
            Fixture f;

            start_long(&f, size, far, breaks);
            run_until_hungry(&f);
            run_to_end(&f, size);
            ASSERT_TRUE(traffic_is_hungry(f.traffic));
            ASSERT_EQ(f.registry.n_dropped, 0);
            ASSERT_EQ(f.registry.n_requests, 2 + breaks);
            ASSERT_EQ(f.registry.sent, size);
            fixture_close(&f);
        }
}

TEST(a_long_request_is_shared_once_there_are_more_connections) {
    const size_t size = MiB(3);

    for (unsigned far = 0; far < 2; far++) {
        Fixture f;

        start_long(&f, size, far, 0);
        run_until_hungry(&f);
        traffic_limit_extras(f.traffic, 2);
        run_to_end(&f, size);
        ASSERT_EQ(f.registry.n_dropped, 1);
        ASSERT_TRUE(f.registry.n_requests > 4);
        ASSERT_EQ(f.registry.sent, size); /* nothing twice */
        fixture_close(&f);
    }
}

/* What it gave up it could not ask for. */
TEST(a_long_request_goes_on_while_nothing_may_be_asked_for) {
    const size_t size = MiB(3);
    Fixture f;

    start_long(&f, size, true, 0);
    traffic_hold(f.traffic, 250 * USEC_PER_MSEC);
    traffic_limit_extras(f.traffic, 2);
    while (traffic_is_held(f.traffic)) {
        ASSERT_EQ(f.registry.n_dropped, 0);
        ASSERT_OK(sd_event_run(f.event, UINT64_MAX));
    }
    run_to_end(&f, size);
    ASSERT_EQ(f.registry.n_dropped, 1);
    ASSERT_EQ(f.registry.sent, size);
    fixture_close(&f);
}

/* Other blobs have them all. */
TEST(a_long_request_goes_on_while_no_connection_is_to_be_had) {
    const size_t size = MiB(3);
    Fixture f;

    start_long(&f, size, true, 0);
    ASSERT_TRUE(traffic_take(f.traffic, false));
    ASSERT_TRUE(traffic_take(f.traffic, false));
    traffic_limit_extras(f.traffic, 2);
    run_until_hungry(&f);
    for (unsigned i = 0; i < 2; i++) { /* and once more */
        traffic_forget_hunger(f.traffic);
        run_until_hungry(&f);
    }
    traffic_give(f.traffic, false);
    run_to_end(&f, size);
    ASSERT_EQ(f.registry.n_dropped, 1);
    ASSERT_EQ(f.registry.sent, size);
    traffic_give(f.traffic, false);
    fixture_close(&f);
}

/* More connections would share the same bandwidth. */
TEST(a_bandwidth_limit_leaves_a_near_blob_its_one_connection) {
    const size_t size = MiB(1);
    FetchOptions o;
    Fixture f;

    fixture_open_at(&f, size, 2 * USEC_PER_MSEC);
    traffic_limit(f.traffic, 3, MiB(1));
    o = options(&f, size);
    ASSERT_OK(fetch_new(&f.fetch, &o, &f.err));
    while (f.registry.sent < size / 2)
        ASSERT_OK(sd_event_run(f.event, UINT64_MAX));
    ASSERT_EQ(traffic_used(f.traffic), 1);
    traffic_limit(f.traffic, 3, 0);
    run_to_end(&f, size);
    ASSERT_EQ(f.registry.n_dropped, 0);
    ASSERT_EQ(f.registry.n_requests, 2);
    fixture_close(&f);
}

/* A limit that never lasts, so that no look finds it waiting: it did, though, since the last one.
 */
TEST(a_bandwidth_limit_that_comes_and_goes_adds_no_connection) {
    const size_t size = MiB(1);
    uint64_t sent = 0;
    FetchOptions o;
    Fixture f;

    fixture_open_at(&f, size, 2 * USEC_PER_MSEC);
    f.registry.turn_usec = 200;
    f.registry.piece = 4000;
    o = options(&f, size);
    ASSERT_OK(fetch_new(&f.fetch, &o, &f.err));
    while (!f.ended) {
        unsigned n_paused = f.registry.n_paused;

        ASSERT_OK(sd_event_run(f.event, UINT64_MAX));
        if (f.registry.n_paused > n_paused) {
            traffic_limit(f.traffic, 3, 0);
            if (f.fetch)
                fetch_wake(f.fetch);
        } else if (f.registry.sent > sent) {
            traffic_limit(f.traffic, 3, 1);
        }
        sent = f.registry.sent;
    }
    ASSERT_OK(f.r);
    ASSERT_TRUE(f.registry.n_paused > 100);
    ASSERT_EQ(f.registry.n_dropped, 0);
    ASSERT_EQ(f.registry.n_requests, 2);
    check_file(&f, size);
    fixture_close(&f);
}
