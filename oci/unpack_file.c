/* SPDX-License-Identifier: Apache-2.0 */
/* unpack_file: writes one file of a tar into the pull's folder and hashes it; inner part of
 * writers. */
#include "oci/unpack_file.h"

#include "base/fs.h"
#include "cache/read_back.h"

#include <fcntl.h>

struct UnpackFile {
    int dir_fd, fd;
    const char *name;
    uint64_t size, written;
    bool executable;
    bool direct;   /* O_DIRECT */
    bool reopened; /* another worker may have written more of it */
    Hasher *hasher;
};

void unpack_file_new(UnpackFile **ret, int dir_fd) {
    UnpackFile *f = xnew(UnpackFile);

    f->dir_fd = dir_fd;
    f->fd = -EBADF;
    f->hasher = hasher_new();
    *ret = f;
}

UnpackFile *unpack_file_free(UnpackFile *f) {
    if (!f)
        return NULL;
    (void)safe_close(f->fd);
    (void)hasher_free(f->hasher);
    free(f);
    return NULL;
}

void unpack_file_begin(UnpackFile *f, const char *name, uint64_t size, bool executable) {
    assert(f->fd < 0);
    f->name = name;
    f->size = size;
    f->executable = executable;
    f->written = 0;
    f->direct = f->reopened = false;
}

static int failed_of(int r, const char *what, const char *advice, Err *err) {
    if (r == -ENOSPC || r == -EDQUOT)
        return err_set(err, -ENOSPC, "no space left in the store for a file of the tar: %s",
                       advice);
    return err_errnum(err, r, "cannot %s a file of the tar in the store", what);
}

static int failed(int r, const char *what, Err *err) {
    return failed_of(r, what, FS_BYTES_ADVICE, err);
}

/* open(2) failed. */
static int not_made(const UnpackFile *f, Err *err) {
    int r = -errno;

    return failed_of(r, "create", fs_space_advice(f->dir_fd), err);
}

/* With the mode that the daemon wants: it need not change it.  But one that comes in several pieces
 * may have to be opened again by its owner. */
static int create(const UnpackFile *f, int flags) {
    const mode_t owner = f->size > UNPACK_FILE_WHOLE ? 0200 : 0;
    const mode_t mode = owner | (f->executable ? 0555 : 0444);
    int fd;

    flags |= O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    fd = openat(f->dir_fd, f->name, flags, mode);
    if (fd >= 0 || errno != EEXIST)
        return fd;
    (void)unlinkat(f->dir_fd, f->name, 0); /* another worker came further than it has noted */
    return openat(f->dir_fd, f->name, flags, mode);
}

static int open_file(UnpackFile *f, Err *err) {
    if (f->size >= UNPACK_FILE_DIRECT) {
        f->fd = create(f, O_DIRECT);
        f->direct = f->fd >= 0;
        if (f->fd < 0 && errno == EINVAL) /* open(2) may have made it all the same */
            (void)unlinkat(f->dir_fd, f->name, 0);
        else if (f->fd < 0)
            return not_made(f, err);
    }
    if (f->fd < 0)
        f->fd = create(f, 0);
    if (f->fd < 0)
        return not_made(f, err);
    /* No space is found out before the bytes are there. */
    return f->size > UNPACK_FILE_WHOLE && fs_allocate(f->fd, f->size) < 0
               ? failed(-ENOSPC, "allocate", err)
               : 0;
}

static int foreign(Err *err) {
    return err_set(err, -EBADMSG, "a file of the tar in the store is not what was noted of it");
}

static int prove(UnpackFile *f, const UnpackWritten *written, Err *err) {
    _cleanup_(read_back_freep) ReadBack *reader = NULL;
    _cleanup_close_ int fd = read_back_open(f->dir_fd, f->name, f->size >= UNPACK_FILE_DIRECT);
    uint64_t n;
    Digest got;
    int r = fd < 0 ? foreign(err) : read_back_new(&reader, NULL, NULL, err);

    if (r < 0)
        return r;
    r = read_back_hash(reader, fd, written->bytes, f->hasher, &n);
    hasher_peek(f->hasher, &got);
    return r < 0 || n != written->bytes || !digest_equal(&got, &written->digest) ? foreign(err) : 0;
}

int unpack_file_reopen(UnpackFile *f, const UnpackWritten *written, Err *err) {
    const int flags = O_WRONLY | O_NOFOLLOW | O_CLOEXEC;
    int r;

    if (written->bytes == 0)
        return 0;
    r = prove(f, written, err);
    if (r < 0)
        return r;
    if (f->size >= UNPACK_FILE_DIRECT)
        f->fd = openat(f->dir_fd, f->name, flags | O_DIRECT);
    f->direct = f->fd >= 0;
    if (f->fd < 0)
        f->fd = openat(f->dir_fd, f->name, flags);
    if (f->fd < 0) /* the daemon had begun to take it */
        return foreign(err);
    f->reopened = true;
    f->written = written->bytes;
    return 0;
}

void unpack_file_written(const UnpackFile *f, UnpackWritten *ret) {
    ret->bytes = f->written;
    hasher_peek(f->hasher, &ret->digest);
}

void unpack_file_hash(UnpackFile *f, const void *data, size_t n) {
    hasher_update(f->hasher, data, n);
}

void unpack_file_digest(UnpackFile *f, Digest *ret) {
    hasher_final(f->hasher, ret);
}

int unpack_file_write(UnpackFile *f, uint8_t *data, size_t n, Err *err) {
    size_t padded = n, at = 0;

    if (f->fd < 0) {
        int r = open_file(f, err);
        if (r < 0)
            return r;
    }
    if (f->direct && n % UNPACK_FILE_BLOCK != 0) { /* the tail: cut off again at the end */
        padded = (n + UNPACK_FILE_BLOCK - 1) / UNPACK_FILE_BLOCK * UNPACK_FILE_BLOCK;
        memset(data + n, 0, padded - n);
    }
    while (at < padded) {
        ssize_t k = pwrite(f->fd, data + at, padded - at, (off_t)(f->written + at));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return failed(-errno, "write", err);
        at += (size_t)k;
    }
    f->written += n;
    return 0;
}

int unpack_file_end(UnpackFile *f, bool keep, Err *err) {
    bool made = f->fd >= 0;
    int r = 0;

    if (keep && (f->direct || f->reopened) && ftruncate(f->fd, (off_t)f->written) < 0)
        r = failed(-errno, "cut", err);
    f->fd = safe_close(f->fd);
    if (made && (!keep || r < 0))
        (void)unlinkat(f->dir_fd, f->name, 0); /* the pull's folder is removed anyway */
    return r;
}
