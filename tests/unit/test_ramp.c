/* SPDX-License-Identifier: Apache-2.0 */
/* test_ramp: how many connections a blob gets on networks of several kinds. */
#include "oci/ramp.h"
#include "tests/unit/test.h"

#define LOOK_USEC (10 * USEC_PER_MSEC)
#define HASH      GiB(1) /* bytes a second */

/* A network: what one connection brings at most, and all together, a second. */
typedef struct Network {
    uint64_t each, all;
} Network;

typedef struct Run {
    Ramp ramp;
    RampLook look;
} Run;

static Run run_new(unsigned most) {
    Run r = { .look = { .most = most } };

    ramp_begin(&r.ramp);
    return r;
}

static void look_at(Run *r, unsigned running, bool can_take, uint64_t rate) {
    uint64_t bytes = rate * LOOK_USEC / USEC_PER_SEC;

    r->look.now_usec += LOOK_USEC;
    r->look.received += bytes;
    r->look.hashed += bytes;
    r->look.hash_usec += bytes * USEC_PER_SEC / HASH;
    r->look.running = running;
    r->look.can_take = can_take;
    ramp_look(&r->ramp, &r->look);
}

static void look(Run *r, uint64_t rate) {
    look_at(r, r->ramp.wanted, r->ramp.wanted < r->look.most, rate);
}

/* Connections after so many looks. */
static unsigned run(Run *r, const Network *n, unsigned looks) {
    for (unsigned i = 0; i < looks; i++)
        look(r, MIN(n->each * r->ramp.wanted, n->all));
    return r->ramp.wanted;
}

TEST(ramp_stays_with_one_where_one_is_fast) {
    Run r = run_new(8);

    ASSERT_EQ(run(&r, &(Network){ .each = HASH, .all = HASH }, 50), 1);
}

TEST(ramp_takes_all_where_each_is_slow) {
    Run r = run_new(8);

    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = GiB(10) }, 10), 8);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = GiB(10) }, 50), 8);
}

TEST(ramp_takes_all_at_once_where_the_registry_is_far) {
    Run near = run_new(8), far = run_new(8);

    ramp_answered(&near.ramp, 3 * USEC_PER_MSEC, 8);
    ASSERT_EQ(near.ramp.wanted, 1);
    ramp_answered(&far.ramp, 20 * USEC_PER_MSEC, 8);
    ASSERT_EQ(far.ramp.wanted, 8);
    ramp_answered(&far.ramp, 3 * USEC_PER_MSEC, 8); /* the one before was slow for another reason */
    ASSERT_EQ(far.ramp.wanted, 1);
    ramp_answered(&far.ramp, 20 * USEC_PER_MSEC, 8);
    ASSERT_EQ(run(&far, &(Network){ .each = MiB(50), .all = GiB(10) }, 50), 8);
}

TEST(ramp_stops_doubling_at_a_third_of_the_speed_of_the_hash) {
    Run r = run_new(64);

    /* 1, 2, 4: 600 MiB/s; two more that bring something each, then it is enough. */
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(150), .all = GiB(10) }, 50), 6);
}

TEST(ramp_gives_up_one_that_brings_nothing) {
    Run r = run_new(8);

    /* The wire is full with one, and the hash could take more. */
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(600), .all = MiB(600) }, 10), 1);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(600), .all = MiB(600) }, 2), 2);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(600), .all = MiB(600) }, 5), 1);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(600), .all = MiB(600) }, 50), 1);
}

TEST(ramp_keeps_one_that_is_worth_it) {
    Run r = run_new(8);

    ASSERT_EQ(run(&r, &(Network){ .each = MiB(600), .all = MiB(900) }, 50), 2);
}

/* The wire became slower, not the connection useless. */
TEST(ramp_keeps_what_has_proved_its_worth) {
    Run r = run_new(2);

    ASSERT_EQ(run(&r, &(Network){ .each = MiB(600), .all = GiB(10) }, 20), 2);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(100), .all = GiB(10) }, 20), 2);
}

TEST(ramp_forgets_a_burst) {
    Run r = run_new(8);

    ASSERT_EQ(run(&r, &(Network){ .each = HASH, .all = HASH }, 10), 1);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = GiB(10) }, 50), 8);
}

/* Two looks at once, of which the second would see what a millisecond brought as a second's. */
TEST(ramp_ignores_looks_without_time) {
    Run r = run_new(8);

    for (unsigned i = 0; i < 20; i++) {
        look(&r, MiB(50) * r.ramp.wanted);
        r.look.received += MiB(1);
        ramp_look(&r.ramp, &r.look);
    }
    ASSERT_EQ(r.ramp.wanted, 8);
}

TEST(ramp_adds_nothing_while_bytes_wait) {
    Run r = run_new(8);

    r.look.ahead = true;
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = GiB(10) }, 50), 1);
}

/* A busy machine: at times the hash waits for what comes, at times that for the hash. */
TEST(ramp_adds_nothing_while_bytes_wait_now_and_then) {
    Run r = run_new(8);

    for (unsigned i = 0; i < 50; i++) {
        r.look.ahead = i % 3 == 0;
        look(&r, MiB(50));
    }
    ASSERT_EQ(r.ramp.wanted, 1);
    r.look.ahead = false;
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = GiB(10) }, 10), 8);
}

/* One look in which nothing came (the machine was busy) is no reason. */
TEST(ramp_forgives_one_slow_look) {
    Run r = run_new(8);

    for (unsigned i = 0; i < 50; i++)
        look(&r, i % 2 ? 0 : HASH);
    ASSERT_EQ(r.ramp.wanted, 1);
}

/* Looks at connections of which so many tenths wait. */
static unsigned run_waiting(Run *r, unsigned tenths, unsigned looks) {
    r->look.ahead = true;
    for (unsigned i = 0; i < looks; i++) {
        r->look.waited_usec += LOOK_USEC * tenths / 10;
        look(r, MiB(50));
    }
    return r->ramp.wanted;
}

static Run run_new_far(void) {
    Run r = run_new(8);

    ramp_answered(&r.ramp, 20 * USEC_PER_MSEC, 8);
    look(&r, MiB(50));
    return r;
}

/* The answers were slow by chance, and now the hash is slower than eight connections. */
TEST(ramp_leaves_those_whose_time_is_spent_with_waiting) {
    Run r = run_new_far();

    ASSERT_EQ(run_waiting(&r, 55, 4), 8);
    ASSERT_EQ(run_waiting(&r, 55, 1), 3);
    ASSERT_EQ(run_waiting(&r, 9, 50), 3); /* not one of them could go */
    ASSERT_EQ(run_waiting(&r, 12, 5), 2);
    ASSERT_EQ(run_waiting(&r, 20, 50), 1);
}

/* They wait because the lowest range is slow, not because they are too many: fewer bring less. */
TEST(ramp_takes_those_back_that_were_needed) {
    Run r = run_new_far();

    ASSERT_EQ(run_waiting(&r, 45, 5), 4);
    r.look.now_usec += USEC_PER_SEC; /* while the ranges of the others end, they still … */
    r.look.received += GiB(2);       /* … bring something */
    ramp_skip(&r.ramp, &r.look);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(10), .all = GiB(10) }, 4), 4);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(10), .all = GiB(10) }, 1), 8);
    ASSERT_EQ(run_waiting(&r, 45, 50), 8);
}

/* While old ranges end, more run than are wanted: their waits do not count, those before do. */
TEST(ramp_does_not_count_the_waits_of_others) {
    Run r = run_new_far();

    ASSERT_EQ(run_waiting(&r, 12, 3), 8);
    for (unsigned i = 0; i < 20; i++) {
        r.look.now_usec += LOOK_USEC;
        r.look.waited_usec += LOOK_USEC * 7;
        ramp_skip(&r.ramp, &r.look);
    }
    ASSERT_EQ(run_waiting(&r, 12, 2), 7);
}

/* More brought nothing: not again, as long as the network is the same. */
TEST(ramp_does_not_swing) {
    Run r = run_new(8);

    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = MiB(50) }, 4), 2);
    ASSERT_EQ(run_waiting(&r, 11, 5), 1);
    r.look.ahead = false;
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = MiB(50) }, 50), 1);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(20), .all = MiB(160) }, 50), 8);
}

/* What took the bytes was slow at first, and then waits for them. */
TEST(ramp_doubts_what_was_enough) {
    Run r = run_new_far();

    ASSERT_EQ(run_waiting(&r, 70, 5), 1);
    ASSERT_EQ(run_waiting(&r, 0, 5), 1);
    r.look.ahead = false;
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = GiB(10) }, 40), 1);
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(50), .all = GiB(10) }, 40), 8);
}

/* Those that were added are not judged before they have begun, but not waited for without end. */
TEST(ramp_waits_for_the_first_byte) {
    Run r = run_new_far();

    ASSERT_EQ(run_waiting(&r, 55, 5), 3);
    r.look.asking = true;
    ASSERT_EQ(run(&r, &(Network){ .each = 0, .all = 0 }, 9), 3);
    r.look.asking = false;
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(17), .all = MiB(50) }, 20), 3);
    r = run_new_far();
    ASSERT_EQ(run_waiting(&r, 55, 5), 3);
    r.look.asking = true;
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(1), .all = GiB(10) }, 20), 8);
}

/* One more that is not to be had says nothing of its worth. */
TEST(ramp_tries_only_what_is_to_be_had) {
    Run r = run_new(8);

    for (unsigned i = 0; i < 50; i++)
        look_at(&r, 1, false, MiB(600));
    ASSERT_EQ(run(&r, &(Network){ .each = MiB(600), .all = MiB(900) }, 20), 2);
}

TEST(ramp_keeps_to_what_is_allowed) {
    Run r = run_new(1);

    ASSERT_EQ(run(&r, &(Network){ .each = MiB(1), .all = GiB(10) }, 50), 1);
}
