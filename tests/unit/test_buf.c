/* SPDX-License-Identifier: Apache-2.0 */
/* test_buf: growth up to the cap, taking from the front, handing over. */
#include "base/buf.h"

#include "tests/unit/test.h"

TEST(append_grows_to_the_cap_and_not_beyond) {
    _cleanup_(buf_done) Buf b = BUF_INIT(1000);

    for (int i = 0; i < 100; i++)
        ASSERT_OK(buf_append(&b, "0123456789", 10));
    ASSERT_EQ(b.len, 1000);
    ASSERT_ERR(buf_append(&b, "x", 1), -E2BIG);
    ASSERT_EQ(b.len, 1000);
    ASSERT_OK(buf_append(&b, NULL, 0));
    ASSERT_MEMEQ(b.data + 990, "0123456789", 10);
}

TEST(consume_moves_the_rest_to_the_front) {
    _cleanup_(buf_done) Buf b = BUF_INIT(100);

    ASSERT_OK(buf_append(&b, "abcdef", 6));
    buf_consume(&b, 2);
    ASSERT_EQ(b.len, 4);
    ASSERT_MEMEQ(b.data, "cdef", 4);
    buf_consume(&b, 4);
    ASSERT_EQ(b.len, 0);
}

TEST(reserve_gives_room_that_is_not_counted) {
    _cleanup_(buf_done) Buf b = BUF_INIT(10);
    uint8_t *to;

    ASSERT_OK(buf_reserve(&b, 10, &to));
    ASSERT_EQ(b.len, 0);
    memcpy(to, "0123456789", 10);
    b.len += 10;
    ASSERT_ERR(buf_reserve(&b, 1, &to), -E2BIG);
    ASSERT_ERR(buf_reserve(&b, SIZE_MAX, &to), -E2BIG);
}

TEST(take_string_ends_with_nul_and_leaves_nothing) {
    Buf b = BUF_INIT(3);
    _cleanup_free_ char *s = NULL, *none = NULL;

    ASSERT_OK(buf_append(&b, "abc", 3)); /* full: the NUL is not counted */
    s = buf_take_string(&b);
    ASSERT_STREQ(s, "abc");
    ASSERT_TRUE(b.data == NULL);
    ASSERT_EQ(b.len, 0);
    none = buf_take_string(&b);
    ASSERT_STREQ(none, "");
    ASSERT_OK(buf_append(&b, "x", 1));
    buf_done(&b);
    ASSERT_EQ(b.alloc, 0);
}
