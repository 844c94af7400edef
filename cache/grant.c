/* SPDX-License-Identifier: Apache-2.0 */
/* grant: who a registry let pull from which repository, so that it need not be asked again. */
#include "cache/grant.h"

#include "base/fs.h"
#include "base/log.h"

#include <sys/random.h>

enum { GRANTS_OF_REPOSITORY_MAX = 100 };

#define KEY_FILE "grants.key"

/* A new key makes all that was remembered worthless: everybody is checked anew. */
static int make_key(Store *s, Err *err) {
    int r;

    if (getrandom(s->grant_key, sizeof(s->grant_key), 0) != sizeof(s->grant_key))
        return err_errno(err, "making a key for the grants of the store failed");
    r = fs_write_file_durably(s->fd, KEY_FILE, s->grant_key, sizeof(s->grant_key), 0600, err);
    if (r == -ENOSPC) { /* the next start makes another */
        log_debug("grants of this start end with it: %s", err_text(err, r));
        r = 0;
    }
    return r;
}

int grant_open(Store *s, Err *err) {
    _cleanup_free_ char *key = NULL;
    size_t n = 0;
    int r = fs_read_file(s->fd, KEY_FILE, sizeof(s->grant_key), &key, &n, err);

    if (r == -ENOENT || r == -E2BIG || (r >= 0 && n != sizeof(s->grant_key)))
        return make_key(s, err);
    if (r < 0)
        return r;
    memcpy(s->grant_key, key, n);
    explicit_bzero(key, n);
    return 0;
}

/* What the index has instead of a fingerprint: a hash that needs the store's key.  (All inputs have
 * the same length, so HMAC would add nothing.) */
static void grant_id(const Store *s, const uint8_t fingerprint[static GRANT_BYTES], Digest *ret) {
    uint8_t bytes[sizeof(s->grant_key) + GRANT_BYTES];

    memcpy(bytes, s->grant_key, sizeof(s->grant_key));
    memcpy(bytes + sizeof(s->grant_key), fingerprint, GRANT_BYTES);
    digest_of(ret, bytes, sizeof(bytes));
    explicit_bzero(bytes, sizeof(bytes));
}

static void id_of_nobody(const Store *s, Digest *ret) {
    static const uint8_t nobody[GRANT_BYTES];

    grant_id(s, nobody, ret);
}

/* Those that are too old or too many go. */
static int drop_old(Index *ix, const Grant *g, int64_t now, Err *err) {
    int r = index_run(ix, err, "DELETE FROM grants WHERE checked_usec NOT BETWEEN ? AND ?", "ii",
                      now - (int64_t)g->lifetime_usec, now);

    if (r >= 0)
        r = index_run(ix, err,
                      "DELETE FROM grants WHERE origin = ?1 AND credential NOT IN (SELECT "
                      "credential FROM grants WHERE origin = ?1 ORDER BY checked_usec DESC LIMIT "
                      "?2)",
                      "ti", g->origin, (int64_t)GRANTS_OF_REPOSITORY_MAX);
    return r;
}

int store_grant_add(Store *s, const Grant *g, const GrantReference *reference, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int64_t id, now = (int64_t)now_realtime_usec();
    Digest credential;
    /* A grant alone that a power cut takes is asked for again. */
    int r = index_begin(ix, reference != NULL, err);

    grant_id(s, g->fingerprint, &credential);
    if (r >= 0 && reference) {
        r = manifest_lookup(ix, reference->manifest, true, &id, err);
        if (r >= 0)
            r = reference_set(ix, reference->text, reference->platform, id, err);
    }
    if (r >= 0)
        r = index_run(ix, err, "INSERT OR REPLACE INTO grants VALUES (?, ?, ?)", "tdi", g->origin,
                      &credential, now);
    if (r >= 0)
        r = drop_old(ix, g, now, err);
    return r < 0 ? r : index_commit(ix, err);
}

int store_grant_has(Store *s, const Grant *g, Err *err) {
    _cleanup_(index_releasep) Index *ix = NULL;
    int64_t one, now = (int64_t)now_realtime_usec();
    Digest credential, nobody;

    grant_id(s, g->fingerprint, &credential);
    id_of_nobody(s, &nobody);
    ix = index_acquire(s->index);
    return index_get(ix, &one, err,
                     "SELECT 1 FROM grants WHERE origin = ? AND credential IN (?, ?)"
                     " AND checked_usec BETWEEN ? AND ?",
                     "tddii", g->origin, &credential, &nobody, now - (int64_t)g->lifetime_usec,
                     now);
}

int store_grant_remove(Store *s, const Grant *g, bool nobody, Err *err) {
    _cleanup_(index_releasep) Index *ix = NULL;
    Digest credential, other;
    int64_t one;
    int r;

    grant_id(s, g->fingerprint, &credential);
    other = credential;
    if (nobody)
        id_of_nobody(s, &other);
    ix = index_acquire(s->index);
    r = index_get(ix, &one, err,
                  "SELECT 1 FROM grants WHERE origin = ? AND credential IN (?, ?) LIMIT 1", "tdd",
                  g->origin, &credential, &other);
    if (r <= 0)
        return r;
    r = index_begin_removal(ix, err);
    if (r >= 0)
        r = index_run(ix, err, "DELETE FROM grants WHERE origin = ? AND credential IN (?, ?)",
                      "tdd", g->origin, &credential, &other);
    return r < 0 ? r : index_commit(ix, err);
}

int grant_sweep(Index *ix, Err *err) {
    int r = index_run(ix, err,
                      "DELETE FROM grants WHERE origin NOT IN (SELECT origin FROM "
                      "manifest_origins)",
                      "");

    return r < 0 ? r : 0;
}
