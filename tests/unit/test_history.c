/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/history: events in order, the oldest go. */
#include "tests/unit/store_env.h"

TEST(history_keeps_the_last_ten_thousand) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    StoreEvent e = { .type = (char[]){ "pulled" }, .text = (char[]){ "text" } }, *list;
    uint64_t id = 0, first = 0;
    size_t n;
    Err err;

    ASSERT_OK(store_event_add(s, &e, &first, &err));
    e.reference = (char[]){ "r" };
    e.time_usec = 42;
    for (int i = 0; i < 10100; i++)
        ASSERT_OK(store_event_add(s, &e, &id, &err));
    ASSERT_EQ(id, first + 10100);
    ASSERT_OK(store_event_list(s, 3, &list, &n, &err));
    ASSERT_EQ(n, 3);
    ASSERT_EQ(list[2].id, id);
    ASSERT_EQ(list[0].id, id - 2);
    ASSERT_EQ(list[0].time_usec, 42);
    ASSERT_STREQ(list[0].type, "pulled");
    ASSERT_STREQ(list[0].reference, "r");
    ASSERT_STREQ(list[0].digest, NULL);
    ASSERT_STREQ(list[0].text, "text");
    store_event_array_free(list, n);
    ASSERT_OK(store_event_list(s, 100000, &list, &n, &err));
    ASSERT_EQ(n, 10000);
    store_event_array_free(list, n);
}
