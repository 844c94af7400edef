/* SPDX-License-Identifier: Apache-2.0 */
/* test_turn: who has it, and who gets it next, also when threads ask for it at once. */
#include "oci/turn.h"
#include "tests/unit/test.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS  2000

TEST(one_has_it_until_it_is_handed_on) {
    Turn t = { 0 };

    ASSERT_EQ(turn_holder(&t), TURN_NOBODY);
    ASSERT_TRUE(turn_take(&t, 0));
    ASSERT_TRUE(turn_take(&t, 0)); /* its own */
    ASSERT_TRUE(!turn_take(&t, 1));
    ASSERT_EQ(turn_holder(&t), 0);
    turn_pass(&t, 1, 2); /* who does not have it gives nothing */
    turn_pass(&t, TURN_NOBODY, 2);
    ASSERT_EQ(turn_holder(&t), 0);
    turn_pass(&t, 0, 2); /* nobody can come in between */
    ASSERT_TRUE(!turn_take(&t, 1));
    ASSERT_TRUE(turn_take(&t, 2));
    turn_pass(&t, 2, TURN_NOBODY);
    ASSERT_EQ(turn_holder(&t), TURN_NOBODY);
    turn_pass(&t, TURN_NOBODY, 1);
    ASSERT_EQ(turn_holder(&t), 1);
}

typedef struct Asker {
    Turn *turn;
    atomic_uint *inside;
    unsigned layer, had, clashes;
} Asker;

static void *run(void *arg) {
    Asker *a = arg;

    while (a->had < ROUNDS) {
        if (!turn_take(a->turn, a->layer))
            continue;
        a->had++;
        a->clashes += atomic_fetch_add(a->inside, 1) != 0;
        (void)atomic_fetch_sub(a->inside, 1);
        turn_pass(a->turn, a->layer, TURN_NOBODY);
    }
    return NULL;
}

TEST(threads_that_ask_at_once_are_never_two) {
    Asker askers[THREADS];
    pthread_t threads[THREADS];
    atomic_uint inside = 0;
    Turn t = { 0 };

    for (unsigned i = 0; i < THREADS; i++) {
        askers[i] = (Asker){ .turn = &t, .inside = &inside, .layer = i };
        ASSERT_EQ(pthread_create(&threads[i], NULL, run, &askers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        ASSERT_EQ(pthread_join(threads[i], NULL), 0);
        ASSERT_EQ(askers[i].clashes, 0);
    }
    ASSERT_EQ(turn_holder(&t), TURN_NOBODY);
}
