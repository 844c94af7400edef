/* SPDX-License-Identifier: Apache-2.0 */
/* test_read_back: files of every length are hashed from the disk, whole or their first bytes. */
#include "cache/read_back.h"

#include "base/fs.h"
#include "tests/unit/test.h"

typedef struct Heard {
    uint64_t bytes, stop_at;
} Heard;

static int on_progress(void *arg, uint64_t n) {
    Heard *h = arg;

    h->bytes += n;
    return h->stop_at > 0 && h->bytes >= h->stop_at ? -ECANCELED : 0;
}

TEST(files_of_every_length_are_hashed) {
    static const size_t sizes[] = { 0,      1,          4095,           4096,   4097,
                                    100000, MiB(1) - 1, MiB(1) + 70000, MiB(2), MiB(2) + 5 };
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(read_back_freep) ReadBack *reader = NULL;
    _cleanup_(hasher_freep) Hasher *hasher = hasher_new();
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, MiB(3));
    Heard heard = { 0 };
    Err err;

    for (size_t i = 0; i < MiB(3); i++)
        data[i] = (uint8_t)(i * 13 + (i >> 10));
    ASSERT_OK(read_back_new(&reader, on_progress, &heard, &err));
    for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
        const uint64_t limits[] = { sizes[i] + 1, sizes[i], sizes[i] / 2, 1 };

        ASSERT_OK(fs_write_file_durably(tmpdir_fd(dir), "file", data, sizes[i], 0600, &err));
        for (size_t k = 0; k < ELEMENTSOF(limits); k++) {
            _cleanup_close_ int fd = read_back_open(tmpdir_fd(dir), "file", k % 2 == 0);
            uint64_t want = MIN(limits[k], (uint64_t)sizes[i]), n;
            Digest got, expected;

            ASSERT_OK(fd);
            heard.bytes = 0;
            ASSERT_OK(read_back_hash(reader, fd, limits[k], hasher, &n));
            hasher_final(hasher, &got);
            digest_of(&expected, data, want);
            ASSERT_EQ(n, want);
            ASSERT_EQ(heard.bytes, want);
            ASSERT_TRUE(digest_equal(&got, &expected));
        }
    }
}

TEST(who_listens_can_end_it) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(read_back_freep) ReadBack *reader = NULL;
    _cleanup_(hasher_freep) Hasher *hasher = hasher_new();
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, MiB(3));
    _cleanup_close_ int fd = -EBADF;
    Heard heard = { .stop_at = MiB(2) };
    uint64_t n;
    Err err;

    ASSERT_OK(read_back_new(&reader, on_progress, &heard, &err));
    ASSERT_OK(fs_write_file_durably(tmpdir_fd(dir), "file", data, MiB(3), 0600, &err));
    fd = read_back_open(tmpdir_fd(dir), "file", true);
    ASSERT_ERR(read_back_hash(reader, fd, MiB(3), hasher, &n), -ECANCELED);
    ASSERT_EQ(n, MiB(2));
}

TEST(what_cannot_be_read_is_an_error) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(read_back_freep) ReadBack *reader = NULL;
    _cleanup_(hasher_freep) Hasher *hasher = hasher_new();
    uint64_t n = 7;
    Err err;

    ASSERT_OK(read_back_new(&reader, NULL, NULL, &err));
    ASSERT_ERR(read_back_open(tmpdir_fd(dir), "absent", true), -ENOENT);
    ASSERT_EQ(symlinkat("/etc/passwd", tmpdir_fd(dir), "link"), 0);
    ASSERT_ERR(read_back_open(tmpdir_fd(dir), "link", true), -ELOOP);
    ASSERT_ERR(read_back_hash(reader, tmpdir_fd(dir), 10, hasher, &n), -EISDIR);
    ASSERT_EQ(n, 0);
}
