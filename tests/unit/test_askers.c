/* SPDX-License-Identifier: Apache-2.0 */
/* test_askers: the cause stays the first, each volume is new once, and there is a cap. */
#include "agent/askers.h"
#include "tests/unit/test.h"

TEST(askers_know_a_volume_once) {
    const Asker person = { 0 }, a = { "v1", "ns", "a" }, b = { "v2", NULL, NULL };
    Askers list = { 0 };

    ASSERT_TRUE(askers_add(&list, &person)); /* cache-ctl began it */
    ASSERT_TRUE(askers_add(&list, &a));
    ASSERT_TRUE(!askers_add(&list, &a));
    ASSERT_TRUE(!askers_add(&list, &person));
    ASSERT_TRUE(askers_add(&list, &b));
    ASSERT_EQ(list.n, 3);
    ASSERT_STREQ(list.items[0].volume_id, NULL);
    ASSERT_STREQ(list.items[1].pod_name, "a");
    ASSERT_TRUE(list.items[1].pod_name != a.pod_name);
    askers_done(&list);
    ASSERT_EQ(list.n, 0);
}

TEST(askers_have_a_cap) {
    Askers list = { 0 };
    unsigned n = 0;

    for (unsigned i = 0; i < 2000; i++) {
        char id[16];

        (void)snprintf(id, sizeof(id), "v%u", i);
        n += askers_add(&list, &(Asker){ .volume_id = id });
    }
    ASSERT_EQ(n, 1024);
    ASSERT_EQ(list.n, 1024);
    askers_done(&list);
}
