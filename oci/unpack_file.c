/* SPDX-License-Identifier: Apache-2.0 */
/* unpack_file: writes one file of a tar into the pull's folder and hashes it; inner part of unpack.
 *
 * A file that fits the buffer is hashed before it exists on disk, so that equal ones are never
 * written; a large one goes around the page cache (facts: buffered writes cost more than the hash).
 */
#include "oci/unpack_file.h"

#include <fcntl.h>

#define CHUNK_BYTES  MiB(1)
#define DIRECT_BYTES MiB(4) /* from this size on: O_DIRECT */
#define BLOCK_BYTES  4096

struct UnpackFile {
    int dir_fd, fd;
    const char *name;
    uint64_t size, written;
    bool direct;
    uint8_t *chunk; /* BLOCK_BYTES-aligned */
    size_t n;       /* bytes in it */
    Hasher *hasher;
};

int unpack_file_new(UnpackFile **ret, int dir_fd, Err *err) {
    _cleanup_(unpack_file_freep) UnpackFile *f = xnew(UnpackFile);

    f->dir_fd = dir_fd;
    f->fd = -EBADF;
    f->hasher = hasher_new();
    f->chunk = aligned_alloc(BLOCK_BYTES, CHUNK_BYTES);
    if (!f->chunk)
        return err_set(err, -ENOMEM, "no memory to unpack a tar");
    *ret = TAKE_PTR(f);
    return 0;
}

UnpackFile *unpack_file_free(UnpackFile *f) {
    if (!f)
        return NULL;
    (void)safe_close(f->fd);
    (void)hasher_free(f->hasher);
    free(f->chunk);
    free(f);
    return NULL;
}

void unpack_file_begin(UnpackFile *f, const char *name, uint64_t size) {
    assert(f->fd < 0);
    f->name = name;
    f->size = size;
    f->written = 0;
    f->n = 0;
    f->direct = false;
}

static int failed(int r, const char *what, Err *err) {
    if (r == -ENOSPC || r == -EDQUOT)
        return err_set(err, -ENOSPC,
                       "no space left in the store for a file of the tar: free space on its file "
                       "system");
    return err_errnum(err, r, "cannot %s a file of the tar in the store", what);
}

static int open_file(UnpackFile *f, Err *err) {
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;

    if (f->size >= DIRECT_BYTES) {
        f->fd = openat(f->dir_fd, f->name, flags | O_DIRECT, 0600);
        f->direct = f->fd >= 0;
        if (f->fd < 0 && errno == EINVAL) /* open(2) may have made it all the same */
            (void)unlinkat(f->dir_fd, f->name, 0);
        else if (f->fd < 0)
            return failed(-errno, "create", err);
    }
    if (f->fd < 0)
        f->fd = openat(f->dir_fd, f->name, flags, 0600);
    if (f->fd < 0)
        return failed(-errno, "create", err);
    /* One extent, and no space is found out before the bytes are there; not every file system can.
     */
    if (f->size > CHUNK_BYTES && fallocate(f->fd, 0, 0, (off_t)f->size) < 0 && errno == ENOSPC)
        return failed(-ENOSPC, "allocate", err);
    return 0;
}

static int flush(UnpackFile *f, Err *err) {
    size_t n = f->n, at = 0;

    if (f->fd < 0) {
        int r = open_file(f, err);
        if (r < 0)
            return r;
    }
    if (f->direct && n % BLOCK_BYTES != 0) { /* the tail: cut off again at the end */
        size_t padded = (n + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        memset(f->chunk + n, 0, padded - n);
        n = padded;
    }
    while (at < n) {
        ssize_t k = pwrite(f->fd, f->chunk + at, n - at, (off_t)(f->written + at));
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return failed(-errno, "write", err);
        at += (size_t)k;
    }
    f->written += f->n;
    f->n = 0;
    return 0;
}

int unpack_file_write(UnpackFile *f, const void *data, size_t n, Err *err) {
    const uint8_t *p = data;

    hasher_update(f->hasher, data, n);
    while (n > 0) {
        size_t k = MIN(n, CHUNK_BYTES - f->n);

        if (k == 0) {
            int r = flush(f, err);
            if (r < 0)
                return r;
            continue;
        }
        memcpy(f->chunk + f->n, p, k);
        f->n += k;
        p += k;
        n -= k;
    }
    return 0;
}

void unpack_file_digest(UnpackFile *f, Digest *ret) {
    hasher_final(f->hasher, ret);
}

static int finish(UnpackFile *f, Err *err) {
    uint64_t size = f->written + f->n;
    int r = f->n > 0 || f->fd < 0 ? flush(f, err) : 0;

    if (r < 0)
        return r;
    if (f->direct && ftruncate(f->fd, (off_t)size) < 0)
        return failed(-errno, "cut", err);
    return 0;
}

int unpack_file_end(UnpackFile *f, bool keep, Err *err) {
    int r = keep ? finish(f, err) : 0;
    bool made = f->fd >= 0;

    f->fd = safe_close(f->fd);
    if (made && (!keep || r < 0))
        (void)unlinkat(f->dir_fd, f->name, 0); /* the pull's folder is removed anyway */
    return r;
}
