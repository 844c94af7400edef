/* SPDX-License-Identifier: Apache-2.0 */
/* test_unpack_file: what is said when a file of a tar finds no space. */
#include "oci/unpack_file.h"

#include "tests/unit/small_disk.h"

/* The first file has the last inode, and more bytes than there are. */
TEST(unpack_file_says_what_is_missing) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_close_ int full = small_disk(dir, 2);
    _cleanup_(unpack_file_freep) UnpackFile *first = NULL, *second = NULL;
    uint8_t data[10] = { 0 };
    Err err = { "" };

    if (full < 0)
        SKIP("a mount namespace of its own is refused");
    unpack_file_new(&first, full);
    unpack_file_begin(first, "first", MiB(65), false);
    ASSERT_ERR(unpack_file_write(first, data, sizeof(data), &err), -ENOSPC);
    ASSERT_STREQ(err.text, "no space left in the store for a file of the tar: "
                           "free space on its file system");
    unpack_file_new(&second, full);
    unpack_file_begin(second, "second", sizeof(data), false);
    ASSERT_ERR(unpack_file_write(second, data, sizeof(data), &err), -ENOSPC);
    ASSERT_STRSTR(err.text, "for a file of the tar: no inodes are left on its file system");
    ASSERT_OK(unpack_file_end(first, false, &err));
    ASSERT_OK(unpack_file_write(second, data, sizeof(data), &err));
    ASSERT_OK(unpack_file_end(second, true, &err));
}
