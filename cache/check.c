/* SPDX-License-Identifier: Apache-2.0 */
/* check: reads objects back from the disk and compares them with their digests. */
#include "cache/store_internal.h"

#include "base/limits.h"
#include "cache/object.h"
#include "cache/read_back.h"

#include <fcntl.h>
#include <sys/stat.h>

/* Of a row of manifests: all, a manifest with its subsets, or one subset. */
#define OF_ARTIFACT "(?1 = x'' OR m.digest = ?1 OR m.manifest = ?1)"

enum { CHECK_REPORT_BYTES = 16 << 20 };

typedef struct Check {
    Store *s;
    const VerifyHandlers *handlers; /* may be NULL */
    ObjectKey *keys;
    size_t n, cap, i;
    uint64_t bytes, n_bytes, reported;
    ReadBack *reader;
    Hasher *hasher;
    int stop; /* what the one who listens said: < 0 ends it */
    int n_bad, n_incomplete;
} Check;

static void check_done(Check *c) {
    free(c->keys);
    (void)read_back_free(c->reader);
    hasher_free(c->hasher);
}

static int report(Check *c, bool now) {
    if (!c->handlers || !c->handlers->progress ||
        (!now && c->bytes - c->reported < CHECK_REPORT_BYTES))
        return 0;
    c->reported = c->bytes;
    return c->handlers->progress(c->handlers->arg, c->i, c->n, c->bytes, c->n_bytes);
}

static int on_read(void *arg, uint64_t n) {
    Check *c = arg;

    c->bytes += n;
    c->stop = report(c, false);
    return c->stop;
}

static int list(Check *c, const Digest *manifest, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int64_t one;
    int r = manifest ? index_get(ix, &one, err, "SELECT 1 FROM manifests AS m WHERE " OF_ARTIFACT,
                                 "b", manifest->bytes, sizeof(manifest->bytes))
                     : 1;

    if (r == 0)
        return err_set(err, -ENOENT, "artifact %s is not stored", DIGEST_STR(manifest));
    if (r > 0)
        r = index_query(ix, &q, err,
                        "SELECT id, digest, exec, size FROM objects WHERE ?1 = x''"
                        " OR id IN (SELECT object_id FROM manifest_objects WHERE manifest_id IN"
                        "  (SELECT id FROM manifests AS m WHERE " OF_ARTIFACT "))"
                        " ORDER BY digest, exec",
                        "b", manifest ? manifest->bytes : NULL,
                        manifest ? sizeof(manifest->bytes) : (size_t)0);
    while (r >= 0 && (r = index_step(q, err)) > 0) {
        ARRAY_GROW(c->keys, c->n, c->cap);
        c->keys[c->n] = (ObjectKey){ .id = index_int(q, 0),
                                     .exec = index_int(q, 2) != 0,
                                     .size = (uint64_t)index_int(q, 3) };
        c->n_bytes += c->keys[c->n].size;
        r = index_digest(q, 1, &c->keys[c->n++].digest, err);
    }
    return r;
}

/* Does the error speak of the content, or only of this attempt to read it? */
static bool is_damage(int r) {
    return r == -EIO || r == -EUCLEAN || r == -EBADMSG || r == -ENODATA || r == -EILSEQ ||
           r == -EREMOTEIO;
}

static bool is_still_stored(Check *c, const ObjectKey *key) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    int64_t one;

    return index_get(ix, &one, NULL, "SELECT 1 FROM objects WHERE id = ?", "i", key->id) != 0;
}

/* What is wrong with the object, as a sentence in `why` (1), or nothing (0), or -errno: it can't be
 * told. */
static int examine(Check *c, const ObjectKey *key, Err *why, Err *err) {
    _cleanup_close_ int fd =
        read_back_open(c->s->objects_fd, OBJECT_NAME(&key->digest, key->exec), true);
    uint64_t n = 0;
    int r = fd;
    Digest d;

    if (fd == -ENOENT) {
        (void)err_set(why, -ENOENT, "object %s is missing", DIGEST_STR(&key->digest));
        return is_still_stored(c, key);
    }
    if (fd < 0 && !is_damage(fd) && fd != -ELOOP)
        return err_errnum(err, fd, "opening object %s failed", DIGEST_STR(&key->digest));
    if (fd >= 0)
        r = read_back_hash(c->reader, fd, key->size + 1, c->hasher, &n); /* does it go on? */
    if (c->stop < 0)
        return err_errnum(err, c->stop, "the check was ended");
    hasher_final(c->hasher, &d);
    if (r < 0 && !is_damage(r) && r != -ELOOP)
        return err_errnum(err, r, "reading object %s failed", DIGEST_STR(&key->digest));
    if (r < 0)
        (void)err_errnum(why, r, "object %s can't be read", DIGEST_STR(&key->digest));
    else if (n != key->size)
        (void)err_set(why, -EBADMSG, "object %s has %s %llu bytes, it had %llu",
                      DIGEST_STR(&key->digest), n > key->size ? "more than" : "only",
                      (unsigned long long)(n > key->size ? key->size : n),
                      (unsigned long long)key->size);
    else if (!digest_equal(&d, &key->digest))
        (void)err_set(why, -EBADMSG, "object %s has changed on disk: its content is %s",
                      DIGEST_STR(&key->digest), DIGEST_STR(&d));
    else
        return 0;
    return 1;
}

/* Rows first, then the file, then the trees that have it, but those that a volume shows. */
static int drop(Check *c, const ObjectKey *key, Err *err) {
    _cleanup_(content_unlockp) _unused_ Store *lock = content_lock_exclusive(c->s);

    {
        _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
        int64_t one;
        int r = index_begin_removal(ix, err);

        if (r >= 0)
            r = index_get(ix, &one, err, "SELECT 1 FROM objects WHERE id = ?", "i", key->id);
        if (r == 0)
            return 0; /* another check was faster; by now a good one may have the name */
        if (r >= 0)
            r = gc_forget_object(ix, key->id, err);
        if (r >= 0)
            r = index_commit(ix, err);
        if (r < 0)
            return r;
    }
    if (unlinkat(c->s->objects_fd, OBJECT_NAME(&key->digest, key->exec), 0) < 0 && errno != ENOENT)
        return err_errno(err, "removing the damaged object %s failed", DIGEST_STR(&key->digest));
    return gc_remove_incomplete_trees(c->s, err);
}

static int check_one(Check *c, const ObjectKey *key, Err *err) {
    Err why = { "" };
    int r = examine(c, key, &why, err);

    if (r <= 0)
        return r;
    r = drop(c, key, err);
    if (r < 0)
        return r;
    c->n_bad++;
    if (c->handlers && c->handlers->bad)
        c->handlers->bad(c->handlers->arg, &key->digest, why.text);
    return 0;
}

static int prepare(Check *c, Err *err) {
    c->hasher = hasher_new();
    return read_back_new(&c->reader, on_read, c, err);
}

/* The row may be gone meanwhile: then nobody vouches for the object. */
static int mark_proved(Check *c, ObjectKey *key, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    int r = index_begin(ix, false, err); /* what a power cut takes back is proved again */

    if (r >= 0)
        r = index_run(ix, err, "UPDATE objects SET proved = 1 WHERE id = ?", "i", key->id);
    if (r == 0)
        key->id = 0;
    return r < 0 ? r : index_commit(ix, err);
}

int check_objects(Store *s, ObjectKey *const *keys, size_t n, Err *err) {
    _cleanup_(check_done) Check c = { .s = s };
    int r = n > 0 ? prepare(&c, err) : 0;

    for (size_t i = 0; r >= 0 && i < n; i++) {
        int n_bad = c.n_bad;

        r = check_one(&c, keys[i], err);
        if (r >= 0 && c.n_bad > n_bad)
            keys[i]->id = 0;
        else if (r >= 0)
            r = mark_proved(&c, keys[i], err);
    }
    return r < 0 ? r : 0;
}

/* An artifact that lacks something. */
typedef struct Incomplete {
    int64_t id;
    Digest digest;
    Filter *filter; /* of a subset */
    char *reference;
    char missing[512]; /* the layers, as far as they fit */
} Incomplete;

static void incomplete_done(Incomplete *i) {
    (void)filter_free(i->filter);
    free(i->reference);
}

static int name_missing(Index *ix, Incomplete *i, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    size_t n = 0, shown = 0, used = 0, size = sizeof(i->missing);
    uint64_t steps = LIMIT_FILTER_LAYER_STEPS;
    int r = index_query(ix, &q, err,
                        "SELECT coalesce(path, ''), digest, kind FROM manifest_layers AS m"
                        " WHERE manifest_id = ? AND CASE kind WHEN 0"
                        "  THEN NOT EXISTS (SELECT 1 FROM objects AS o WHERE o.digest = m.digest"
                        "   AND o.exec = m.exec)"
                        "  ELSE NOT EXISTS (SELECT 1 FROM layers AS l WHERE l.digest = m.digest)"
                        "  END ORDER BY seq",
                        "i", i->id);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        _cleanup_free_ char *path = index_text(q, 0);
        Digest d;

        r = index_digest(q, 1, &d, err);
        if (index_int(q, 2) == LAYER_KIND_RAW && !filter_keeps(i->filter, path, &steps))
            continue;
        n++;
        if (r < 0 || used >= size / 2)
            continue;
        used += (size_t)snprintf(i->missing + used, size - used, "%s%.100s", shown > 0 ? ", " : "",
                                 *path ? path : DIGEST_STR(&d));
        shown++;
    }
    if (r < 0)
        return r;
    if (n == 0)
        (void)snprintf(i->missing, size, "its tree");
    else if (n > shown)
        (void)snprintf(i->missing + used, size - used, " and %zu more", n - shown);
    return 0;
}

static void report_incomplete(Check *c, const Incomplete *i) {
    Err why = { "" };

    if (isempty(i->reference))
        (void)err_set(&why, -EBADMSG,
                      "artifact %s is incomplete, it lacks %s, and it has no reference to pull it "
                      "by: cache-ctl rm %s removes it",
                      DIGEST_STR(&i->digest), i->missing, DIGEST_STR(&i->digest));
    else
        (void)err_set(&why, -EBADMSG,
                      "artifact %s is incomplete, it lacks %s: cache-ctl pull %.300s%s brings it "
                      "again",
                      DIGEST_STR(&i->digest), i->missing, i->reference,
                      i->filter ? " with the --include and --exclude that cache-ctl inspect shows"
                                : "");
    c->n_incomplete++;
    if (c->handlers && c->handlers->incomplete)
        c->handlers->incomplete(c->handlers->arg, &i->digest, why.text);
}

/* What was lost before has no object any more that could be read. */
static int find_incomplete(Check *c, const Digest *manifest, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int r = index_query(
        ix, &q, err,
        "SELECT id, digest,"
        " coalesce((SELECT min(reference) FROM refs WHERE manifest_id = m.id), ''), filter"
        " FROM manifests AS m WHERE NOT complete AND " OF_ARTIFACT " ORDER BY id",
        "b", manifest ? manifest->bytes : NULL, manifest ? sizeof(manifest->bytes) : (size_t)0);

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        _cleanup_(incomplete_done)
            Incomplete i = { .id = index_int(q, 0), .reference = index_text(q, 2) };
        _cleanup_free_ char *filter = index_text(q, 3);

        r = index_digest(q, 1, &i.digest, err);
        if (r >= 0)
            r = filter_from_text(&i.filter, filter, err);
        if (r >= 0)
            r = name_missing(ix, &i, err);
        if (r >= 0)
            report_incomplete(c, &i);
    }
    return r;
}

int store_verify(Store *s, const Digest *manifest, const VerifyHandlers *handlers, Err *err) {
    _cleanup_(check_done) Check c = { .s = s, .handlers = handlers };
    int r = list(&c, manifest, err);

    if (r >= 0)
        r = find_incomplete(&c, manifest, err);
    if (r >= 0)
        r = prepare(&c, err);
    if (r < 0)
        return r;
    for (c.i = 0; c.i < c.n; c.i++) {
        r = check_one(&c, &c.keys[c.i], err);
        if (r < 0)
            return r;
    }
    r = report(&c, true);
    return r < 0 ? err_errnum(err, r, "the check was ended") : c.n_bad + c.n_incomplete;
}
