/* SPDX-License-Identifier: Apache-2.0 */
/* test_err: sentences, prefixes and what is said when nobody said anything. */
#include "tests/unit/test.h"

TEST(set_gives_the_sentence_and_the_number) {
    Err err = { 0 };

    ASSERT_ERR(err_set(&err, -EINVAL, "line %d", 3), -EINVAL);
    ASSERT_STREQ(err_text(&err, -EINVAL), "line 3");
}

TEST(errno_and_errnum_say_the_reason) {
    Err err = { 0 };

    errno = ENOSPC;
    ASSERT_ERR(err_errno(&err, "write %s", "x"), -ENOSPC);
    ASSERT_STREQ(err.text, "write x: No space left on device");
    ASSERT_ERR(err_errnum(&err, -EPERM, "open"), -EPERM);
    ASSERT_STREQ(err.text, "open: Operation not permitted");
    errno = 0;
    ASSERT_ERR(err_errno(&err, "odd"), -EIO);
}

TEST(a_quota_is_a_lack_of_space) {
    Err err = { 0 };

    errno = EDQUOT;
    ASSERT_ERR(err_errno(&err, "write"), -ENOSPC);
    ASSERT_STREQ(err.text, "write: Disk quota exceeded");
    ASSERT_ERR(err_errnum(&err, -EDQUOT, "link"), -ENOSPC);
    ASSERT_STREQ(err.text, "link: Disk quota exceeded");
}

TEST(prefix_comes_before_what_is_there) {
    Err err = { 0 };

    (void)err_set(&err, -EIO, "disk");
    ASSERT_ERR(err_prefix(&err, -EIO, "layer %d", 2), -EIO);
    ASSERT_STREQ(err.text, "layer 2: disk");
    err.text[0] = '\0';
    ASSERT_ERR(err_prefix(&err, -EIO, "layer"), -EIO);
    ASSERT_STREQ(err.text, "layer: Input/output error");
}

TEST(a_missing_sentence_is_the_errors_name) {
    Err err = { 0 };

    ASSERT_STREQ(err_text(NULL, -ENOENT), "No such file or directory");
    ASSERT_STREQ(err_text(&err, -ENOENT), "No such file or directory");
    ASSERT_ERR(err_set(NULL, -EINVAL, "x"), -EINVAL);
    errno = EPERM;
    ASSERT_ERR(err_errno(NULL, "x"), -EPERM);
    ASSERT_ERR(err_errnum(NULL, -EPERM, "x"), -EPERM);
    ASSERT_ERR(err_prefix(NULL, -EPERM, "x"), -EPERM);
}

TEST(a_long_sentence_is_cut) {
    char text[2000];
    Err err = { 0 };

    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    (void)err_set(&err, -EIO, "%s", text);
    ASSERT_EQ(strlen(err.text), sizeof(err.text) - 1);
    (void)err_prefix(&err, -EIO, "%s", text);
    ASSERT_EQ(strlen(err.text), sizeof(err.text) - 1);
    ASSERT_ERR(err_errnum(&err, -EIO, "%s", text), -EIO);
}
