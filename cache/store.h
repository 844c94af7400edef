/* SPDX-License-Identifier: Apache-2.0 */
/* store: the content-addressed store on disk and its index.
 *
 * The disk format, version 1; everything is root's alone (0700), and on one file system:
 *
 *   format              "modelcached store\nversion 1\nid <32 hex>\n"
 *   lock                flock(2) of the one daemon that has the store open
 *   objects/ab/cdef…    content of a file, named by its SHA-256; root, 0444, mtime 1; never
 *                       rewritten; objects/00 to objects/ff are always there
 *   objects/ab/cdef….x  the same for an executable file; 0555
 *   ingest/<pull>/      what one pull writes, the worker's; gone soon after the pull has ended
 *   partial/<64 hex>.part, .map   the bytes of a raw blob that an interrupted pull had, and the
 *                       worker's notes on which of them it wrote; root, 0600; always both
 *   partial/<64 hex>.tar/   what it had unpacked of a tar layer: "<16 hex>-<number>" (content;
 *                       root, 0444 or 0555, with 0200 when it may have no end yet),
 *                       "<16 hex>-entries" (the list of what the tar holds),
 *                       and "checkpoint" (how far it was), which is there when all is; root, 0700.
 *                       Both are named by a digest of the blob's and the repository, whose pulls
 *                       get them.  They move to ingest/ of the next pull that wants the layer; they
 *                       go when the layer is stored, after 7 days, the oldest beyond 64 (of the
 *                       directories: beyond 8), and when there is no space.  Only workers read
 *                       them, and hash all content again.  The map and the checkpoint have an
 *                       attribute that counts pulls which had them in vain: partial_tries.h
 *   partial/<64 hex>.of-<16 hex>/   one of these while its files move from or to the pull's folder;
 *                       the start goes on with it, or removes it
 *   partial/.gone-<number>/   one that is being removed
 *   trees/<64 hex>/     one directory an artifact, named by its key (below): hard links to
 *                       objects, directories 0555
 *   trees/.new-<hex>/   a tree that is being built
 *   trees/.old-<hex>/   a tree that is gone, but that a mount still shows
 *   staging/            mount points on which a mount becomes read-only before it is shown
 *   grants.key          random; what the index remembers of credentials is hashed with it
 *   index.db            SQLite, WAL, synchronous=FULL but for history and the rows of volumes;
 *                       its schema is at the top of index.c
 *   index.db-reserve    space put by for removal on a full disk; no content
 *
 * Content comes in this order: data durable, name in objects/ or trees/ durable, row durable,
 * answer.  It goes in the opposite one.  So a row always has its content, and what has no row is
 * removed when the store is opened; but a tree stays as long as a mount shows it, and with it the
 * content that it links.
 *
 * An artifact is a manifest, or a subset of one (filter.h).  The store knows it by its key, which
 * is the manifest's digest, or for a subset what filter_key() makes: where a function takes or
 * gives the digest of an artifact, it is this.
 *
 * All functions may block (fsync, SQLite): call them from a pool thread.  They may be called from
 * several threads at once. */
#pragma once

#include "cache/filter.h"

typedef struct Store Store;

#define STORE_FORMAT_VERSION 1

/* Opens or makes (an absent or empty directory) the store at the absolute `path`, which may be a
 * symlink; takes its lock; recovers: keeps layers of ingest/ that came in part, removes what else
 * is in it, in staging/, half-built trees, objects and trees that no row knows, and rows whose
 * object is gone (what uses it becomes incomplete). Errors: -EWOULDBLOCK another daemon has it;
 * -ENOTSUP foreign or newer format, or a file system other than ext4, xfs, btrfs; -EUCLEAN the
 * directory holds something else, or the index is damaged; -EINVAL the path is not absolute and
 * clean; -EACCES, -EROFS, -ENOSPC, -EIO. */
int store_open(Store **ret, const char *path, Err *err) _must_check_;
Store *store_close(Store *s);
DEFINE_CLEANUP(Store, store_close);
/* Frees memory that only makes the next calls faster.  Does not block. */
void store_shrink(Store *s);

/* What opening found. */
typedef struct StoreRecovered {
    bool index_made; /* there was none: the store is new, or the index was lost */
    unsigned objects_removed, trees_removed; /* that no row knows */
    unsigned trees_kept;                     /* that no row knows, but mounts show */
} StoreRecovered;
const StoreRecovered *store_recovered(const Store *s);

/* Directory of the trees (borrowed fd), the one for MountRequest.staging_fd, and the canonical path
 * of the store. */
int store_trees_fd(const Store *s);
int store_staging_fd(const Store *s);
const char *store_path(const Store *s);
const char *store_filesystem(const Store *s); /* "ext4" "xfs" "btrfs" */

/* A new name for the folder of a pull; what is kept of such folders goes to pulls of the same
 * `origin` alone, in whose folders' names it is. */
#define STORE_INGEST_NAME_MAX 66
int store_ingest_name(char buf[static STORE_INGEST_NAME_MAX], const char *origin, Err *err)
    _must_check_;
/* A pull's folder.  `uid`/`gid` own it, 0700, so that an unprivileged worker can write there.
 * Returns an fd the caller closes; `name` is chosen by the caller (safe component).  Errors:
 * -EEXIST, -ENOSPC, -EIO. */
int store_ingest_begin(Store *s, const char *name, uid_t uid, gid_t gid, int *ret_fd, Err *err)
    _must_check_;
/* The pull leases nothing any more; its folder stays. */
int store_ingest_release(Store *s, const char *name, Err *err) _must_check_;
/* The same, and its folder goes with all that is left in it. */
int store_ingest_end(Store *s, const char *name, Err *err) _must_check_;
/* Before it, for a pull that nobody should go on with: content that it brought or leased goes,
 * unless something else uses it. */
int store_ingest_discard(Store *s, const char *name, Err *err) _must_check_;

/* Content of layers, as a worker reports it: untrusted, checked here. */
typedef enum EntryType {
    ENTRY_TYPE_FILE,
    ENTRY_TYPE_DIRECTORY,
    ENTRY_TYPE_SYMLINK,
    ENTRY_TYPE_HARDLINK,
    ENTRY_TYPE_WHITEOUT,
    ENTRY_TYPE_OPAQUE,
    ENTRY_TYPE_COUNT,
} EntryType;

typedef struct LayerEntry {
    EntryType type;
    bool executable; /* files */
    Digest digest;   /* files */
    uint64_t size;   /* files, bytes */
    char *path;      /* safe relative */
    char *target;    /* symlinks: as in readlink(2); hard links: path of the file; else NULL */
    char *ingest;    /* files: name in the pull's folder (one component), or NULL: the object is
                      * stored, perhaps with the other `executable`, or comes with another entry of
                      * this layer */
} LayerEntry;

typedef enum LayerKind {
    LAYER_KIND_RAW,
    LAYER_KIND_TAR,
} LayerKind;

/* A layer of a manifest. */
typedef struct Layer {
    Digest digest; /* of the blob */
    uint64_t size; /* of the blob, bytes */
    LayerKind kind;
    bool executable; /* raw */
    char *media_type;
    char *path; /* raw: file in the tree; tar: directory prefix or NULL */
} Layer;

typedef struct Manifest {
    Digest digest;
    char *media_type;
    char *artifact_type; /* may be NULL */
    char *family;
    char *platform; /* may be NULL */
    uint8_t *bytes; /* as the registry sent it */
    size_t n_bytes;
    Layer *layers; /* lowest first */
    size_t n_layers;
    Filter *filter; /* what of it is meant; NULL: all */
} Manifest;

void layer_entries_free(LayerEntry *entries, size_t n); /* with all strings */
Manifest *manifest_free(Manifest *m);
void manifest_key(const Manifest *m, Digest *ret);
/* Does the layer have content that is meant?  A tar always may.  `steps` as filter_keeps(). */
bool manifest_wants_layer(const Manifest *m, size_t layer, uint64_t *steps);
DEFINE_CLEANUP(Manifest, manifest_free);

/* A pull.  What a worker says of content, digests above all, is believed for the repository it
 * pulls from; another repository's pull relies on nothing that was not hashed here. */
typedef struct StorePull {
    const char *ingest; /* name of its folder */
    const char *origin; /* "registry/repository" */
} StorePull;

/* Did a pull of its origin bring the layer, and is all its content stored?  1 or 0; when it is 1,
 * the pull leases the content until store_ingest_release(). */
int store_lease_layer(Store *s, const StorePull *pull, const Layer *layer, Err *err) _must_check_;

/* Layers that came in part, for the next pull of the repository that wants them: a registry would
 * learn from what it is asked for what this node has of others.  In the folder of a pull they are
 * "<64 hex>.part" with "<64 hex>.map" (raw, of the blob's digest), and the checkpoint "<64
 * hex>.tar" with "<16 hex>-entries" and "<16 hex>-<number>" (tar; the digest's first digits). A
 * layer with a file that is not as it should be is not kept, nor a tar of more than 100,000 files.
 *
 * Keeps those of a pull whose worker has ended; before store_ingest_end().  `died`: nobody ended
 * it, and it did not say why: perhaps by what it had been given. */
int store_partial_keep(Store *s, const char *ingest, bool died, Err *err) _must_check_;
/* Moves what is kept of a layer into the folder of a pull, as its owner's.  1, and the bytes that
 * it takes on disk; 0 there is nothing.  After a failure nothing of it is left; -ESTALE: it was
 * given to several pulls that died, or whose daemon did, before any of them got further. */
int store_partial_claim(Store *s, const char *ingest, const Layer *layer, uint64_t *ret_bytes,
                        Err *err) _must_check_;
/* What all of them take on disk: store_prune() would free it. */
int store_partial_bytes(Store *s, uint64_t *ret_bytes, Err *err) _must_check_;

/* A layer of a pull that is to be committed, and what became of it. */
typedef struct LayerCommit {
    const Layer *layer; /* borrowed, like its entries */
    const LayerEntry *entries;
    size_t n_entries;
    int r; /* out: 0, or why not … */
    Err err;
} LayerCommit;

/* Commits layers of a pull, together: one round of syncs, one transaction.  Each of them for itself
 * is committed or fails: one that is not as it must be does not keep the others out; but when
 * something fails that all need (the disk, the index), all fail.
 *
 * Checks every entry (names, sizes, the file itself: regular, one
 * link, nobody else has it open for writing), makes data durable, moves files into objects/, then
 * writes the index rows.  A raw layer has exactly one file entry whose digest and size are the
 * layer's.  An object that is there already stays, and the new copy is removed; but one of another
 * origin is read and hashed first, once: when it is not what its name says, it is forgotten as by
 * store_verify(), and the new copy takes its place. The content is leased by the pull until
 * store_ingest_release(). Errors of a layer: -EPROTO the entries are not as they must be; -EBADMSG
 * size differs from the file; -EBUSY still open for writing; -EAGAIN an object that was there was
 * found damaged meanwhile; -ENOSPC; -EIO. */
void store_commit_layers(Store *s, const StorePull *pull, LayerCommit *layers, size_t n);

/* Commits a manifest whose layers, those that are meant, are all stored as `origin` gave them:
 * checks that its bytes have its digest, merges the layers, builds the tree of what is meant, makes
 * it durable, writes the rows; and points `reference` at it.  NULL: none; then the rows are on disk
 * with the next durable ones, as of a store_grant_add() that names it.  Committing again is fine;
 * for another origin, too, when its layers make the same tree. Errors: -EBADMSG the bytes are
 * others, or the tree is; -ENOENT a layer is not stored; -EINVAL a subset has no file; -EPROTO
 * paths contradict each other; -E2BIG; -ENOSPC; -EIO. */
int store_commit_manifest(Store *s, const Manifest *m, const char *origin, const char *reference,
                          Err *err) _must_check_;

/* Makes a subset of the manifest, all of which is stored, from that: nothing has to come.  It
 * belongs to the same origins.  `ret` may be `manifest`.  Errors: -ENOENT it is not stored (any
 * more); as store_commit_manifest(). */
int store_make_subset(Store *s, const Digest *manifest, const Filter *filter, Digest *ret, Err *err)
    _must_check_;

/* Points the reference ("host/repository:tag" or "host/repository@sha256:…") at a stored artifact;
 * one that it pointed at stays when it is of the same manifest. */
int store_set_reference(Store *s, const char *reference, const char *platform,
                        const Digest *artifact, Err *err) _must_check_;
/* The same for a reference that points at an artifact of the same manifest, else nothing. */
int store_widen_reference(Store *s, const char *reference, const char *platform,
                          const Digest *artifact, Err *err) _must_check_;
/* `platform`: "linux/amd64"; references are kept per platform asked for.  One that was set without
 * a platform (it led to no index) is good for all of them, and setting it either way replaces the
 * other.  `filter`: the subset that is meant; NULL: all.  Returns 0, or 1 when it is the whole that
 * is stored, from which store_make_subset() makes the subset.  Errors: -ENOENT not stored (complete
 * with tree). */
int store_resolve(Store *s, const char *reference, const char *platform, const Filter *filter,
                  Digest *ret, Err *err) _must_check_;
/* 1 when the artifact is stored complete, and a pull of `origin` brought all of it; else 0. */
int store_has_manifest(Store *s, const Digest *artifact, const char *origin, Err *err) _must_check_;
/* Marks it as used now (LRU). */
int store_touch(Store *s, const Digest *artifact, Err *err) _must_check_;

/* Volumes: a lease with a mount.  Key: (volume id, target). */
typedef struct Volume {
    char *volume_id;
    char *target;     /* absolute path */
    char *reference;  /* as asked for */
    char *sub_path;   /* NULL: the root of the tree */
    char *parameters; /* canonical text of what must be equal when it is published again */
    char *pod_namespace, *pod_name; /* whose it is; NULL: not said */
    Digest manifest;                /* the artifact: its key */
    Digest whole; /* the manifest that it is, or is a subset of; only given, not taken */
    bool exec;
    bool multi_node; /* access mode allows other targets at the same time */
    int64_t created_usec;
} Volume;
void volume_clear(Volume *v); /* frees the strings */
void volume_array_free(Volume *v, size_t n);

/* Counts as use of the artifact.  A crash does not take it back, a power cut may.  Errors: -EEXIST
 * there with other `parameters`; -EBUSY another target has it and one of the two is not multi_node;
 * -ENOENT the manifest is not stored.  Returns 0, or 1 when the same volume was recorded already.
 */
int store_volume_add(Store *s, const Volume *v, Err *err) _must_check_;
int store_volume_get(Store *s, const char *volume_id, const char *target, Volume *ret, Err *err)
    _must_check_; /* -ENOENT; target NULL: any */
int store_volume_remove(Store *s, const char *volume_id, const char *target, Err *err)
    _must_check_; /* absent: 0; target NULL: all */
/* The same for the ids and targets of many, all or none, in one transaction. */
int store_volumes_remove(Store *s, const Volume *list, size_t n, Err *err) _must_check_;
int store_volume_list(Store *s, Volume **ret, size_t *ret_n, Err *err) _must_check_;

/* Grants: a registry let somebody pull from a repository.  What is remembered of a credential is
 * its fingerprint, hashed with a key of this store.  At most 100 a repository, the newest; all of
 * it is forgotten when nothing of the repository is stored any more. */
#define GRANT_BYTES 32
typedef struct Grant {
    const char *origin;         /* "registry/repository" */
    const uint8_t *fingerprint; /* GRANT_BYTES; zeros: nobody in particular, all may have it */
    uint64_t lifetime_usec;     /* older ones do not count, and go */
} Grant;
/* What it was asked for, when it led to what is stored. */
typedef struct GrantReference {
    const char *text, *platform; /* as in store_set_reference() */
    const Digest *manifest;
} GrantReference;
/* Remembers it as of now, and points the reference (NULL: none) at its manifest, at once.  Errors:
 * -ENOENT the manifest is not stored (complete with tree). */
int store_grant_add(Store *s, const Grant *grant, const GrantReference *reference, Err *err)
    _must_check_;
/* 1 when it is remembered, for this credential or for all; else 0. */
int store_grant_has(Store *s, const Grant *grant, Err *err) _must_check_;
/* The registry let it in no more, or (`nobody`) it and nobody; absent: 0. */
int store_grant_remove(Store *s, const Grant *grant, bool nobody, Err *err) _must_check_;

/* For people: what is stored. */
typedef struct ArtifactInfo {
    Digest digest;   /* its key */
    Digest manifest; /* the same, but of a subset */
    Filter *filter;  /* of a subset; NULL: it is all of the manifest */
    char **references;
    size_t n_references;
    char *family, *media_type, *artifact_type, *platform;
    uint64_t bytes, unique_bytes, files;
    int64_t created_usec, used_usec;
    unsigned volumes;
    bool complete; /* false: content was lost or damaged; pulling it again repairs it */
} ArtifactInfo;
void artifact_info_clear(ArtifactInfo *a);
void artifact_info_array_free(ArtifactInfo *a, size_t n);
int store_list(Store *s, ArtifactInfo **ret, size_t *ret_n, Err *err) _must_check_;
int store_inspect(Store *s, const Digest *artifact, ArtifactInfo *ret, Err *err)
    _must_check_; /* -ENOENT */
int store_manifest(Store *s, const Digest *artifact, Manifest **ret, Err *err)
    _must_check_; /* -ENOENT */
/* The merged files of the artifact, sorted by path (free with layer_entries_free). */
int store_files(Store *s, const Digest *artifact, LayerEntry **ret, size_t *ret_n, Err *err)
    _must_check_;

/* Removes a reference (for one platform; NULL: for all) or (reference NULL) an artifact with its
 * references, its tree and the content that no other artifact and no running pull uses.  Removing
 * the last reference removes what it named, subsets too.  Errors: -ENOENT; -EBUSY a volume uses
 * it: nothing is removed. */
int store_remove(Store *s, const char *reference, const char *platform, const Digest *artifact,
                 uint64_t *ret_bytes_freed, Err *err) _must_check_;

/* Removes content that no manifest and no running pull uses, and all partial blobs: what failed
 * pulls left for the next try; and as store_sweep_trees().  1: there was something; of trees, and
 * of empty files, `ret_bytes_freed` knows nothing. */
int store_prune(Store *s, uint64_t *ret_bytes_freed, Err *err) _must_check_;

/* Removes trees that no row knows and that no mount shows any more.  1: there were some. */
int store_sweep_trees(Store *s, Err *err) _must_check_;

typedef struct StoreStats {
    uint64_t bytes; /* of all objects */
    uint64_t fs_bytes, fs_free_bytes;
    unsigned artifacts, incomplete; /* complete ones, and others */
    unsigned objects, volumes;
    unsigned partial_layers;     /* layers that came in part, and are kept */
    uint64_t partial_bytes;      /* on disk */
    uint64_t deduplicated_bytes; /* of files that pulls brought since the store was opened, and that
                                    it had already */
} StoreStats;
int store_stats(Store *s, StoreStats *ret, Err *err) _must_check_;

/* Reads objects (of one manifest with its subsets, of one subset, or all with NULL) from the disk,
 * past the page cache, and compares digests.  A bad object is forgotten and removed, what uses it
 * becomes incomplete (a later pull repairs it), and `bad` is called with a sentence.  Trees that
 * have it are removed, but those that volumes show: these are mended in place by the next pull. For
 * each artifact that was incomplete already, `incomplete` is called with a sentence that says what
 * it lacks.  Returns the number of bad objects and incomplete artifacts. `progress` is called about
 * every 16 MiB; returning < 0 there ends it with that. Errors: -ENOENT the manifest is not stored;
 * -EIO. */
typedef struct VerifyHandlers {
    int (*progress)(void *arg, uint64_t objects, uint64_t n_objects, uint64_t bytes,
                    uint64_t n_bytes);
    void (*bad)(void *arg, const Digest *object, const char *sentence);
    void (*incomplete)(void *arg, const Digest *manifest, const char *sentence);
    void *arg;
} VerifyHandlers;
int store_verify(Store *s, const Digest *manifest, const VerifyHandlers *handlers, Err *err)
    _must_check_;

/* History. */
typedef struct StoreEvent {
    uint64_t id;
    int64_t time_usec;
    char *type, *text;
    /* What it concerns; each may be NULL. */
    char *reference, *digest, *volume_id;
    char *pull;                     /* id */
    char *pod_namespace, *pod_name; /* whose volume it is */
} StoreEvent;
void store_event_clear(StoreEvent *e);
void store_event_copy(StoreEvent *ret, const StoreEvent *e);
void store_event_array_free(StoreEvent *e, size_t n);
int store_event_add(Store *s, const StoreEvent *e, uint64_t *ret_id, Err *err)
    _must_check_; /* id is ignored; the oldest beyond 10,000 go */
/* Which events; NULL or "": all. */
typedef struct EventFilter {
    const char *pull;
    const char *pod_namespace, *pod_name;
} EventFilter;
bool event_filter_matches(const EventFilter *f, const StoreEvent *e);
/* The last ones of those, oldest first. */
int store_event_list(Store *s, const EventFilter *filter, unsigned last, StoreEvent **ret,
                     size_t *ret_n, Err *err) _must_check_;
