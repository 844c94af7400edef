/* SPDX-License-Identifier: Apache-2.0 */
/* test_pull_layers: what plans of the daemon make of the layers and of the reserve of buffers. */
#include "oci/pull_internal.h"

#include "tests/unit/test.h"

#define N_LAYERS 8

typedef struct Planned {
    Pull pull;
    ManifestDoc manifest;
    ManifestLayer layers[N_LAYERS];
} Planned;

static void planned_open(Planned *t, unsigned transfers) {
    *t = (Planned){ .pull.o.transfers = transfers,
                    .pull.context = { .n_buffers = 2 * transfers, .reserve = transfers } };
    t->manifest.layers = t->layers;
    t->manifest.n_layers = N_LAYERS;
    t->pull.manifest = &t->manifest;
    atomic_store(&t->pull.budget.bytes, GiB(1));
    for (size_t i = 0; i < N_LAYERS; i++)
        t->layers[i].layer.size = 100 + i;
}

static void planned_close(Planned *t) {
    free(t->pull.layers);
    free(t->pull.order);
}

static int plan(Planned *t, uint32_t first, size_t n, bool more, Err *err) {
    Modelcached__Worker__Plan plan = MODELCACHED__WORKER__PLAN__INIT;
    uint32_t fetch[N_LAYERS + 1];

    for (size_t i = 0; i < n; i++)
        fetch[i] = first + (uint32_t)i;
    plan.fetch = fetch;
    plan.n_fetch = n;
    plan.more = more;
    return pull_take_plan(&t->pull, &plan, err);
}

/* As many as may still run at once, and never more than before. */
TEST(the_reserve_is_for_all_that_may_run_and_never_rises) {
    static const struct {
        uint32_t first;
        size_t n, done; /* done: before the plan comes */
        bool more;
        unsigned reserve;
    } plans[] = {
        { 0, 1, 0, true, 3 },  /* others may come */
        { 1, 1, 2, true, 3 },  /* all are done, and others may come */
        { 2, 4, 2, true, 3 },  /* more than run at once */
        { 6, 1, 5, false, 2 }, /* these are the last */
    };
    Planned t;
    Err err;

    planned_open(&t, 3);
    for (size_t i = 0; i < ELEMENTSOF(plans); i++) {
        unsigned before = t.pull.context.reserve;

        t.pull.n_done = plans[i].done;
        ASSERT_OK(plan(&t, plans[i].first, plans[i].n, plans[i].more, &err));
        ASSERT_EQ(t.pull.context.reserve, plans[i].reserve);
        ASSERT_TRUE(t.pull.context.reserve <= before);
    }
    planned_close(&t);
}

/* They come with more buffers, which nobody has taken yet. */
TEST(more_layers_run_when_there_are_more_buffers) {
    static const struct {
        unsigned buffers, usable, reserve;
    } steps[] = { { 1, 1, 1 }, { 3, 3, 2 }, { 2, 3, 2 }, { 9, 9, 5 }, { 100, 24, 6 } };
    RingOptions o = { .mode = RING_THREADS, .depth = 1, .n_buffers = 24, .buffer_bytes = KiB(4) };
    Planned t;
    Err err;

    planned_open(&t, 6);
    ASSERT_OK(sd_event_new(&o.event));
    ASSERT_OK(pool_new(&o.pool, o.event, 1, &err));
    ASSERT_OK(ring_new(&t.pull.o.ring, &o, &err));
    ring_limit_buffers(t.pull.o.ring, 0);
    t.pull.o.n_buffers = 24;
    t.pull.context = (FetchContext){ .reserve = 1 };
    ASSERT_OK(plan(&t, 0, N_LAYERS, false, &err));
    ASSERT_EQ(t.pull.context.reserve, 1);
    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        pull_use_buffers(&t.pull, steps[i].buffers);
        ASSERT_EQ(ring_buffers_free(t.pull.o.ring), steps[i].usable);
        ASSERT_EQ(t.pull.context.n_buffers, steps[i].usable);
        ASSERT_EQ(t.pull.context.reserve, steps[i].reserve);
    }
    (void)ring_free(t.pull.o.ring);
    (void)pool_free(o.pool);
    (void)sd_event_unref(o.event);
    planned_close(&t);
}

TEST(a_pull_with_nothing_to_fetch_has_a_reserve) {
    Planned t;
    Err err;

    planned_open(&t, 3);
    ASSERT_OK(plan(&t, 0, 0, false, &err));
    ASSERT_EQ(t.pull.context.reserve, 1);
    planned_close(&t);
}

/* Those that are parked are looked at again when they run: large ones come first in the order. */
TEST(a_plan_knows_of_layers_that_are_parked) {
    Planned t;
    Err err;

    planned_open(&t, 3);
    ASSERT_OK(plan(&t, 0, 2, true, &err));
    ASSERT_EQ(t.pull.past, 0);
    t.pull.layers[1].state = PULL_LAYER_PARKED;
    ASSERT_OK(plan(&t, 2, 4, true, &err));
    ASSERT_EQ(t.pull.first, 0);
    ASSERT_EQ(t.pull.past, 5); /* 5, 4, 3, 2, 1 */
    ASSERT_TRUE(t.pull.order[4] == &t.pull.layers[1]);
    planned_close(&t);
}

TEST(plans_that_cannot_be_are_refused) {
    Planned t;
    Err err;

    planned_open(&t, 3);
    ASSERT_OK(plan(&t, 0, 2, true, &err));
    ASSERT_ERR(plan(&t, 1, 1, true, &err), -EPROTO); /* again */
    ASSERT_STRSTR(err.text, "names layer 1 of 8 twice");
    ASSERT_ERR(plan(&t, N_LAYERS, 1, true, &err), -EPROTO);
    atomic_store(&t.pull.budget.bytes, 101);
    ASSERT_ERR(plan(&t, 2, 1, true, &err), -ENOSPC);
    ASSERT_STRSTR(err.text, "brings 102 bytes, 101 are left");
    planned_close(&t);
}

/* What was another pull's to bring needs room, too; threads may have taken of it meanwhile. */
TEST(later_plans_bring_room) {
    Modelcached__Worker__Plan plan = MODELCACHED__WORKER__PLAN__INIT;
    uint32_t fetch[] = { 0 };
    Planned t;
    Err err;

    planned_open(&t, 3);
    atomic_store(&t.pull.budget.bytes, 0);
    plan.fetch = fetch;
    plan.n_fetch = 1;
    plan.more = true;
    plan.content_max_bytes = 100;
    ASSERT_OK(pull_take_plan(&t.pull, &plan, &err));
    ASSERT_EQ(atomic_load(&t.pull.budget.bytes), 0);
    fetch[0] = 1;
    plan.content_max_bytes = 250;
    ASSERT_OK(pull_take_plan(&t.pull, &plan, &err));
    ASSERT_EQ(atomic_load(&t.pull.budget.bytes), 49);
    fetch[0] = 2;
    plan.content_max_bytes = 240; /* nothing is taken back */
    ASSERT_ERR(pull_take_plan(&t.pull, &plan, &err), -ENOSPC);
    ASSERT_STRSTR(err.text, "brings 102 bytes, 49 are left");
    planned_close(&t);
}

/* Their files would have the same names. */
TEST(two_tars_whose_digests_begin_alike_are_refused) {
    Planned t;
    Err err;

    planned_open(&t, 3);
    for (size_t i = 0; i < N_LAYERS; i++) {
        t.layers[i].layer.kind = LAYER_KIND_TAR;
        t.layers[i].layer.digest.bytes[7] = (uint8_t)i;
        t.layers[i].layer.digest.bytes[31] = (uint8_t)(20 + i);
    }
    t.layers[3].layer.digest.bytes[7] = 1;
    ASSERT_OK(plan(&t, 0, 3, true, &err));
    ASSERT_ERR(plan(&t, 3, 1, true, &err), -EPROTO);
    ASSERT_STRSTR(err.text, "layer 3 of 8 has a digest that begins like that of another one");
    ASSERT_OK(plan(&t, 4, 4, false, &err));
    planned_close(&t);
}
