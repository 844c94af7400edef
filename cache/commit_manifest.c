/* SPDX-License-Identifier: Apache-2.0 */
/* commit_manifest: a manifest whose layers are stored gets its tree and its rows. */
#include "cache/store_internal.h"

#include "base/fs.h"
#include "base/limits.h"
#include "base/parse.h"
#include "cache/checkout.h"
#include "cache/shown.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#define FRESH_TREE_PREFIX ".new-"

typedef struct ManifestCommit {
    Store *s;
    const Manifest *m;
    const char *origin, *reference;
    Digest key;     /* of the artifact */
    Digest content; /* of the merged tree */
    size_t n_files;
    uint64_t bytes; /* of these, equal ones once */
} ManifestCommit;

typedef struct FreshTree {
    int trees_fd;
    char name[sizeof(FRESH_TREE_PREFIX) + 16]; /* empty: there is none */
} FreshTree;

static void fresh_tree_done(FreshTree *f) {
    if (f->name[0])
        (void)!fs_remove_recursive(f->trees_fd, f->name, NULL); /* else the next start removes it */
}

static int check_manifest(const Manifest *m, Err *err) {
    Digest d;

    if (m->n_bytes > LIMIT_MANIFEST_BYTES || m->n_layers > LIMIT_LAYERS)
        return err_set(err, -E2BIG,
                       "manifest %s has %zu bytes and %zu layers, allowed are %llu and %d",
                       DIGEST_STR(&m->digest), m->n_bytes, m->n_layers,
                       (unsigned long long)LIMIT_MANIFEST_BYTES, LIMIT_LAYERS);
    digest_of(&d, m->bytes, m->n_bytes);
    if (!digest_equal(&d, &m->digest))
        return err_set(err, -EBADMSG, "the bytes of manifest %s have the digest %s",
                       DIGEST_STR(&m->digest), DIGEST_STR(&d));
    return 0;
}

static int fresh_tree_make(FreshTree *f, int *ret_fd, Err *err) {
    uint8_t random[8];

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return err_errno(err, "making a name for a new tree failed");
    memcpy(f->name, FRESH_TREE_PREFIX, sizeof(FRESH_TREE_PREFIX));
    format_hex(random, sizeof(random), f->name + strlen(FRESH_TREE_PREFIX));
    if (mkdirat(f->trees_fd, f->name, 0700) < 0) {
        int r = err_errno(err, "making directory trees/%s failed", f->name);

        f->name[0] = '\0';
        return r;
    }
    *ret_fd = openat(f->trees_fd, f->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret_fd < 0 ? err_errno(err, "opening directory trees/%s failed", f->name) : 0;
}

static int build_tree(Store *s, const char *name, const LayerEntry *entries, size_t n, Err *err) {
    _cleanup_(fresh_tree_done) FreshTree fresh = { .trees_fd = s->trees_fd };
    _cleanup_close_ int fd = -EBADF;
    int r = fresh_tree_make(&fresh, &fd, err);

    if (r < 0)
        return r;
    r = checkout_build(s->objects_fd, fd, entries, n, err);
    if (r < 0)
        return r;
    if (renameat2(s->trees_fd, fresh.name, s->trees_fd, name, RENAME_NOREPLACE) < 0)
        return err_errno(err, "naming tree %s failed", name);
    fresh.name[0] = '\0';
    if (fsync(s->trees_fd) < 0)
        return err_errno(err, "making the name of tree %s durable failed", name);
    return 0;
}

static int repair_tree(Store *s, int tree_fd, const LayerEntry *entries, size_t n, Err *err) {
    _cleanup_(fresh_tree_done) FreshTree scratch = { .trees_fd = s->trees_fd };
    _cleanup_close_ int scratch_fd = -EBADF;
    int r = fresh_tree_make(&scratch, &scratch_fd, err);

    return r < 0 ? r : checkout_repair(s->objects_fd, tree_fd, scratch_fd, entries, n, err);
}

static int count_volumes(Index *ix, const Digest *artifact, int64_t *ret, Err *err) {
    return index_get(ix, ret, err,
                     "SELECT count(*) FROM volumes WHERE manifest_id = (SELECT id FROM manifests "
                     "WHERE digest = ?)",
                     "d", artifact);
}

static int remove_tree(Store *s, const char *name, Err *err) {
    _cleanup_(shown_done) Shown shown = { 0 };
    int r = shown_read(&shown, s, err);

    return r < 0 ? r : shown_remove_tree(&shown, s, name, err);
}

/* A tree that is there belongs to a manifest that became incomplete, or is of an index that was
 * lost. Volumes may show it: it is mended in place.  Otherwise it is made anew. */
static int make_tree(Store *s, const Digest *manifest, const LayerEntry *entries, size_t n,
                     Err *err) {
    const char *name = DIGEST_HEX(manifest);
    _cleanup_close_ int tree_fd =
        openat(s->trees_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int64_t in_use = 0;
    int r;

    if (tree_fd < 0 && errno != ENOENT)
        return err_errno(err, "opening tree %s failed", name);
    if (tree_fd >= 0) {
        {
            _cleanup_(index_releasep) Index *ix = index_acquire(s->index);

            r = count_volumes(ix, manifest, &in_use, err);
        }
        if (r >= 0 && in_use > 0)
            return repair_tree(s, tree_fd, entries, n, err);
        if (r >= 0)
            r = remove_tree(s, name, err);
        if (r < 0)
            return r;
    }
    return build_tree(s, name, entries, n, err);
}

static int insert_layer_row(Index *ix, int64_t manifest_id, const ManifestCommit *c, size_t i,
                            Err *err) {
    const Layer *layer = &c->m->layers[i];
    uint64_t steps = LIMIT_FILTER_LAYER_STEPS; /* the merge found them enough for all */
    int64_t id;
    int r =
        index_run(ix, err, "INSERT INTO manifest_layers VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                  "iidiiitt", manifest_id, (int64_t)i, &layer->digest, (int64_t)layer->size,
                  (int64_t)layer->kind, (int64_t)layer->executable, layer->media_type, layer->path);

    if (r < 0 || !manifest_wants_layer(c->m, i, &steps))
        return r;
    r = layer_lookup(ix, c->origin, layer, &id, err);
    if (r < 0)
        return r;
    if (layer->kind == LAYER_KIND_TAR)
        return index_run(
            ix, err,
            "INSERT OR IGNORE INTO manifest_objects SELECT ?, object_id FROM layer_entries"
            " WHERE layer_id = ? AND object_id IS NOT NULL",
            "ii", manifest_id, id);
    return index_run(ix, err, "INSERT OR IGNORE INTO manifest_objects VALUES (?, ?)", "ii",
                     manifest_id, id);
}

static int insert_manifest(Index *ix, const ManifestCommit *c, int64_t *ret_id, Err *err) {
    int64_t now = (int64_t)now_realtime_usec();
    const Manifest *m = c->m;
    _cleanup_free_ char *filter = filter_text(m->filter);
    int r = index_run(
        ix, err,
        "INSERT INTO manifests (digest, media_type, artifact_type, family, platform, bytes, files,"
        " complete, created_usec, used_usec, content, origin, manifest, filter, bytes_shown)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (digest) DO UPDATE SET files = excluded.files, complete = 1,"
        " used_usec = excluded.used_usec, content = excluded.content, origin = excluded.origin,"
        " bytes_shown = excluded.bytes_shown",
        "dttttbiiidtdti", &c->key, m->media_type, m->artifact_type, m->family, m->platform,
        (const void *)m->bytes, m->n_bytes, (int64_t)c->n_files, now, now, &c->content, c->origin,
        &m->digest, filter, (int64_t)c->bytes);

    return r < 0 ? r : manifest_lookup(ix, &c->key, true, ret_id, err);
}

static int insert_origin(Index *ix, const ManifestCommit *c, int64_t id, Err *err) {
    int r = index_run(ix, err, "INSERT OR IGNORE INTO manifest_origins VALUES (?, ?)", "it", id,
                      c->origin);

    if (r >= 0 && c->reference)
        r = reference_set(ix, c->reference, c->m->platform, id, err);
    return r;
}

/* What nobody refers to need not survive a power cut: the reference will be on disk with all that
 * was written before it. */
static int begin(const ManifestCommit *c, Index *ix, Err *err) {
    return index_begin(ix, c->reference != NULL, err);
}

static int insert_rows(const ManifestCommit *c, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    int64_t id = 0;
    int r = begin(c, ix, err);

    if (r >= 0)
        r = insert_manifest(ix, c, &id, err);
    if (r >= 0)
        r = index_run(ix, err, "DELETE FROM manifest_layers WHERE manifest_id = ?", "i", id);
    if (r >= 0)
        r = index_run(ix, err, "DELETE FROM manifest_objects WHERE manifest_id = ?", "i", id);
    for (size_t i = 0; r >= 0 && i < c->m->n_layers; i++)
        r = insert_layer_row(ix, id, c, i, err);
    if (r >= 0)
        r = insert_origin(ix, c, id, err);
    return r < 0 ? r : index_commit(ix, err);
}

/* 1 when the artifact is complete already; the reference points to it then. */
static int is_committed(const ManifestCommit *c, Err *err) {
    int r = store_has_manifest(c->s, &c->key, c->origin, err);

    if (r <= 0 || !c->reference)
        return r;
    r = store_set_reference(c->s, c->reference, c->m->platform, &c->key, err);
    return r < 0 ? r : 1;
}

static void hash_text(Hasher *h, const char *text) {
    hasher_update(h, text ? text : "", text ? strlen(text) + 1 : 1);
}

/* Two trees are the same when this is. */
static void hash_entries(const LayerEntry *entries, size_t n, Digest *ret) {
    _cleanup_(hasher_freep) Hasher *h = hasher_new();

    for (size_t i = 0; i < n; i++) {
        const LayerEntry *e = &entries[i];
        const uint8_t kind[2] = { (uint8_t)e->type, e->executable };

        hasher_update(h, kind, sizeof(kind));
        hasher_update(h, e->digest.bytes, DIGEST_BYTES);
        hash_text(h, e->path);
        hash_text(h, e->target);
    }
    hasher_final(h, ret);
}

/* What others were given under this digest must stay what it is, also when it is mended.  1 when
 * all of it is stored already, by the pull of another repository. */
static int compare_stored(const ManifestCommit *c, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int r = index_query(ix, &q, err,
                        "SELECT complete, content = ?, EXISTS (SELECT 1 FROM manifest_origins"
                        "  WHERE manifest_id = m.id AND origin != ?)"
                        " FROM manifests AS m WHERE digest = ?",
                        "dtd", &c->content, c->origin, &c->key);

    if (r >= 0)
        r = index_step(q, err);
    if (r <= 0)
        return r;
    if (index_int(q, 1) == 0 && index_int(q, 2) != 0)
        return err_set(err, -EBADMSG,
                       "another repository gave this node other content for the manifest %s; "
                       "remove it with cache-ctl rm %s and pull again, or run cache-ctl verify",
                       DIGEST_STR(&c->m->digest), DIGEST_STR(&c->m->digest));
    return index_int(q, 0) != 0;
}

/* Adds the repository to those that gave the stored artifact. */
static int add_origin(const ManifestCommit *c, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    int64_t id = 0;
    int r = begin(c, ix, err);

    if (r >= 0)
        r = manifest_lookup(ix, &c->key, true, &id, err);
    if (r >= 0)
        r = insert_origin(ix, c, id, err);
    return r < 0 ? r : index_commit(ix, err);
}

/* No row says that it is complete, so the tree would only keep space from others, on a full disk
 * for example; but one that a volume shows stays. */
static void take_tree_back(Store *s, const Digest *manifest) {
    int64_t in_use = 0;
    int r;

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);

        r = count_volumes(ix, manifest, &in_use, NULL);
    }
    if (r >= 0 && in_use == 0) /* else, and when it fails, the next commit or start removes it */
        (void)!remove_tree(s, DIGEST_HEX(manifest), NULL);
}

static int merge(const ManifestCommit *c, LayerEntry **ret, size_t *ret_n, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);

    return artifact_merge(ix, c->m, c->origin, ret, ret_n, err);
}

/* A tar layer may hold more than the tree shows. */
static void count_files(ManifestCommit *c, const LayerEntry *entries, size_t n) {
    _cleanup_free_ ObjectKey *keys = xnew_n(ObjectKey, MAX(n, (size_t)1));

    for (size_t i = 0; i < n; i++)
        if (entries[i].type == ENTRY_TYPE_FILE)
            keys[c->n_files++] = (ObjectKey){ .digest = entries[i].digest,
                                              .exec = entries[i].executable,
                                              .size = entries[i].size };
    qsort(keys, c->n_files, sizeof(*keys), object_key_compare);
    for (size_t i = 0; i < c->n_files; i++)
        if (i == 0 || object_key_compare(&keys[i - 1], &keys[i]) != 0)
            c->bytes += keys[i].size;
}

static int commit_tree(ManifestCommit *c, const LayerEntry *entries, size_t n, Err *err) {
    int r;

    count_files(c, entries, n);
    if (c->m->filter && c->n_files == 0)
        return err_set(err, -EINVAL,
                       "include and exclude leave no file of the artifact; patterns without a "
                       "slash are names in any directory, those with one begin at its root");
    hash_entries(entries, n, &c->content);
    r = compare_stored(c, err);
    if (r != 0)
        return r < 0 ? r : add_origin(c, err);
    r = make_tree(c->s, &c->key, entries, n, err);
    if (r >= 0)
        r = insert_rows(c, err);
    if (r < 0)
        take_tree_back(c->s, &c->key);
    return r;
}

int store_commit_manifest(Store *s, const Manifest *m, const char *origin, const char *reference,
                          Err *err) {
    _cleanup_(content_unlockp) Store *content = NULL;
    _cleanup_(mutex_unlockp) pthread_mutex_t *tree = NULL;
    ManifestCommit c = { .s = s, .m = m, .origin = origin, .reference = reference };
    LayerEntry *entries = NULL;
    size_t n = 0;
    int r = check_manifest(m, err);

    if (r < 0)
        return r;
    manifest_key(m, &c.key);
    content = content_lock_shared(s);
    tree = mutex_lock(&s->tree);
    r = is_committed(&c, err);
    if (r != 0)
        return r < 0 ? r : 0;
    r = merge(&c, &entries, &n, err);
    if (r < 0)
        return r;
    r = commit_tree(&c, entries, n, err);
    layer_entries_free(entries, n);
    return r < 0 ? r : 0;
}

/* All that gave the whole gave the subset. */
static int copy_origins(Store *s, const Digest *manifest, const Digest *subset, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int r = index_begin(ix, true, err);

    if (r >= 0)
        r = index_run(ix, err,
                      "INSERT OR IGNORE INTO manifest_origins SELECT s.id, o.origin"
                      " FROM manifests AS s, manifests AS m"
                      " JOIN manifest_origins AS o ON o.manifest_id = m.id"
                      " WHERE s.digest = ? AND m.digest = ?",
                      "dd", subset, manifest);
    return r < 0 ? r : index_commit(ix, err);
}

int store_make_subset(Store *s, const Digest *manifest, const Filter *filter, Digest *ret,
                      Err *err) {
    _cleanup_(manifest_freep) Manifest *m = NULL;
    _cleanup_free_ char *origin = NULL;
    const Digest whole = *manifest; /* `ret` may be the same variable */
    int r;

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);

        r = artifact_load(ix, &whole, &m, &origin, err);
    }
    if (r < 0)
        return r;
    m->filter = filter_copy(filter);
    r = store_commit_manifest(s, m, origin, NULL, err);
    if (r < 0)
        return r;
    manifest_key(m, ret);
    return copy_origins(s, &whole, ret, err);
}
