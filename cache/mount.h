/* SPDX-License-Identifier: Apache-2.0 */
/* mount: a tree of the store as a read-only mount on a target directory. */
#pragma once

#include "base/err.h"

/* How this kernel can do it, found out once at start without leaving anything behind. */
typedef enum MountMethod {
    MOUNT_METHOD_NONE,
    MOUNT_METHOD_DETACHED, /* open_tree(2) + mount_setattr(2) + move_mount(2), Linux 5.12 */
    MOUNT_METHOD_REMOUNT,  /* MS_BIND, then MS_REMOUNT with the flags; hidden until it is read-only
                            */
} MountMethod;

typedef struct MountRequest {
    int tree_fd;    /* directory to show (O_PATH is enough); borrowed */
    int target_fd;  /* directory to mount on, opened without following symlinks; borrowed */
    bool exec;      /* leave out noexec */
    int staging_fd; /* store_staging_fd(), borrowed; only MOUNT_METHOD_REMOUNT uses it */
} MountRequest;

/* `dir_fd`: a directory to try on (nothing is attached).  *ret_why: static sentence, why not the
 * best one, or NULL. */
MountMethod mount_method_probe(int dir_fd, const char **ret_why);
const char *mount_method_name(MountMethod m);

/* Mounts read-only, nosuid, nodev (and noexec).  Errors: -EPERM no CAP_SYS_ADMIN; -EINVAL; others
 * as move_mount(2).
 * The mount joins the propagation of the mount that the target is in, so that a kubelet outside of
 * a container sees it. */
int mount_tree(MountMethod method, const MountRequest *request, Err *err) _must_check_;
/* Is `target` (open O_PATH) the root of a mount that shows the directory `tree_fd`?  1, 0 (not a
 * mount), or -EEXIST: a mount of something else. */
int mount_shows(int target_fd, int tree_fd, Err *err) _must_check_;
/* Unmounts whatever is on top of the clean absolute path, one of the mounts that may be stacked
 * there, without following symlinks (UMOUNT_NOFOLLOW); lazily when it is busy.  Returns 1 when
 * something was unmounted, 0 when nothing was mounted there or the path is gone. */
int mount_detach(const char *target, Err *err) _must_check_;

/* The mounts of this mount namespace, in the order of /proc/self/mountinfo: one on top of another
 * comes later. */
typedef struct MountInfo {
    char *target; /* unescaped path */
    char *root;   /* root of the mount within its file system, unescaped */
    unsigned dev_major, dev_minor;
    bool read_only;
} MountInfo;
int mount_list(MountInfo **ret, size_t *ret_n, Err *err) _must_check_;
void mount_info_free(MountInfo *m, size_t n);
/* Where the absolute path `path` lies within its file system: the `root` a bind mount of it has.
 * NULL: no mount of the list holds it.  The caller frees. */
char *mount_path_in_filesystem(const MountInfo *list, size_t n, const char *path);
/* The parser behind it: one line of proc_pid_mountinfo(5); -EPROTO. */
int mount_info_parse(const char *line, MountInfo *ret) _must_check_;
