/* SPDX-License-Identifier: Apache-2.0 */
/* test_restore: what was noted comes back, if the files and the list are what they were. */
#include "oci/restore.h"

#include "base/fs.h"
#include "tests/unit/test.h"

#include <fcntl.h>

#define BUFFER 4096
#define LAYER  3
#define BLOB   (2 * BUFFER + 13) /* bytes of it, three times as many unpacked */

typedef struct Fixture {
    TmpDir *dir;
    Seen *seen;
    uint8_t boot[RESUME_BOOT_BYTES];
    Checkpoint *c;
    EntryLog *log;
    EntryLogMark list;
    Restored restored;
    atomic_bool cancelled;
    atomic_uint_fast64_t proved;
    UnpackNow now;
    size_t buffer_bytes;
    Err err;
} Fixture;

static void add(Fixture *f, const char *path, const char *content, bool with_file, bool exec) {
    LayerEntry e = { .type = ENTRY_TYPE_FILE,
                     .path = (char *)(uintptr_t)path,
                     .size = strlen(content),
                     .executable = exec,
                     .ingest = with_file ? (char *)(uintptr_t)path : NULL };

    digest_of(&e.digest, content, strlen(content));
    if (with_file)
        ASSERT_OK(fs_write_file_durably(tmpdir_fd(f->dir), path, content, strlen(content), 0444,
                                        &f->err));
    ASSERT_OK(entry_log_add(f->log, &e, &f->err));
}

static void note_of(Fixture *f, const DecoderState *decoder) {
    static uint8_t pending[] = { 1, 2 };
    char path[] = "the/open/file";
    UnpackPlace unpack = {
        .decoder = *decoder,
        .decoded = 3 * BLOB,
        .pax = true,
        .used = { .bytes = 10000, .entries = 11, .files = 5 },
        .entry = { .type = ENTRY_TYPE_FILE, .path = path, .size = 9000, .executable = true },
        .open = { .written = { 4096, { { 77 } } }, .pending = pending, .n_pending = 2 },
    };
    RestorePlace place = { .unpack = &unpack,
                           .mark = { .offset = 2 * BUFFER, .hash.words = { 5, 6 } },
                           .skip = 13,
                           .list = f->list };

    ASSERT_OK(restore_note(f->c, &place, &f->err));
}

static void note(Fixture *f) {
    note_of(f, &(DecoderState){ .codec = CODEC_ZSTD });
}

static void open_checkpoint(Fixture *f) {
    CheckpointOptions o = { .dir_fd = tmpdir_fd(f->dir),
                            .digest.bytes = { 7 },
                            .size = 100000,
                            .layer = LAYER,
                            .boot = f->boot };

    f->c = checkpoint_free(f->c);
    checkpoint_new(&f->c, &o);
}

static void fixture_open(Fixture *f) {
    *f = (Fixture){ .dir = tmpdir_new(), .seen = seen_new(), .buffer_bytes = BUFFER };
    open_checkpoint(f);
    ASSERT_OK(entry_log_new(&f->log, tmpdir_fd(f->dir), "ab", LAYER, &f->err));
    add(f, "early", "content two", false, true); /* its file was slower */
    add(f, "one", "content one", true, false);
    add(f, "two", "content two", true, true);
    add(f, "same", "content one", false, false);
    ASSERT_OK(entry_log_mark(f->log, &f->list, &f->err));
    f->log = entry_log_free(f->log);
}

static void fixture_close(Fixture *f) {
    restored_done(&f->restored);
    f->c = checkpoint_free(f->c);
    f->seen = seen_free(f->seen);
    f->dir = tmpdir_free(f->dir);
}

static int restore(Fixture *f) {
    RestoreOptions o = { .dir_fd = tmpdir_fd(f->dir),
                         .name = "ab",
                         .layer = LAYER,
                         .buffer_bytes = f->buffer_bytes,
                         .cancelled = &f->cancelled,
                         .proved = &f->proved,
                         .now = &f->now };

    restored_done(&f->restored);
    f->seen = seen_free(f->seen);
    f->seen = seen_new();
    open_checkpoint(f);
    o.seen = f->seen;
    o.checkpoint = f->c;
    return restore_layer(&f->restored, &o, &f->err);
}

TEST(what_was_noted_comes_back) {
    const UnpackPlace *u;
    Digest digest;
    Fixture f;

    fixture_open(&f);
    ASSERT_EQ(restore(&f), 0); /* nothing yet */
    note(&f);
    ASSERT_EQ(restore(&f), 1);
    u = &f.restored.place;
    ASSERT_TRUE(!f.restored.complete && f.restored.log);
    ASSERT_EQ(f.restored.mark.offset, 2 * BUFFER);
    ASSERT_EQ(f.restored.mark.hash.words[1], 6);
    ASSERT_EQ(f.restored.skip, 13);
    ASSERT_EQ(u->decoder.codec, CODEC_ZSTD);
    ASSERT_EQ(u->decoded, 3 * BLOB);
    ASSERT_TRUE(u->pax);
    ASSERT_EQ(u->used.bytes, 10000);
    ASSERT_EQ(u->used.entries, 11);
    ASSERT_EQ(u->used.files, 5);
    ASSERT_STREQ(u->entry.path, "the/open/file");
    ASSERT_EQ(u->entry.size, 9000);
    ASSERT_TRUE(u->entry.executable);
    ASSERT_EQ(u->open.written.bytes, 4096);
    ASSERT_EQ(u->open.written.digest.bytes[0], 77);
    ASSERT_EQ(u->open.n_pending, 2);
    ASSERT_EQ(u->open.pending[1], 2);
    ASSERT_EQ(u->blob, BLOB);
    ASSERT_EQ(atomic_load(&f.proved), 22);
    ASSERT_EQ(atomic_load(&f.now.there), BLOB + (9000 - 4096 - 2) / 3); /* what is to come of it */
    digest_of(&digest, "content two", 11);
    ASSERT_TRUE(seen_test_and_add(f.seen, &digest, true)); /* it is known again */
    fixture_close(&f);
}

TEST(a_complete_layer_needs_nothing_more) {
    Fixture f;

    fixture_open(&f);
    note(&f);
    ASSERT_OK(restore_note_complete(f.c, &f.list, &f.err));
    ASSERT_EQ(restore(&f), 1);
    ASSERT_TRUE(f.restored.complete);
    ASSERT_EQ(atomic_load(&f.now.there), 100000);
    ASSERT_EQ(f.restored.list.bytes, f.list.bytes);
    ASSERT_EQ(f.restored.used.bytes, 22); /* two have a file */
    ASSERT_EQ(f.restored.used.entries, 4);
    fixture_close(&f);
}

static void make(Fixture *f, const char *name) {
    ASSERT_OK(fs_write_file_durably(tmpdir_fd(f->dir), name, "x", 1, 0444, &f->err));
}

/* Nor does it keep its space. */
TEST(what_is_not_as_it_was_is_not_gone_on_with) {
    for (int damage = 0; damage < 7; damage++) {
        int fd;
        Fixture f;

        fixture_open(&f);
        if (damage == 5) { /* an entry that counts on content of nobody */
            ASSERT_EQ(unlinkat(tmpdir_fd(f.dir), "ab-entries", 0), 0);
            ASSERT_OK(entry_log_new(&f.log, tmpdir_fd(f.dir), "ab", LAYER, &f.err));
            add(&f, "same", "of another layer", false, false);
            ASSERT_OK(entry_log_mark(f.log, &f.list, &f.err));
            f.log = entry_log_free(f.log);
        }
        note(&f);
        make(&f, "ab-7");
        make(&f, "abc-7"); /* of another layer */
        fd = openat(tmpdir_fd(f.dir), "one", O_WRONLY);
        if (damage == 0) /* a byte */
            ASSERT_EQ(pwrite(fd, "C", 1, 0), 1);
        if (damage == 1) /* more than there was */
            ASSERT_EQ(pwrite(fd, "!", 1, 11), 1);
        if (damage == 2) /* less */
            ASSERT_OK(ftruncate(fd, 10));
        if (damage == 3) /* no file */
            ASSERT_EQ(unlinkat(tmpdir_fd(f.dir), "one", 0), 0);
        if (damage == 4) /* no list */
            ASSERT_EQ(unlinkat(tmpdir_fd(f.dir), "ab-entries", 0), 0);
        if (damage == 6) /* another boot: what is not durable counts for nothing */
            f.boot[0]++;
        (void)close(fd);
        ASSERT_EQ(restore(&f), 0);
        ASSERT_TRUE(!f.restored.log && !f.restored.message);
        ASSERT_EQ(atomic_load(&f.now.there), 0);
        ASSERT_ERR(faccessat(tmpdir_fd(f.dir), "ab-7", F_OK, 0), -1);
        ASSERT_OK(faccessat(tmpdir_fd(f.dir), "abc-7", F_OK, 0));
        fixture_close(&f);
    }
}

/* One that cannot be used must not end the pull, now and each time it is tried again. */
TEST(a_decoder_of_another_library_is_not_gone_on_with) {
    uint8_t state[] = { 9, 8, 7 };
    Fixture f;

    fixture_open(&f);
    note_of(&f, &(DecoderState){
                    .codec = CODEC_GZIP, .in_frame = true, .data = state, .n = sizeof(state) });
    ASSERT_EQ(restore(&f), 0);
    ASSERT_TRUE(!f.restored.log && !f.restored.message);
    fixture_close(&f);
}

TEST(other_buffers_need_whole_ones) {
    Fixture f;

    fixture_open(&f);
    note(&f);
    f.buffer_bytes = 2 * BUFFER;
    ASSERT_EQ(restore(&f), 1);
    f.buffer_bytes = 4 * BUFFER;
    ASSERT_EQ(restore(&f), 0);
    fixture_close(&f);
}

TEST(cancelling_ends_it) {
    Fixture f;

    fixture_open(&f);
    note(&f);
    atomic_store(&f.cancelled, true);
    ASSERT_ERR(restore(&f), -ECANCELED);
    fixture_close(&f);
}
