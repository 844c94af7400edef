/* SPDX-License-Identifier: Apache-2.0 */
/* mount: a tree of the store as a read-only mount on a target directory. */
#include "cache/mount.h"

#include "base/fs.h"
#include "base/parse.h"
#include "base/privilege.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define PROC_PATH_MAX 96

static const char *proc_path(char buf[static PROC_PATH_MAX], int fd) {
    (void)snprintf(buf, PROC_PATH_MAX, "/proc/self/fd/%d", fd);
    return buf;
}
#define PROC_PATH(fd) proc_path((char[PROC_PATH_MAX]){ "" }, (fd))

const char *mount_method_name(MountMethod m) {
    switch (m) {
    case MOUNT_METHOD_DETACHED:
        return "open_tree";
    case MOUNT_METHOD_REMOUNT:
        return "bind and remount";
    default:
        return "none";
    }
}

/* A private, read-only copy of the mount that shows `tree_fd`, attached nowhere. */
static int clone_read_only(int tree_fd, bool exec) {
    struct mount_attr attr = {
        .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                    (exec ? 0 : MOUNT_ATTR_NOEXEC),
        /* The clone would else be a peer of the store's own mount.  It joins the target's peers
           where it is attached. */
        .propagation = MS_PRIVATE,
    };
    _cleanup_close_ int fd =
        open_tree(tree_fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return -errno;
    return TAKE_FD(fd);
}

MountMethod mount_method_probe(int dir_fd, const char **ret_why) {
    int fd;

    *ret_why = NULL;
    if (!privilege_has(CAP_SYS_ADMIN)) {
        *ret_why = "no CAP_SYS_ADMIN: nothing can be mounted";
        return MOUNT_METHOD_NONE;
    }
    fd = clone_read_only(dir_fd, false);
    if (fd >= 0) {
        safe_close(fd);
        return MOUNT_METHOD_DETACHED;
    }
    *ret_why = fd == -ENOSYS
                   ? "the kernel has no mount_setattr(2), which came with Linux 5.12"
                   : "open_tree(2) or mount_setattr(2) is refused, by a seccomp filter perhaps";
    return MOUNT_METHOD_REMOUNT;
}

static int mount_detached(const MountRequest *request, Err *err) {
    _cleanup_close_ int fd = clone_read_only(request->tree_fd, request->exec);

    if (fd < 0)
        return err_errnum(err, fd, "preparing a read-only mount of the tree failed");
    if (move_mount(fd, "", request->target_fd, "",
                   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return err_errno(err, "mounting the tree on its target failed");
    return 0;
}

/* Where a mount is made read-only before anybody can see it. */
typedef struct Staged {
    int dir_fd; /* borrowed */
    char name[2 * 8 + 1];
    char path[PROC_PATH_MAX]; /* empty: there is none */
} Staged;

static void staged_done(Staged *staged) {
    if (!staged->path[0])
        return;
    (void)umount2(staged->path,
                  MNT_DETACH | UMOUNT_NOFOLLOW); /* fails when it was not mounted yet */
    (void)unlinkat(staged->dir_fd, staged->name, AT_REMOVEDIR); /* else the next start removes it */
}

static int staged_make(Staged *staged, Err *err) {
    uint8_t random[8];

    if (staged->dir_fd <= 0)
        return err_set(err, -EINVAL,
                       "this kernel needs a staging directory to mount, and none was given");
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return err_errno(err, "making a name for a mount failed");
    format_hex(random, sizeof(random), staged->name);
    if (mkdirat(staged->dir_fd, staged->name, 0700) < 0)
        return err_errno(err, "making a staging directory for a mount failed");
    (void)snprintf(staged->path, sizeof(staged->path), "/proc/self/fd/%d/%s", staged->dir_fd,
                   staged->name);
    return 0;
}

/* A bind keeps the flags of what it binds, so the target is read-only from the start; here this is
 * proved. */
static int prove_flags(const MountRequest *request, Err *err) {
    const unsigned long want = ST_RDONLY | ST_NOSUID | ST_NODEV | (request->exec ? 0 : ST_NOEXEC);
    char path[4096];
    ssize_t n = readlink(PROC_PATH(request->target_fd), path, sizeof(path) - 1);
    _cleanup_close_ int fd = -EBADF;
    struct statvfs fs;

    if (n < 0)
        return err_errno(err, "finding the new mount failed");
    path[n] = '\0';
    fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstatvfs(fd, &fs) < 0)
        return err_errno(err, "looking at the new mount on %s failed", path);
    if ((fs.f_flag & want) == want)
        return 0;
    (void)umount2(path,
                  MNT_DETACH |
                      UMOUNT_NOFOLLOW); /* it must not stay; there is no other way to take it off */
    return err_set(err, -EIO, "the new mount on %s is not read-only: it was taken off again", path);
}

static int mount_remount(const MountRequest *request, Err *err) {
    const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | (request->exec ? 0 : MS_NOEXEC);
    _cleanup_(staged_done) Staged staged = { .dir_fd = request->staging_fd };
    int r = staged_make(&staged, err);

    if (r < 0)
        return r;
    if (mount(PROC_PATH(request->tree_fd), staged.path, NULL, MS_BIND, NULL) < 0)
        return err_errno(err, "binding the tree failed");
    if (mount(NULL, staged.path, NULL, MS_PRIVATE, NULL) < 0)
        return err_errno(err, "making the bound tree private failed");
    if (mount(NULL, staged.path, NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0)
        return err_errno(err, "making the bound tree read-only failed");
    if (mount(staged.path, PROC_PATH(request->target_fd), NULL, MS_BIND, NULL) < 0)
        return err_errno(err, "mounting the tree on its target failed");
    return prove_flags(request, err);
}

int mount_tree(MountMethod method, const MountRequest *request, Err *err) {
    switch (method) {
    case MOUNT_METHOD_DETACHED:
        return mount_detached(request, err);
    case MOUNT_METHOD_REMOUNT:
        return mount_remount(request, err);
    default:
        return err_set(
            err, -EPERM,
            "mounting needs CAP_SYS_ADMIN: run modelcached as root (in a container: privileged)");
    }
}

/* The id of the mount that a descriptor is in. */
static int mount_id(int fd, uint64_t *ret, Err *err) {
    _cleanup_free_ char *path = xasprintf("/proc/self/fdinfo/%d", fd), *text = NULL;
    const char *line;
    int r = fs_read_file(AT_FDCWD, path, KiB(64), &text, NULL, err);

    if (r < 0)
        return err_prefix(err, r, "finding out about a mount failed");
    line = strstr(text, "mnt_id:");
    if (line) {
        line += strlen("mnt_id:");
        line += strspn(line, " \t");
        _cleanup_free_ char *digits = xstrndup(line, strcspn(line, "\n"));
        if (parse_u64(digits, ret) == 0)
            return 0;
    }
    return err_set(err, -EIO, "%s does not tell the id of the mount", path);
}

int mount_shows(int target_fd, int tree_fd, Err *err) {
    _cleanup_close_ int above = openat(target_fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
    uint64_t id, above_id;
    struct stat target, tree;
    int r;

    if (above < 0)
        return err_errno(err, "opening the directory above a mount failed");
    r = mount_id(target_fd, &id, err);
    if (r >= 0)
        r = mount_id(above, &above_id, err);
    if (r < 0)
        return r;
    /* From the root of a mount, ".." leads into the mount below. */
    if (id == above_id)
        return 0;
    if (fstat(target_fd, &target) < 0 || fstat(tree_fd, &tree) < 0)
        return err_errno(err, "looking at a mount failed");
    if (target.st_dev == tree.st_dev && target.st_ino == tree.st_ino)
        return 1;
    return err_set(err, -EEXIST, "something else is mounted there already");
}

static int unmount_once(const char *path) {
    if (umount2(path, UMOUNT_NOFOLLOW) == 0)
        return 0;
    if (errno != EBUSY)
        return -errno;
    /* A workload still has files open; they stay valid, the name is free. */
    return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

int mount_detach(const char *target, Err *err) {
    _cleanup_free_ char *parent = NULL, *path = NULL;
    _cleanup_close_ int fd = -EBADF;
    const char *slash;
    int r;

    if (!path_is_clean_absolute(target))
        return err_set(err, -EINVAL,
                       "'%.200s' is not an absolute path without '.', '..' and double slashes",
                       target);
    slash = strrchr(target, '/');
    if (slash == target) /* directly beneath the root, which is no symlink */
        fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    else {
        parent = xstrndup(target, (size_t)(slash - target));
        fd = fs_open_absolute(parent, O_PATH | O_DIRECTORY, err);
    }
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return fd;
    path = xasprintf("/proc/self/fd/%d%s", fd, slash);
    r = unmount_once(path);
    if (r == 0)
        return 1;
    if (r == -EINVAL || r == -ENOENT) /* no mount there */
        return 0;
    return err_errnum(err, r, "unmounting %s failed", target);
}
