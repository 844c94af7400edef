/* SPDX-License-Identifier: Apache-2.0 */
/* artifact: what the index knows of manifests, references and their layers. */
#include "cache/store_internal.h"

#include "base/limits.h"
#include "cache/tree.h"

void layer_entries_free(LayerEntry *entries, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(entries[i].path);
        free(entries[i].target);
        free(entries[i].ingest);
    }
    free(entries);
}

Manifest *manifest_free(Manifest *m) {
    if (!m)
        return NULL;
    for (size_t i = 0; i < m->n_layers; i++) {
        free(m->layers[i].media_type);
        free(m->layers[i].path);
    }
    free(m->layers);
    free(m->bytes);
    free(m->media_type);
    free(m->artifact_type);
    free(m->family);
    free(m->platform);
    (void)filter_free(m->filter);
    free(m);
    return NULL;
}

void manifest_key(const Manifest *m, Digest *ret) {
    filter_key(m->filter, &m->digest, ret);
}

bool manifest_wants_layer(const Manifest *m, size_t layer, uint64_t *steps) {
    const Layer *l = &m->layers[layer];

    return l->kind == LAYER_KIND_TAR || filter_keeps(m->filter, l->path, steps);
}

int manifest_lookup(Index *ix, const Digest *digest, bool complete, int64_t *ret_id, Err *err) {
    int r =
        index_get(ix, ret_id, err, "SELECT id FROM manifests WHERE digest = ? AND complete >= ?",
                  "di", digest, (int64_t)complete);

    if (r == 0)
        return err_set(err, -ENOENT, "artifact %s is not stored", DIGEST_STR(digest));
    return r < 0 ? r : 0;
}

int layer_lookup(Index *ix, const char *origin, const Layer *layer, int64_t *ret_id, Err *err) {
    int r;

    *ret_id = 0;
    if (layer->kind == LAYER_KIND_TAR)
        r = index_get(ix, ret_id, err, "SELECT id FROM layers WHERE digest = ? AND origin = ?",
                      "dt", &layer->digest, origin);
    else
        r = index_get(ix, ret_id, err,
                      "SELECT id FROM objects AS o WHERE digest = ?1 AND exec = ?2 AND size = ?3"
                      " AND (origin = ?4 OR EXISTS (SELECT 1 FROM object_origins"
                      "  WHERE object_id = o.id AND origin = ?4))",
                      "diit", &layer->digest, (int64_t)layer->executable, (int64_t)layer->size,
                      origin);
    return r < 0 ? r : 0;
}

int store_lease_layer(Store *s, const StorePull *pull, const Layer *layer, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    const char *ingest = pull->ingest;
    int64_t id;
    int r = layer_lookup(ix, pull->origin, layer, &id, err);

    if (r < 0 || id == 0)
        return r;
    if (layer->kind == LAYER_KIND_TAR) {
        r = index_run(ix, err, "INSERT OR IGNORE INTO layer_leases VALUES (?, ?)", "ti", ingest,
                      id);
        if (r >= 0)
            r = index_run(ix, err,
                          "INSERT OR IGNORE INTO leases SELECT ?, object_id FROM layer_entries"
                          " WHERE layer_id = ? AND object_id IS NOT NULL",
                          "ti", ingest, id);
    } else
        r = index_run(ix, err, "INSERT OR IGNORE INTO leases VALUES (?, ?)", "ti", ingest, id);
    return r < 0 ? r : 1;
}

static int load_entries(Index *ix, int64_t layer_id, LayerEntry **entries, size_t *n, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    size_t cap = 0;
    int r =
        index_query(ix, &q, err,
                    "SELECT type, path, target, o.digest, o.exec, o.size FROM layer_entries AS e"
                    " LEFT JOIN objects AS o ON o.id = e.object_id WHERE layer_id = ? ORDER BY seq",
                    "i", layer_id);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        LayerEntry e = { .type = (EntryType)index_int(q, 0) };

        if (e.type == ENTRY_TYPE_FILE) {
            r = index_digest(q, 3, &e.digest, err);
            e.executable = index_int(q, 4) != 0;
            e.size = (uint64_t)index_int(q, 5);
        }
        e.path = index_text(q, 1);
        e.target = index_text(q, 2);
        ARRAY_GROW(*entries, *n, cap);
        (*entries)[(*n)++] = e;
    }
    return r;
}

/* `needed`: it must be stored.  The others take part all the same, so that a subset is what it is
 * of the whole. */
static int merge_layer(Index *ix, Tree *tree, const char *origin, const Layer *layer, bool needed,
                       Err *err) {
    LayerEntry *entries = NULL;
    size_t n = 0;
    int64_t id;
    int r = layer_lookup(ix, origin, layer, &id, err);

    if (r < 0)
        return r;
    if (id == 0 && needed)
        return err_set(err, -ENOENT, "the content of layer %s is not stored",
                       DIGEST_STR(&layer->digest));
    if (layer->kind == LAYER_KIND_RAW) {
        const LayerEntry file = { .type = ENTRY_TYPE_FILE,
                                  .executable = layer->executable,
                                  .digest = layer->digest,
                                  .size = layer->size,
                                  .path = layer->path };

        return tree_add_layer(tree, NULL, &file, 1, err);
    }
    r = load_entries(ix, id, &entries, &n, err);
    if (r >= 0)
        r = tree_add_layer(tree, layer->path, entries, n, err);
    layer_entries_free(entries, n);
    return r;
}

int artifact_merge(Index *ix, const Manifest *m, const char *origin, LayerEntry **ret,
                   size_t *ret_n, Err *err) {
    _cleanup_(tree_freep) Tree *tree = tree_new(streq_ptr(m->family, "image"));
    uint64_t steps = LIMIT_FILTER_LAYER_STEPS;
    int r;

    for (size_t i = 0; i < m->n_layers; i++) {
        bool needed = manifest_wants_layer(m, i, &steps);

        r = merge_layer(ix, tree, origin, &m->layers[i], needed, err);
        if (r < 0)
            return err_prefix(err, r, "layer %zu of %zu", i + 1, m->n_layers);
    }
    r = filter_check_steps(steps, err);
    return r < 0 ? r : tree_entries(tree, m->filter, ret, ret_n, err);
}

/* A reference without a platform (it led to no index) is good for every platform, so the two kinds
 * exclude each other.  It means one manifest, of which the whole and subsets may be stored. */
int reference_set(Index *ix, const char *reference, const char *platform, int64_t manifest_id,
                  Err *err) {
    const char *key = platform ? platform : "";
    int r = index_run(
        ix, err,
        "DELETE FROM refs WHERE reference = ?1 AND (?2 = '' OR platform IN ('', ?2))"
        " AND (platform != ?2 OR manifest_id NOT IN (SELECT id FROM manifests WHERE manifest ="
        "  (SELECT manifest FROM manifests WHERE id = ?3)))",
        "tti", reference, key, manifest_id);

    if (r >= 0)
        r = index_run(ix, err, "INSERT OR IGNORE INTO refs VALUES (?, ?, ?)", "tti", reference, key,
                      manifest_id);
    return r < 0 ? r : 0;
}

int store_set_reference(Store *s, const char *reference, const char *platform,
                        const Digest *artifact, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int64_t id;
    int r = index_begin(ix, true, err);

    if (r >= 0)
        r = manifest_lookup(ix, artifact, true, &id, err);
    if (r >= 0)
        r = reference_set(ix, reference, platform, id, err);
    return r < 0 ? r : index_commit(ix, err);
}

int store_widen_reference(Store *s, const char *reference, const char *platform,
                          const Digest *artifact, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int64_t id, one;
    int r = index_begin(ix, true, err);

    if (r >= 0)
        r = manifest_lookup(ix, artifact, true, &id, err);
    if (r >= 0)
        r = index_get(ix, &one, err,
                      "SELECT 1 FROM refs AS r JOIN manifests AS m ON m.id = r.manifest_id"
                      " WHERE r.reference = ?1 AND (?2 = '' OR r.platform IN ('', ?2))"
                      " AND m.manifest = (SELECT manifest FROM manifests WHERE id = ?3) LIMIT 1",
                      "tti", reference, platform ? platform : "", id);
    if (r > 0)
        r = reference_set(ix, reference, platform, id, err);
    return r < 0 ? r : index_commit(ix, err);
}

int store_resolve(Store *s, const char *reference, const char *platform, const Filter *filter,
                  Digest *ret, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    _cleanup_free_ char *text = filter_text(filter);
    int r = index_query(ix, &q, err,
                        "SELECT m.digest, m.filter != ?3 FROM refs AS r"
                        " JOIN manifests AS m ON m.id = r.manifest_id"
                        " WHERE r.reference = ?1 AND r.platform IN ('', ?2) AND m.complete"
                        " AND m.filter IN ('', ?3) ORDER BY 2 LIMIT 1",
                        "ttt", reference, platform ? platform : "", text);

    if (r < 0)
        return r;
    r = index_step(q, err);
    if (r < 0)
        return r;
    if (r == 0)
        return err_set(err, -ENOENT, "%.300s is not stored for platform %s", reference,
                       isempty(platform) ? "(any)" : platform);
    r = (int)index_int(q, 1);
    return index_digest(q, 0, ret, err) < 0 ? -EUCLEAN : r;
}

int store_has_manifest(Store *s, const Digest *artifact, const char *origin, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int64_t one;

    return index_get(ix, &one, err,
                     "SELECT 1 FROM manifests AS m JOIN manifest_origins AS o ON o.manifest_id = "
                     "m.id WHERE m.digest = ? AND m.complete AND o.origin = ?",
                     "dt", artifact, origin);
}

int store_touch(Store *s, const Digest *artifact, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    /* A time of use that a power cut takes back does no harm, and a publish need not wait for the
     * disk. */
    int r = index_begin(ix, false, err);

    if (r < 0)
        return r;
    r = index_run(ix, err, "UPDATE manifests SET used_usec = ? WHERE digest = ?", "id",
                  (int64_t)now_realtime_usec(), artifact);
    if (r < 0)
        return r;
    if (r == 0)
        return err_set(err, -ENOENT, "artifact %s is not stored", DIGEST_STR(artifact));
    return index_commit(ix, err);
}

static int load_layers(Index *ix, int64_t id, Manifest *m, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    size_t cap = 0;
    int r = index_query(ix, &q, err,
                        "SELECT digest, size, kind, exec, media_type, path FROM manifest_layers"
                        " WHERE manifest_id = ? ORDER BY seq",
                        "i", id);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        Layer layer = { .size = (uint64_t)index_int(q, 1),
                        .kind = (LayerKind)index_int(q, 2),
                        .executable = index_int(q, 3) != 0,
                        .media_type = index_text(q, 4),
                        .path = index_text(q, 5) };

        ARRAY_GROW(m->layers, m->n_layers, cap);
        m->layers[m->n_layers] = layer;
        r = index_digest(q, 0, &m->layers[m->n_layers++].digest, err);
    }
    return r;
}

static int load_manifest(Index *ix, const Digest *digest, bool complete, Manifest **ret, Err *err) {
    _cleanup_(manifest_freep) Manifest *m = xnew(Manifest);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    _cleanup_free_ char *filter = NULL;
    int64_t id;
    int r = manifest_lookup(ix, digest, complete, &id, err);

    if (r >= 0)
        r = index_query(ix, &q, err,
                        "SELECT media_type, artifact_type, family, platform, bytes, manifest,"
                        " filter FROM manifests WHERE id = ?",
                        "i", id);
    if (r >= 0)
        r = index_step(q, err);
    if (r >= 0)
        r = index_digest(q, 5, &m->digest, err);
    filter = r >= 0 ? index_text(q, 6) : NULL;
    if (r >= 0)
        r = filter_from_text(&m->filter, filter, err);
    if (r < 0)
        return r;
    m->media_type = index_text(q, 0);
    m->artifact_type = index_text(q, 1);
    m->family = index_text(q, 2);
    m->platform = index_text(q, 3);
    m->n_bytes = (size_t)sqlite3_column_bytes(q, 4);
    m->bytes = xcalloc(1, m->n_bytes + 1);
    if (m->n_bytes > 0)
        memcpy(m->bytes, sqlite3_column_blob(q, 4), m->n_bytes);
    r = load_layers(ix, id, m, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(m);
    return 0;
}

int store_manifest(Store *s, const Digest *artifact, Manifest **ret, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);

    return load_manifest(ix, artifact, false, ret, err);
}

static int load_origin(Index *ix, const Digest *artifact, char **ret, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int r =
        index_query(ix, &q, err, "SELECT origin FROM manifests WHERE digest = ?", "d", artifact);

    if (r >= 0)
        r = index_step(q, err);
    if (r > 0)
        *ret = index_text(q, 0);
    return r;
}

int artifact_load(Index *ix, const Digest *artifact, Manifest **ret, char **ret_origin, Err *err) {
    int r = load_manifest(ix, artifact, true, ret, err);

    return r < 0 ? r : load_origin(ix, artifact, ret_origin, err);
}

int store_files(Store *s, const Digest *artifact, LayerEntry **ret, size_t *ret_n, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(manifest_freep) Manifest *m = NULL;
    _cleanup_free_ char *origin = NULL;
    int r = artifact_load(ix, artifact, &m, &origin, err);

    return r < 0 ? r : artifact_merge(ix, m, origin, ret, ret_n, err);
}
