/* SPDX-License-Identifier: Apache-2.0 */
/* commit_layer: the content of layers goes from a pull's folder into objects/ and the index. */
#include "cache/store_internal.h"

#include "base/fs.h"
#include "base/limits.h"
#include "base/parallel.h"
#include "cache/object.h"
#include "cache/partial.h"
#include "cache/tree.h"

#include <fcntl.h>
#include <sys/stat.h>

/* Up to so many files (or directories) are synced one by one; more at once, by syncfs(2). */
enum { SYNC_FILES_MAX = 8, SYNC_DIRS_MAX = 32, COMMIT_SHARDS = 256 };

/* An object that the layers need. */
typedef struct Want {
    ObjectKey
        key; /* first, for object_key_compare(); id != 0: it is stored, and leased by this pull */
    ObjectKey row;   /* of what is stored */
    bool trusted;    /* that is of this repository, or was proved */
    ObjectFile file; /* name NULL: nothing was ingested for it */
    bool named;      /* by this commit, so that a failure takes the name away again */
} Want;

typedef struct Commit {
    Store *s;
    const StorePull *pull;
    LayerCommit **layers; /* those that are as they must be, as far as is known */
    size_t n_layers;
    int dir_fd; /* the pull's folder */
    Want *wants;
    size_t n;
    const char **surplus; /* ingested files of objects that came more than once */
    size_t n_surplus;
    bool sync_each;              /* files are few: no syncfs(2) */
    bool touched[COMMIT_SHARDS]; /* shards with new names */
} Commit;

static void commit_done(Commit *c) {
    free(c->wants);
    free(c->surplus);
}

static int check_raw(const LayerCommit *c, Err *err) {
    const LayerEntry *e = c->entries;

    if (c->n_entries != 1 || e->type != ENTRY_TYPE_FILE)
        return err_set(err, -EPROTO, "layer %s is one file, but %zu entries came with it",
                       DIGEST_STR(&c->layer->digest), c->n_entries);
    if (!digest_equal(&e->digest, &c->layer->digest) || e->size != c->layer->size ||
        e->executable != c->layer->executable)
        return err_set(
            err, -EPROTO, "the file of layer %s is not what the layer says: it is %s, %llu bytes",
            DIGEST_STR(&c->layer->digest), DIGEST_STR(&e->digest), (unsigned long long)e->size);
    return 0;
}

static int check_entries(const LayerCommit *c, Err *err) {
    if (c->n_entries > LIMIT_TREE_ENTRIES)
        return err_set(err, -EPROTO, "layer %s has more than %d entries",
                       DIGEST_STR(&c->layer->digest), LIMIT_TREE_ENTRIES);
    for (size_t i = 0; i < c->n_entries; i++) {
        int r = tree_check_entry(&c->entries[i], err);

        if (r < 0)
            return r;
    }
    return c->layer->kind == LAYER_KIND_RAW ? check_raw(c, err) : 0;
}

static int compare_wants(const void *a, const void *b) {
    const Want *x = a, *y = b;
    int r = object_key_compare(a, b);

    /* Those with a file come first. */
    return r != 0 ? r : (x->file.name ? 0 : 1) - (y->file.name ? 0 : 1);
}

/* Removes a file that is not needed; what fails here, the end of the pull removes. */
static void drop_ingested(const Commit *c, const char *name) {
    if (name_is_safe(name, strlen(name)))
        (void)unlinkat(c->dir_fd, name, 0);
}

/* Sorts the wants, one an object. */
static int unique_wants(Commit *c, Err *err) {
    size_t n = 0;

    if (c->n > 0)
        qsort(c->wants, c->n, sizeof(*c->wants), compare_wants);
    for (size_t i = 0; i < c->n; i++) {
        const Want *w = &c->wants[i];

        if (n > 0 && digest_equal(&c->wants[n - 1].key.digest, &w->key.digest) &&
            c->wants[n - 1].key.size != w->key.size)
            return err_set(err, -EPROTO, "object %s came with two different sizes",
                           DIGEST_STR(&w->key.digest));
        if (n == 0 || object_key_compare(&c->wants[n - 1], w) != 0)
            c->wants[n++] = *w;
        else if (w->file.name && !streq(w->file.name, c->wants[n - 1].file.name))
            c->surplus[c->n_surplus++] = w->file.name;
    }
    c->n = n;
    return 0;
}

static void add_wants(Commit *c, const LayerCommit *layer) {
    for (size_t i = 0; i < layer->n_entries; i++) {
        const LayerEntry *e = &layer->entries[i];

        if (e->type != ENTRY_TYPE_FILE)
            continue;
        c->wants[c->n++] = (Want){
            .key = { .digest = e->digest, .exec = e->executable, .size = e->size },
            .file = { .dir_fd = c->dir_fd,
                      .name = e->ingest,
                      .size = e->size,
                      .exec = e->executable },
        };
    }
}

static int collect_wants(Commit *c, Err *err) {
    size_t n = 0;

    for (size_t i = 0; i < c->n_layers; i++)
        n += c->layers[i]->n_entries;
    c->wants = xcalloc(n + 1, sizeof(*c->wants));
    c->surplus = xcalloc(n + 1, sizeof(*c->surplus));
    for (size_t i = 0; i < c->n_layers; i++)
        add_wants(c, c->layers[i]);
    return unique_wants(c, err);
}

/* What the index has under the name of the object now. */
static int look_up_row(const Commit *c, Index *ix, Want *w, Err *err) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int r = index_query(ix, &q, err,
                        "SELECT id, size, origin = ? OR proved FROM objects"
                        " WHERE digest = ? AND exec = ?",
                        "tdi", c->pull->origin, &w->key.digest, (int64_t)w->key.exec);

    if (r >= 0)
        r = index_step(q, err);
    w->row = w->key;
    w->row.id = r > 0 ? index_int(q, 0) : 0;
    w->row.size = r > 0 ? (uint64_t)index_int(q, 1) : 0;
    w->trusted = r > 0 && index_int(q, 2) != 0;
    return r;
}

/* Leases what is stored already, the other variant (d, !exec) as well: a copy may have to be made
 * of it. */
static int lease_stored(Commit *c, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);

    for (size_t i = 0; i < c->n; i++) {
        Want *w = &c->wants[i];
        int r = look_up_row(c, ix, w, err);

        if (r >= 0)
            r = index_run(ix, err,
                          "INSERT OR IGNORE INTO leases SELECT ?, id FROM objects WHERE digest = ?",
                          "td", c->pull->ingest, &w->key.digest);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Whatever the index says, the object must be there with its size; and the word of another
 * repository's worker is not enough. */
static bool is_doubtful(const Commit *c, const Want *w) {
    struct stat st;

    if (w->row.id == 0)
        return false;
    return !w->trusted || w->row.size != w->key.size ||
           fstatat(c->s->objects_fd, OBJECT_NAME(&w->key.digest, w->key.exec), &st,
                   AT_SYMLINK_NOFOLLOW) < 0 ||
           !S_ISREG(st.st_mode) || (uint64_t)st.st_size != w->key.size;
}

static int prove_doubtful(Commit *c, Err *err) {
    _cleanup_free_ ObjectKey **doubtful = xnew_n(ObjectKey *, c->n + 1);
    size_t n = 0;

    for (size_t i = 0; i < c->n; i++)
        if (is_doubtful(c, &c->wants[i]))
            doubtful[n++] = &c->wants[i].row;
    return check_objects(c->s, doubtful, n, err);
}

/* What is stored, and right, need not be taken from the pull. */
static int use_stored(Commit *c, Err *err) {
    int r = lease_stored(c, err);

    if (r >= 0)
        r = prove_doubtful(c, err);
    for (size_t i = 0; r >= 0 && i < c->n; i++) {
        Want *w = &c->wants[i];

        w->key.id = w->row.id;
        if (w->key.id != 0 && w->row.size != w->key.size)
            return err_set(err, -EPROTO, "object %s has %llu bytes, not %llu",
                           DIGEST_STR(&w->key.digest), (unsigned long long)w->row.size,
                           (unsigned long long)w->key.size);
        if (w->key.id != 0 && w->file.name)
            drop_ingested(c, w->file.name);
    }
    return r;
}

static bool is_taken(const Want *w) {
    return w->key.id == 0 && w->file.name;
}

/* After a failed sync nobody knows what is on disk: the files are discarded, never synced again. */
static void discard_ingested(const Commit *c) {
    for (size_t i = 0; i < c->n_layers; i++)
        partial_forget_notes(c->dir_fd, c->layers[i]->layer);
    for (size_t i = 0; i < c->n; i++)
        if (is_taken(&c->wants[i]))
            drop_ingested(c, c->wants[i].file.name);
}

static int seal_file(void *arg, size_t i, Err *err) {
    const Commit *c = arg;

    return is_taken(&c->wants[i]) ? object_seal(&c->wants[i].file, c->sync_each, err) : 0;
}

/* Checks the ingested files and makes their data durable. */
static int seal_files(Commit *c, Err *err) {
    size_t n = 0;
    int r;

    for (size_t i = 0; i < c->n; i++)
        n += is_taken(&c->wants[i]);
    c->sync_each = n <= SYNC_FILES_MAX;
    r = parallel_each(c->n, seal_file, c, err);
    if (r >= 0 && !c->sync_each && syncfs(c->dir_fd) < 0)
        return err_errno(err, "making %zu files of %zu layers durable failed", n, c->n_layers);
    return r;
}

/* 1 when another pull was faster with an object, so that what is stored must be looked at again.
 * Names are given by one commit at a time: after this none comes. */
static int is_overtaken(const Commit *c, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);

    for (size_t i = 0; i < c->n; i++) {
        Want now = c->wants[i];
        int r = look_up_row(c, ix, &now, err);

        if (r < 0)
            return r;
        if (now.row.id != 0 && now.row.id != now.key.id)
            return 1;
    }
    return 0;
}

static int name_ingested(void *arg, size_t i, Err *err) {
    const Commit *c = arg;
    Want *w = &c->wants[i];
    int r;

    if (!is_taken(w))
        return 0;
    r = object_publish(&w->file, c->s->objects_fd, &w->key.digest, err);
    w->named = r >= 0;
    return r;
}

static int name_derived(const Commit *c, Want *w, Err *err) {
    int r = object_derive(c->s->objects_fd, &w->key.digest, w->key.exec, err);

    if (r == -ENOENT)
        return err_set(err, -EPROTO, "no file came with object %s, and it is not stored",
                       DIGEST_STR(&w->key.digest));
    w->named = r >= 0;
    return r;
}

/* Names what is new: the ingested first, so that variants can be derived of them.  What has such a
 * name already has no row: left by a crash, nobody vouches for it. */
static int name_objects(Commit *c, Err *err) {
    int r = parallel_each(c->n, name_ingested, c, err);

    for (size_t i = 0; r >= 0 && i < c->n; i++)
        if (c->wants[i].key.id == 0 && !c->wants[i].file.name)
            r = name_derived(c, &c->wants[i], err);
    for (size_t i = 0; i < c->n; i++)
        c->touched[c->wants[i].key.digest.bytes[0]] |= c->wants[i].named;
    return r;
}

static int sync_names(const Commit *c, Err *err) {
    size_t n = 0;

    for (unsigned i = 0; i < COMMIT_SHARDS; i++)
        n += c->touched[i];
    if (n > SYNC_DIRS_MAX)
        return syncfs(c->s->objects_fd) < 0
                   ? err_errno(err, "making the names of objects durable failed")
                   : 0;
    for (unsigned i = 0; i < COMMIT_SHARDS; i++) {
        char name[3];

        if (!c->touched[i])
            continue;
        (void)snprintf(name, sizeof(name), "%02x", i);
        int r = fs_fsync_dir(c->s->objects_fd, name, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Rows of what was stored before may be gone: a check of the store forgets a damaged object,
 * whoever leases it, and its number may be another object's by now. */
static int insert_object(const Commit *c, Want *w, Index *ix, Err *err) {
    int64_t id = 0;
    int r = 0;

    if (w->key.id == 0)
        r = index_run(
            ix, err, "INSERT INTO objects (digest, exec, size, origin) VALUES (?, ?, ?, ?)", "diit",
            &w->key.digest, (int64_t)w->key.exec, (int64_t)w->key.size, c->pull->origin);
    if (r >= 0)
        r = index_get(ix, &id, err, "SELECT id FROM objects WHERE digest = ? AND exec = ?", "di",
                      &w->key.digest, (int64_t)w->key.exec);
    if (r >= 0 && id == 0)
        return err_set(err, -EAGAIN,
                       "object %s was found damaged while the pull relied on it; the next try "
                       "brings it again",
                       DIGEST_STR(&w->key.digest));
    w->key.id = id;
    return r;
}

static int insert_objects(Commit *c, Index *ix, Err *err) {
    for (size_t i = 0; i < c->n; i++) {
        int r = insert_object(c, &c->wants[i], ix, err);

        if (r >= 0)
            r = index_run(ix, err, "INSERT OR IGNORE INTO leases VALUES (?, ?)", "ti",
                          c->pull->ingest, c->wants[i].key.id);
        if (r < 0)
            return r;
    }
    return 0;
}

static const Want *find_want(const Commit *c, const Digest *digest, bool exec) {
    const ObjectKey key = { .digest = *digest, .exec = exec };
    const Want *w = bsearch(&key, c->wants, c->n, sizeof(*c->wants), object_key_compare);

    assert(w);
    return w;
}

static int insert_entry(const Commit *c, Index *ix, int64_t layer_id, const LayerCommit *layer,
                        size_t i, Err *err) {
    const LayerEntry *e = &layer->entries[i];

    if (e->type != ENTRY_TYPE_FILE)
        return index_run(
            ix, err,
            "INSERT INTO layer_entries (layer_id, seq, type, path, target) VALUES (?, ?, ?, ?, ?)",
            "iiitt", layer_id, (int64_t)i, (int64_t)e->type, e->path, e->target);
    return index_run(
        ix, err,
        "INSERT INTO layer_entries (layer_id, seq, type, path, object_id) VALUES (?, ?, ?, ?, ?)",
        "iiiti", layer_id, (int64_t)i, (int64_t)e->type, e->path,
        find_want(c, &e->digest, e->executable)->key.id);
}

/* The object is the layer; its own origin gave it anyway. */
static int insert_raw_origin(const Commit *c, const LayerCommit *layer, Index *ix, Err *err) {
    const LayerEntry *e = layer->entries;

    return index_run(ix, err,
                     "INSERT OR IGNORE INTO object_origins SELECT id, ?2 FROM objects"
                     " WHERE id = ?1 AND origin != ?2",
                     "it", find_want(c, &e->digest, e->executable)->key.id, c->pull->origin);
}

static int insert_layer(const Commit *c, const LayerCommit *layer, Index *ix, Err *err) {
    int64_t id;
    int r;

    if (layer->layer->kind != LAYER_KIND_TAR)
        return insert_raw_origin(c, layer, ix, err);
    r = layer_lookup(ix, c->pull->origin, layer->layer, &id, err);
    if (r >= 0 && id == 0) {
        r = index_run(ix, err, "INSERT INTO layers (digest, origin, size) VALUES (?, ?, ?)", "dti",
                      &layer->layer->digest, c->pull->origin, (int64_t)layer->layer->size);
        id = index_last_id(ix);
        for (size_t i = 0; r >= 0 && i < layer->n_entries; i++)
            r = insert_entry(c, ix, id, layer, i, err);
    }
    if (r < 0)
        return r;
    return index_run(ix, err, "INSERT OR IGNORE INTO layer_leases VALUES (?, ?)", "ti",
                     c->pull->ingest, id);
}

static int insert_rows(Commit *c, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(c->s->index);
    int r = index_begin(ix, true, err);

    if (r >= 0)
        r = insert_objects(c, ix, err);
    for (size_t i = 0; r >= 0 && i < c->n_layers; i++)
        r = insert_layer(c, c->layers[i], ix, err);
    return r < 0 ? r : index_commit(ix, err);
}

/* No row was written, and nobody else can have written one: names are given by one commit at a
 * time.  The files are as they were: in the pull's folder. */
static void take_names_back(const Commit *c) {
    for (size_t i = 0; i < c->n; i++) {
        const Want *w = &c->wants[i];

        if (w->named && w->file.name)
            object_unpublish(&w->file, c->s->objects_fd, &w->key.digest);
        else if (w->named) /* what fails here is an orphan that the next start removes */
            (void)unlinkat(c->s->objects_fd, OBJECT_NAME(&w->key.digest, w->key.exec), 0);
    }
}

/* 1: another pull was faster with an object; nothing was done. */
static int publish(Commit *c, Err *err) {
    _cleanup_(content_unlockp) _unused_ Store *content = content_lock_shared(c->s);
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *naming = mutex_lock(&c->s->naming);
    int r = is_overtaken(c, err);

    if (r != 0)
        return r;
    r = name_objects(c, err);
    if (r >= 0)
        r = sync_names(c, err);
    if (r >= 0)
        r = insert_rows(c, err);
    if (r < 0)
        take_names_back(c);
    return r;
}

/* What came, though the store had it. */
static void count_deduplicated(const Commit *c) {
    uint64_t bytes = 0;

    for (size_t i = 0; i < c->n; i++)
        bytes += c->wants[i].file.name && !c->wants[i].named ? c->wants[i].key.size : 0;
    c->s->deduplicated_bytes += bytes;
}

/* What the pull's folder need not hold any more. */
static void drop_committed(const Commit *c) {
    for (size_t i = 0; i < c->n_surplus; i++)
        drop_ingested(c, c->surplus[i]);
    for (size_t i = 0; i < c->n_layers; i++)
        partial_forget(c->s, c->pull, c->dir_fd, c->layers[i]->layer);
}

/* Is it about what came, not about the disk or the index?  No sync fails with one of these. */
static bool is_of_content(int r) {
    static const int known[] = { -EPROTO, -EBADMSG, -EBUSY, -ENOENT, -EEXIST };

    for (size_t i = 0; i < ELEMENTSOF(known); i++)
        if (known[i] == r)
            return true;
    return false;
}

static int commit_files(Commit *c, Err *err) {
    int r;

    do {
        r = use_stored(c, err);
        if (r < 0)
            return r;
        r = seal_files(c, err);
        if (r >= 0)
            r = publish(c, err);
    } while (r > 0);
    if (r >= 0) {
        count_deduplicated(c);
        drop_committed(c);
    } else if (c->n_layers == 1 || !is_of_content(r))
        discard_ingested(c);
    return r;
}

/* All of them or none. */
static int commit_together(Store *s, const StorePull *pull, int dir_fd, LayerCommit **layers,
                           size_t n, Err *err) {
    _cleanup_(commit_done)
        Commit c = { .s = s, .pull = pull, .layers = layers, .n_layers = n, .dir_fd = dir_fd };
    int r = collect_wants(&c, err);

    return r < 0 ? r : commit_files(&c, err);
}

static void set_result(LayerCommit *layer, int r, const Err *err) {
    layer->r = r;
    if (r < 0)
        layer->err = *err;
}

/* When one of them is not as it must be, the halves are tried, and theirs: so the one that is at
 * fault is found, and the others get in.  In order: a layer may need files of an earlier one. */
static void commit_checked(Store *s, const StorePull *pull, int dir_fd, LayerCommit **layers,
                           size_t n) {
    Err err = { "" };
    int r = commit_together(s, pull, dir_fd, layers, n, &err);

    if (n > 1 && is_of_content(r)) {
        commit_checked(s, pull, dir_fd, layers, n / 2);
        commit_checked(s, pull, dir_fd, layers + n / 2, n - n / 2);
        return;
    }
    for (size_t i = 0; i < n; i++)
        set_result(layers[i], r, &err);
}

static int open_folder(Store *s, const char *ingest, Err *err) {
    if (!name_is_safe(ingest, strlen(ingest)))
        return err_set(err, -EINVAL, "'%.200s' can't be the name of a pull's folder", ingest);
    return fs_open_beneath(s->ingest_fd, ingest, O_RDONLY | O_DIRECTORY, 0, err);
}

void store_commit_layers(Store *s, const StorePull *pull, LayerCommit *layers, size_t n) {
    _cleanup_free_ LayerCommit **checked = xnew_n(LayerCommit *, n + 1);
    _cleanup_close_ int dir_fd = -EBADF;
    size_t n_checked = 0;
    Err err = { "" };

    for (size_t i = 0; i < n; i++) {
        layers[i].r = check_entries(&layers[i], &layers[i].err);
        if (layers[i].r >= 0)
            checked[n_checked++] = &layers[i];
    }
    dir_fd = open_folder(s, pull->ingest, &err);
    for (size_t i = 0; dir_fd < 0 && i < n_checked; i++)
        set_result(checked[i], dir_fd, &err);
    if (dir_fd >= 0 && n_checked > 0)
        commit_checked(s, pull, dir_fd, checked, n_checked);
}
