/* SPDX-License-Identifier: Apache-2.0 */
/* tree: the layers of an artifact merged into one tree of names, in memory; it touches no disk.
 *
 * Layers are added lowest first.  Whiteouts and opaque marks take away what lower layers brought,
 * whatever their place within their layer; then the other entries apply in order:
 *   - a file or a symlink replaces what is at its path, a directory with all that is beneath it;
 *   - a directory merges with a directory and replaces anything else;
 *   - a hard link becomes the file that its target is at that moment;
 *   - missing parents are made.
 * A symlink in the place of a parent is followed in the tree of an image, as container runtimes do
 * (missing directories are made where it leads), but by names in memory and never out of the tree:
 * an absolute target begins at the tree's root and ".." ends there.  The last name of a path is
 * never followed, so an entry for the symlink's own path replaces it.  In other artifacts such a
 * symlink is replaced by a directory, nothing is ever put where it points to. */
#pragma once

#include "cache/store.h"

typedef struct Tree Tree;

/* `image`: symlinks among parents are followed, and absolute ones are kept (container images are
 * full of them, and mean the root of whoever reads them); else, and with too many "..", a symlink
 * that leads out of the tree is refused. */
Tree *tree_new(bool image);
Tree *tree_free(Tree *t);
DEFINE_CLEANUP(Tree, tree_free);

/* Is one entry of a layer as it must be, taken alone?  -EPROTO with a sentence that names it;
 * -E2BIG it lies deeper than LIMIT_PATH_DEPTH. */
int tree_check_entry(const LayerEntry *e, Err *err) _must_check_;

/* Adds a layer's entries; `prefix` (safe relative, or NULL) is put before their paths.
 * Errors: -EPROTO an entry is malformed, leads out of the tree, through more than
 * LIMIT_SYMLINKS_FOLLOWED, or contradicts others; -E2BIG more than LIMIT_TREE_ENTRIES,
 * LIMIT_TREE_PATH_BYTES or LIMIT_TREE_LINK_BYTES, or a path that is too long or too deep. */
int tree_add_layer(Tree *t, const char *prefix, const LayerEntry *entries, size_t n, Err *err)
    _must_check_;

/* All files, directories and symlinks that belong to the subset (NULL: to the tree), sorted by
 * path, so that a directory comes before what is in it: one belongs to it with what is in it, or,
 * when it is empty, by its path.  Free with layer_entries_free().  For one filter a tree.  Errors:
 * -E2BIG it costs more than LIMIT_FILTER_TREE_STEPS. */
int tree_entries(Tree *t, const Filter *filter, LayerEntry **ret, size_t *ret_n, Err *err)
    _must_check_;
