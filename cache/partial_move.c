/* SPDX-License-Identifier: Apache-2.0 */
/* partial_move: files that go from the folder of a pull to partial/ and back: the care that takes.
 */
#include "cache/partial_move.h"

#include "base/fs.h"
#include "base/parse.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>

#define WAIT_NSEC (10 * 1000 * (long)NSEC_PER_USEC)

const char *partial_name(char buf[static PARTIAL_NAME_MAX], const Digest *d, const char *suffix) {
    (void)snprintf(buf, PARTIAL_NAME_MAX, "%s%s", DIGEST_HEX(d), suffix);
    return buf;
}

bool partial_name_parse(const char *name, Digest *ret, const char **ret_suffix) {
    const size_t hex = 2 * DIGEST_BYTES;

    if (parse_hex(name, hex, ret->bytes) < 0)
        return false;
    *ret_suffix = name + hex;
    return true;
}

/* A worker that outlived its daemon ends when it sees that the socket is closed; until then it may
 * write. A read lease (fcntl(2)) can only be had once nobody can. */
static int wait_for_writers(PartialMove *m, int fd) {
    const struct timespec wait = { .tv_nsec = WAIT_NSEC };

    if (fcntl(fd, F_SETSIG, SIGURG) < 0) /* ignored; the default, SIGIO, kills */
        return -errno;
    while (fcntl(fd, F_SETLEASE, F_RDLCK) < 0) {
        if (errno != EAGAIN)
            return -errno;
        if (m->waits == 0)
            return -EBUSY;
        m->waits--;
        (void)nanosleep(&wait, NULL); /* a shorter wait does no harm */
    }
    (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* closing the descriptor does it as well */
    return 0;
}

static mode_t mode_of(PartialMode mode, const struct stat *st) {
    if (mode == PARTIAL_MODE_PRIVATE)
        return 0600;
    return (st->st_mode & 0200) | (st->st_mode & 0111 ? 0555 : 0444);
}

int partial_take_over(PartialMove *m, const char *name, PartialMode mode, struct stat *ret) {
    _cleanup_close_ int fd =
        fs_open_beneath(m->from_fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0, NULL);

    if (fd < 0)
        return fd;
    if (fstat(fd, ret) < 0)
        return -errno;
    if (!S_ISREG(ret->st_mode) || ret->st_nlink != 1)
        return -EPROTO;
    if (fchown(fd, m->uid, m->gid) < 0 || fstat(fd, ret) < 0) /* its mode is ours alone now */
        return -errno;
    if ((ret->st_mode & 07777) != mode_of(mode, ret) && fchmod(fd, mode_of(mode, ret)) < 0)
        return -errno;
    return wait_for_writers(m, fd);
}

int partial_move(PartialMove *m, const char *name, const char *to, PartialMode mode) {
    struct stat before, st;
    int r = partial_take_over(m, name, mode, &before);

    if (r < 0)
        return r;
    if (renameat2(m->from_fd, name, m->to_fd, to, m->flags) < 0)
        return -errno;
    if (fstatat(m->to_fd, to, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) ||
        st.st_nlink != 1 || st.st_ino != before.st_ino) {
        /* The end of the pull, or a start, tries again. */
        (void)!fs_remove_recursive(m->to_fd, to, NULL);
        return -EPROTO;
    }
    m->bytes += (uint64_t)st.st_blocks * 512;
    return 0;
}

int partial_each(int fd, void (*visit)(void *arg, const char *name), void *arg, Err *err) {
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int r = 0;

    if (!dir) {
        r = err_errno(err, "reading a directory of partial blobs failed");
        safe_close(fd);
        return r;
    }
    for (const struct dirent *entry; (errno = 0, entry = readdir(dir));)
        if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
            visit(arg, entry->d_name);
    if (errno != 0)
        r = err_errno(err, "reading a directory of partial blobs failed");
    (void)closedir(dir); /* only read from */
    return r;
}
