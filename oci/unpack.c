/* SPDX-License-Identifier: Apache-2.0 */
/* unpack: a tar stream becomes a list of entries and, for the files, files in the pull's folder. */
#include "oci/unpack.h"

#include "base/fs.h"
#include "base/loop.h"
#include "oci/tarname.h"
#include "oci/writers.h"

#include <archive.h>
#include <archive_entry.h>

/* Beside the content: headers (at least 512 bytes an entry), padding, and what libarchive skips. */
#define DECODED_EXTRA_BYTES GiB(4)
#define TAR_BLOCK_BYTES \
    512 /* contents are filled up to such: POSIX pax, "ustar Interchange Format" */

typedef struct Unpack {
    const UnpackOptions *o;
    Decoder *decoder;
    UnpackUsed *used;
    Writers *writers;
    struct archive *archive;
    uint64_t decoded;                 /* bytes the decoder gave … */
    uint64_t blob;                    /* … and those of the blob that another one had decoded */
    uint64_t file_decoded, file_blob; /* both, where the open file began, or is gone on with */
    uint64_t fed;                     /* those that libarchive was given */
    const uint8_t *rest;              /* those that it is to be given first … */
    size_t n_rest;
    bool pax; /* … behind a header that tells it what another one knew: hard links may have contents
               */
    uint8_t pax_header[TAR_BLOCK_BYTES];
    uint64_t told_usec; /* when the last place was told */
    int r;              /* of the reading callback */
    Err err;
    Tarname name, target;
} Unpack;

/* The next bytes of the tar: 1, or 0 at its end. */
static int next_bytes(Unpack *u, const uint8_t **ret, size_t *ret_n, Err *err) {
    int r;

    if (u->o->cancelled && atomic_load(u->o->cancelled))
        return err_set(err, -ECANCELED, "the pull was cancelled");
    r = decoder_read(u->decoder, ret, ret_n, err);
    if (r <= 0)
        return r;
    u->decoded += *ret_n;
    if (u->decoded - MIN(u->decoded, u->used->bytes) > DECODED_EXTRA_BYTES)
        return err_set(err, -E2BIG, "the tar has more than %llu GiB that are not content",
                       (unsigned long long)(DECODED_EXTRA_BYTES >> 30));
    return 1;
}

/* A global header that says nothing: POSIX pax, "ustar Interchange Format" and "pax Interchange
 * Format". */
static void make_pax_header(uint8_t header[static TAR_BLOCK_BYTES]) {
    enum { SUM_AT = 148, SUM_BYTES = 8, TYPE_AT = 156, MAGIC_AT = 257 };
    unsigned sum = 0;

    memset(header, 0, TAR_BLOCK_BYTES);
    header[TYPE_AT] = 'g';
    memcpy(header + MAGIC_AT, "ustar\00000", 8);
    memset(header + SUM_AT, ' ', SUM_BYTES);
    for (size_t i = 0; i < TAR_BLOCK_BYTES; i++)
        sum += header[i];
    (void)snprintf((char *)header + SUM_AT, SUM_BYTES, "%06o", sum & 0777777);
}

/* libarchive asks for bytes. */
static la_ssize_t on_read(struct archive *a, void *arg, const void **ret) {
    Unpack *u = arg;
    const uint8_t *data;
    size_t n;
    int r = 1;

    if (u->pax && u->fed == 0) {
        make_pax_header(u->pax_header);
        data = u->pax_header;
        n = sizeof(u->pax_header);
    } else if (u->n_rest > 0) {
        data = u->rest;
        n = u->n_rest;
        u->n_rest = 0;
    } else {
        r = next_bytes(u, &data, &n, &u->err);
    }
    if (r < 0) {
        u->r = r;
        archive_set_error(a, EIO, "read");
        return -1;
    }
    if (r == 0)
        return 0;
    u->fed += n;
    *ret = data;
    return (la_ssize_t)n;
}

/* What libarchive says, or the decoder's reason. */
static int archive_failed(Unpack *u, Err *err) {
    const char *why = archive_error_string(u->archive);

    if (u->r < 0) {
        if (err)
            *err = u->err;
        return u->r;
    }
    return err_set(err, -EPROTO, "the tar is malformed: %s", TARNAME_STR(why ? why : "unknown"));
}

static int refuse(const char *name, const char *what, Err *err) {
    return err_set(err, -EPROTO, "\"%s\" in the tar is %s, which is refused", TARNAME_STR(name),
                   what);
}

/* Bytes of the blob that all of `decoded` is of. */
static uint64_t blob_bytes(const Unpack *u) {
    return u->blob + decoder_used(u->decoder);
}

/* Takes `n` from what is left; false when there is less. */
static bool take(atomic_uint_fast64_t *left, uint64_t n) {
    uint_fast64_t now = atomic_load(left);

    do {
        if (now < n)
            return false;
    } while (!atomic_compare_exchange_weak(left, &now, now - n));
    return true;
}

int unpack_take(UnpackBudget *b, uint64_t bytes, uint64_t entries, Err *err) {
    if (!take(&b->bytes, bytes))
        return err_set(err, -ENOSPC,
                       "no space left in the store for the unpacked content: free space or raise "
                       "the store's limit");
    if (take(&b->entries, entries))
        return 0;
    (void)atomic_fetch_add(&b->bytes, bytes);
    return err_set(err, -E2BIG, "the artifact has more than %d files and directories",
                   LIMIT_TREE_ENTRIES);
}

static int take_budget(Unpack *u, uint64_t bytes, uint64_t entries, Err *err) {
    int r = unpack_take(u->o->budget, bytes, entries, err);

    if (r < 0)
        return r;
    u->used->bytes += bytes;
    u->used->entries += entries;
    return 0;
}

static int ends_early(const char *path, Err *err) {
    return err_set(err, -EPROTO, "the tar is malformed: \"%s\" ends early", TARNAME_STR(path));
}

/* All that the decoder gave is in the file `e`: tells the place, if it is time for that. */
static int tell_place(Unpack *u, const LayerEntry *e, Err *err) {
    UnpackPlace place = {
        .decoded = u->decoded, .blob = blob_bytes(u), .pax = u->pax, .used = *u->used, .entry = *e
    };
    int r;

    if (!u->o->on_place || now_usec() < u->told_usec + u->o->place_usec ||
        !decoder_state(u->decoder, &place.decoder))
        return 0;
    if (u->archive)
        place.pax = archive_format(u->archive) == ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE;
    r = writers_pause(u->writers, &place.open, err);
    if (r >= 0)
        r = u->o->on_place(u->o->arg, &place, err);
    u->told_usec = now_usec();
    return r;
}

/* How long the rest of a file is in the blob, as what has come of it says. */
static uint64_t scale(uint64_t left, uint64_t decoded, uint64_t blob) {
    return blob < decoded ? (uint64_t)((double)left / (double)decoded * (double)blob) : left;
}

/* What is to come of a file was allocated with its first chunk; one that is a single chunk is there
 * with it.  Other files of the tar may be compressed better, or worse. */
static void tell_there(const Unpack *u, const LayerEntry *e, uint64_t left) {
    uint64_t there = blob_bytes(u);

    if (!u->o->now)
        return;
    if (e->size - left > UNPACK_FILE_WHOLE)
        there += scale(left, u->decoded - u->file_decoded, there - u->file_blob);
    atomic_store(&u->o->now->there, there);
}

uint64_t unpack_there(const UnpackPlace *place) {
    uint64_t written = place->open.written.bytes;
    uint64_t left = place->entry.size - written - place->open.n_pending;

    return place->blob + (written > 0 ? scale(left, place->decoded, place->blob) : 0);
}

static void begin_file(Unpack *u) {
    u->file_decoded = u->decoded;
    u->file_blob = blob_bytes(u);
}

/* Has libarchive handed on all that it was given, with the `n` bytes that it gave last? */
static bool is_drained(Unpack *u, size_t n) {
    return (uint64_t)archive_filter_bytes(u->archive, 0) + n == u->fed;
}

static int copy_data(Unpack *u, const LayerEntry *e, Err *err) {
    const uint64_t size = e->size;
    uint64_t at = 0;

    for (;;) {
        const void *data;
        size_t n;
        la_int64_t offset;
        int r = archive_read_data_block(u->archive, &data, &n, &offset);

        if (r == ARCHIVE_EOF)
            break;
        if (r != ARCHIVE_OK)
            return archive_failed(u, err);
        if (offset < 0 || (uint64_t)offset != at || n > size - at)
            return refuse(u->name.path, "a sparse file", err);
        r = writers_write(u->writers, data, n, err);
        at += n;
        tell_there(u, e, size - at);
        if (r >= 0 && at < size && is_drained(u, n))
            r = tell_place(u, e, err);
        if (r < 0)
            return r;
    }
    return at == size ? 0 : ends_early(u->name.path, err);
}

static int take_file(Unpack *u, struct archive_entry *entry, LayerEntry *e, Err *err) {
    la_int64_t size = archive_entry_size(entry);
    int r;

    if (archive_entry_sparse_count(entry) > 0)
        return refuse(u->name.path, "a sparse file", err);
    if (size < 0)
        return refuse(u->name.path, "a file of negative size", err);
    r = take_budget(u, (uint64_t)size, 0, err);
    if (r < 0)
        return r;
    e->type = ENTRY_TYPE_FILE;
    e->size = (uint64_t)size;
    e->executable = (archive_entry_mode(entry) & 0111) != 0;
    r = writers_add(u->writers, e, u->used->files++, err);
    begin_file(u);
    return r < 0 ? r : copy_data(u, e, err);
}

static int take_symlink(Unpack *u, struct archive_entry *entry, LayerEntry *e, Err *err) {
    const char *target = archive_entry_symlink(entry);

    if (!target ||
        (!symlink_stays_inside(u->name.path, target) && !(u->o->image && *target == '/')))
        return err_set(err, -EPROTO,
                       "the symlink \"%s\" in the tar leads out of the tree (to \"%s\"), which is "
                       "refused",
                       TARNAME_STR(u->name.path), TARNAME_STR(target ? target : ""));
    e->type = ENTRY_TYPE_SYMLINK;
    e->target = (char *)(uintptr_t)target; /* borrowed; entries are not written to */
    return writers_add(u->writers, e, 0, err);
}

static int take_hardlink(Unpack *u, const char *target, LayerEntry *e, Err *err) {
    int r = tarname_read(&u->target, target, u->o->image, err);

    if (r < 0)
        return err_prefix(err, r, "the hard link \"%s\"", TARNAME_STR(u->name.path));
    if (u->target.kind != TARNAME_PLAIN)
        return refuse(u->name.path, "a hard link to something that is no file", err);
    e->type = ENTRY_TYPE_HARDLINK;
    e->target = u->target.path;
    return writers_add(u->writers, e, 0, err);
}

/* A character device 0:0 is how overlayfs itself writes a whiteout. */
static int take_device(Unpack *u, struct archive_entry *entry, LayerEntry *e, Err *err) {
    if (u->o->image && archive_entry_filetype(entry) == AE_IFCHR &&
        archive_entry_rdevmajor(entry) == 0 && archive_entry_rdevminor(entry) == 0) {
        e->type = ENTRY_TYPE_WHITEOUT;
        return writers_add(u->writers, e, 0, err);
    }
    return refuse(u->name.path, "a device", err);
}

static int take_plain(Unpack *u, struct archive_entry *entry, Err *err) {
    LayerEntry e = { .path = u->name.path };
    const char *hardlink = archive_entry_hardlink(entry);

    if (hardlink)
        return take_hardlink(u, hardlink, &e, err);
    switch (archive_entry_filetype(entry)) {
    case AE_IFREG:
        return take_file(u, entry, &e, err);
    case AE_IFDIR:
        e.type = ENTRY_TYPE_DIRECTORY;
        return writers_add(u->writers, &e, 0, err);
    case AE_IFLNK:
        return take_symlink(u, entry, &e, err);
    case AE_IFCHR:
    case AE_IFBLK:
        return take_device(u, entry, &e, err);
    case AE_IFIFO:
        return refuse(u->name.path, "a FIFO", err);
    case AE_IFSOCK:
        return refuse(u->name.path, "a socket", err);
    default:
        return refuse(u->name.path, "of an unknown type", err);
    }
}

static int take_entry(Unpack *u, struct archive_entry *entry, Err *err) {
    const char *name = archive_entry_pathname(entry);
    LayerEntry e = { .path = u->name.path };
    int r = take_budget(u, 0, 1, err);

    if (r < 0)
        return r;
    if (!name)
        return err_set(err, -ENOTSUP, "a name in the tar is not UTF-8");
    r = tarname_read(&u->name, name, u->o->image, err);
    if (r < 0)
        return r;
    switch (u->name.kind) {
    case TARNAME_ROOT:
        if (archive_entry_filetype(entry) != AE_IFDIR || archive_entry_hardlink(entry))
            return refuse(name, "the root of the tree and no directory", err);
        return 0; /* its attributes are the store's */
    case TARNAME_IGNORED:
        return 0;
    case TARNAME_WHITEOUT:
        e.type = ENTRY_TYPE_WHITEOUT;
        return writers_add(u->writers, &e, 0, err);
    case TARNAME_OPAQUE:
        e.type = ENTRY_TYPE_OPAQUE;
        return writers_add(u->writers, &e, 0, err);
    default:
        return take_plain(u, entry, err);
    }
}

/* What follows the end of the archive: padding.  Read, so that checksums of the stream are looked
 * at. */
static int drain(Unpack *u, Err *err) {
    struct archive *a = u->archive;
    const void *data;
    la_ssize_t n;

    do
        n = on_read(a, u, &data);
    while (n > 0);
    return n < 0 ? archive_failed(u, err) : 0;
}

/* The rest of the file that another one had begun, or (`e` NULL) what fills it up. */
static int read_rest(Unpack *u, const LayerEntry *e, uint64_t left, Err *err) {
    int r = 0;

    while (r >= 0 && left > 0) {
        size_t n;

        if (u->n_rest == 0)
            r = next_bytes(u, &u->rest, &u->n_rest, err);
        if (r == 0 && u->n_rest == 0)
            return ends_early(u->o->from->entry.path, err);
        n = (size_t)MIN((uint64_t)u->n_rest, left);
        if (r >= 0 && e)
            r = writers_write(u->writers, u->rest, n, err);
        u->rest += n;
        u->n_rest -= n;
        left -= n;
        if (e)
            tell_there(u, e, left);
        if (r >= 0 && e && left > 0)
            r = tell_place(u, e, err);
    }
    return r;
}

/* Up to the next header, where libarchive can begin.  1, or 0 at the end of the tar. */
static int go_on(Unpack *u, const UnpackPlace *from, Err *err) {
    const LayerEntry *e = &from->entry;
    uint64_t left = e->size - from->open.written.bytes - from->open.n_pending;
    int r;

    *u->used = (UnpackUsed){ .files = from->used.files };
    r = take_budget(u, from->used.bytes, from->used.entries, err);
    if (r < 0)
        return r;
    u->decoded = from->decoded;
    u->blob = from->blob;
    begin_file(u);
    u->pax = from->pax;
    r = writers_resume(u->writers, e, from->used.files - 1, &from->open, err);
    if (r >= 0)
        r = read_rest(u, e, left, err);
    if (r >= 0)
        r = read_rest(u, NULL, (TAR_BLOCK_BYTES - e->size % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES,
                      err);
    if (r < 0 || u->n_rest > 0)
        return r < 0 ? r : 1;
    return next_bytes(u, &u->rest, &u->n_rest, err);
}

static int read_entries(Unpack *u, Err *err) {
    for (;;) {
        struct archive_entry *entry;
        int r = archive_read_next_header(u->archive, &entry);

        if (r == ARCHIVE_EOF)
            return drain(u, err);
        /* A warning is about names that are not in the locale's charset; take_entry() sees those.
         */
        if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
            return archive_failed(u, err);
        r = take_entry(u, entry, err);
        if (r < 0)
            return r;
    }
}

static int open_archive(Unpack *u, Err *err) {
    u->archive = archive_read_new();
    if (!u->archive)
        return err_set(err, -ENOMEM, "no memory to read a tar");
    /* The tar reader alone, without filters: libarchive's others never see these bytes. */
    if (archive_read_support_format_tar(u->archive) != ARCHIVE_OK ||
        archive_read_open(u->archive, u, NULL, on_read, NULL) != ARCHIVE_OK)
        return archive_failed(u, err);
    return 1;
}

int unpack_run(const UnpackOptions *o, Decoder *decoder, UnpackUsed *used, Err *err) {
    Unpack *u = xnew(Unpack);
    int r;

    *used = (UnpackUsed){ 0 };
    u->o = o;
    u->decoder = decoder;
    u->used = used;
    u->told_usec = now_usec();
    r = writers_new(&u->writers, o, err);
    if (r >= 0)
        r = o->from ? go_on(u, o->from, err) : 1;
    if (r > 0)
        r = open_archive(u, err);
    if (r > 0)
        r = read_entries(u, err);
    if (r >= 0)
        r = writers_finish(u->writers, err);
    (void)archive_read_free(u->archive); /* frees; a failure of closing says nothing new */
    (void)writers_free(u->writers);
    free(u);
    return r;
}

const char *unpack_name(char buf[static UNPACK_NAME_MAX], const Digest *blob) {
    (void)snprintf(buf, UNPACK_NAME_MAX, "%s", DIGEST_HEX(blob));
    return buf;
}

void unpack_give_back(UnpackBudget *b, const UnpackUsed *used) {
    (void)atomic_fetch_add(&b->bytes, used->bytes);
    (void)atomic_fetch_add(&b->entries, used->entries);
}

void unpack_discard(const UnpackOptions *o, const UnpackUsed *used) {
    char name[WRITERS_NAME_MAX];

    for (uint64_t i = 0; i < used->files; i++) /* absent: its content was known */
        (void)unlinkat(o->dir_fd, writers_name(name, o->name, i), 0);
    unpack_give_back(o->budget, used);
}
