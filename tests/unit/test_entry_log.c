/* SPDX-License-Identifier: Apache-2.0 */
/* test_entry_log: entries come back as messages of bounded size, in order; the list has no name. */
#include "oci/entry_log.h"

#include "proto/worker.pb-c.h"
#include "tests/unit/test.h"

#define N 2500

TEST(entries_come_back_in_order_and_in_parts) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(entry_log_freep) EntryLog *log = NULL;
    _cleanup_free_ uint8_t *data = NULL;
    _cleanup_close_ int fd = -EBADF;
    uint64_t bytes, at = 0;
    size_t seen = 0, messages = 0;
    char path[32];
    Err err;

    ASSERT_OK(entry_log_new(&log, tmpdir_fd(dir), 7, &err));
    for (unsigned i = 0; i < N; i++) {
        LayerEntry e = { .type = i % 2 ? ENTRY_TYPE_FILE : ENTRY_TYPE_DIRECTORY,
                         .path = path,
                         .size = i };
        (void)snprintf(path, sizeof(path), "d/%u", i);
        ASSERT_OK(entry_log_add(log, &e, &err));
    }
    ASSERT_OK(entry_log_finish(log, &fd, &bytes, &err));
    ASSERT_EQ(tmpdir_count(dir), 0);
    data = xcalloc(1, (size_t)bytes);
    ASSERT_EQ(pread(fd, data, (size_t)bytes, 0), (ssize_t)bytes);
    for (; at < bytes; messages++) {
        size_t n = (size_t)data[at] | (size_t)data[at + 1] << 8 | (size_t)data[at + 2] << 16;
        Modelcached__Worker__FromWorker *m =
            modelcached__worker__from_worker__unpack(NULL, n, data + at + 4);

        ASSERT_TRUE(m && m->message_case == MODELCACHED__WORKER__FROM_WORKER__MESSAGE_ENTRIES);
        ASSERT_EQ(m->entries->layer, 7);
        ASSERT_TRUE(m->entries->n_entries <= 1000);
        for (size_t i = 0; i < m->entries->n_entries; i++, seen++) {
            ASSERT_EQ(m->entries->entries[i]->size, seen);
            ASSERT_EQ(m->entries->entries[i]->digest.len, seen % 2 ? DIGEST_BYTES : 0);
        }
        modelcached__worker__from_worker__free_unpacked(m, NULL);
        at += 4 + n;
    }
    ASSERT_EQ(seen, N);
    ASSERT_EQ(messages, 3);
}

TEST(a_folder_that_cannot_be_written_to_is_an_error) {
    EntryLog *log = NULL;
    Err err;

    ASSERT_ERR(entry_log_new(&log, -1, 0, &err), -EBADF);
}
