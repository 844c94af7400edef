/* SPDX-License-Identifier: Apache-2.0 */
/* store_internal: what the modules behind store.h share; nobody outside of cache/ includes it. */
#pragma once

#include "base/loop.h"
#include "cache/index.h"
#include "cache/store.h"

#include <pthread.h>
#include <stdatomic.h>

/* What a directory of partial/ takes on disk. */
typedef struct PartialSize {
    Digest key;
    uint64_t bytes;
} PartialSize;

/* Locks are taken in this order: content, naming or tree, then the index. */
struct Store {
    char *path;             /* canonical */
    const char *filesystem; /* static */
    int fd, lock_fd, objects_fd, ingest_fd, partial_fd, trees_fd, staging_fd;
    Index *index;
    StoreRecovered recovered;
    _Atomic uint64_t deduplicated_bytes; /* see StoreStats */
    pthread_rwlock_t content; /* read: to name objects and build trees; write: to take them away */
    pthread_mutex_t naming;   /* one layer at a time gives names to its objects */
    pthread_mutex_t tree;     /* one tree is built at a time */
    uint8_t grant_key[GRANT_BYTES];
    /* One at a time gives and takes away what pulls can get of partial/; held last, alone, and not
     * while the many files of a layer move or go. */
    pthread_mutex_t partial;
    PartialSize *partial_sizes; /* under it: those that were counted, and still are so */
    size_t n_partial_sizes, cap_partial_sizes;
    uint64_t n_partial_gone; /* under it: directories that were dropped */
};

/* Scoped locks: _cleanup_(content_unlockp) Store *lock = content_lock_shared(s); */
Store *content_lock_shared(Store *s) _must_check_;
Store *content_lock_exclusive(Store *s) _must_check_;
void content_unlockp(Store **s);
pthread_mutex_t *mutex_lock(pthread_mutex_t *m) _must_check_;
void mutex_unlockp(pthread_mutex_t **m);

/* recover.c: makes disk and index agree; called once, before anybody else uses the store. */
int store_recover(Store *s, Err *err) _must_check_;
/* recover.c: removes trees that no row knows and no mount shows.  The content lock is held
 * exclusively.  1: there were some. */
int recover_trees(Store *s, Err *err) _must_check_;

/* An object on disk or in the index. */
typedef struct ObjectKey {
    Digest digest;
    bool exec;
    uint64_t size;
    int64_t id; /* of its row, or 0 */
} ObjectKey;
int object_key_compare(const void *a, const void *b); /* by digest and exec, for qsort(3) */

/* gc.c, within a transaction: the object's row goes, with the tar layers that hold it and all
 * leases on it; manifests that use it become incomplete. */
int gc_forget_object(Index *ix, int64_t object_id, Err *err) _must_check_;
/* gc.c: removes the trees of incomplete manifests that no volume uses.  The content lock is held
 * exclusively. */
int gc_remove_incomplete_trees(Store *s, Err *err) _must_check_;

/* check.c: reads the objects, as store_verify() does.  Those that are right are marked as proved;
 * the others are forgotten, and their `id` becomes 0.  No lock is held. */
int check_objects(Store *s, ObjectKey *const *keys, size_t n, Err *err) _must_check_;

/* artifact.c: the row id (tar) or object id (raw) of the layer as `origin` gave it, or 0 when that
 * is not stored. */
int layer_lookup(Index *ix, const char *origin, const Layer *layer, int64_t *ret_id, Err *err)
    _must_check_;
/* artifact.c: a complete artifact, and the repository whose layers are its tree; both are the
 * caller's, also on failure.  -ENOENT it is not stored. */
int artifact_load(Index *ix, const Digest *artifact, Manifest **ret, char **ret_origin, Err *err)
    _must_check_;
/* artifact.c: the merged tree of a manifest whose layers, those that are meant, are all stored, as
 * `origin` gave them; -ENOENT one is not. */
int artifact_merge(Index *ix, const Manifest *m, const char *origin, LayerEntry **ret,
                   size_t *ret_n, Err *err) _must_check_;
/* artifact.c: the row id of a manifest; -ENOENT it is not stored, or (with `complete`) not
 * complete. */
int manifest_lookup(Index *ix, const Digest *digest, bool complete, int64_t *ret_id, Err *err)
    _must_check_;
/* artifact.c, within a transaction. */
int reference_set(Index *ix, const char *reference, const char *platform, int64_t manifest_id,
                  Err *err) _must_check_;
