/* SPDX-License-Identifier: Apache-2.0 */
/* listing: what is stored, for people: artifacts with their references, sizes and use. */
#include "cache/store_internal.h"

#define SELECT_ARTIFACT                                                                          \
    "SELECT id, digest, family, media_type, artifact_type, platform, files, created_usec, "      \
    "used_usec, complete,"                                                                       \
    " (SELECT count(*) FROM volumes AS v WHERE v.manifest_id = m.id),"                           \
    " coalesce(CASE WHEN complete THEN bytes_shown END, (SELECT sum(o.size) FROM"                \
    "  manifest_objects AS mo JOIN objects AS o ON o.id = mo.object_id WHERE mo.manifest_id = "  \
    "m.id),"                                                                                     \
    "  0),"                                                                                      \
    " (SELECT coalesce(sum(o.size), 0) FROM manifest_objects AS mo JOIN objects AS o ON o.id = " \
    "mo.object_id"                                                                               \
    "  WHERE mo.manifest_id = m.id AND NOT EXISTS (SELECT 1 FROM manifest_objects AS other"      \
    "   WHERE other.object_id = mo.object_id AND other.manifest_id != m.id))"                    \
    ", manifest, filter FROM manifests AS m "

void artifact_info_clear(ArtifactInfo *a) {
    for (size_t i = 0; i < a->n_references; i++)
        free(a->references[i]);
    free(a->references);
    free(a->family);
    free(a->media_type);
    free(a->artifact_type);
    free(a->platform);
    (void)filter_free(a->filter);
    *a = (ArtifactInfo){ 0 };
}

void artifact_info_array_free(ArtifactInfo *a, size_t n) {
    for (size_t i = 0; i < n; i++)
        artifact_info_clear(&a[i]);
    free(a);
}

static int load_references(Index *ix, int64_t id, ArtifactInfo *a, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    size_t cap = 0;
    int r = index_query(
        ix, &q, err, "SELECT DISTINCT reference FROM refs WHERE manifest_id = ? ORDER BY reference",
        "i", id);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        ARRAY_GROW(a->references, a->n_references, cap);
        a->references[a->n_references++] = index_text(q, 0);
    }
    return r;
}

/* Fills `a` from the row of SELECT_ARTIFACT that `q` stands on; on failure, too, it must be
 * cleared. */
static int load_artifact(Index *ix, sqlite3_stmt *q, ArtifactInfo *a, Err *err) {
    _cleanup_free_ char *filter = index_text(q, 14);
    int r;

    *a = (ArtifactInfo){
        .family = index_text(q, 2),
        .media_type = index_text(q, 3),
        .artifact_type = index_text(q, 4),
        .platform = index_text(q, 5),
        .files = (uint64_t)index_int(q, 6),
        .created_usec = index_int(q, 7),
        .used_usec = index_int(q, 8),
        .complete = index_int(q, 9) != 0,
        .volumes = (unsigned)index_int(q, 10),
        .bytes = (uint64_t)index_int(q, 11),
        .unique_bytes = (uint64_t)index_int(q, 12),
    };
    r = index_digest(q, 1, &a->digest, err);
    if (r >= 0)
        r = index_digest(q, 13, &a->manifest, err);
    if (r >= 0)
        r = filter_from_text(&a->filter, filter, err);
    return r < 0 ? r : load_references(ix, index_int(q, 0), a, err);
}

int store_list(Store *s, ArtifactInfo **ret, size_t *ret_n, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    ArtifactInfo *list = NULL;
    size_t n = 0, cap = 0;
    int r = index_query(ix, &q, err, SELECT_ARTIFACT "ORDER BY created_usec, id", "");

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        ARRAY_GROW(list, n, cap);
        r = load_artifact(ix, q, &list[n++], err);
    }
    if (r < 0) {
        artifact_info_array_free(list, n);
        return r;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

int store_inspect(Store *s, const Digest *manifest, ArtifactInfo *ret, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    ArtifactInfo a;
    int r = index_query(ix, &q, err, SELECT_ARTIFACT "WHERE digest = ?", "d", manifest);

    if (r >= 0)
        r = index_step(q, err);
    if (r == 0)
        r = err_set(err, -ENOENT, "artifact %s is not stored", DIGEST_STR(manifest));
    if (r < 0)
        return r;
    r = load_artifact(ix, q, &a, err);
    if (r < 0) {
        artifact_info_clear(&a);
        return r;
    }
    *ret = a;
    return 0;
}
