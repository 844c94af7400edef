/* SPDX-License-Identifier: Apache-2.0 */
/* lease: the records of volumes; each holds its artifact in the store. */
#include "cache/store_internal.h"

void volume_clear(Volume *v) {
    free(v->volume_id);
    free(v->target);
    free(v->reference);
    free(v->sub_path);
    free(v->parameters);
    free(v->pod_namespace);
    free(v->pod_name);
    *v = (Volume){ 0 };
}

void volume_array_free(Volume *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        volume_clear(&v[i]);
    free(v);
}

/* 1 the same volume is recorded, 0 it is new; -EEXIST, -EBUSY. */
static int check_others(Index *ix, const Volume *v, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int r = index_query(
        ix, &q, err,
        "SELECT target, coalesce(parameters, ''), multi_node FROM volumes WHERE volume_id = ?"
        " ORDER BY target != ?",
        "tt", v->volume_id, v->target);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        _cleanup_free_ char *target = index_text(q, 0), *parameters = index_text(q, 1);

        if (streq(target, v->target)) {
            if (streq(parameters, v->parameters ? v->parameters : ""))
                return 1;
            return err_set(err, -EEXIST,
                           "volume %.200s is published at %.200s already, with other parameters",
                           v->volume_id, target);
        }
        if (!v->multi_node || index_int(q, 2) == 0)
            return err_set(err, -EBUSY,
                           "volume %.200s is published at %.200s already and its access mode "
                           "allows one target only",
                           v->volume_id, target);
    }
    return r;
}

static int insert_volume(Index *ix, const Volume *v, Err *err) {
    int64_t id, now = (int64_t)now_realtime_usec();
    int r = manifest_lookup(ix, &v->manifest, true, &id, err);

    if (r >= 0)
        r = index_run(ix, err, "INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                      "tttttiiiitt", v->volume_id, v->target, v->reference, v->sub_path,
                      v->parameters, id, (int64_t)v->exec, (int64_t)v->multi_node,
                      v->created_usec ? v->created_usec : now, v->pod_namespace, v->pod_name);
    if (r >= 0)
        r = index_run(ix, err, "UPDATE manifests SET used_usec = ? WHERE id = ?", "ii", now, id);
    return r < 0 ? r : 0;
}

int store_volume_add(Store *s, const Volume *v, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    /* What a power cut takes back, it takes with the mount; a crash of ours takes nothing back. */
    int r = index_begin(ix, false, err);

    if (r >= 0)
        r = check_others(ix, v, err);
    if (r != 0)
        return r;
    r = insert_volume(ix, v, err);
    return r < 0 ? r : index_commit(ix, err);
}

#define SELECT_VOLUME                                                                           \
    "SELECT volume_id, target, v.reference, sub_path, parameters, m.digest, exec, multi_node, " \
    "v.created_usec, m.manifest, pod_namespace, pod_name"                                       \
    " FROM volumes AS v JOIN manifests AS m ON m.id = v.manifest_id "

/* On failure, too, `v` must be cleared. */
static int load_volume(sqlite3_stmt *q, Volume *v, Err *err) {
    int r;

    *v = (Volume){
        .volume_id = index_text(q, 0),
        .target = index_text(q, 1),
        .reference = index_text(q, 2),
        .sub_path = index_text(q, 3),
        .parameters = index_text(q, 4),
        .exec = index_int(q, 6) != 0,
        .multi_node = index_int(q, 7) != 0,
        .created_usec = index_int(q, 8),
        .pod_namespace = index_text(q, 10),
        .pod_name = index_text(q, 11),
    };
    r = index_digest(q, 5, &v->manifest, err);
    return r < 0 ? r : index_digest(q, 9, &v->whole, err);
}

int store_volume_get(Store *s, const char *volume_id, const char *target, Volume *ret, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    Volume v;
    int r =
        index_query(ix, &q, err,
                    SELECT_VOLUME
                    "WHERE volume_id = ? AND target = coalesce(?, target) ORDER BY target LIMIT 1",
                    "tt", volume_id, target);

    if (r >= 0)
        r = index_step(q, err);
    if (r == 0)
        r = err_set(err, -ENOENT, "volume %.200s is not published%s%.200s", volume_id,
                    target ? " at " : "", target ? target : "");
    if (r < 0)
        return r;
    r = load_volume(q, &v, err);
    if (r < 0) {
        volume_clear(&v);
        return r;
    }
    *ret = v;
    return 0;
}

/* Sets *ret_incomplete to how many artifacts are damaged. */
static int remove_rows(Index *ix, const Volume *list, size_t n, int64_t *ret_incomplete, Err *err) {
    int r = index_begin_removal(ix, err);

    for (size_t i = 0; i < n && r >= 0; i++)
        r = index_run(ix, err,
                      "DELETE FROM volumes WHERE volume_id = ? AND target = coalesce(?, target)",
                      "tt", list[i].volume_id, list[i].target);
    if (r >= 0)
        r = index_get(ix, ret_incomplete, err, "SELECT count(*) FROM manifests WHERE NOT complete",
                      "");
    return r < 0 ? r : index_commit(ix, err);
}

int store_volumes_remove(Store *s, const Volume *list, size_t n, Err *err) {
    _cleanup_(content_unlockp) Store *lock = NULL;
    int64_t incomplete = 0;

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
        int r = remove_rows(ix, list, n, &incomplete, err);

        if (r < 0)
            return r;
    }
    if (incomplete == 0)
        return 0;
    /* It may have been the last one to use a tree with a damaged file. */
    lock = content_lock_exclusive(s);
    return gc_remove_incomplete_trees(s, err);
}

int store_volume_remove(Store *s, const char *volume_id, const char *target, Err *err) {
    Volume v = { .volume_id = (char *)volume_id, .target = (char *)target };

    return store_volumes_remove(s, &v, 1, err);
}

int store_volume_list(Store *s, Volume **ret, size_t *ret_n, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    Volume *list = NULL;
    size_t n = 0, cap = 0;
    int r =
        index_query(ix, &q, err, SELECT_VOLUME "ORDER BY v.created_usec, volume_id, target", "");

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        ARRAY_GROW(list, n, cap);
        r = load_volume(q, &list[n++], err);
    }
    if (r < 0) {
        volume_array_free(list, n);
        return r;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}
