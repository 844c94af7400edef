/* SPDX-License-Identifier: Apache-2.0 */
/* test_build_id: libraries have ids of their own; what is no library has none. */
#include "base/build_id.h"

#include "tests/unit/test.h"

#include <jansson.h>
#include <systemd/sd-event.h>

TEST(each_library_has_its_own) {
    uint8_t event[32] = { 0 }, json[32] = { 0 }, again[32] = { 0 };
    size_t n = build_id_of((const void *)(uintptr_t)sd_event_new, event, sizeof(event));

    ASSERT_EQ(n, 20); /* a SHA-1, as linkers make them */
    ASSERT_EQ(build_id_of((const void *)(uintptr_t)json_object, json, sizeof(json)), n);
    ASSERT_TRUE(memcmp(event, json, n) != 0);
    ASSERT_EQ(build_id_of((const void *)(uintptr_t)sd_event_exit, again, sizeof(again)), n);
    ASSERT_MEMEQ(event, again, n);
    ASSERT_EQ(build_id_of((const void *)(uintptr_t)sd_event_new, again, 5), 5);
}

TEST(what_is_in_no_library_has_none) {
    uint8_t id[32];
    int here = 0;

    ASSERT_EQ(build_id_of(&here, id, sizeof(id)), 0);
    ASSERT_EQ(build_id_of(NULL, id, sizeof(id)), 0);
}
