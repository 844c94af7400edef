/* SPDX-License-Identifier: Apache-2.0 */
/* target: the rules for paths that a volume is mounted on. */
#pragma once

#include "base/err.h"

/* The directories beneath which the kubelet's target paths lie. */
typedef struct TargetRoots TargetRoots;

/* `paths` ends with NULL; each is absolute.  Symlinks in them (they are the administrator's) are
 * resolved once, here. Errors: -EINVAL none, or one that is not clean absolute. */
int target_roots_new(TargetRoots **ret, const char *const *paths, Err *err) _must_check_;
TargetRoots *target_roots_free(TargetRoots *r);
DEFINE_CLEANUP(TargetRoots, target_roots_free);

/* Checks by its text alone that `path` lies beneath a root and gives the path with the root's
 * symlinks resolved, which the caller frees.  Errors: -EINVAL. */
int target_resolve(const TargetRoots *roots, const char *path, char **ret, Err *err) _must_check_;

/* A directory ready to be mounted on. */
typedef struct Target {
    int parent_fd; /* O_PATH */
    int fd;        /* O_PATH; the directory itself */
    char *name;    /* last component */
    bool made;     /* by us */
} Target;
#define TARGET_INIT ((Target){ .parent_fd = -EBADF, .fd = -EBADF })

/* Opens the clean absolute `path`, no component of which may be a symlink, and makes its last
 * component (0750) when it is absent.  What is there must be an empty directory on which nothing is
 * mounted.  On failure nothing is left behind. Errors: -EINVAL a symlink, a file, no parent; -EBUSY
 * not empty, or something is mounted there; others as open(2). */
int target_open(Target *ret, const char *path, Err *err) _must_check_;
/* Removes the directory again when target_open() made it. */
void target_undo(Target *t);
void target_done(Target *t);

/* Opens what is there now (O_PATH, a mount's root when one is there).  Errors: -ENOENT; -ENOTDIR;
 * -ELOOP; as open(2). */
int target_open_existing(const char *path, int *ret_fd, Err *err) _must_check_;
/* Removes the empty directory; absent is fine.  Errors: -EBUSY not empty, or not a directory;
 * others as rmdir(2). */
int target_remove(const char *path, Err *err) _must_check_;
