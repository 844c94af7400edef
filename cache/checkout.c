/* SPDX-License-Identifier: Apache-2.0 */
/* checkout: a merged tree as a directory of hard links to objects. */
#include "cache/checkout.h"

#include "base/fs.h"
#include "base/parallel.h"
#include "cache/object.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define SYNC_DIRS_MAX 32

/* All paths are relative to the tree, which is ours alone, and tree.c made sure that none passes a
 * symlink. */
static int link_file(int objects_fd, int dir_fd, const char *path, const LayerEntry *e,
                     atomic_bool *copied, Err *err) {
    _cleanup_close_ int fd = -EBADF;

    if (linkat(objects_fd, OBJECT_NAME(&e->digest, e->executable), dir_fd, path, 0) == 0)
        return 0;
    if (errno != EMLINK)
        return err_errno(err, "linking file %.200s to object %s failed", e->path,
                         DIGEST_STR(&e->digest));
    /* ext4 allows 65,000 names of one file (an empty __init__.py gets there): this tree has a copy.
     */
    fd = openat(objects_fd, OBJECT_NAME(&e->digest, e->executable),
                O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_errno(err, "opening object %s failed", DIGEST_STR(&e->digest));
    *copied = true;
    return object_copy_to(fd, dir_fd, path, e->executable, err);
}

static int make_directories(int dir_fd, const LayerEntry *entries, size_t n, Err *err) {
    for (size_t i = 0; i < n; i++)
        if (entries[i].type == ENTRY_TYPE_DIRECTORY && mkdirat(dir_fd, entries[i].path, 0700) < 0)
            return err_errno(err, "making directory %.200s of the tree failed", entries[i].path);
    return 0;
}

typedef struct Checkout {
    int objects_fd, dir_fd;
    const LayerEntry *entries;
    atomic_bool copied; /* a file is no link, and its content not yet durable */
} Checkout;

static int make_entry(void *arg, size_t i, Err *err) {
    Checkout *c = arg;
    const LayerEntry *e = &c->entries[i];

    if (e->type == ENTRY_TYPE_FILE)
        return link_file(c->objects_fd, c->dir_fd, e->path, e, &c->copied, err);
    if (e->type == ENTRY_TYPE_SYMLINK && symlinkat(e->target, c->dir_fd, e->path) < 0)
        return err_errno(err, "making symlink %.200s of the tree failed", e->path);
    return 0;
}

static int finish_directory(int dir_fd, const char *path, Err *err) {
    const struct timespec times[2] = { { .tv_sec = OBJECT_MTIME_SEC },
                                       { .tv_sec = OBJECT_MTIME_SEC } };

    if (fchmodat(dir_fd, path, 0555, 0) < 0 || fchownat(dir_fd, path, 0, 0, 0) < 0 ||
        utimensat(dir_fd, path, times, 0) < 0)
        return err_errno(err, "making directory %.200s of the tree read-only failed", path);
    return 0;
}

/* The files are durable unless they were copied, so a few directories are synced one by one:
 * syncfs(2) waits for all that anybody has written to the file system.  btrfs before Linux 5.18 can
 * lose the target of a symlink whose directory alone was synced. */
static int sync_tree(int dir_fd, const LayerEntry *entries, size_t n, bool copied, Err *err) {
    bool whole = copied;
    size_t n_dirs = 1;
    int r;

    for (size_t i = 0; i < n; i++) {
        n_dirs += entries[i].type == ENTRY_TYPE_DIRECTORY;
        whole = whole || entries[i].type == ENTRY_TYPE_SYMLINK;
    }
    if (whole || n_dirs > SYNC_DIRS_MAX)
        return syncfs(dir_fd) < 0 ? err_errno(err, "making the tree durable failed") : 0;
    for (size_t i = 0; i < n; i++) {
        if (entries[i].type != ENTRY_TYPE_DIRECTORY)
            continue;
        r = fs_fsync_dir(dir_fd, entries[i].path, err);
        if (r < 0)
            return r;
    }
    return fs_fsync_dir(dir_fd, NULL, err);
}

static int finish(int dir_fd, const LayerEntry *entries, size_t n, bool copied, Err *err) {
    int r;

    for (size_t i = n; i-- > 0;) {
        if (entries[i].type != ENTRY_TYPE_DIRECTORY)
            continue;
        r = finish_directory(dir_fd, entries[i].path, err);
        if (r < 0)
            return r;
    }
    r = finish_directory(dir_fd, ".", err);
    return r < 0 ? r : sync_tree(dir_fd, entries, n, copied, err);
}

int checkout_build(int objects_fd, int dir_fd, const LayerEntry *entries, size_t n, Err *err) {
    Checkout c = { .objects_fd = objects_fd, .dir_fd = dir_fd, .entries = entries };
    int r = make_directories(dir_fd, entries, n, err);

    if (r >= 0)
        r = parallel_each(n, make_entry, &c, err);
    return r < 0 ? r : finish(dir_fd, entries, n, c.copied, err);
}

static int is_linked(int objects_fd, int dir_fd, const LayerEntry *e, Err *err) {
    struct stat object, file;

    if (fstatat(objects_fd, OBJECT_NAME(&e->digest, e->executable), &object, AT_SYMLINK_NOFOLLOW) <
        0)
        return err_errno(err, "looking at object %s failed", DIGEST_STR(&e->digest));
    if (fstatat(dir_fd, e->path, &file, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT
                   ? 0
                   : err_errno(err, "looking at file %.200s of the tree failed", e->path);
    return object.st_ino == file.st_ino;
}

int checkout_repair(int objects_fd, int dir_fd, int scratch_fd, const LayerEntry *entries, size_t n,
                    Err *err) {
    atomic_bool copied = false;

    for (size_t i = 0; i < n; i++) {
        if (entries[i].type != ENTRY_TYPE_FILE)
            continue;
        int r = is_linked(objects_fd, dir_fd, &entries[i], err);
        if (r > 0)
            continue;
        if (r == 0)
            r = link_file(objects_fd, scratch_fd, "file", &entries[i], &copied, err);
        if (r < 0)
            return r;
        if (renameat(scratch_fd, "file", dir_fd, entries[i].path) < 0)
            return err_set(err, -EIO, "repairing file %.200s of the tree failed: %s",
                           entries[i].path, strerror(errno));
    }
    return finish(dir_fd, entries, n, copied, err);
}
