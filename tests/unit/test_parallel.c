/* SPDX-License-Identifier: Apache-2.0 */
/* test_parallel: each item once, all of them waited for, and the first failure told. */
#include "base/parallel.h"

#include "tests/unit/test.h"

#include <sched.h>
#include <stdatomic.h>

#define ITEMS 5000

typedef struct Steps {
    atomic_int calls[ITEMS];
    atomic_int running, ended;
    size_t bad; /* the item that fails; ITEMS: none */
} Steps;

static int step(void *arg, size_t i, Err *err) {
    Steps *s = arg;

    (void)atomic_fetch_add(&s->running, 1);
    (void)atomic_fetch_add(&s->calls[i], 1);
    (void)sched_yield();
    (void)atomic_fetch_sub(&s->running, 1);
    (void)atomic_fetch_add(&s->ended, 1);
    return i == s->bad ? err_set(err, -EIO, "item %zu is bad", i) : 0;
}

TEST(each_item_is_done_once) {
    static const size_t counts[] = { 0, 1, 63, 64, 65, ITEMS };
    Err err;

    for (size_t k = 0; k < ELEMENTSOF(counts); k++) {
        _cleanup_free_ Steps *s = xnew(Steps);

        s->bad = ITEMS;
        ASSERT_OK(parallel_each(counts[k], step, s, &err));
        ASSERT_EQ(atomic_load(&s->running), 0);
        for (size_t i = 0; i < ITEMS; i++)
            ASSERT_EQ(atomic_load(&s->calls[i]), i < counts[k]);
    }
}

TEST(a_failure_ends_it) {
    _cleanup_free_ Steps *s = xnew(Steps);
    Err err;

    s->bad = 70;
    ASSERT_ERR(parallel_each(ITEMS, step, s, &err), -EIO);
    ASSERT_STREQ(err.text, "item 70 is bad");
    ASSERT_EQ(atomic_load(&s->running), 0);
    for (size_t i = 0; i < ITEMS; i++)
        ASSERT_TRUE(atomic_load(&s->calls[i]) <= 1);
    s->bad = 0; /* of few items, which the caller does alone: none is begun after it */
    atomic_store(&s->ended, 0);
    ASSERT_ERR(parallel_each(10, step, s, NULL), -EIO);
    ASSERT_EQ(atomic_load(&s->ended), 1);
}
