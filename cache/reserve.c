/* SPDX-License-Identifier: Apache-2.0 */
/* reserve: space of the file system put by in a file. */
#include "cache/reserve.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* Enough for the log of removing an artifact of about 80,000 files; on a small disk less. */
#define RESERVE_BYTES (16ULL << 20)
#define RESERVE_PART  32 /* of the file system, at most */

struct Reserve {
    char *path;
    bool held; /* or the file system cannot */
};

void reserve_new(Reserve **ret, const char *path) {
    Reserve *r = xnew(Reserve);
    struct stat st;

    r->path = xstrdup(path);
    r->held = stat(path, &st) == 0 && st.st_size > 0;
    *ret = r;
}

Reserve *reserve_free(Reserve *r) {
    if (!r)
        return NULL;
    free(r->path);
    free(r);
    return NULL;
}

/* How large it is to be, and what is free for root; both 0 when that can't be told. */
static void look(const char *path, uint64_t *ret_bytes, uint64_t *ret_free) {
    _cleanup_free_ char *folder = xstrndup(path, (size_t)(strrchr(path, '/') - path));
    struct statvfs fs;

    *ret_bytes = *ret_free = 0;
    if (statvfs(isempty(folder) ? "/" : folder, &fs) < 0)
        return;
    *ret_bytes = MIN(RESERVE_BYTES, (uint64_t)fs.f_blocks * fs.f_frsize / RESERVE_PART);
    *ret_free = (uint64_t)fs.f_bfree * fs.f_frsize;
}

static int no_space(Err *err) {
    return err_set(err, -ENOSPC,
                   "no space is left on the file system of the store: only removing is possible "
                   "until there is some");
}

static int make(Reserve *r, uint64_t bytes, Err *err) {
    _cleanup_close_ int fd = open(r->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return errno == ENOSPC || errno == EDQUOT
                   ? no_space(err)
                   : err_errno(err, "making %s, the reserve of the store, failed", r->path);
    if (fallocate(fd, 0, 0, (off_t)bytes) < 0 && (errno == ENOSPC || errno == EDQUOT)) {
        reserve_give_up(r);
        return no_space(err);
    }
    r->held = true;
    return 0;
}

int reserve_hold(Reserve *r, Err *err) {
    uint64_t bytes, space;

    if (r->held)
        return 0;
    look(r->path, &bytes, &space);
    return bytes > space ? no_space(err) : make(r, bytes, err);
}

void reserve_give_up(Reserve *r) {
    (void)!truncate(r->path, 0); /* some file systems free what was unlinked later */
    (void)unlink(r->path);       /* absent: nothing was held */
    r->held = false;
}

bool reserve_give_up_if_needed(Reserve *r) {
    uint64_t bytes, space;

    if (!r->held)
        return true;
    look(r->path, &bytes, &space);
    if (space >= 2 * bytes) /* what counts as free cannot all be had: ext4 keeps up to 2 % */
        return false;
    reserve_give_up(r);
    return true;
}
