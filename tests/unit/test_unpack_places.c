/* SPDX-License-Identifier: Apache-2.0 */
/* test_unpack_places: at each place that unpacking tells, another one goes on, and both together
 * give what one alone would. */
#include "base/limits.h"
#include "oci/unpack.h"
#include "tests/unit/test.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <isa-l/igzip_lib.h>

#define TAR_BYTES  MiB(16)
#define PLACES_MAX 64
#define FILES      12

/* Every size that matters: nothing, whole tar blocks and parts of them, one chunk and several. */
static const size_t sizes[FILES] = {
    10, MiB(1), 0, MiB(5) + 1000, 512, MiB(2), 513, 100000, 511, MiB(1) + 1, 3 * MiB(1), 77,
};

typedef struct Place {
    UnpackPlace place;
    uint8_t *decoder, *pending;
    char path[200];
    size_t told;    /* entries before it */
    size_t used_at; /* of the stream */
} Place;

typedef struct Fixture {
    TmpDir *dir;
    uint8_t *stream;
    size_t n, at, step;
    size_t tar_bytes, packed_bytes; /* of the whole */
    const UnpackPlace *from;
    UnpackBudget budget;
    UnpackNow now;
    uint64_t bytes_left; /* of the budget */
    Place places[PLACES_MAX];
    size_t n_places;
    char told[2 * FILES][256];
    size_t n_told;
    bool keep;  /* the places */
    bool mixed; /* one of two files is compressed well, and … */
    bool first; /* … it is the first */
    Err err;
} Fixture;

static uint8_t byte_of(size_t file, size_t at) {
    return (uint8_t)((at * 7 + file * 31 + (at >> 12)) % 251);
}

static size_t make_tar(uint8_t *out) {
    struct archive *a = archive_write_new();
    size_t used = 0;

    ASSERT_EQ(archive_write_set_format_pax_restricted(a), ARCHIVE_OK);
    ASSERT_EQ(archive_write_open_memory(a, out, TAR_BYTES, &used), ARCHIVE_OK);
    for (size_t i = 0; i < FILES; i++) {
        struct archive_entry *e = archive_entry_new();
        _cleanup_free_ uint8_t *data = xnew_n(uint8_t, sizes[i] + 1);
        char name[160];

        /* long names have headers of their own */
        (void)snprintf(name, sizeof(name), "%.*sf%zu", i % 3 == 0 ? 110 : 0,
                       "a-folder-with-a-name-that-fits-no-header/a-folder-with-a-name-that-fits-"
                       "no-header/a-folder-with-a-name-t/",
                       i);
        for (size_t k = 0; k < sizes[i]; k++)
            data[k] = byte_of(i, k);
        archive_entry_set_pathname(e, name);
        archive_entry_set_mode(e, AE_IFREG | (i % 2 ? 0755 : 0644));
        archive_entry_set_size(e, (la_int64_t)sizes[i]);
        ASSERT_EQ(archive_write_header(a, e), ARCHIVE_OK);
        ASSERT_EQ(archive_write_data(a, data, sizes[i]), (ssize_t)sizes[i]);
        archive_entry_free(e);
    }
    ASSERT_EQ(archive_write_close(a), ARCHIVE_OK);
    ASSERT_EQ(archive_write_free(a), ARCHIVE_OK);
    return used;
}

static size_t make_gzip(uint8_t *out, const uint8_t *data, size_t n) {
    struct isal_zstream z;

    isal_deflate_init(&z);
    z.gzip_flag = IGZIP_GZIP;
    z.end_of_stream = 1;
    z.next_in = (uint8_t *)(uintptr_t)data;
    z.avail_in = (uint32_t)n;
    z.next_out = out;
    z.avail_out = (uint32_t)TAR_BYTES;
    ASSERT_EQ(isal_deflate(&z), COMP_OK);
    return z.total_out;
}

static int next(void *arg, const uint8_t **ret, size_t *ret_n, Err *err) {
    Fixture *f = arg;
    size_t n = MIN(f->step, f->n - f->at);

    (void)err;
    *ret = f->stream + f->at;
    *ret_n = n;
    f->at += n;
    return n > 0;
}

static int on_entry(void *arg, const LayerEntry *e, Err *err) {
    Fixture *f = arg;

    (void)err;
    ASSERT_TRUE(f->n_told < ELEMENTSOF(f->told));
    (void)snprintf(f->told[f->n_told++], sizeof(f->told[0]), "%.150s %d %s", e->path, e->executable,
                   DIGEST_HEX(&e->digest));
    return 0;
}

/* Where the open file ends in the blob, of which one file is nearly all. */
static void check_there(const Fixture *f, const UnpackPlace *place) {
    const uint64_t file = place->open.written.bytes + place->open.n_pending;
    const uint64_t there = atomic_load(&f->now.there);
    /* All files are compressed alike. */
    const uint64_t end = place->blob + (place->entry.size - file) * f->packed_bytes / f->tar_bytes;

    if (file <= UNPACK_FILE_WHOLE)
        ASSERT_EQ(there, place->blob);
    else if (place->decoder.codec == CODEC_NONE)
        ASSERT_EQ(there, place->blob + place->entry.size - file);
    else if (!f->mixed)
        ASSERT_TRUE(there + f->packed_bytes / 20 > end && there < end + f->packed_bytes / 20);
    else if (f->first && streq(place->entry.path, "first"))
        ASSERT_TRUE(there < f->n / 20);
    else
        ASSERT_TRUE(there > f->n - f->n / 20 && there < f->n + f->n / 20);
}

static int on_place(void *arg, const UnpackPlace *place, Err *err) {
    Fixture *f = arg;
    Place *p = &f->places[f->n_places];

    (void)err;
    ASSERT_EQ(place->blob, f->at - place->decoder.left);
    check_there(f, place);
    if (!f->keep || f->n_places == PLACES_MAX)
        return 0;
    if (f->step < 1000 && place->open.written.bytes + place->open.n_pending > 3 * f->step)
        return 0; /* behind each header is enough */
    f->n_places++;
    p->place = *place;
    p->decoder = xnew_n(uint8_t, place->decoder.n + 1);
    p->pending = xnew_n(uint8_t, place->open.n_pending + 1);
    if (place->decoder.n > 0)
        memcpy(p->decoder, place->decoder.data, place->decoder.n);
    if (place->open.n_pending > 0)
        memcpy(p->pending, place->open.pending, place->open.n_pending);
    (void)snprintf(p->path, sizeof(p->path), "%s", place->entry.path);
    p->place.entry.path = p->path;
    p->told = f->n_told;
    p->used_at = f->at - place->decoder.left;
    p->place.decoder.data = p->decoder;
    p->place.open.pending = p->pending;
    return 0;
}

static int run(Fixture *f, bool cut) {
    _cleanup_(seen_freep) Seen *seen = seen_new();
    _cleanup_(decoder_freep) Decoder *decoder = NULL;
    DecoderResume resume = { .source = next, .arg = f };
    UnpackOptions o = { .dir_fd = tmpdir_fd(f->dir),
                        .name = "n",
                        .seen = seen,
                        .budget = &f->budget,
                        .now = &f->now,
                        .from = f->from,
                        .on_entry = on_entry,
                        .on_place = on_place,
                        .arg = f };
    UnpackUsed used;
    size_t n = f->n;
    int r;

    if (cut)
        f->n = f->at + (f->n - f->at) / 2;
    atomic_init(&f->budget.bytes, LIMIT_BLOB_BYTES);
    atomic_init(&f->budget.entries, LIMIT_TREE_ENTRIES);
    if (f->from) {
        resume.state = f->from->decoder;
        ASSERT_OK(decoder_resume(&decoder, &resume, &f->err));
    } else {
        decoder_new(&decoder, CODEC_NONE, next, f);
    }
    r = unpack_run(&o, decoder, &used, &f->err);
    if (r >= 0)
        ASSERT_TRUE(atomic_load(&f->now.there) <= f->n);
    f->bytes_left = atomic_load(&f->budget.bytes);
    f->n = n;
    return r;
}

static void go_on_everywhere(Fixture *f) {
    char all[ELEMENTSOF(f->told)][sizeof(f->told[0])];
    uint64_t left;

    f->at = f->n_told = f->n_places = 0;
    f->from = NULL;
    f->keep = true;
    ASSERT_OK(run(f, false));
    ASSERT_EQ(f->n_told, FILES);
    memcpy(all, f->told, sizeof(all));
    left = f->bytes_left;
    f->keep = false;
    ASSERT_TRUE(f->n_places > 3);
    for (size_t i = f->n_places; i-- > 0;) { /* what is on disk is longer than it was then */
        Place *p = &f->places[i];

        f->from = &p->place;
        f->at = p->used_at;
        f->n_told = 0;
        ASSERT_OK(run(f, false));
        ASSERT_EQ(f->n_told, FILES - p->told);
        for (size_t k = 0; k < f->n_told; k++)
            ASSERT_STREQ(f->told[k], all[p->told + k]);
        ASSERT_EQ(f->bytes_left, left);
        f->at = p->used_at;
        f->n_told = 0;
        ASSERT_ERR(run(f, true), -EPROTO); /* the stream ends somewhere */
        free(p->decoder);
        free(p->pending);
    }
}

static void fixture_open(Fixture *f) {
    *f = (Fixture){ .dir = tmpdir_new(), .stream = xnew_n(uint8_t, TAR_BYTES) };
    f->n = f->tar_bytes = make_tar(f->stream);
}

static void fixture_close(Fixture *f) {
    f->dir = tmpdir_free(f->dir);
    free(f->stream);
}

TEST(a_plain_tar_is_gone_on_with) {
    static const size_t steps[] = { MiB(1), 300000, 999999, 700 };
    Fixture *f = xnew(Fixture);

    fixture_open(f);
    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        f->step = steps[i];
        go_on_everywhere(f);
    }
    fixture_close(f);
    free(f);
}

TEST(a_gzipped_tar_is_gone_on_with) {
    static const size_t steps[] = { 1000, 20000 };
    Fixture *f = xnew(Fixture);
    uint8_t *packed = xnew_n(uint8_t, TAR_BYTES);

    fixture_open(f);
    f->n = f->packed_bytes = make_gzip(packed, f->stream, f->n);
    free(f->stream);
    f->stream = packed;
    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        f->step = steps[i];
        go_on_everywhere(f);
    }
    fixture_close(f);
    free(f);
}

static uint8_t *put_header(uint8_t *to, const char *name, char type, size_t size) {
    unsigned sum = 0;

    (void)snprintf((char *)to, 100, "%s", name);
    (void)snprintf((char *)to + 100, 8, "%07o", 0644U);
    (void)snprintf((char *)to + 124, 12, "%011zo", size);
    memset(to + 148, ' ', 8);
    to[156] = (uint8_t)type;
    if (type == '1')
        (void)snprintf((char *)to + 157, 100, "large");
    memcpy(to + 257, "ustar\00000", 8);
    for (size_t i = 0; i < 512; i++)
        sum += to[i];
    (void)snprintf((char *)to + 148, 8, "%06o", sum & 0777777);
    return to + 512;
}

/* How much of the blob the rest of a large file is, is told by its beginning, not by the file
 * before it. */
TEST(files_may_be_compressed_better_than_others) {
    uint8_t *packed = xnew_n(uint8_t, TAR_BYTES);
    Fixture *f = xnew(Fixture);

    fixture_open(f);
    f->mixed = true;
    f->step = 20000;
    for (int first = 0; first < 2; first++) {
        uint8_t *p = f->stream, *tar = f->stream;
        uint32_t random = 1;

        memset(tar, 0, TAR_BYTES);
        p = put_header(p, "first", '0', MiB(6)) + MiB(6);
        p = put_header(p, "second", '0', MiB(6)) + MiB(6);
        for (size_t i = 0; i < MiB(6); i++) {
            random = random * 1664525 + 1013904223;
            tar[512 + (first ? MiB(6) + 512 : 0) + i] = (uint8_t)(random >> 28);
        }
        f->first = first;
        f->n = make_gzip(packed, tar, (size_t)(p - tar) + 1024);
        f->stream = packed;
        f->at = f->n_told = 0;
        ASSERT_OK(run(f, false));
        ASSERT_EQ(f->n_told, 2);
        f->stream = tar;
    }
    free(packed);
    fixture_close(f);
    free(f);
}

/* In a pax archive a hard link may have content, in others not: what is hidden there is no entry
 * for one who comes in later either. */
TEST(what_follows_a_hard_link_is_read_the_same) {
    static const char record[] = "20 comment=something";
    Fixture *f = xnew(Fixture);
    uint8_t *p;

    fixture_open(f);
    memset(f->stream, 0, TAR_BYTES);
    p = put_header(f->stream, "header", 'x', 20);
    memcpy(p, record, 19);
    p[19] = '\n';
    p = put_header(p + 512, "large", '0', MiB(3)) + MiB(3);
    p = put_header(p, "link", '1', 512);
    p = put_header(p, "hidden", '0', 0);
    p = put_header(p, "last", '0', 0);
    f->n = (size_t)(p - f->stream) + 1024;
    f->step = 700001;
    f->keep = true;
    ASSERT_OK(run(f, false));
    ASSERT_EQ(f->n_told, 3);
    ASSERT_TRUE(f->n_places > 2 && f->places[0].place.pax);
    f->keep = false;
    for (size_t i = 0; i < f->n_places; i++) {
        f->from = &f->places[i].place;
        f->at = f->places[i].used_at;
        f->n_told = 0;
        ASSERT_OK(run(f, false));
        ASSERT_EQ(f->n_told, 3);
        ASSERT_STRSTR(f->told[2], "last ");
        free(f->places[i].decoder);
        free(f->places[i].pending);
    }
    fixture_close(f);
    free(f);
}

/* The file that it is to go on with, as another hand may have left it. */
TEST(a_file_that_is_not_what_it_was_is_refused) {
    Fixture *f = xnew(Fixture);
    size_t i = 0;
    int fd;

    fixture_open(f);
    f->step = MiB(1);
    f->keep = true;
    ASSERT_OK(run(f, false));
    f->keep = false;
    while (f->places[i].place.open.written.bytes == 0)
        i++;
    f->from = &f->places[i].place;
    fd = openat(tmpdir_fd(f->dir), "n-3", O_WRONLY);
    ASSERT_EQ(pwrite(fd, "x", 1, 100), 1);
    (void)close(fd);
    f->at = f->places[i].used_at;
    ASSERT_ERR(run(f, false), -EBADMSG);
    ASSERT_STRSTR(f->err.text, "is not what was noted of it");
    ASSERT_EQ(unlinkat(tmpdir_fd(f->dir), "n-3", 0), 0);
    f->at = f->places[i].used_at;
    ASSERT_ERR(run(f, false), -EBADMSG);
    for (i = 0; i < f->n_places; i++) {
        free(f->places[i].decoder);
        free(f->places[i].pending);
    }
    fixture_close(f);
    free(f);
}
