/* SPDX-License-Identifier: Apache-2.0 */
/* fs: file system calls with the care that a store and untrusted names need. */
#include "base/fs.h"

#include "base/limits.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#define READ_STEP     KiB(64)
#define OPENAT2_TRIES 16

/* openat2(2) has no wrapper in glibc 2.36.  EAGAIN: a rename raced with the lookup; asked again a
 * few times. */
static int open_resolved(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve) {
    bool creates = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE;
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .mode = creates ? mode : 0, /* anything else is EINVAL */
        .resolve = resolve,
    };
    long fd = -1;

    for (int i = 0; i < OPENAT2_TRIES; i++) {
        fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return (int)fd;
}

int fs_open_beneath(int dir_fd, const char *path, int flags, mode_t mode, Err *err) {
    int fd = open_resolved(dir_fd, path, flags, mode,
                           RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
                               RESOLVE_NO_XDEV);

    return fd < 0 ? err_errno(err, "cannot open %s", path) : fd;
}

int fs_open_absolute(const char *path, int flags, Err *err) {
    _cleanup_close_ int root = -EBADF;
    int fd;

    assert(!(flags & O_CREAT));
    if (!path_is_clean_absolute(path))
        return err_set(
            err, -EINVAL,
            "cannot open %s: not an absolute path without \".\", \"..\" and double slashes", path);
    root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_errno(err, "cannot open /");
    fd = open_resolved(root, path + 1, flags, 0,
                       RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS);
    if (fd < 0 && errno == ELOOP)
        return err_set(err, -ELOOP,
                       "cannot open %s: a component is a symlink; give the path it leads to", path);
    return fd < 0 ? err_errno(err, "cannot open %s", path) : fd;
}

/* Reads up to the end of the file; `buf` refuses more than its cap. */
static int read_to_end(int fd, const char *path, Buf *buf, Err *err) {
    for (;;) {
        uint8_t *to, probe;
        size_t room = MIN(buf->max - buf->len, (size_t)READ_STEP);
        ssize_t n;
        int r = buf_reserve(buf, room, &to);

        if (r < 0)
            return err_errnum(err, r, "cannot read %s", path);
        n = room > 0 ? read(fd, to, room) : read(fd, &probe, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, "cannot read %s", path);
        if (n == 0)
            return 0;
        if (room == 0)
            return err_set(err, -E2BIG, "%s is larger than %zu bytes", path, buf->max);
        buf->len += (size_t)n;
    }
}

int fs_read_file(int dir_fd, const char *path, size_t max, char **ret, size_t *ret_len, Err *err) {
    _cleanup_close_ int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    _cleanup_(buf_done) Buf buf = BUF_INIT(max);
    size_t len;
    char *text;
    int r;

    if (fd < 0)
        return err_errno(err, "cannot open %s", path);
    r = read_to_end(fd, path, &buf, err);
    if (r < 0)
        return r;
    len = buf.len;
    text = buf_take_string(&buf);
    if (!text)
        return err_errnum(err, -ENOMEM, "cannot read %s", path);
    *ret = text;
    if (ret_len)
        *ret_len = len;
    return 0;
}

int fs_write_all(int fd, const void *data, size_t n, Err *err) {
    const uint8_t *p = data;

    while (n > 0) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return err_errno(err, "cannot write");
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int write_and_sync(int fd, const void *data, size_t n, mode_t mode, Err *err) {
    int r = fs_write_all(fd, data, n, err);

    if (r < 0)
        return r;
    if (fchmod(fd, mode) < 0) /* open(2) took the umask off */
        return err_errno(err, "cannot set its mode");
    if (fsync(fd) < 0)
        return err_errno(err, "cannot sync it");
    return 0;
}

int fs_write_file_durably(int dir_fd, const char *name, const void *data, size_t n, mode_t mode,
                          Err *err) {
    const char *slash = strrchr(name, '/');
    _cleanup_free_ char *parent = slash ? xstrndup(name, (size_t)(slash + 1 - name)) : xstrdup(".");
    _cleanup_close_ int dir = -EBADF, fd = -EBADF;
    uint64_t tag = 0;
    char temporary[32];
    int r;

    dir = openat(dir_fd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(err, "cannot open the directory of %s", name);
    (void)!getrandom(&tag, sizeof(tag),
                     GRND_NONBLOCK); /* O_EXCL below finds a name that is not new */
    (void)snprintf(temporary, sizeof(temporary), ".tmp-%016llx", (unsigned long long)tag);
    fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, "cannot create a temporary file for %s", name);
    r = write_and_sync(fd, data, n, mode, err);
    if (r < 0)
        r = err_prefix(err, r, "cannot write %s", name);
    else if (renameat(dir, temporary, dir, slash ? slash + 1 : name) < 0)
        r = err_errno(err, "cannot put %s into place", name);
    if (r < 0) {
        (void)unlinkat(dir, temporary, 0); /* the first failure is the one to tell */
        return r;
    }
    if (fsync(dir) < 0)
        return err_errno(err, "cannot sync the directory of %s", name);
    return 0;
}

int fs_allocate(int fd, uint64_t n) {
    struct statfs fs;
    struct stat st;

    if (n == 0)
        return 0;
    if (fstatfs(fd, &fs) == 0 && fs.f_blocks > 0 && fstat(fd, &st) == 0) {
        uint64_t has = (uint64_t)st.st_blocks * 512;

        if (n > has && n - has > (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize)
            return -ENOSPC;
    }
    return fallocate(fd, 0, 0, (off_t)n) < 0 && (errno == ENOSPC || errno == EDQUOT) ? -ENOSPC : 0;
}

/* One that is full of bytes may have no inodes either, as it makes them of free space (XFS); others
 * do not count them (btrfs). */
bool fs_lacks_inodes(int fd) {
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_files > 0 && fs.f_ffree == 0 &&
           (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize >= MiB(1);
}

const char *fs_space_advice(int fd) {
    return fs_lacks_inodes(fd)
               ? "no inodes are left on its file system, though bytes are; remove artifacts with "
                 "cache-ctl rm, or make it with more inodes"
               : FS_BYTES_ADVICE;
}

int fs_mkdir_p(int dir_fd, const char *path, mode_t mode, Err *err) {
    _cleanup_close_ int fd = -EBADF;

    if (!path_is_safe_relative(path))
        return err_set(err, -EINVAL, "cannot make the directory %s: not a clean relative path",
                       path);
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        _cleanup_free_ char *name = xstrndup(p, n);
        int at = fd >= 0 ? fd : dir_fd, next;

        if (mkdirat(at, name, mode) < 0 && errno != EEXIST)
            return err_errno(err, "cannot make the directory %.*s", (int)(p + n - path), path);
        next = fs_open_beneath(at, name, O_PATH | O_DIRECTORY, 0, err);
        if (next < 0)
            return err_prefix(err, next, "cannot make the directory %s", path);
        (void)safe_close(fd);
        fd = next;
        p += n + (p[n] == '/');
    }
    return 0;
}

int fs_mkdir_for(const char *path, mode_t mode, Err *err) {
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *directory = slash ? xstrndup(path, (size_t)(slash - path)) : NULL;

    if (!isempty(directory) && mkdir(directory, mode) < 0 && errno != EEXIST)
        return err_errno(err, "cannot make the directory %s", directory);
    return 0;
}

int fs_fsync_dir(int dir_fd, const char *path, Err *err) {
    _cleanup_close_ int fd = -EBADF;

    if (isempty(path)) {
        if (fsync(dir_fd) < 0)
            return err_errno(err, "cannot sync");
        return 0;
    }
    fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, "cannot open the directory %s", path);
    if (fsync(fd) < 0)
        return err_errno(err, "cannot sync the directory %s", path);
    return 0;
}

bool name_is_safe(const char *name, size_t n) {
    if (n == 0 || n > LIMIT_NAME_BYTES || memchr(name, '/', n) || memchr(name, '\0', n))
        return false;
    return !(name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.')));
}

bool path_is_safe_relative(const char *path) {
    if (strlen(path) > LIMIT_PATH_BYTES)
        return false;
    for (;;) {
        size_t n = strcspn(path, "/");
        if (!name_is_safe(path, n))
            return false;
        if (!path[n])
            return true;
        path += n + 1;
    }
}

size_t path_depth(const char *path) {
    size_t n = 1;

    for (const char *slash = path; (slash = strchr(slash, '/')); slash++)
        n++;
    return n;
}

bool path_is_clean_absolute(const char *path) {
    return path[0] == '/' && path_is_safe_relative(path + 1);
}

bool path_is_beneath(const char *path, const char *root) {
    const char *rest = startswith(path, root);

    return rest && (*rest == '\0' || *rest == '/');
}

bool symlink_stays_inside(const char *path, const char *target) {
    size_t depth = 0; /* of the directory that holds the link */
    bool named = false;

    if (isempty(target) || target[0] == '/' || strlen(target) > LIMIT_SYMLINK_BYTES)
        return false;
    for (const char *p = path; (p = strchr(p, '/')); p++)
        depth++;
    for (const char *p = target; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && strncmp(p, "..", 2) == 0) {
            /* Behind a name ".." may start from wherever that name, a symlink, leads: names alone
             * cannot tell. */
            if (named || depth == 0)
                return false;
            depth--;
        } else if (n > 0 && !(n == 1 && *p == '.')) {
            named = true;
        }
        p += n + (p[n] == '/');
    }
    return true;
}
