/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/history: events in order, the oldest go; those of a pull or a pod are found. */
#include "tests/unit/store_env.h"

static const EventFilter all;

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
    ASSERT_OK(store_event_list(s, &all, 3, &list, &n, &err));
    ASSERT_EQ(n, 3);
    ASSERT_EQ(list[2].id, id);
    ASSERT_EQ(list[0].id, id - 2);
    ASSERT_EQ(list[0].time_usec, 42);
    ASSERT_STREQ(list[0].type, "pulled");
    ASSERT_STREQ(list[0].reference, "r");
    ASSERT_STREQ(list[0].digest, NULL);
    ASSERT_STREQ(list[0].text, "text");
    store_event_array_free(list, n);
    ASSERT_OK(store_event_list(s, &all, 100000, &list, &n, &err));
    ASSERT_EQ(n, 10000);
    store_event_array_free(list, n);
}

static void add(Store *s, const char *text, const char *pull, const char *namespace,
                const char *pod) {
    StoreEvent e = { .type = (char *)"t",
                     .text = (char *)text,
                     .pull = (char *)pull,
                     .pod_namespace = (char *)namespace,
                     .pod_name = (char *)pod };
    Err err;

    ASSERT_OK(store_event_add(s, &e, NULL, &err));
}

static const struct {
    EventFilter filter;
    const char *found;
} searches[] = {
    { { NULL, NULL, NULL }, "abcde" }, { { "", "", "" }, "abcde" },
    { { .pull = "1" }, "ac" },         { { .pull = "3" }, "" },
    { { .pod_name = "p" }, "bcd" },    { { .pod_namespace = "n", .pod_name = "p" }, "bc" },
    { { .pod_namespace = "m" }, "d" }, { { .pull = "1", .pod_name = "p" }, "c" },
};

TEST(history_finds_the_events_of_a_pull_and_of_a_pod) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);

    add(s, "a", "1", NULL, NULL);
    add(s, "b", NULL, "n", "p");
    add(s, "c", "1", "n", "p");
    add(s, "d", "2", "m", "p");
    add(s, "e", NULL, NULL, NULL);
    for (size_t i = 0; i < ELEMENTSOF(searches); i++) {
        char found[8] = "";
        StoreEvent *list;
        size_t n;
        Err err;

        ASSERT_OK(store_event_list(s, &searches[i].filter, 100, &list, &n, &err));
        for (size_t k = 0; k < n; k++) {
            found[k] = *list[k].text;
            ASSERT_TRUE(event_filter_matches(&searches[i].filter, &list[k]));
        }
        ASSERT_STREQ(found, searches[i].found);
        store_event_array_free(list, n);
    }
    ASSERT_TRUE(!event_filter_matches(&searches[2].filter, &(StoreEvent){ .pull = NULL }));
}
