/* SPDX-License-Identifier: Apache-2.0 */
/* partial_tries: how often what is kept of a layer was given to a pull in vain. */
#include "cache/partial_tries.h"

#include "base/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define XATTR "user.modelcached.tries"

/* The value of the attribute, in this machine's order. */
typedef struct Tries {
    int64_t sec, nsec; /* mtime of the notes, when they were given to a pull for the first time … */
    uint64_t n;        /* … of so many that wrote nothing into them */
} Tries;

/* Notes that were written since have not been tried yet. */
static int load(int dir_fd, const char *notes, Tries *ret) {
    _cleanup_close_ int fd = openat(dir_fd, notes, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    Tries had;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    *ret = (Tries){ .sec = st.st_mtim.tv_sec, .nsec = st.st_mtim.tv_nsec };
    if (fgetxattr(fd, XATTR, &had, sizeof(had)) == (ssize_t)sizeof(had) && had.sec == ret->sec &&
        had.nsec == ret->nsec)
        ret->n = had.n;
    return TAKE_FD(fd);
}

/* That it cannot be counted is no reason to drop a layer. */
static void save(int fd, const Tries *t) {
    if (fsetxattr(fd, XATTR, t, sizeof(*t), 0) < 0)
        log_debug("how often a layer was tried is not noted: %s", strerror(errno));
}

int partial_tries_begin(int dir_fd, const char *notes, const Digest *blob, Err *err) {
    Tries t = { 0 };
    _cleanup_close_ int fd = load(dir_fd, notes, &t);

    if (fd < 0) /* they cannot be given either */
        return 0;
    if (t.n >= PARTIAL_TRIES)
        return err_set(err, -ESTALE,
                       "%d pulls went on with what is kept of layer %s, and died before they got "
                       "any further: it is dropped, and the layer begins anew",
                       PARTIAL_TRIES, DIGEST_STR(blob));
    t.n++;
    save(fd, &t);
    return 0;
}

void partial_tries_excuse(int dir_fd, const char *notes) {
    Tries t = { 0 };
    _cleanup_close_ int fd = load(dir_fd, notes, &t);

    if (fd < 0 || t.n == 0)
        return;
    t.n--;
    save(fd, &t);
}
