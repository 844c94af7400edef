/* SPDX-License-Identifier: Apache-2.0 */
/* fetch_file: the file of one blob and its resume map: what is found, read, written, noted. */
#include "oci/fetch_internal.h"

#include "base/fs.h"
#include "base/log.h"

#include <fcntl.h>
#include <sys/stat.h>

#define KEEP_BYTES KiB(16)              /* less than this of a piece is not worth a write */
#define READ_AHEAD 4                    /* reads at once */
#define SAVE_USEC  (10 * USEC_PER_MSEC) /* between two maps */
#define SYNC_USEC  (5 * USEC_PER_SEC)   /* between two fdatasync(2) */

/* One piece, or a part of it, in the ring's hands. */
typedef struct FilePiece {
    Fetch *fetch;
    uint64_t i;
    uint64_t begin, end; /* bytes of the blob */
} FilePiece;

static size_t padded(const Fetch *f, size_t n) {
    return f->file.direct ? (n + WINDOW_BLOCK_BYTES - 1) / WINDOW_BLOCK_BYTES * WINDOW_BLOCK_BYTES
                          : n;
}

static int no_space(const Fetch *f, const char *advice, Err *err) {
    return err_set(err, -ENOSPC, "no space left in the store for a blob of %llu bytes: %s",
                   (unsigned long long)f->o.size, advice);
}

/* open(2) of the blob's file failed. */
static int not_made(const Fetch *f, Err *err) {
    return errno == ENOSPC || errno == EDQUOT
               ? no_space(f, fs_space_advice(f->o.dir_fd), err)
               : err_errno(err, "cannot create the file of a blob in the store");
}

/* What an earlier pull left, as far as its map tells. */
static void find(Fetch *f) {
    uint8_t data[RESUME_MAP_BYTES];
    struct stat st;
    ssize_t n;

    n = pread(f->file.map_fd, data, sizeof(data), 0);
    if (n <= 0 || resume_decode(&f->file.map, data, (size_t)n) < 0)
        return;
    f->file.fd = openat(f->o.dir_fd, f->name,
                        O_RDWR | O_NOFOLLOW | O_CLOEXEC | (f->c->page_cache ? 0 : O_DIRECT));
    f->file.direct = f->file.fd >= 0 && !f->c->page_cache;
    if (f->file.fd < 0 && errno == EINVAL) /* no O_DIRECT here */
        f->file.fd = openat(f->o.dir_fd, f->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (f->file.fd < 0 || fstat(f->file.fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        f->file.fd = safe_close(f->file.fd);
        f->file.map.written.n = f->file.map.durable.n = 0;
        return;
    }
    extents_clip(&f->file.map.written, (uint64_t)st.st_size);
    extents_clip(&f->file.map.durable, (uint64_t)st.st_size);
}

static int make_file(Fetch *f, Err *err) {
    int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;

    (void)unlinkat(f->o.dir_fd, f->name, 0); /* what is there is worth nothing without a map */
    if (!f->c->page_cache)
        f->file.fd = openat(f->o.dir_fd, f->name, flags | O_DIRECT, 0600);
    f->file.direct = f->file.fd >= 0;
    if (f->file.fd < 0 && (f->c->page_cache || errno == EINVAL)) {
        (void)unlinkat(f->o.dir_fd, f->name, 0); /* open(2) may have made it all the same */
        f->file.fd = openat(f->o.dir_fd, f->name, flags, 0600);
    }
    return f->file.fd < 0 ? not_made(f, err) : 0;
}

static void open_map(Fetch *f) {
    int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC;

    if (f->o.anew)
        (void)unlinkat(f->o.dir_fd, f->map, 0);
    f->file.map_fd = openat(f->o.dir_fd, f->map, flags, 0600);
    if (f->file.map_fd < 0) { /* no file that we may write */
        (void)unlinkat(f->o.dir_fd, f->map, 0);
        f->file.map_fd = openat(f->o.dir_fd, f->map, flags, 0600);
    }
    f->file.mapped = f->file.map_fd >= 0;
}

/* In the pool.  The space is taken before the first byte comes. */
static int run_open(void *arg, Err *err) {
    Fetch *f = arg;
    int r = 0;

    if (f->file.mapped) {
        open_map(f);
        if (f->file.mapped)
            find(f);
    }
    if (f->file.fd < 0)
        r = make_file(f, err);
    if (r < 0)
        return r;
    f->file.made = true;
    return fs_allocate(f->file.fd, f->o.size) < 0 ? no_space(f, FS_BYTES_ADVICE, err) : 0;
}

static void on_opened(void *arg, int r, const Err *err) {
    Fetch *f = arg;
    Extents found = { 0 };

    f->pending--;
    f->file.synced_usec = now_usec();
    extents_copy(&found, &f->file.map.written);
    if (r < 0)
        fetch_fail(f, r, err);
    else if (!f->closed)
        fetch_opened(f, &found);
    extents_done(&found);
    fetch_pump(f);
}

void fetch_file_open(Fetch *f) {
    f->file.map.digest = f->o.digest;
    f->file.map.size = f->o.size;
    memcpy(f->file.map.boot, f->c->boot, RESUME_BOOT_BYTES);
    f->file.mapped = f->map && !f->o.data && f->o.size > ring_buffer_bytes(f->c->ring);
    f->pending++;
    pool_submit(f->c->pool, run_open, on_opened, f);
}

static void save(Fetch *f);

static int on_save_time(sd_event_source *source, uint64_t usec, void *arg) {
    (void)source;
    (void)usec;
    save(arg);
    return 0;
}

/* In the pool. */
static int run_save(void *arg, Err *err) {
    FetchFile *file = &((Fetch *)arg)->file;
    off_t at = (off_t)(file->map.sequence % 2) * RESUME_SLOT_BYTES;

    if (pwrite(file->map_fd, file->slot, RESUME_SLOT_BYTES, at) != RESUME_SLOT_BYTES ||
        (file->sync_map && fdatasync(file->map_fd) < 0))
        return err_errno(err, "cannot note what of a blob is there");
    return 0;
}

/* Without a map the blob is fetched from the start next time; that is no reason to fail. */
static void on_saved(void *arg, int r, const Err *err) {
    Fetch *f = arg;

    f->pending--;
    f->file.saving = false;
    if (r < 0) {
        log_debug("%s", err_text(err, r));
        f->file.mapped = false;
    }
    save(f);
    fetch_pump(f);
}

static void on_synced(void *arg, int r) {
    Fetch *f = arg;

    f->pending--;
    f->file.syncing = false;
    if (r >= 0) {
        extents_copy(&f->file.map.durable, &f->file.synced);
        f->file.sync_map = f->file.dirty = true;
        save(f);
    }
    fetch_pump(f);
}

static void sync_now_and_then(Fetch *f, uint64_t now) {
    if (f->file.syncing || now < f->file.synced_usec + SYNC_USEC)
        return;
    f->file.syncing = true;
    f->file.synced_usec = now;
    extents_copy(&f->file.synced, &f->file.map.written);
    f->pending++;
    ring_fdatasync(f->c->ring, f->file.fd, on_synced, f);
}

/* Writes the map, soon: not more often than SAVE_USEC, one at a time. */
static void save(Fetch *f) {
    FetchFile *file = &f->file;
    uint64_t now = now_usec();

    if (!file->mapped || !file->dirty || file->saving || f->closed || f->r < 0 || f->finishing)
        return;
    sync_now_and_then(f, now);
    if (now < file->saved_usec + SAVE_USEC) {
        (void)!loop_timer_after(f->c->event, &file->timer, SAVE_USEC, on_save_time,
                                f); /* without it the next piece comes back here */
        return;
    }
    file->saved_usec = now;
    file->dirty = false;
    file->saving = true;
    file->map.sequence++;
    resume_encode(&file->map, file->slot);
    f->pending++;
    pool_submit(f->c->pool, run_save, on_saved, f);
}

static FilePiece *piece_new(Fetch *f, uint64_t i) {
    FilePiece *o = xnew(FilePiece);

    *o = (FilePiece){ .fetch = f, .i = i };
    f->pending++;
    return o;
}

static void on_written(void *arg, int r) {
    _cleanup_free_ FilePiece *o = arg;
    Fetch *f = o->fetch;
    Err err;

    f->pending--;
    if (r == -ENOSPC || r == -EDQUOT) {
        fetch_fail(f, no_space(f, FS_BYTES_ADVICE, &err), &err);
    } else if (r < 0) {
        fetch_fail(f, err_errnum(&err, r, "cannot write a blob to the store"), &err);
    } else {
        extents_add(&f->file.map.written, o->begin, o->end);
        f->file.dirty = true;
        save(f);
    }
    fetch_pump(f);
}

void fetch_file_write(Fetch *f, uint64_t i) {
    Piece *p = window_piece(&f->window, i);
    RingBuffer *b = p->buffer;
    FilePiece *o = piece_new(f, i);
    size_t n = padded(f, b->len);

    memset(b->data + b->len, 0, n - b->len);
    o->begin = window_begin(&f->window, i) + p->kept;
    o->end = window_begin(&f->window, i) + b->len;
    ring_write_span(f->file.fd, b, (RingSpan){ p->kept, n - p->kept }, o->begin, on_written, o);
}

/* On a slow connection a piece takes long: what there is of it is written, too.  (Between two looks
 * a fast one fills it.) */
void fetch_file_keep(Fetch *f) {
    Window *w = &f->window;

    for (uint64_t i = w->head; f->file.mapped && i < w->head + w->span; i++) {
        Piece *p = window_piece(w, i);
        FilePiece *o;
        size_t n;

        if (!p || p->state != PIECE_MISSING || !p->buffer)
            continue;
        n = p->buffer->len - p->kept;
        n -= n % WINDOW_BLOCK_BYTES;
        if (p->old && n >= KEEP_BYTES) {
            o = piece_new(f, i);
            o->begin = window_begin(w, i) + p->kept;
            o->end = o->begin + n;
            ring_write_span(f->file.fd, p->buffer, (RingSpan){ p->kept, n }, o->begin, on_written,
                            o);
            p->kept += n;
        }
        p->old = true;
    }
}

/* What cannot be read is received again. */
static void on_read(void *arg, int r) {
    _cleanup_free_ FilePiece *o = arg;
    Fetch *f = o->fetch;
    Piece *p = f->window.pieces ? window_piece(&f->window, o->i) : NULL;

    f->pending--;
    f->reading--;
    if (p) {
        if (r >= 0 && (size_t)r >= p->kept) {
            p->state = p->kept == window_length(&f->window, o->i) ? PIECE_FULL : PIECE_MISSING;
            p->buffer->len = p->kept;
            f->resumed += p->kept;
        } else {
            p->state = PIECE_MISSING;
            p->buffer = ring_buffer_unref(p->buffer);
            p->kept = 0;
        }
    }
    fetch_pump(f);
}

void fetch_file_read(Fetch *f) {
    Window *w = &f->window;

    for (uint64_t i = w->head; f->reading < READ_AHEAD && i < w->head + w->span; i++) {
        Piece *p = window_piece(w, i);
        RingBuffer *b;

        if (!p)
            return;
        if (p->state != PIECE_DISK)
            continue;
        b = fetch_get_buffer(f, i);
        if (!b)
            return;
        p->buffer = b;
        p->state = PIECE_READING;
        f->reading++;
        ring_read(f->file.fd, b, padded(f, p->kept), window_begin(w, i), on_read, piece_new(f, i));
    }
}

int fetch_file_store(Fetch *f, const uint8_t *data, size_t n, Err *err) {
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, r;
    _cleanup_close_ int fd = openat(f->o.dir_fd, f->name, flags, 0600);

    if (fd < 0 && errno == EEXIST) { /* of an earlier try */
        (void)unlinkat(f->o.dir_fd, f->name, 0);
        fd = openat(f->o.dir_fd, f->name, flags, 0600);
    }
    if (fd < 0)
        return not_made(f, err);
    f->file.made = true;
    r = fs_write_all(fd, data, n, err);
    if (r == -ENOSPC)
        return no_space(f, FS_BYTES_ADVICE, err);
    if (r < 0)
        return err_prefix(err, r, "cannot write a blob to the store");
    f->file.made = false;
    return 0;
}

/* The map stays until the daemon has taken the file: should it die before, the next pull needs no
 * byte from the registry. */
int fetch_file_finish(Fetch *f, Err *err) {
    FetchFile *file = &f->file;

    if (ftruncate(file->fd, (off_t)f->o.size) < 0)
        return err_errno(err, "cannot cut the file of a blob to its size");
    file->fd = safe_close(file->fd);
    file->made = false;
    if (file->map_fd < 0)
        return 0;
    if (file->dirty) {
        file->map.sequence++;
        resume_encode(&file->map, file->slot);
    }
    if (!file->mapped || (file->dirty && run_save(f, NULL) < 0))
        (void)unlinkat(f->o.dir_fd, f->map, 0); /* it does no harm, and goes with the folder */
    file->map_fd = safe_close(file->map_fd);
    return 0;
}

void fetch_file_close(Fetch *f, bool worth) {
    FetchFile *file = &f->file;

    worth = file->made && worth && file->mapped && file->map.written.n > 0;
    if (worth && file->dirty) { /* else the store counts as progress what is none */
        file->map.sequence++;
        resume_encode(&file->map, file->slot);
        worth = run_save(f, NULL) >= 0;
    }
    if (file->made && !worth)
        (void)unlinkat(f->o.dir_fd, f->name, 0); /* the pull's folder is removed anyway */
    if ((file->made || file->map_fd >= 0) && !worth && f->map)
        (void)unlinkat(f->o.dir_fd, f->map, 0); /* as above; absent when all is well */
    file->made = false;
    file->timer = sd_event_source_disable_unref(file->timer);
    file->fd = safe_close(file->fd);
    file->map_fd = safe_close(file->map_fd);
    resume_map_done(&file->map);
    extents_done(&file->synced);
}
