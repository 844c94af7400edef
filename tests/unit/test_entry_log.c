/* SPDX-License-Identifier: Apache-2.0 */
/* test_entry_log: entries come back as messages of bounded size, in order; a list is gone on with
 * where it was marked, if it is what it was. */
#include "oci/entry_log.h"

#include "proto/worker.pb-c.h"
#include "tests/unit/test.h"

#define N 2500

TEST(entries_come_back_in_order_and_in_parts) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(entry_log_freep) EntryLog *log = NULL;
    _cleanup_free_ uint8_t *data = NULL;
    _cleanup_close_ int fd = -EBADF;
    EntryLogMark mark;
    uint64_t bytes, at = 0;
    size_t seen = 0, messages = 0;
    char path[32];
    Err err;

    ASSERT_OK(entry_log_new(&log, tmpdir_fd(dir), "ab", 7, &err));
    for (unsigned i = 0; i < N; i++) {
        LayerEntry e = { .type = i % 2 ? ENTRY_TYPE_FILE : ENTRY_TYPE_DIRECTORY,
                         .path = path,
                         .size = i };
        (void)snprintf(path, sizeof(path), "d/%u", i);
        ASSERT_OK(entry_log_add(log, &e, &err));
    }
    ASSERT_OK(entry_log_mark(log, &mark, &err));
    fd = entry_log_take(log);
    bytes = mark.bytes;
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

    ASSERT_ERR(entry_log_new(&log, -1, "ab", 0, &err), -EBADF);
}

static int count(void *arg, const LayerEntry *e, Err *err) {
    unsigned *n = arg;
    char path[32];

    (void)snprintf(path, sizeof(path), "d/%u", *n);
    if (*n == 40)
        return err_set(err, -EIO, "the reader has enough");
    ASSERT_STREQ(e->path, path);
    ASSERT_EQ(e->size, *n);
    ASSERT_EQ(e->type, *n % (ENTRY_TYPE_COUNT - 1));
    ASSERT_EQ(e->executable, e->type == ENTRY_TYPE_FILE && *n % 3 == 0);
    if (e->type == ENTRY_TYPE_FILE) {
        ASSERT_EQ(e->digest.bytes[5], *n);
        ASSERT_STREQ(e->ingest, "there");
    } else {
        ASSERT_TRUE(!e->ingest);
    }
    ASSERT_TRUE(e->type == ENTRY_TYPE_SYMLINK ? streq(e->target, "target") : !e->target);
    ++*n;
    return 0;
}

static void add(EntryLog *log, unsigned from, unsigned to) {
    char path[32], target[] = "target", ingest[] = "there";
    Err err;

    for (unsigned i = from; i < to; i++) {
        LayerEntry e = { .type = i % (ENTRY_TYPE_COUNT - 1), .path = path, .size = i };
        (void)snprintf(path, sizeof(path), "d/%u", i);
        e.executable = e.type == ENTRY_TYPE_FILE && i % 3 == 0;
        e.digest.bytes[5] = (uint8_t)i;
        e.target = e.type == ENTRY_TYPE_SYMLINK ? target : NULL;
        e.ingest = e.type == ENTRY_TYPE_FILE ? ingest : NULL;
        ASSERT_OK(entry_log_add(log, &e, &err));
    }
}

TEST(a_list_is_gone_on_with_where_it_was_marked) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    EntryLog *log = NULL;
    EntryLogMark first, second;
    unsigned n = 0;
    EntryLogResume from = { .name = "ab", .layer = 7, .visit = count, .arg = &n };
    Err err;

    ASSERT_OK(entry_log_new(&log, tmpdir_fd(dir), "ab", 7, &err));
    add(log, 0, 10);
    ASSERT_OK(entry_log_mark(log, &first, &err));
    add(log, 90, 99); /* is dropped */
    ASSERT_OK(entry_log_mark(log, &second, &err));
    log = entry_log_free(log);
    from.mark = first;
    ASSERT_OK(entry_log_reopen(&log, tmpdir_fd(dir), &from, &err));
    ASSERT_EQ(n, 10);
    add(log, 10, 30);
    ASSERT_OK(entry_log_mark(log, &from.mark, &err));
    log = entry_log_free(log);
    n = 0;
    ASSERT_OK(entry_log_reopen(&log, tmpdir_fd(dir), &from, &err));
    ASSERT_EQ(n, 30);
    entry_log_remove(log);
    ASSERT_EQ(tmpdir_count(dir), 0);
    log = entry_log_free(log);
}

TEST(another_list_is_not_gone_on_with) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    EntryLog *log = NULL;
    EntryLogMark mark;
    unsigned n = 0;
    EntryLogResume from = { .name = "ab", .layer = 7, .visit = count, .arg = &n }, bad;
    Err err;

    ASSERT_OK(entry_log_new(&log, tmpdir_fd(dir), "ab", 7, &err));
    add(log, 0, 50);
    ASSERT_OK(entry_log_mark(log, &mark, &err));
    log = entry_log_free(log);
    from.mark = mark;
    ASSERT_ERR(entry_log_reopen(&log, tmpdir_fd(dir), &from, &err), -EIO); /* of the visitor */
    ASSERT_STREQ(err.text, "the reader has enough");
    n = 0;
    bad = from;
    bad.mark.bytes--;
    ASSERT_ERR(entry_log_reopen(&log, tmpdir_fd(dir), &bad, &err), -EBADMSG);
    bad = from;
    bad.mark.bytes++;
    ASSERT_ERR(entry_log_reopen(&log, tmpdir_fd(dir), &bad, &err), -EBADMSG);
    bad = from;
    bad.mark.digest.bytes[0] ^= 1;
    ASSERT_ERR(entry_log_reopen(&log, tmpdir_fd(dir), &bad, &err), -EBADMSG);
    bad = from;
    bad.layer = 8;
    ASSERT_ERR(entry_log_reopen(&log, tmpdir_fd(dir), &bad, &err), -EBADMSG);
    bad = from;
    bad.name = "cd";
    ASSERT_ERR(entry_log_reopen(&log, tmpdir_fd(dir), &bad, &err), -ENOENT);
    ASSERT_EQ(n, 0); /* nothing was shown */
}
