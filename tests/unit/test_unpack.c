/* SPDX-License-Identifier: Apache-2.0 */
/* test_unpack: tars become entries and files; hostile ones become one clear sentence. */
#include "oci/unpack.h"

#include "base/fs.h"
#include "base/limits.h"
#include "tests/unit/test.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/sysmacros.h>

#define TAR_BYTES   MiB(32)
#define ENTRIES_MAX 64

/* One entry of a tar that a test writes. */
typedef struct Item {
    const char *name;
    char type; /* f d l(symlink) h(ard) c b p s */
    const char *target_or_content;
    unsigned mode;
    unsigned device; /* major; minor is 0 */
} Item;

/* The entries as text: "f a/b x 5 ingest", one a line. */
typedef struct Outcome {
    char text[8192];
    size_t n;
    LayerEntry last_file;
} Outcome;

typedef struct Bytes {
    const uint8_t *data;
    size_t n;
} Bytes;

static int next(void *arg, const uint8_t **ret, size_t *ret_n, Err *err) {
    Bytes *b = arg;

    (void)err;
    *ret = b->data;
    *ret_n = b->n;
    b->n = 0;
    return *ret_n > 0;
}

static int on_entry(void *arg, const LayerEntry *e, Err *err) {
    static const char types[] = "fdlhwo";
    Outcome *o = arg;

    (void)err;
    if (e->type == ENTRY_TYPE_FILE)
        o->last_file = *e;
    o->n += (size_t)snprintf(o->text + o->n, sizeof(o->text) - o->n, "%c %s%s%s%s%s%s\n",
                             types[e->type], e->path, e->target ? " > " : "",
                             e->target ? e->target : "", e->executable ? " x" : "",
                             e->ingest ? " = " : "", e->ingest ? e->ingest : "");
    return 0;
}

static mode_t type_of(char c) {
    switch (c) {
    case 'd':
        return AE_IFDIR;
    case 'l':
        return AE_IFLNK;
    case 'c':
        return AE_IFCHR;
    case 'b':
        return AE_IFBLK;
    case 'p':
        return AE_IFIFO;
    default:
        return AE_IFREG;
    }
}

static size_t tar_write(uint8_t *out, const Item *items, size_t n) {
    struct archive *a = archive_write_new();
    size_t used = 0;

    ASSERT_EQ(archive_write_set_format_pax_restricted(a), ARCHIVE_OK);
    ASSERT_EQ(archive_write_open_memory(a, out, TAR_BYTES, &used), ARCHIVE_OK);
    for (size_t i = 0; i < n; i++) {
        const char *content = items[i].target_or_content ? items[i].target_or_content : "";
        struct archive_entry *e = archive_entry_new();

        archive_entry_set_pathname(e, items[i].name);
        archive_entry_set_mode(e, type_of(items[i].type) | (items[i].mode ? items[i].mode : 0644));
        archive_entry_set_rdev(e, makedev(items[i].device, 0));
        if (items[i].type == 'f')
            archive_entry_set_size(e, (la_int64_t)strlen(content));
        if (items[i].type == 'l')
            archive_entry_set_symlink(e, content);
        if (items[i].type == 'h')
            archive_entry_set_hardlink(e, content);
        ASSERT_TRUE(archive_write_header(a, e) >= ARCHIVE_WARN); /* names that are not UTF-8 */
        if (items[i].type == 'f')
            ASSERT_EQ(archive_write_data(a, content, strlen(content)), (ssize_t)strlen(content));
        archive_entry_free(e);
    }
    ASSERT_EQ(archive_write_close(a), ARCHIVE_OK);
    ASSERT_EQ(archive_write_free(a), ARCHIVE_OK);
    return used;
}

typedef struct Fixture {
    TmpDir *dir;
    uint8_t *tar;
    size_t n;
    bool image;
    uint64_t max_bytes, max_entries; /* 0: the limits */
    UnpackBudget budget;
    Outcome outcome;
    Err err;
} Fixture;

static void fixture_open(Fixture *f) {
    ASSERT_TRUE(setlocale(LC_CTYPE, "C.UTF-8"));
    *f = (Fixture){ .dir = tmpdir_new(), .tar = xcalloc(1, TAR_BYTES) };
}

static void fixture_close(Fixture *f) {
    f->dir = tmpdir_free(f->dir);
    free(f->tar);
}

static int run(Fixture *f) {
    _cleanup_(seen_freep) Seen *seen = seen_new();
    _cleanup_(decoder_freep) Decoder *decoder = NULL;
    Bytes bytes = { f->tar, f->n };
    UnpackOptions o = { .dir_fd = tmpdir_fd(f->dir),
                        .name = "3",
                        .image = f->image,
                        .seen = seen,
                        .budget = &f->budget,
                        .on_entry = on_entry,
                        .arg = &f->outcome };
    UnpackUsed used;
    uint64_t max = f->max_bytes ? f->max_bytes : LIMIT_BLOB_BYTES;
    int r;

    atomic_init(&f->budget.bytes, max);
    atomic_init(&f->budget.entries, f->max_entries ? f->max_entries : LIMIT_TREE_ENTRIES);
    f->outcome = (Outcome){ .n = 0 };
    decoder_new(&decoder, CODEC_NONE, next, &bytes);
    r = unpack_run(&o, decoder, &used, &f->err);
    if (r < 0) {
        unpack_discard(&o, &used);
        ASSERT_EQ(tmpdir_count(f->dir), 0);
        ASSERT_EQ(atomic_load(&f->budget.bytes), max);
    }
    return r;
}

TEST(entries_come_clean_and_in_order) {
    static const Item items[] = {
        { "./", 'd', NULL, 0755, 0 },
        { "./a/", 'd', NULL, 0755, 0 },
        { "./a/run.sh", 'f', "hello", 04755, 0 },
        { "a/other", 'f', "hallo", 0711, 0 },
        { "a/plain", 'f', "hello", 0644, 0 },
        { "a//./empty", 'f', "", 0644, 0 },
        { "a/link", 'l', "../a/plain", 0777, 0 },
        { "hard", 'h', "./a/plain", 0644, 0 },
        { "gr\xc3\xbc\xc3\x9f", 'f', "x", 0644, 0 },
        { ".wh.kept", 'f', "", 0644, 0 },
    };
    Fixture f;
    _cleanup_free_ char *text = NULL;

    fixture_open(&f);
    f.n = tar_write(f.tar, items, ELEMENTSOF(items));
    ASSERT_OK(run(&f));
    ASSERT_STREQ(
        f.outcome.text,
        "d a\nf a/run.sh x = 3-0\nf a/other x = 3-1\nf a/plain = 3-2\nf a/empty = 3-3\n"
        "l a/link > ../a/plain\nh hard > a/plain\nf gr\xc3\xbc\xc3\x9f = 3-4\nf .wh.kept\n");
    ASSERT_EQ(tmpdir_count(f.dir), 5);
    ASSERT_OK(fs_read_file(tmpdir_fd(f.dir), "3-2", 100, &text, NULL, &f.err));
    ASSERT_STREQ(text, "hello");
    fixture_close(&f);
}

TEST(whiteouts_are_read_in_images) {
    static const Item items[] = {
        { "a/.wh.b", 'f', "", 0644, 0 },     { ".wh.c", 'f', "", 0644, 0 },
        { "a/.wh..wh..opq", 'f', "", 0, 0 }, { ".wh..wh.plnk", 'd', "", 0755, 0 },
        { "dev", 'c', NULL, 0644, 0 },
    };
    Fixture f;

    fixture_open(&f);
    f.image = true;
    f.n = tar_write(f.tar, items, ELEMENTSOF(items));
    ASSERT_OK(run(&f));
    ASSERT_STREQ(f.outcome.text, "w a/b\nw c\no a\nw dev\n");
    ASSERT_EQ(tmpdir_count(f.dir), 0);
    fixture_close(&f);
}

TEST(images_may_have_absolute_symlinks) {
    static const Item items[] = { { "bin/sh", 'l', "/bin/busybox", 0777, 0 } };
    Fixture f;

    fixture_open(&f);
    f.image = true;
    f.n = tar_write(f.tar, items, ELEMENTSOF(items));
    ASSERT_OK(run(&f));
    ASSERT_STREQ(f.outcome.text, "l bin/sh > /bin/busybox\n");
    fixture_close(&f);
}

TEST(large_files_go_around_the_page_cache_and_keep_their_bytes) {
    static const size_t sizes[] = { MiB(1) - 1, MiB(1), MiB(1) + 1, MiB(4), MiB(5) + 4097 };
    Fixture f;

    fixture_open(&f);
    for (size_t i = 0; i < ELEMENTSOF(sizes); i++) {
        _cleanup_free_ char *content = xcalloc(1, sizes[i] + 1), *got = NULL;
        size_t n;
        Digest want;

        for (size_t k = 0; k < sizes[i]; k++)
            content[k] = (char)('a' + k % 23 + i);
        digest_of(&want, content, sizes[i]);
        f.n = tar_write(f.tar, &(Item){ "w", 'f', content, 0644, 0 }, 1);
        ASSERT_OK(run(&f));
        ASSERT_EQ(f.outcome.last_file.size, sizes[i]);
        ASSERT_TRUE(digest_equal(&f.outcome.last_file.digest, &want));
        ASSERT_OK(fs_read_file(tmpdir_fd(f.dir), "3-0", MiB(8), &got, &n, &f.err));
        ASSERT_EQ(n, sizes[i]);
        ASSERT_MEMEQ(got, content, n);
        ASSERT_OK(unlinkat(tmpdir_fd(f.dir), "3-0", 0));
    }
    fixture_close(&f);
}

TEST(hostile_entries_are_refused) {
    static const struct {
        Item item;
        bool image;
        int r;
        const char *words;
    } cases[] = {
        { { "/etc/passwd", 'f', "x", 0, 0 }, false, -EPROTO, "absolute" },
        { { "../x", 'f', "x", 0, 0 }, false, -EPROTO, "\"..\"" },
        { { "a/../../x", 'd', NULL, 0, 0 }, true, -EPROTO, "\"..\"" },
        { { "x", 'l', "/etc/passwd", 0, 0 }, false, -EPROTO, "/etc/passwd" },
        { { "x", 'l', "../etc/passwd", 0, 0 }, true, -EPROTO, "leads out" },
        { { "a/x", 'l', "../../etc", 0, 0 }, false, -EPROTO, "leads out" },
        { { "x", 'l', "a/../../b", 0, 0 }, false, -EPROTO, "leads out" },
        { { "x", 'h', "/etc/passwd", 0, 0 }, false, -EPROTO, "hard link" },
        { { "x", 'h', "../y", 0, 0 }, false, -EPROTO, "hard link" },
        { { "x", 'h', ".", 0, 0 }, false, -EPROTO, "hard link" },
        { { ".", 'f', "x", 0, 0 }, false, -EPROTO, "root" },
        { { "./", 'l', "a", 0, 0 }, true, -EPROTO, "root" },
        { { "x", 'c', NULL, 0, 1 }, true, -EPROTO, "device" },
        { { "x", 'c', NULL, 0, 0 }, false, -EPROTO, "device" },
        { { "x", 'b', NULL, 0, 0 }, true, -EPROTO, "device" },
        { { "x", 'p', NULL, 0, 0 }, true, -EPROTO, "FIFO" },
        { { ".wh.", 'f', "", 0, 0 }, true, -EPROTO, "whiteout" },
        { { ".wh...", 'f', "", 0, 0 }, true, -EPROTO, "whiteout" },
        { { "bad\xff", 'f', "", 0, 0 }, false, -ENOTSUP, "UTF-8" },
    };
    Fixture f;

    fixture_open(&f);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Item items[] = { { "fine", 'f', "fine", 0, 0 }, cases[i].item };
        int r;

        f.image = cases[i].image;
        f.n = tar_write(f.tar, items, ELEMENTSOF(items));
        r = run(&f);
        if (r != cases[i].r || !strstr(f.err.text, cases[i].words))
            test_fail(__FILE__, __LINE__, "\"%s\" (%c) gives %d (%s)", cases[i].item.name,
                      cases[i].item.type, r, f.err.text);
    }
    fixture_close(&f);
}

TEST(sparse_files_are_refused) {
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    Fixture f;

    fixture_open(&f);
    ASSERT_EQ(archive_write_set_format_pax(a), ARCHIVE_OK);
    ASSERT_EQ(archive_write_open_memory(a, f.tar, TAR_BYTES, &f.n), ARCHIVE_OK);
    archive_entry_set_pathname(e, "sparse");
    archive_entry_set_mode(e, AE_IFREG | 0644);
    archive_entry_set_size(e, MiB(1));
    archive_entry_sparse_add_entry(e, 4096, 4096);
    ASSERT_EQ(archive_write_header(a, e), ARCHIVE_OK);
    ASSERT_EQ(archive_write_data(a, f.tar + MiB(16), 8192), 8192);
    archive_entry_free(e);
    ASSERT_EQ(archive_write_free(a), ARCHIVE_OK);
    ASSERT_ERR(run(&f), -EPROTO);
    ASSERT_STRSTR(f.err.text, "sparse");
    fixture_close(&f);
}

TEST(limits_end_it) {
    static const Item items[] = { { "a", 'f', "12345", 0, 0 },
                                  { "b", 'f', "123456", 0, 0 },
                                  { "c", 'd', NULL, 0755, 0 } };
    Fixture f;

    fixture_open(&f);
    f.n = tar_write(f.tar, items, ELEMENTSOF(items));
    f.max_bytes = 10;
    ASSERT_ERR(run(&f), -ENOSPC);
    ASSERT_STRSTR(f.err.text, "no space left");
    f.max_bytes = 11;
    f.max_entries = 2;
    ASSERT_ERR(run(&f), -E2BIG);
    f.max_entries = 3;
    ASSERT_OK(run(&f));
    fixture_close(&f);
}

TEST(damaged_tars_are_errors) {
    static const Item items[] = { { "a", 'f', "12345", 0, 0 }, { "b", 'f', "123456", 0, 0 } };
    static const size_t cuts[] = { 100, 512, 514, 1400 };
    Fixture f;
    size_t n;

    fixture_open(&f);
    n = tar_write(f.tar, items, ELEMENTSOF(items));
    for (size_t i = 0; i < ELEMENTSOF(cuts); i++) {
        f.n = cuts[i];
        ASSERT_ERR(run(&f), -EPROTO);
        ASSERT_STRSTR(f.err.text, "malformed");
    }
    f.n = n;
    f.tar[1024] ^= 1; /* name of the second: its checksum differs */
    ASSERT_ERR(run(&f), -EPROTO);
    memset(f.tar, 'x', 4096);
    ASSERT_ERR(run(&f), -EPROTO);
    fixture_close(&f);
}

TEST(an_empty_tar_is_fine) {
    Fixture f;

    fixture_open(&f);
    f.n = 1024;
    ASSERT_OK(run(&f));
    ASSERT_STREQ(f.outcome.text, "");
    fixture_close(&f);
}

TEST(cancelling_ends_it) {
    _cleanup_(seen_freep) Seen *seen = seen_new();
    _cleanup_(decoder_freep) Decoder *decoder = NULL;
    atomic_bool cancelled;
    Fixture f;
    UnpackUsed used;

    fixture_open(&f);
    atomic_init(&cancelled, true);
    Bytes bytes = { f.tar, 1024 };
    UnpackOptions o = { .dir_fd = tmpdir_fd(f.dir),
                        .seen = seen,
                        .budget = &f.budget,
                        .cancelled = &cancelled,
                        .on_entry = on_entry,
                        .arg = &f.outcome };
    decoder_new(&decoder, CODEC_NONE, next, &bytes);
    ASSERT_ERR(unpack_run(&o, decoder, &used, &f.err), -ECANCELED);
    fixture_close(&f);
}
