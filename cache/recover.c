/* SPDX-License-Identifier: Apache-2.0 */
/* recover: makes disk and index agree when the store is opened: leftovers go, rows without content
 * are dropped. */
#include "cache/store_internal.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/parse.h"
#include "cache/object.h"
#include "cache/partial.h"
#include "cache/shown.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>

enum { RECOVER_SHARDS = 256 };

/* Calls `visit` for each name in the directory `name` beneath `dir_fd`. */
static int each_name(int dir_fd, const char *name,
                     int (*visit)(void *arg, const char *entry, Err *err), void *arg, Err *err) {
    int fd = fs_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0, err), r = 0;
    DIR *dir;

    if (fd < 0)
        return err_prefix(err, fd, "reading the store failed");
    dir = fdopendir(fd);
    if (!dir) {
        r = err_errno(err, "reading directory %s of the store failed", name);
        safe_close(fd);
        return r;
    }
    for (const struct dirent *entry; r >= 0 && (errno = 0, entry = readdir(dir));)
        if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
            r = visit(arg, entry->d_name, err);
    if (r >= 0 && errno != 0)
        r = err_errno(err, "reading directory %s of the store failed", name);
    (void)closedir(dir); /* only read from */
    return r;
}

/* What came in part serves the next pull of the same blob; the rest goes. */
static int remove_ingest(void *arg, const char *entry, Err *err) {
    Store *s = arg;
    int r = partial_recover(s, entry, err);

    return r < 0 ? r : fs_remove_recursive(s->ingest_fd, entry, err);
}

/* A mount that was being staged shows a tree: it is taken off, and never removed through. */
static int remove_staged(void *arg, const char *entry, Err *err) {
    const Store *s = arg;
    _cleanup_free_ char *path = xasprintf("/proc/self/fd/%d/%s", s->staging_fd, entry);

    while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        ;
    if (unlinkat(s->staging_fd, entry, AT_REMOVEDIR) < 0 &&
        (errno != ENOTDIR || unlinkat(s->staging_fd, entry, 0) < 0)) /* a file is none of ours */
        return err_errno(err, "removing staging/%s failed", entry);
    return 0;
}

/* The objects on disk. */
typedef struct Listing {
    int objects_fd;
    unsigned shard;
    ObjectKey *keys;
    size_t n, cap;
} Listing;

static int list_object(void *arg, const char *entry, Err *err) {
    Listing *l = arg;
    ObjectKey key = { 0 };
    char path[2 + 1 + 256];

    if (object_name_parse(l->shard, entry, &key.digest, &key.exec) == 0) {
        ARRAY_GROW(l->keys, l->n, l->cap);
        l->keys[l->n++] = key;
        return 0;
    }
    (void)snprintf(path, sizeof(path), "%02x/%s", l->shard, entry);
    log_debug("removing objects/%s, which is no object", path);
    return fs_remove_recursive(l->objects_fd, path, err);
}

static int list_objects(const Store *s, Listing *l, Err *err) {
    int r = 0;

    for (l->shard = 0; r >= 0 && l->shard < RECOVER_SHARDS; l->shard++) {
        char name[3];

        (void)snprintf(name, sizeof(name), "%02x", l->shard);
        r = each_name(s->objects_fd, name, list_object, l, err);
    }
    if (r >= 0 && l->n > 0)
        qsort(l->keys, l->n, sizeof(*l->keys), object_key_compare);
    return r;
}

/* Ids of rows whose object is not on disk; objects on disk without a row are removed. */
typedef struct Missing {
    int64_t *ids;
    size_t n, cap;
} Missing;

static int remove_orphan(Store *s, const ObjectKey *key, Err *err) {
    log_debug("removing object %s, which the index does not know", DIGEST_STR(&key->digest));
    /* It may be anything: see object_unpublish(). */
    int r = fs_remove_recursive(s->objects_fd, OBJECT_NAME(&key->digest, key->exec), err);

    if (r < 0)
        return err_prefix(err, r, "removing orphaned object %s", DIGEST_STR(&key->digest));
    s->recovered.objects_removed++;
    return 0;
}

static int compare_objects(Store *s, Index *ix, const Listing *l, Missing *missing, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    size_t i = 0;
    int r =
        index_query(ix, &q, err, "SELECT id, digest, exec FROM objects ORDER BY digest, exec", "");

    if (r < 0)
        return r;
    while ((r = index_step(q, err)) > 0) {
        ObjectKey row = { .id = index_int(q, 0), .exec = index_int(q, 2) != 0 };

        r = index_digest(q, 1, &row.digest, err);
        for (; r >= 0 && i < l->n && object_key_compare(&l->keys[i], &row) < 0; i++)
            r = remove_orphan(s, &l->keys[i], err);
        if (r < 0)
            return r;
        if (i < l->n && object_key_compare(&l->keys[i], &row) == 0) {
            i++;
            continue;
        }
        ARRAY_GROW(missing->ids, missing->n, missing->cap);
        missing->ids[missing->n++] = row.id;
    }
    for (; r >= 0 && i < l->n; i++)
        r = remove_orphan(s, &l->keys[i], err);
    return r;
}

static int forget_missing(Index *ix, const Missing *missing, Err *err) {
    int r = 0;

    if (missing->n == 0)
        return 0;
    r = index_begin_removal(ix, err);
    for (size_t i = 0; r >= 0 && i < missing->n; i++)
        r = gc_forget_object(ix, missing->ids[i], err);
    return r < 0 ? r : index_commit(ix, err);
}

static int recover_objects(Store *s, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    Listing l = { .objects_fd = s->objects_fd };
    Missing missing = { 0 };
    int r = list_objects(s, &l, err);

    if (r >= 0)
        r = compare_objects(s, ix, &l, &missing, err);
    if (r >= 0)
        r = forget_missing(ix, &missing, err);
    free(l.keys);
    free(missing.ids);
    return r;
}

typedef struct TreeCheck {
    Store *s;
    Shown shown;
    StoreRecovered found;
} TreeCheck;

/* A tree without a row, one that was being built, or an old one.  Its links keep the content of
 * those that mounts show. */
static int check_tree(void *arg, const char *entry, Err *err) {
    TreeCheck *c = arg;
    Store *s = c->s;
    Digest d;
    int64_t id;
    int r = -ENOENT;

    if (strlen(entry) == 2 * DIGEST_BYTES && parse_hex(entry, 2 * DIGEST_BYTES, d.bytes) == 0) {
        _cleanup_(index_releasep) Index *ix = index_acquire(s->index);

        r = manifest_lookup(ix, &d, false, &id, err);
    }
    if (r != -ENOENT)
        return r;
    if (shown_has(&c->shown, entry)) {
        log_debug("keeping trees/%s, which the index does not know, because it is mounted", entry);
        c->found.trees_kept += *entry != '.'; /* an old one was told of when it became that */
        return 0;
    }
    log_debug("removing trees/%s, which the index does not know", entry);
    c->found.trees_removed++;
    return fs_remove_recursive(s->trees_fd, entry, err);
}

static int check_trees(Store *s, StoreRecovered *ret, Err *err) {
    TreeCheck c = { .s = s, .found = *ret };
    int r = shown_read(&c.shown, s, err);

    if (r >= 0)
        r = each_name(s->fd, "trees", check_tree, &c, err);
    shown_done(&c.shown);
    *ret = c.found;
    return r;
}

int recover_trees(Store *s, Err *err) {
    StoreRecovered found = { 0 };
    int r = check_trees(s, &found, err);

    return r < 0 ? r : found.trees_removed > 0;
}

int store_sweep_trees(Store *s, Err *err) {
    _cleanup_(content_unlockp) _unused_ Store *lock = content_lock_exclusive(s);

    return recover_trees(s, err);
}

static int mark_incomplete(Index *ix, const Missing *missing, Err *err) {
    int r = index_begin_removal(ix, err);

    for (size_t i = 0; r >= 0 && i < missing->n; i++)
        r = index_run(ix, err, "UPDATE manifests SET complete = 0 WHERE id = ?", "i",
                      missing->ids[i]);
    return r < 0 ? r : index_commit(ix, err);
}

static int forget_missing_trees(Store *s, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    Missing missing = { 0 };
    int r = index_query(ix, &q, err, "SELECT id, digest FROM manifests WHERE complete", "");

    while (r >= 0 && (r = index_step(q, err)) > 0) {
        Digest d;

        r = index_digest(q, 1, &d, err);
        if (r < 0 || faccessat(s->trees_fd, DIGEST_HEX(&d), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            continue;
        ARRAY_GROW(missing.ids, missing.n, missing.cap);
        missing.ids[missing.n++] = index_int(q, 0);
    }
    index_endp(&q);
    if (r >= 0 && missing.n > 0)
        r = mark_incomplete(ix, &missing, err);
    free(missing.ids);
    return r < 0 ? r : 0;
}

const StoreRecovered *store_recovered(const Store *s) {
    return &s->recovered;
}

int store_recover(Store *s, Err *err) {
    int r = each_name(s->fd, "ingest", remove_ingest, s, err);

    if (r >= 0)
        r = partial_trim(s, err);
    if (r >= 0)
        r = each_name(s->fd, "staging", remove_staged, s, err);
    if (r >= 0)
        r = recover_objects(s, err);
    if (r >= 0)
        r = check_trees(s, &s->recovered, err);
    if (r >= 0)
        r = forget_missing_trees(s, err);
    s->recovered.index_made = index_was_made(s->index);
    return r < 0 ? r : gc_remove_incomplete_trees(s, err);
}
