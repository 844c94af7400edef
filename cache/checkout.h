/* SPDX-License-Identifier: Apache-2.0 */
/* checkout: a merged tree as a directory of hard links to objects. */
#pragma once

#include "cache/store.h"

/* Fills the empty directory `dir_fd` with the `entries` (as tree_entries() gives them) and makes
 * all of it durable: links to objects, symlinks, directories 0555 with a fixed time. Errors:
 * -ENOENT an object is gone; -ENOSPC; -EIO. */
int checkout_build(int objects_fd, int dir_fd, const LayerEntry *entries, size_t n, Err *err)
    _must_check_;

/* Links those files of the complete tree `dir_fd` anew that are not (no longer) their objects, one
 * by one and atomically: a tree that pods have mounted is repaired so.  `scratch_fd` is a directory
 * of the same file system. Errors: as above, and -EIO the tree lacks a directory. */
int checkout_repair(int objects_fd, int dir_fd, int scratch_fd, const LayerEntry *entries, size_t n,
                    Err *err) _must_check_;
