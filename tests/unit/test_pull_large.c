/* SPDX-License-Identifier: Apache-2.0 */
/* test_pull_large: to whom the large window goes, and what is said of those that wait for it. */
#include "oci/pull_internal.h"

#include "tests/unit/test.h"

#define N_LAYERS 5

typedef struct Running {
    Pull pull;
    ManifestDoc manifest;
    PullLayer layers[N_LAYERS], *order[N_LAYERS];
} Running;

/* All run; the last layer is the first in the order. */
static void running_open(Running *t) {
    *t = (Running){ .manifest.n_layers = N_LAYERS };
    t->pull.manifest = &t->manifest;
    t->pull.layers = t->layers;
    t->pull.order = t->order;
    t->pull.n_order = N_LAYERS;
    for (unsigned i = 0; i < N_LAYERS; i++) {
        t->layers[i] = (PullLayer){ .pull = &t->pull, .index = i, .state = PULL_LAYER_RUNNING };
        t->order[N_LAYERS - 1 - i] = &t->layers[i];
    }
}

static void refused(Running *t, unsigned layer) {
    ASSERT_TRUE(!turn_take(&t->pull.large, layer));
    pull_large_park(&t->layers[layer]);
    pull_large_pass(&t->layers[layer]);
}

/* As pull_layers.c does it. */
static void goes_on(Running *t, unsigned layer) {
    ASSERT_TRUE(pull_large_next(&t->pull) == &t->layers[layer]);
    t->layers[layer].state = PULL_LAYER_RUNNING;
    t->pull.n_parked--;
    ASSERT_TRUE(turn_take(&t->pull.large, layer));
}

static void ends(Running *t, unsigned layer) {
    t->layers[layer].state = PULL_LAYER_DONE;
    pull_large_pass(&t->layers[layer]);
}

TEST(it_goes_to_those_that_wait_in_their_order) {
    Running t;

    running_open(&t);
    ASSERT_TRUE(turn_take(&t.pull.large, 2));
    refused(&t, 1);
    refused(&t, 3);
    ASSERT_TRUE(!pull_large_next(&t.pull));
    ends(&t, 0); /* has nothing to do with it */
    ASSERT_TRUE(!pull_large_next(&t.pull));
    ends(&t, 2);
    refused(&t, 4); /* comes too late: it has been handed over */
    goes_on(&t, 3);
    ASSERT_TRUE(!pull_large_next(&t.pull));
    ends(&t, 3);
    goes_on(&t, 4);
    ends(&t, 4);
    goes_on(&t, 1);
    ends(&t, 1);
    ASSERT_EQ(turn_holder(&t.pull.large), TURN_NOBODY);
    ASSERT_EQ(t.pull.n_parked, 0);
}

/* It ends between the thread's question and the loop's hearing of it. */
TEST(one_that_is_parked_when_nobody_has_it_any_more_goes_on) {
    Running t;

    running_open(&t);
    ASSERT_TRUE(turn_take(&t.pull.large, 2));
    ASSERT_TRUE(!turn_take(&t.pull.large, 1));
    ends(&t, 2);
    ASSERT_EQ(turn_holder(&t.pull.large), TURN_NOBODY);
    pull_large_park(&t.layers[1]);
    pull_large_pass(&t.layers[1]);
    goes_on(&t, 1);
}

/* Another one was quicker than the one that is parked. */
TEST(one_that_is_parked_waits_for_who_took_it_meanwhile) {
    Running t;

    running_open(&t);
    ASSERT_TRUE(turn_take(&t.pull.large, 2));
    ASSERT_TRUE(!turn_take(&t.pull.large, 1));
    ends(&t, 2);
    ASSERT_TRUE(turn_take(&t.pull.large, 0));
    pull_large_park(&t.layers[1]);
    pull_large_pass(&t.layers[1]);
    ASSERT_TRUE(!pull_large_next(&t.pull));
    ends(&t, 0);
    goes_on(&t, 1);
}

TEST(what_is_said_names_both_layers) {
    static const char *const texts[] = {
        NULL,
        "layer 2 of 5: waits for layer 3: zstd windows above 32 MiB are decoded one at a time",
        "layer 4 of 5: waits for layer 3: zstd windows above 32 MiB are decoded one at a time",
        "layer 2 of 5: waits for layer 4: zstd windows above 32 MiB are decoded one at a time",
    };
    static const size_t n_others[] = { 0, 0, 1, 0 };
    Running t;

    running_open(&t);
    ASSERT_TRUE(turn_take(&t.pull.large, 2));
    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        size_t others = 0;
        _cleanup_free_ char *text = NULL;

        if (i == 1)
            refused(&t, 1);
        else if (i == 2)
            refused(&t, 3);
        else if (i == 3)
            ends(&t, 2); /* the fourth has it now, and waits for a connection only */
        text = pull_large_describe(&t.pull, &others);
        ASSERT_EQ(others, n_others[i]);
        ASSERT_TRUE(!text == !texts[i]);
        if (text)
            ASSERT_STREQ(text, texts[i]);
    }
}

TEST(what_a_connection_had_met_is_forgotten) {
    Running t;

    running_open(&t);
    ASSERT_TRUE(turn_take(&t.pull.large, 2));
    t.layers[1].trouble = xstrdup("trying again");
    refused(&t, 1);
    ASSERT_TRUE(!t.layers[1].trouble);
}
