/* SPDX-License-Identifier: Apache-2.0 */
/* read_back: hashes what lies on the disk, past the page cache, which belongs to the workloads. */
#include "cache/read_back.h"

#include <fcntl.h>

enum { READ_BYTES = 1 << 20, ALIGNMENT = 4096 };

struct ReadBack {
    ReadBackProgress progress;
    void *arg;
    uint8_t *buffer; /* aligned for O_DIRECT */
};

int read_back_new(ReadBack **ret, ReadBackProgress progress, void *arg, Err *err) {
    _cleanup_(read_back_freep) ReadBack *b = xnew(ReadBack);

    b->progress = progress;
    b->arg = arg;
    b->buffer = aligned_alloc(ALIGNMENT, READ_BYTES);
    if (!b->buffer)
        return err_set(err, -ENOMEM, "no memory to read files back");
    *ret = TAKE_PTR(b);
    return 0;
}

ReadBack *read_back_free(ReadBack *b) {
    if (b)
        free(b->buffer);
    free(b);
    return NULL;
}

int read_back_open(int dir_fd, const char *name, bool direct) {
    const int flags = O_RDONLY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(dir_fd, name, flags | (direct ? O_DIRECT : 0));

    if (fd < 0 && errno == EINVAL && direct) {
        fd = openat(dir_fd, name, flags);
        if (fd >= 0)
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* a hint */
    }
    return fd < 0 ? -errno : fd;
}

/* Where O_DIRECT is only refused when it is used.  True when it is off now. */
static bool go_buffered(int fd) {
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_DIRECT) && fcntl(fd, F_SETFL, flags & ~O_DIRECT) == 0;
}

int read_back_hash(ReadBack *b, int fd, uint64_t max, Hasher *hasher, uint64_t *ret_n) {
    int r = 0;

    *ret_n = 0;
    while (*ret_n < max && r >= 0) {
        ssize_t got = pread(fd, b->buffer, READ_BYTES, (off_t)*ret_n);
        size_t n;

        if (got < 0 && (errno == EINTR || (errno == EINVAL && go_buffered(fd))))
            continue;
        if (got <= 0)
            return got < 0 ? -errno : 0;
        n = (size_t)MIN((uint64_t)got, max - *ret_n);
        hasher_update(hasher, b->buffer, n);
        *ret_n += n;
        if (got % ALIGNMENT != 0) /* a short read, or the end: O_DIRECT may not read on from here */
            (void)go_buffered(fd);
        r = b->progress ? b->progress(b->arg, n) : 0;
    }
    return r;
}
