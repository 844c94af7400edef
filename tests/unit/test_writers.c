/* SPDX-License-Identifier: Apache-2.0 */
/* test_writers: files are written by threads, entries come in order, equal files once; failures and
 * an early end leave no thread and no open file. */
#include "oci/writers.h"

#include "base/fs.h"
#include "base/limits.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/stat.h>

#define FILES      2000
#define LARGE      (MiB(5) + 4097) /* more than there is memory for */
#define FAILING_AT 3

typedef struct Fixture {
    TmpDir *dir;
    Seen *seen;
    UnpackOptions o;
    Writers *writers;
    size_t told, ingested;
    size_t fail_at; /* the entry at which on_entry() fails; 0: none */
    Err err;
} Fixture;

static uint64_t size_of(size_t i) {
    return i % 50 == 49 ? MiB(1) + i : i * 37 % 9000;
}

static bool is_executable(size_t i) {
    return i % 7 == 0;
}

static void fill(uint8_t *data, size_t n, size_t i) {
    for (size_t k = 0; k < n; k++)
        data[k] = (uint8_t)(k * 31 + i + (k >> 8));
}

/* The entries are those of feed_all(), in order, with the digests of their content. */
static int on_entry(void *arg, const LayerEntry *e, Err *err) {
    Fixture *f = arg;
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, e->size + 1);
    char path[32];
    Digest digest;

    (void)snprintf(path, sizeof(path), "f%zu", f->told);
    ASSERT_STREQ(e->path, path);
    if (e->type == ENTRY_TYPE_SYMLINK) {
        ASSERT_STREQ(e->target, "there");
    } else {
        fill(data, e->size, f->told % 500);
        digest_of(&digest, data, e->size);
        ASSERT_TRUE(digest_equal(&digest, &e->digest));
        f->ingested += e->ingest != NULL;
    }
    if (++f->told == f->fail_at)
        return err_set(err, -EIO, "the list is full");
    return 0;
}

static void fixture_open(Fixture *f) {
    *f = (Fixture){ .dir = tmpdir_new(), .seen = seen_new() };
    f->o = (UnpackOptions){
        .dir_fd = tmpdir_fd(f->dir), .name = "7", .seen = f->seen, .on_entry = on_entry, .arg = f
    };
    ASSERT_OK(writers_new(&f->writers, &f->o, &f->err));
}

static void fixture_close(Fixture *f) {
    f->writers = writers_free(f->writers);
    f->seen = seen_free(f->seen);
    f->dir = tmpdir_free(f->dir);
}

static int feed(Fixture *f, size_t i, uint64_t size, uint64_t content) {
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, size + 1);
    char path[32];
    LayerEntry e = {
        .type = ENTRY_TYPE_FILE, .path = path, .size = size, .executable = is_executable(i)
    };
    int r;

    (void)snprintf(path, sizeof(path), "f%zu", i);
    fill(data, size, content);
    r = writers_add(f->writers, &e, i, &f->err);
    for (uint64_t at = 0; r >= 0 && at < size;) { /* in pieces, as a decoder gives them */
        size_t n = (size_t)MIN(size - at, (uint64_t)10000);

        r = writers_write(f->writers, data + at, n, &f->err);
        at += n;
    }
    return r;
}

static int feed_link(Fixture *f, size_t i) {
    char path[32], target[] = "there";
    LayerEntry e = { .type = ENTRY_TYPE_SYMLINK, .path = path, .target = target };

    (void)snprintf(path, sizeof(path), "f%zu", i);
    return writers_add(f->writers, &e, 0, &f->err);
}

TEST(entries_come_in_order_with_their_digests) {
    struct stat st;
    Fixture f;

    fixture_open(&f);
    for (size_t i = 0; i < 500; i++)
        ASSERT_OK(i % 10 == 9 ? feed_link(&f, i) : feed(&f, i, size_of(i), i));
    ASSERT_OK(writers_finish(f.writers, &f.err));
    ASSERT_EQ(f.told, 500);
    ASSERT_EQ(f.ingested, 450); /* no two are the same */
    ASSERT_EQ(tmpdir_count(f.dir), f.ingested);
    ASSERT_OK(fstatat(tmpdir_fd(f.dir), "7-98", &st, 0));
    ASSERT_EQ(st.st_size, size_of(98));
    ASSERT_EQ(st.st_mode & 07777, 0555);
    ASSERT_OK(fstatat(tmpdir_fd(f.dir), "7-97", &st, 0));
    ASSERT_EQ(st.st_mode & 07777, 0444);
    fixture_close(&f);
}

TEST(equal_files_are_kept_once) {
    size_t different = 0;
    Fixture f;

    fixture_open(&f);
    for (size_t i = 0; i < FILES; i++) /* each content four times, one beyond the memory */
        ASSERT_OK(feed(&f, i, i % 500 == 99 ? LARGE : 100 + i % 500, i % 500));
    ASSERT_OK(writers_finish(f.writers, &f.err));
    for (size_t i = 0; i < 500; i++) /* executable or not makes two files of it */
        different += is_executable(i) || is_executable(i + 500) || is_executable(i + 1000) ||
                             is_executable(i + 1500)
                         ? 2
                         : 1;
    ASSERT_EQ(f.told, FILES);
    ASSERT_EQ(f.ingested, different);
    ASSERT_EQ(tmpdir_count(f.dir), different);
    fixture_close(&f);
}

TEST(a_file_that_cannot_be_written_ends_it) {
    Fixture f;
    int r = 0;

    fixture_open(&f);
    ASSERT_OK(mkdirat(tmpdir_fd(f.dir), "7-3", 0700)); /* the name of the fourth is taken */
    for (size_t i = 0; r >= 0 && i < FILES; i++)
        r = feed(&f, i, size_of(i), i);
    if (r >= 0)
        r = writers_finish(f.writers, &f.err);
    ASSERT_ERR(r, -EEXIST);
    ASSERT_STRSTR(f.err.text, "create");
    ASSERT_TRUE(f.told <= FAILING_AT);
    fixture_close(&f);
}

TEST(a_failure_of_the_list_ends_it) {
    Fixture f;
    int r = 0;

    fixture_open(&f);
    f.fail_at = FAILING_AT;
    for (size_t i = 0; r >= 0 && i < FILES; i++)
        r = feed(&f, i, size_of(i), i);
    ASSERT_ERR(r, -EIO);
    ASSERT_EQ(f.told, FAILING_AT);
    fixture_close(&f);
}

TEST(an_early_end_leaves_nothing_open) {
    char path[] = "f";
    LayerEntry e = { .type = ENTRY_TYPE_FILE, .path = path, .size = LARGE };
    _cleanup_free_ uint8_t *data = xnew_n(uint8_t, LARGE);
    Fixture f;

    fixture_open(&f);
    f.o.on_entry = NULL; /* nobody is told */
    ASSERT_OK(writers_add(f.writers, &e, 0, &f.err));
    ASSERT_OK(writers_write(f.writers, data, LARGE - 1, &f.err));
    fixture_close(&f); /* the runner looks for descriptors */
}
