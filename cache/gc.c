/* SPDX-License-Identifier: Apache-2.0 */
/* gc: takes content away: rows first, in one transaction, then files; a crash between leaves what
 * recovery removes. */
#include "cache/grant.h"
#include "cache/object.h"
#include "cache/partial.h"
#include "cache/shown.h"

#include <fcntl.h>

int object_key_compare(const void *a, const void *b) {
    const ObjectKey *x = a, *y = b;
    int r = digest_compare(&x->digest, &y->digest);

    return r != 0 ? r : (int)x->exec - (int)y->exec;
}

/* Runs statements that each take one id. */
static int run_each(Index *ix, const char *const *sql, size_t n, int64_t id, Err *err) {
    for (size_t i = 0; i < n; i++) {
        int r = index_run(ix, err, sql[i], "i", id);

        if (r < 0)
            return r;
    }
    return 0;
}

int gc_forget_object(Index *ix, int64_t object_id, Err *err) {
    static const char *const sql[] = {
        "UPDATE manifests SET complete = 0"
        " WHERE id IN (SELECT manifest_id FROM manifest_objects WHERE object_id = ?)",
        "DELETE FROM layer_leases"
        " WHERE layer_id IN (SELECT layer_id FROM layer_entries WHERE object_id = ?)",
        "DELETE FROM layers WHERE id IN (SELECT layer_id FROM layer_entries WHERE object_id = ?)",
        "DELETE FROM manifest_objects WHERE object_id = ?",
        "DELETE FROM leases WHERE object_id = ?",
        "DELETE FROM objects WHERE id = ?",
    };

    return run_each(ix, sql, ELEMENTSOF(sql), object_id, err);
}

int gc_remove_incomplete_trees(Store *s, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    _cleanup_(shown_done) Shown shown = { 0 };
    int r = shown_read(&shown, s, err);

    if (r >= 0)
        r = index_query(ix, &q, err,
                        "SELECT digest FROM manifests AS m WHERE NOT complete"
                        " AND NOT EXISTS (SELECT 1 FROM volumes AS v WHERE v.manifest_id = m.id)",
                        "");

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        Digest d;

        r = index_digest(q, 0, &d, err);
        if (r >= 0)
            r = shown_remove_tree(&shown, s, DIGEST_HEX(&d), err);
    }
    return r;
}

/* What one removal takes away from disk. */
typedef struct Removal {
    Digest *trees;
    size_t n_trees, cap_trees;
    ObjectKey *objects;
    size_t n_objects, cap_objects;
} Removal;

static void removal_done(Removal *rm) {
    free(rm->trees);
    free(rm->objects);
}

static int doom_manifest(Index *ix, int64_t id, Removal *rm, Err *err) {
    static const char *const sql[] = {
        "INSERT OR IGNORE INTO doomed_objects SELECT object_id FROM manifest_objects WHERE "
        "manifest_id = ?",
        "INSERT OR IGNORE INTO doomed_layers SELECT l.id FROM layers AS l JOIN manifest_layers AS m"
        " ON m.digest = l.digest AND m.kind = 1 WHERE m.manifest_id = ?",
        "DELETE FROM manifests WHERE id = ?",
    };
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int64_t volumes = 0;
    Digest d;
    Digest manifest;
    int r = index_query(ix, &q, err,
                        "SELECT digest, (SELECT count(*) FROM volumes WHERE manifest_id = m.id),"
                        " manifest"
                        " FROM manifests AS m WHERE id = ?",
                        "i", id);

    if (r < 0)
        return r;
    r = index_step(q, err);
    if (r < 0)
        return r;
    assert(r == 1);
    volumes = index_int(q, 1);
    r = index_digest(q, 0, &d, err);
    if (r >= 0)
        r = index_digest(q, 2, &manifest, err);
    if (r < 0)
        return r;
    if (volumes > 0)
        return err_set(err, -EBUSY,
                       "artifact %s is in use by %lld volume%s: delete the pod%s first; cache-ctl "
                       "inspect shows which",
                       DIGEST_STR(&manifest), (long long)volumes, volumes == 1 ? "" : "s",
                       volumes == 1 ? "" : "s");
    index_endp(&q);
    ARRAY_GROW(rm->trees, rm->n_trees, rm->cap_trees);
    rm->trees[rm->n_trees++] = d;
    return run_each(ix, sql, ELEMENTSOF(sql), id, err);
}

/* Of what is doomed, that which nothing else uses goes; `rm` gets the list. */
static int remove_doomed_rows(Index *ix, Removal *rm, Err *err) {
    static const char *const before[] = {
        "DELETE FROM layers WHERE id IN (SELECT layer_id FROM doomed_layers)"
        " AND NOT EXISTS (SELECT 1 FROM manifest_layers AS m JOIN manifest_origins AS o"
        "  ON o.manifest_id = m.manifest_id WHERE m.digest = layers.digest AND m.kind = 1"
        "  AND o.origin = layers.origin)"
        " AND id NOT IN (SELECT layer_id FROM layer_leases)",
        "DELETE FROM doomed_objects WHERE object_id IN (SELECT object_id FROM leases)"
        " OR EXISTS (SELECT 1 FROM manifest_objects AS m WHERE m.object_id = "
        "doomed_objects.object_id)"
        " OR EXISTS (SELECT 1 FROM layer_entries AS e WHERE e.object_id = "
        "doomed_objects.object_id)",
    };
    static const char *const after[] = {
        "DELETE FROM objects WHERE id IN (SELECT object_id FROM doomed_objects)",
        "DELETE FROM doomed_objects",
        "DELETE FROM doomed_layers",
    };
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int r = 0;

    for (size_t i = 0; r >= 0 && i < ELEMENTSOF(before); i++)
        r = index_run(ix, err, before[i], "");
    if (r >= 0)
        r = index_query(ix, &q, err,
                        "SELECT digest, exec, size FROM objects WHERE id IN (SELECT object_id FROM "
                        "doomed_objects)",
                        "");
    while (r >= 0 && (r = index_step(q, err)) > 0) {
        ObjectKey key = { .exec = index_int(q, 1) != 0, .size = (uint64_t)index_int(q, 2) };

        r = index_digest(q, 0, &key.digest, err);
        ARRAY_GROW(rm->objects, rm->n_objects, rm->cap_objects);
        rm->objects[rm->n_objects++] = key;
    }
    index_endp(&q);
    for (size_t i = 0; r >= 0 && i < ELEMENTSOF(after); i++)
        r = index_run(ix, err, after[i], "");
    return r;
}

static int remove_trees(const Store *s, const Removal *rm, Err *err) {
    _cleanup_(shown_done) Shown shown = { 0 };
    int first = rm->n_trees > 0 ? shown_read(&shown, s, err) : 0;

    if (first < 0)
        return first;
    for (size_t i = 0; i < rm->n_trees; i++) {
        int r = shown_remove_tree(&shown, s, DIGEST_HEX(&rm->trees[i]), first < 0 ? NULL : err);
        if (r < 0 && first == 0)
            first = r;
    }
    return first;
}

/* The rows are gone: whatever fails here is an orphan that the next start removes.  All of it is
 * tried; the first failure is returned. */
static int remove_files(const Store *s, const Removal *rm, uint64_t *ret_bytes, Err *err) {
    uint64_t bytes = 0;
    int first = remove_trees(s, rm, err);

    for (size_t i = 0; i < rm->n_objects; i++) {
        const ObjectKey *key = &rm->objects[i];

        if (unlinkat(s->objects_fd, OBJECT_NAME(&key->digest, key->exec), 0) == 0)
            bytes += key->size;
        else if (errno != ENOENT && first == 0)
            first = err_errno(err, "removing object %s failed", DIGEST_STR(&key->digest));
    }
    if (ret_bytes)
        *ret_bytes = bytes;
    return first;
}

#define OF_REFERENCE " FROM refs WHERE reference = ?1 AND (?2 IS NULL OR platform IN ('', ?2))"

static int remove_reference(Index *ix, const char *reference, const char *platform, Removal *rm,
                            Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int64_t *ids = NULL;
    size_t n = 0, cap = 0;
    int r = index_query(ix, &q, err, "SELECT DISTINCT manifest_id" OF_REFERENCE, "tt", reference,
                        platform);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        ARRAY_GROW(ids, n, cap);
        ids[n++] = index_int(q, 0);
    }
    index_endp(&q);
    if (r >= 0 && n == 0)
        r = err_set(err, -ENOENT, "nothing is stored under the reference %.300s%s%s", reference,
                    platform ? " for " : "", platform ? platform : "");
    if (r >= 0)
        r = index_run(ix, err, "DELETE" OF_REFERENCE, "tt", reference, platform);
    for (size_t i = 0; r >= 0 && i < n; i++) {
        int64_t one;

        r = index_get(ix, &one, err, "SELECT 1 FROM refs WHERE manifest_id = ? LIMIT 1", "i",
                      ids[i]);
        if (r == 0)
            r = doom_manifest(ix, ids[i], rm, err);
    }
    free(ids);
    return r;
}

static int remove_rows(Index *ix, const char *reference, const char *platform,
                       const Digest *artifact, Removal *rm, Err *err) {
    int64_t id;
    int r = index_begin_removal(ix, err);

    if (r < 0)
        return r;
    if (reference)
        r = remove_reference(ix, reference, platform, rm, err);
    else {
        r = manifest_lookup(ix, artifact, false, &id, err);
        if (r >= 0)
            r = doom_manifest(ix, id, rm, err);
    }
    if (r >= 0)
        r = remove_doomed_rows(ix, rm, err);
    if (r >= 0)
        r = grant_sweep(ix, err);
    return r < 0 ? r : index_commit(ix, err);
}

int store_remove(Store *s, const char *reference, const char *platform, const Digest *artifact,
                 uint64_t *ret_bytes_freed, Err *err) {
    _cleanup_(content_unlockp) _unused_ Store *lock = content_lock_exclusive(s);
    _cleanup_(removal_done) Removal rm = { 0 };

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
        int r = remove_rows(ix, reference, platform, artifact, &rm, err);

        if (r < 0)
            return r;
    }
    return remove_files(s, &rm, ret_bytes_freed, err);
}

static int prune_rows(Index *ix, Removal *rm, Err *err) {
    int r = index_begin_removal(ix, err);

    if (r >= 0)
        r = index_run(ix, err, "INSERT OR IGNORE INTO doomed_layers SELECT id FROM layers", "");
    if (r >= 0)
        r = index_run(ix, err, "INSERT OR IGNORE INTO doomed_objects SELECT id FROM objects", "");
    if (r >= 0)
        r = remove_doomed_rows(ix, rm, err);
    return r < 0 ? r : index_commit(ix, err);
}

static int prune_content(Store *s, uint64_t *ret_bytes, Err *err) {
    _cleanup_(content_unlockp) _unused_ Store *lock = content_lock_exclusive(s);
    _cleanup_(removal_done) Removal rm = { 0 };
    int r;

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);

        r = prune_rows(ix, &rm, err);
    }
    if (r >= 0)
        r = remove_files(s, &rm, ret_bytes, err);
    if (r >= 0)
        r = recover_trees(s, err);
    return r < 0 ? r : r > 0 || rm.n_objects > 0;
}

/* What came in part may be very many files: nobody else waits for that. */
int store_prune(Store *s, uint64_t *ret_bytes_freed, Err *err) {
    uint64_t bytes = 0, partial_bytes = 0;
    int partial = partial_clear(s, &partial_bytes, err);
    int r = partial < 0 ? partial : prune_content(s, &bytes, err);

    if (ret_bytes_freed)
        *ret_bytes_freed = bytes + partial_bytes;
    return r < 0 ? r : r > 0 || partial > 0;
}

/* What the pull holds is doomed as far as nobody else needs it. */
static int discard_rows(Index *ix, const char *ingest, Removal *rm, Err *err) {
    static const char *const sql[] = {
        "INSERT OR IGNORE INTO doomed_layers SELECT layer_id FROM layer_leases WHERE ingest = ?",
        "INSERT OR IGNORE INTO doomed_objects SELECT object_id FROM leases WHERE ingest = ?",
        "INSERT OR IGNORE INTO doomed_objects SELECT object_id FROM layer_entries"
        " WHERE object_id IS NOT NULL"
        " AND layer_id IN (SELECT layer_id FROM layer_leases WHERE ingest = ?)",
        "DELETE FROM leases WHERE ingest = ?",
        "DELETE FROM layer_leases WHERE ingest = ?",
    };
    int r = index_begin_removal(ix, err);

    for (size_t i = 0; r >= 0 && i < ELEMENTSOF(sql); i++)
        r = index_run(ix, err, sql[i], "t", ingest);
    if (r >= 0)
        r = remove_doomed_rows(ix, rm, err);
    return r < 0 ? r : index_commit(ix, err);
}

int store_ingest_discard(Store *s, const char *name, Err *err) {
    _cleanup_(content_unlockp) _unused_ Store *lock = content_lock_exclusive(s);
    _cleanup_(removal_done) Removal rm = { 0 };

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
        int r = discard_rows(ix, name, &rm, err);

        if (r < 0)
            return r;
    }
    return remove_files(s, &rm, NULL, err);
}
