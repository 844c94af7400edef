/* SPDX-License-Identifier: Apache-2.0 */
/* target: the rules for paths that a volume is mounted on. */
#include "csi/target.h"

#include "base/fs.h"
#include "csi/params.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

struct TargetRoots {
    struct {
        char *path; /* as configured */
        char *real; /* where it leads */
    } * items;
    size_t n;
};

static int target_root_add(TargetRoots *roots, const char *path, Err *err) {
    char *real;

    if (!path_is_clean_absolute(path))
        return err_set(err, -EINVAL,
                       "csi.kubelet_dir \"%s\" must be an absolute path without \".\", \"..\", "
                       "double and trailing slashes",
                       path);
    real = realpath(path, NULL); /* absent: the kubelet makes it later, as it is called */
    roots->items[roots->n].path = xstrdup(path);
    roots->items[roots->n++].real = real ? real : xstrdup(path);
    return 0;
}

int target_roots_new(TargetRoots **ret, const char *const *paths, Err *err) {
    _cleanup_(target_roots_freep) TargetRoots *roots = xnew(TargetRoots);
    size_t n = 0;
    int r;

    while (paths && paths[n])
        n++;
    if (n == 0)
        return err_set(err, -EINVAL, "csi.kubelet_dir names no directory");
    roots->items = xcalloc(n, sizeof(*roots->items));
    for (size_t i = 0; i < n; i++) {
        r = target_root_add(roots, paths[i], err);
        if (r < 0)
            return r;
    }
    *ret = TAKE_PTR(roots);
    return 0;
}

TargetRoots *target_roots_free(TargetRoots *r) {
    if (!r)
        return NULL;
    for (size_t i = 0; i < r->n; i++) {
        free(r->items[i].path);
        free(r->items[i].real);
    }
    free(r->items);
    free(r);
    return NULL;
}

int target_resolve(const TargetRoots *roots, const char *path, char **ret, Err *err) {
    if (!params_is_plain(path))
        return err_set(err, -EINVAL, "the target path has a control character or is not UTF-8");
    if (!path_is_clean_absolute(path))
        return err_set(err, -EINVAL,
                       "the target path \"%.200s\" must be absolute, without \".\", \"..\", double "
                       "and trailing slashes, of at most 4096 bytes",
                       path);
    for (size_t i = 0; i < roots->n; i++) {
        const char *from[] = { roots->items[i].path, roots->items[i].real };

        for (size_t k = 0; k < ELEMENTSOF(from); k++)
            if (path_is_beneath(path, from[k]) && strlen(path) > strlen(from[k])) {
                *ret = xasprintf("%s%s", roots->items[i].real, path + strlen(from[k]));
                return 0;
            }
    }
    return err_set(err, -EINVAL,
                   "the target path \"%.200s\" is not beneath %s; set csi.kubelet_dir when the "
                   "kubelet's directory is another",
                   path, roots->items[0].path);
}

/* 1 when `fd` is the root of a mount.  Kernels before 5.8 do not tell: there the check for
 * emptiness has to do. */
static int is_mount_root(int fd, Err *err) {
    struct statx sx;

    if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, 0, &sx) < 0)
        return err_errno(err, "cannot examine the target path");
    return sx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT
               ? (sx.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0
               : 0;
}

static int directory_is_empty(int fd, Err *err) {
    int readable = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
    DIR *dir;

    if (readable < 0)
        return err_errno(err, "cannot read the target path");
    dir = fdopendir(readable);
    if (!dir) {
        (void)safe_close(readable);
        return err_errno(err, "cannot read the target path");
    }
    for (const struct dirent *e; n == 0 && (e = readdir(dir));)
        n += !streq(e->d_name, ".") && !streq(e->d_name, "..");
    (void)closedir(dir);
    return n == 0;
}

static int target_open_parent(Target *t, const char *path, Err *err) {
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *parent = xstrndup(path, (size_t)(slash - path));

    t->name = xstrdup(slash + 1);
    t->parent_fd = isempty(parent) ? open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)
                                   : fs_open_absolute(parent, O_PATH | O_DIRECTORY, err);
    if (t->parent_fd == -ENOENT)
        return err_set(err, -EINVAL,
                       "the target path's parent %s does not exist; whoever publishes makes it",
                       parent);
    if (t->parent_fd == -ELOOP || t->parent_fd == -EXDEV || t->parent_fd == -ENOTDIR)
        return err_set(err, -EINVAL,
                       "the target path's parent %s is not a directory reached "
                       "without symlinks",
                       parent);
    return t->parent_fd < 0 ? t->parent_fd : 0;
}

static int target_check(const Target *t, const char *path, Err *err) {
    int r = is_mount_root(t->fd, err);

    if (r > 0)
        return err_set(err, -EBUSY, "something else is mounted on the target path %s", path);
    if (r < 0 || t->made)
        return r;
    r = directory_is_empty(t->fd, err);
    if (r == 0)
        return err_set(err, -EBUSY,
                       "the target path %s is not empty; a volume is mounted on an empty directory "
                       "only",
                       path);
    return r < 0 ? r : 0;
}

int target_open(Target *ret, const char *path, Err *err) {
    _cleanup_(target_done) Target t = TARGET_INIT;
    int r;

    if (!path_is_clean_absolute(path))
        return err_set(err, -EINVAL, "the target path \"%.200s\" is not absolute and clean", path);
    r = target_open_parent(&t, path, err);
    if (r < 0)
        return r;
    t.made = mkdirat(t.parent_fd, t.name, 0750) == 0;
    if (!t.made && errno != EEXIST)
        return err_errno(err, "cannot make the target path %s", path);
    t.fd = openat(t.parent_fd, t.name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (t.fd < 0)
        r = errno == ENOTDIR || errno == ELOOP
                ? err_set(err, -EINVAL, "the target path %s is not a directory", path)
                : err_errno(err, "cannot open the target path %s", path);
    else
        r = target_check(&t, path, err);
    if (r < 0) {
        target_undo(&t);
        return r;
    }
    *ret = t;
    t = TARGET_INIT;
    return 0;
}

void target_undo(Target *t) {
    if (t->made)
        (void)unlinkat(t->parent_fd, t->name,
                       AT_REMOVEDIR); /* Best effort: a failure is on its way. */
    t->made = false;
}

void target_done(Target *t) {
    t->fd = safe_close(t->fd);
    t->parent_fd = safe_close(t->parent_fd);
    free(t->name);
    t->name = NULL;
}

int target_open_existing(const char *path, int *ret_fd, Err *err) {
    int fd = fs_open_absolute(path, O_PATH | O_DIRECTORY, err);

    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

int target_remove(const char *path, Err *err) {
    _cleanup_(target_done) Target t = TARGET_INIT;
    int r = target_open_parent(&t, path, err);

    if (t.parent_fd == -ENOENT)
        return 0; /* The parent is gone, and the directory with it. */
    if (r < 0)
        return r;
    if (unlinkat(t.parent_fd, t.name, AT_REMOVEDIR) == 0 || errno == ENOENT)
        return 0;
    if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR || errno == EBUSY)
        return err_set(err, -EBUSY,
                       "the target path %s is not an empty directory; only an empty one is "
                       "removed: look what is in it",
                       path);
    return err_errno(err, "cannot remove the target path %s", path);
}
