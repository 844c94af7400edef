/* SPDX-License-Identifier: Apache-2.0 */
/* object: the files of objects/: their names, how an untrusted file becomes one, copies of one. */
#include "cache/object.h"

#include "base/fs.h"
#include "base/parse.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>

enum { WRITER_TRIES = 20, WRITER_WAIT_USEC = 500, COPY_CHUNK = 1 << 30 };

const char *object_name(char buf[static OBJECT_NAME_MAX], const Digest *d, bool exec) {
    format_hex(d->bytes, 1, buf);
    buf[2] = '/';
    format_hex(d->bytes + 1, DIGEST_BYTES - 1, buf + 3);
    if (exec)
        memcpy(buf + 3 + 2 * (DIGEST_BYTES - 1), ".x", 3);
    return buf;
}

int object_name_parse(unsigned shard, const char *name, Digest *ret, bool *ret_exec) {
    size_t hex = 2 * (DIGEST_BYTES - 1), n = strlen(name);
    bool exec = n == hex + 2 && streq(name + hex, ".x");

    if (n != hex && !exec)
        return -EINVAL;
    ret->bytes[0] = (uint8_t)shard;
    if (parse_hex(name, hex, ret->bytes + 1) < 0)
        return -EINVAL;
    *ret_exec = exec;
    return 0;
}

/* No descriptor or mapping can write to the file any more?  A read lease (fcntl(2), F_SETLEASE) can
 * only be had then. A writer that is just being closed gets a few milliseconds. */
static int prove_no_writer(int fd, const char *name, Err *err) {
    const struct timespec wait = { .tv_nsec = WRITER_WAIT_USEC * (long)NSEC_PER_USEC };

    /* Somebody who opens the file while we hold the lease makes the kernel send us a signal, by
     * default SIGIO, which kills.  SIGURG is ignored by default. */
    if (fcntl(fd, F_SETSIG, SIGURG) < 0)
        return err_errno(err, "preparing a lease on ingested file %s failed", name);
    for (int i = 0; i < WRITER_TRIES; i++) {
        if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
            (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* closing the descriptor does it as well */
            return 0;
        }
        if (errno != EAGAIN)
            return err_errno(err, "taking a lease on ingested file %s failed", name);
        (void)nanosleep(&wait, NULL); /* a shorter wait does no harm */
    }
    return err_set(err, -EBUSY,
                   "ingested file %s is still open for writing: it is not taken into the store",
                   name);
}

/* The untrusted file `name` of `dir_fd`, when it looks as it must. */
static int open_ingested(const ObjectFile *f, int dir_fd, const char *name, struct stat *ret,
                         Err *err) {
    _cleanup_close_ int fd =
        fs_open_beneath(dir_fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0, err);

    if (fd == -EXDEV || fd == -ELOOP)
        return err_set(err, -EPROTO, "ingested file %s is a symlink", f->name);
    if (fd < 0)
        return fd;
    if (fstat(fd, ret) < 0)
        return err_errno(err, "looking at ingested file %s failed", f->name);
    if (!S_ISREG(ret->st_mode) || ret->st_nlink != 1)
        return err_set(err, -EPROTO, "ingested file %s is not a regular file with one name",
                       f->name);
    if ((uint64_t)ret->st_size != f->size)
        return err_set(err, -EBADMSG, "ingested file %s has %lld bytes, %llu were announced",
                       f->name, (long long)ret->st_size, (unsigned long long)f->size);
    return TAKE_FD(fd);
}

static int check_name(const ObjectFile *f, Err *err) {
    if (name_is_safe(f->name, strlen(f->name)))
        return 0;
    return err_set(err, -EPROTO, "'%.200s' is not the name of an ingested file", f->name);
}

/* Root's, 0444 or 0555, fixed time: after this only a descriptor that is open already could write.
 */
static int normalise(int fd, bool exec, const char *name, Err *err) {
    const struct timespec times[2] = { { .tv_sec = OBJECT_MTIME_SEC },
                                       { .tv_sec = OBJECT_MTIME_SEC } };
    const mode_t mode = exec ? 0555 : 0444;
    struct stat st;

    /* Most files come with their mode, and a change that changes nothing is not for free. */
    if (fchown(fd, 0, 0) < 0 || fstat(fd, &st) < 0 ||
        ((st.st_mode & 07777) != mode && fchmod(fd, mode) < 0) || futimens(fd, times) < 0)
        return err_errno(err, "making %s root's and read-only failed", name);
    return 0;
}

int object_seal(ObjectFile *f, bool sync, Err *err) {
    struct stat st;
    _cleanup_close_ int fd = -EBADF;
    int r = check_name(f, err);

    if (r < 0)
        return r;
    fd = open_ingested(f, f->dir_fd, f->name, &st, err);
    if (fd < 0)
        return fd;
    r = normalise(fd, f->exec, f->name, err);
    if (r < 0)
        return r;
    r = prove_no_writer(fd, f->name, err);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return err_errno(err, "looking at ingested file %s failed", f->name);
    if ((uint64_t)st.st_size != f->size)
        return err_set(err, -EBADMSG, "ingested file %s changed its size", f->name);
    if (sync && fsync(fd) < 0)
        return err_errno(err, "making ingested file %s durable failed", f->name);
    f->ino = st.st_ino;
    return 0;
}

/* Names the file behind `fd`, which has no name yet. */
static int link_fd(int fd, int dir_fd, const char *name) {
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, path, dir_fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int link_object(int fd, int objects_fd, const char *name, Err *err) {
    char fresh[OBJECT_NAME_MAX + 8];
    int r = link_fd(fd, objects_fd, name);

    if (r != -EEXIST)
        return r < 0 ? err_errnum(err, r, "naming object %s failed", name) : 0;
    (void)snprintf(fresh, sizeof(fresh), "%s.new", name);
    (void)unlinkat(objects_fd, fresh,
                   0); /* mostly absent: left by a crash between the two calls below */
    r = link_fd(fd, objects_fd, fresh);
    if (r < 0)
        return err_errnum(err, r, "naming object %s failed", name);
    if (renameat(objects_fd, fresh, objects_fd, name) < 0)
        return err_errno(err, "replacing object %s failed", name);
    return 0;
}

/* What has the object's name now, where only we can change it, is the very file that was sealed? */
static int check_published(const ObjectFile *f, int objects_fd, const char *name, Err *err) {
    struct stat st;
    _cleanup_close_ int fd = open_ingested(f, objects_fd, name, &st, err);

    if (fd < 0)
        return fd;
    if (st.st_ino != f->ino || st.st_uid != 0 ||
        (st.st_mode & 07777) != (f->exec ? 0555U : 0444U) ||
        st.st_mtim.tv_sec != OBJECT_MTIME_SEC || st.st_mtim.tv_nsec != 0)
        return err_set(
            err, -EPROTO,
            "ingested file %s was exchanged or changed while it was taken into the store", f->name);
    /* A writer that had passed the permission check when the file was sealed shows by now. */
    return prove_no_writer(fd, f->name, err);
}

void object_unpublish(const ObjectFile *f, int objects_fd, const Digest *d) {
    const char *name = OBJECT_NAME(d, f->exec);

    /* What cannot go back goes, at the latest with the next start: it may be anything, and no row
     * knows it. */
    if (renameat(objects_fd, name, f->dir_fd, f->name) < 0)
        (void)!fs_remove_recursive(objects_fd, name, NULL);
}

int object_publish(const ObjectFile *f, int objects_fd, const Digest *d, Err *err) {
    const char *name = OBJECT_NAME(d, f->exec);
    int r = check_name(f, err);

    if (r < 0)
        return r;
    if (renameat(f->dir_fd, f->name, objects_fd, name) < 0)
        return err_errno(err, "naming object %s failed", name);
    r = check_published(f, objects_fd, name, err);
    if (r < 0)
        object_unpublish(f, objects_fd, d);
    return r;
}

static int copy_content(int from, int to, Err *err) {
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    for (;;) {
        ssize_t n = copy_file_range(from, NULL, to, NULL, COPY_CHUNK, 0);

        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return err_errno(err, "copying an object failed");
    }
}

int object_derive(int objects_fd, const Digest *d, bool exec, Err *err) {
    _cleanup_close_ int from = -EBADF, to = -EBADF;
    int r;

    from = openat(objects_fd, OBJECT_NAME(d, !exec), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (from < 0)
        return err_errno(err, "opening object %s failed", DIGEST_STR(d));
    to = openat(objects_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (to < 0)
        return err_errno(err, "making a copy of object %s failed", DIGEST_STR(d));
    r = copy_content(from, to, err);
    if (r < 0)
        return r;
    r = normalise(to, exec, "a copied object", err);
    if (r < 0)
        return r;
    if (fsync(to) < 0)
        return err_errno(err, "making a copy of object %s durable failed", DIGEST_STR(d));
    return link_object(to, objects_fd, OBJECT_NAME(d, exec), err);
}

int object_copy_to(int object_fd, int dir_fd, const char *path, bool exec, Err *err) {
    _cleanup_close_ int to =
        openat(dir_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r;

    if (to < 0)
        return err_errno(err, "making file %s of the tree failed", path);
    r = copy_content(object_fd, to, err);
    return r < 0 ? r : normalise(to, exec, path, err);
}
