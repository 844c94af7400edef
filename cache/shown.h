/* SPDX-License-Identifier: Apache-2.0 */
/* shown: which trees of the store are mounted somewhere, whether a record knows of it or not.  What
 * a mount shows is never removed: pods would see an empty directory. */
#pragma once

#include "cache/mount.h"
#include "cache/store.h"

typedef struct Shown {
    MountInfo *list; /* all mounts of this namespace */
    size_t n;
    char *trees; /* the root of a mount of trees/; NULL: no mount holds it */
} Shown;

/* Errors: as mount_list(). */
int shown_read(Shown *ret, const Store *s, Err *err) _must_check_;
void shown_done(Shown *sh);
/* Is mount `i` of something beneath trees/?  Told by its root alone, which stays when the tree was
 * removed; another file system may hold such a root, too. */
bool shown_is_tree(const Shown *sh, size_t i);
/* Does a mount show trees/<name>, or something in it? */
bool shown_has(const Shown *sh, const char *name);

/* Removes trees/<name>; absent is fine.  One that a mount shows is only renamed, to ".old-<hex>"
 * (1) until store_sweep_trees() or the next start finds that no mount shows it.  The caller keeps
 * others from making or removing trees. Errors: -EIO and the like. */
int shown_remove_tree(const Shown *sh, const Store *s, const char *name, Err *err) _must_check_;
