/* SPDX-License-Identifier: Apache-2.0 */
/* test_checkpoint: the best whole slot of this blob, layer and boot counts; a durable one after a
 * boot, too. */
#include "oci/checkpoint.h"

#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>

#define FILE_NAME "0700000000000000000000000000000000000000000000000000000000000000.tar"

typedef struct Fixture {
    TmpDir *dir;
    uint8_t boot[RESUME_BOOT_BYTES];
    CheckpointOptions o;
    Checkpoint *c;
    CheckpointMessage *m[CHECKPOINT_SLOTS];
    Err err;
} Fixture;

static void fixture_open(Fixture *f) {
    *f = (Fixture){ .dir = tmpdir_new(), .boot = { 1, 2, 3 } };
    f->o = (CheckpointOptions){ .dir_fd = tmpdir_fd(f->dir),
                                .digest.bytes = { 7 },
                                .size = 1000,
                                .layer = 4,
                                .boot = f->boot };
    checkpoint_new(&f->c, &f->o);
}

static void forget(Fixture *f) {
    for (size_t i = 0; i < ELEMENTSOF(f->m); i++)
        f->m[i] = checkpoint_message_free(f->m[i]);
}

static void fixture_close(Fixture *f) {
    forget(f);
    f->c = checkpoint_free(f->c);
    f->dir = tmpdir_free(f->dir);
}

/* What a later worker finds. */
static void load(Fixture *f) {
    forget(f);
    f->c = checkpoint_free(f->c);
    checkpoint_new(&f->c, &f->o);
    checkpoint_load(f->c, f->m);
}

static void save(Fixture *f, uint64_t offset, size_t pending) {
    CheckpointMessage m = MODELCACHED__CHECKPOINT__TAR_CHECKPOINT__INIT;
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, pending + 1);

    m.offset = offset;
    m.pending = (ProtobufCBinaryData){ pending, data };
    ASSERT_OK(checkpoint_save(f->c, &m, &f->err));
}

static void damage(Fixture *f, unsigned slot) {
    _cleanup_close_ int fd = openat(f->o.dir_fd, FILE_NAME, O_WRONLY);

    ASSERT_EQ(pwrite(fd, "x", 1, (off_t)(slot * CHECKPOINT_SLOT_BYTES + 3000)), 1);
}

TEST(the_last_one_counts_and_the_one_before_when_it_is_not_whole) {
    Fixture f;

    fixture_open(&f);
    ASSERT_TRUE(!checkpoint_exists(f.c));
    ASSERT_EQ(tmpdir_count(f.dir), 0);
    for (uint64_t i = 1; i <= 5; i++)
        save(&f, i, (size_t)(i * 1000));
    ASSERT_TRUE(checkpoint_exists(f.c));
    load(&f);
    ASSERT_TRUE(f.m[0] && f.m[1] && !f.m[2]);
    ASSERT_EQ(f.m[0]->offset, 5);
    ASSERT_EQ(f.m[0]->pending.len, 5000);
    ASSERT_EQ(f.m[1]->offset, 4);
    save(&f, 6, 6000); /* not in the place of the best */
    load(&f);
    ASSERT_EQ(f.m[0]->offset, 6);
    ASSERT_EQ(f.m[1]->offset, 5);
    damage(&f, 2); /* 2, 4, 6 */
    load(&f);
    ASSERT_TRUE(f.m[0] && !f.m[1]);
    ASSERT_EQ(f.m[0]->offset, 5);
    checkpoint_remove(f.c);
    ASSERT_EQ(tmpdir_count(f.dir), 0);
    ASSERT_TRUE(!checkpoint_exists(f.c));
    save(&f, 7, 0);
    load(&f);
    ASSERT_EQ(f.m[0]->offset, 7);
    fixture_close(&f);
}

TEST(after_a_boot_only_a_durable_one_counts) {
    Fixture f;

    fixture_open(&f);
    ASSERT_ERR(checkpoint_settle(f.c, &f.err), -ENOENT);
    save(&f, 1, 10);
    save(&f, 2, 10);
    ASSERT_OK(checkpoint_settle(f.c, &f.err));
    save(&f, 3, 10);
    load(&f);
    ASSERT_TRUE(f.m[0] && f.m[1] && f.m[2]);
    ASSERT_EQ(f.m[0]->offset, 3);
    f.boot[0]++;
    load(&f);
    ASSERT_TRUE(f.m[0] && !f.m[1]);
    ASSERT_EQ(f.m[0]->offset, 2);
    save(&f, 9, 10); /* goes before it, though it has a new boot */
    load(&f);
    ASSERT_EQ(f.m[0]->offset, 9);
    fixture_close(&f);
}

/* The time of the file is that of the last progress (cache/partial_tries.h). */
TEST(one_that_was_only_loaded_is_not_written_again) {
    struct stat before, after;
    Fixture f;

    fixture_open(&f);
    save(&f, 1, 10);
    load(&f);
    ASSERT_EQ(fstatat(tmpdir_fd(f.dir), FILE_NAME, &before, 0), 0);
    for (unsigned i = 0; i < 3; i++) {
        (void)usleep(10000); /* a tick of the file system's clock */
        ASSERT_OK(checkpoint_settle(f.c, &f.err));
    }
    ASSERT_EQ(fstatat(tmpdir_fd(f.dir), FILE_NAME, &after, 0), 0);
    ASSERT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    save(&f, 2, 10);
    ASSERT_OK(checkpoint_settle(f.c, &f.err));
    f.boot[0]++;
    load(&f);
    ASSERT_EQ(f.m[0]->offset, 2);
    fixture_close(&f);
}

TEST(one_that_was_removed_is_not_made_durable) {
    Fixture f;

    fixture_open(&f);
    save(&f, 1, 10);
    load(&f);
    checkpoint_remove(f.c);
    ASSERT_ERR(checkpoint_settle(f.c, &f.err), -ENOENT);
    save(&f, 2, 10);
    ASSERT_OK(checkpoint_settle(f.c, &f.err));
    fixture_close(&f);
}

TEST(one_of_another_blob_or_layer_is_not_ours) {
    Fixture f;

    fixture_open(&f);
    save(&f, 1, 0);
    f.o.size++;
    load(&f);
    ASSERT_TRUE(!f.m[0]);
    f.o.size--;
    f.o.layer++;
    load(&f);
    ASSERT_TRUE(!f.m[0]);
    f.o.layer--;
    f.o.digest.bytes[20]++;
    load(&f);
    ASSERT_TRUE(!f.m[0]);
    f.o.digest.bytes[20]--;
    load(&f);
    ASSERT_TRUE(f.m[0]);
    fixture_close(&f);
}

TEST(noise_and_links_are_no_checkpoints) {
    _cleanup_free_ uint8_t *noise = xnew_n(uint8_t, 3 * CHECKPOINT_SLOT_BYTES);
    Fixture f;
    int fd;

    fixture_open(&f);
    for (size_t i = 0; i < 3 * CHECKPOINT_SLOT_BYTES; i++)
        noise[i] = (uint8_t)(i * i >> 3);
    for (size_t n = 0; n < 4; n++) {
        static const size_t sizes[] = { 0, 10, 44, 3 * CHECKPOINT_SLOT_BYTES };

        fd = openat(f.o.dir_fd, FILE_NAME, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        memcpy(noise, "MCTARCP1", 8);
        ASSERT_EQ(write(fd, noise, sizes[n]), (ssize_t)sizes[n]);
        (void)close(fd);
        load(&f);
        ASSERT_TRUE(!f.m[0]);
    }
    checkpoint_remove(f.c);
    ASSERT_EQ(symlinkat("/etc/passwd", f.o.dir_fd, FILE_NAME), 0);
    load(&f);
    ASSERT_TRUE(!f.m[0] && !checkpoint_exists(f.c));
    fixture_close(&f);
}

TEST(one_that_cannot_be_written_is_an_error) {
    CheckpointMessage m = MODELCACHED__CHECKPOINT__TAR_CHECKPOINT__INIT;
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, CHECKPOINT_SLOT_BYTES);
    Fixture f;

    fixture_open(&f);
    m.pending = (ProtobufCBinaryData){ CHECKPOINT_SLOT_BYTES, data };
    ASSERT_ERR(checkpoint_save(f.c, &m, &f.err), -E2BIG);
    f.o.dir_fd = -EBADF;
    load(&f);
    m.pending.len = 0;
    ASSERT_ERR(checkpoint_save(f.c, &m, &f.err), -EBADF);
    ASSERT_STRSTR(f.err.text, "cannot note how far a layer is unpacked");
    fixture_close(&f);
}
