/* SPDX-License-Identifier: Apache-2.0 */
/* index: the store's SQLite database: one connection, its schema, cached statements, transactions.
 */
#include "cache/index.h"

#include "cache/reserve.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>

enum { INDEX_BUSY_MSEC = 5000, INDEX_LOG_BYTES = 8 << 20 };

/* Rows of `layers` are tar layers only; a raw layer is its object.  A layer row implies all its
 * objects (foreign key), so dropping an object drops the layers that hold it.
 *
 * An `origin` is the repository whose pull told what the content is.  `object_origins`: those, but
 * the object's own, that gave it as a raw layer.  `manifest_origins`: those whose own layers make
 * the tree with the digest `content`; the rows of the layers of `manifests.origin` are there.  The
 * number of an object is never given to another one: who checks it may come late. */
static const char schema_1[] =
    "CREATE TABLE objects (id INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL,"
    " exec INTEGER NOT NULL, size INTEGER NOT NULL, origin TEXT NOT NULL,"
    " proved INTEGER NOT NULL DEFAULT 0, UNIQUE (digest, exec));"
    "CREATE TABLE object_origins (object_id INTEGER NOT NULL REFERENCES objects (id) ON DELETE "
    "CASCADE,"
    " origin TEXT NOT NULL, PRIMARY KEY (object_id, origin)) WITHOUT ROWID;"
    "CREATE TABLE layers (id INTEGER PRIMARY KEY, digest BLOB NOT NULL, origin TEXT NOT NULL,"
    " size INTEGER NOT NULL, UNIQUE (digest, origin));"
    "CREATE TABLE layer_entries (layer_id INTEGER NOT NULL REFERENCES layers (id) ON DELETE "
    "CASCADE,"
    " seq INTEGER NOT NULL, type INTEGER NOT NULL, path TEXT NOT NULL, target TEXT,"
    " object_id INTEGER REFERENCES objects (id), PRIMARY KEY (layer_id, seq)) WITHOUT ROWID;"
    "CREATE INDEX layer_entries_object ON layer_entries (object_id) WHERE object_id IS NOT NULL;"
    "CREATE TABLE manifests (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, media_type TEXT,"
    " artifact_type TEXT, family TEXT, platform TEXT, bytes BLOB NOT NULL, files INTEGER NOT NULL,"
    " complete INTEGER NOT NULL, created_usec INTEGER NOT NULL, used_usec INTEGER NOT NULL,"
    " content BLOB NOT NULL, origin TEXT NOT NULL);"
    "CREATE TABLE manifest_origins (manifest_id INTEGER NOT NULL REFERENCES manifests (id) ON "
    "DELETE CASCADE,"
    " origin TEXT NOT NULL, PRIMARY KEY (manifest_id, origin)) WITHOUT ROWID;"
    "CREATE TABLE manifest_layers (manifest_id INTEGER NOT NULL REFERENCES manifests (id) ON "
    "DELETE CASCADE,"
    " seq INTEGER NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " exec INTEGER NOT NULL, media_type TEXT, path TEXT, PRIMARY KEY (manifest_id, seq)) WITHOUT "
    "ROWID;"
    "CREATE INDEX manifest_layers_digest ON manifest_layers (digest);"
    "CREATE TABLE manifest_objects (manifest_id INTEGER NOT NULL REFERENCES manifests (id) ON "
    "DELETE CASCADE,"
    " object_id INTEGER NOT NULL REFERENCES objects (id), PRIMARY KEY (manifest_id, object_id)) "
    "WITHOUT ROWID;"
    "CREATE INDEX manifest_objects_object ON manifest_objects (object_id);"
    "CREATE TABLE refs (reference TEXT NOT NULL, platform TEXT NOT NULL,"
    " manifest_id INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,"
    " PRIMARY KEY (reference, platform)) WITHOUT ROWID;"
    "CREATE INDEX refs_manifest ON refs (manifest_id);"
    "CREATE TABLE volumes (volume_id TEXT NOT NULL, target TEXT NOT NULL, reference TEXT, sub_path "
    "TEXT,"
    " parameters TEXT, manifest_id INTEGER NOT NULL REFERENCES manifests (id), exec INTEGER NOT "
    "NULL,"
    " multi_node INTEGER NOT NULL, created_usec INTEGER NOT NULL, PRIMARY KEY (volume_id, target)) "
    "WITHOUT ROWID;"
    "CREATE INDEX volumes_manifest ON volumes (manifest_id);"
    "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, time_usec INTEGER NOT NULL, type "
    "TEXT NOT NULL,"
    " reference TEXT, digest TEXT, volume_id TEXT, text TEXT NOT NULL);";

/* Subsets.  A row of `manifests` is all of a manifest, or a subset of it: `manifest` is the digest
 * of its bytes, `filter` the text of filter.h, "" for all of it, `digest` the key that filter_key()
 * makes of both; `bytes_shown` what its tree shows, NULL: all its objects.  A reference means one
 * manifest, and has a row for each of these that came by it. */
static const char schema_2[] =
    "ALTER TABLE manifests ADD COLUMN manifest BLOB;"
    "ALTER TABLE manifests ADD COLUMN filter TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE manifests ADD COLUMN bytes_shown INTEGER;"
    "UPDATE manifests SET manifest = digest;"
    "CREATE INDEX manifests_manifest ON manifests (manifest);"
    "CREATE TABLE refs_2 (reference TEXT NOT NULL, platform TEXT NOT NULL,"
    " manifest_id INTEGER NOT NULL REFERENCES manifests (id) ON DELETE CASCADE,"
    " PRIMARY KEY (reference, platform, manifest_id)) WITHOUT ROWID;"
    "INSERT INTO refs_2 SELECT reference, platform, manifest_id FROM refs;"
    "DROP TABLE refs;"
    "ALTER TABLE refs_2 RENAME TO refs;"
    "CREATE INDEX refs_manifest ON refs (manifest_id);";

/* What events are about. */
static const char schema_3[] =
    "ALTER TABLE events ADD COLUMN pull TEXT; ALTER TABLE events ADD COLUMN pod_namespace TEXT;"
    "ALTER TABLE events ADD COLUMN pod_name TEXT;";

/* When a registry last let a credential pull from a repository; see cache/grant.c.  Some indexes of
 * version 3 have it. */
static const char schema_4[] =
    "CREATE TABLE IF NOT EXISTS grants (origin TEXT NOT NULL, credential BLOB NOT NULL,"
    " checked_usec INTEGER NOT NULL, PRIMARY KEY (origin, credential)) WITHOUT ROWID;";

/* Whose volume it is. */
static const char schema_5[] = "ALTER TABLE volumes ADD COLUMN pod_namespace TEXT;"
                               "ALTER TABLE volumes ADD COLUMN pod_name TEXT;";

/* The schema is what these steps make, one after the other; an index of an earlier version gets
 * those that it lacks.  A step that was released does not change any more. */
static const char *const schema_steps[] = { schema_1, schema_2, schema_3, schema_4, schema_5 };
#define INDEX_SCHEMA_VERSION ((int64_t)ELEMENTSOF(schema_steps))

/* In memory, of this process: what running pulls hold, and scratch space of removal. */
static const char temporary_schema[] =
    "CREATE TEMP TABLE leases (ingest TEXT NOT NULL, object_id INTEGER NOT NULL,"
    " PRIMARY KEY (ingest, object_id)) WITHOUT ROWID;"
    "CREATE INDEX temp.leases_object ON leases (object_id);"
    "CREATE TEMP TABLE layer_leases (ingest TEXT NOT NULL, layer_id INTEGER NOT NULL,"
    " PRIMARY KEY (ingest, layer_id)) WITHOUT ROWID;"
    "CREATE TEMP TABLE doomed_objects (object_id INTEGER PRIMARY KEY);"
    "CREATE TEMP TABLE doomed_layers (layer_id INTEGER PRIMARY KEY);";

typedef struct Cached {
    const char *sql; /* string literal */
    sqlite3_stmt *stmt;
} Cached;

struct Index {
    sqlite3 *db;
    char *path;
    pthread_mutex_t lock;
    Cached *cached;
    size_t n_cached, cap_cached;
    Reserve *reserve;
    bool removing; /* in a transaction that takes away */
    bool made;     /* by index_open() */
};

static int error_number(sqlite3 *db) {
    int os = sqlite3_system_errno(db);

    switch (sqlite3_errcode(db) & 0xff) {
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EUCLEAN;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
        return os == ENOSPC || os == EDQUOT ? -ENOSPC : os == EACCES || os == EROFS ? -os : -EIO;
    default:
        return -EIO;
    }
}

static bool lacks_space(sqlite3 *db) {
    return sqlite3_errcode(db) != SQLITE_OK && error_number(db) == -ENOSPC;
}

static int fail(sqlite3 *db, Err *err) {
    int r = error_number(db);

    if (r == -EUCLEAN)
        return err_set(err, r,
                       "the store's index is damaged (%s): stop modelcached, remove index.db and "
                       "index.db-wal from the store and start it again; volumes that are mounted "
                       "keep what they show, other content is pulled anew",
                       sqlite3_errmsg(db));
    if (r == -ENOSPC)
        return err_set(err, r, "the store's index can't grow: no space is left on the file system");
    return err_set(err, r, "the store's index failed: %s (SQLite error %d)", sqlite3_errmsg(db),
                   sqlite3_extended_errcode(db));
}

static int run_script(Index *ix, const char *sql, Err *err) {
    if (sqlite3_exec(ix->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail(ix->db, err);
    return 0;
}

static int make_steps(Index *ix, int64_t version, Err *err) {
    _cleanup_free_ char *set_version = xasprintf(
        "PRAGMA application_id = 0x6d636978; PRAGMA user_version = %d", (int)INDEX_SCHEMA_VERSION);
    int r = 0;

    for (; r >= 0 && version < INDEX_SCHEMA_VERSION; version++)
        r = run_script(ix, schema_steps[version], err);
    return r < 0 ? r : run_script(ix, set_version, err);
}

static int prepare_schema(Index *ix, Err *err) {
    int64_t version = 0;
    int r = index_get(ix, &version, err, "PRAGMA user_version", "");

    if (r < 0)
        return r;
    if (version < 0 || version > INDEX_SCHEMA_VERSION)
        return err_set(
            err, -ENOTSUP,
            "the store's index has schema version %lld, this modelcached knows %lld: use the newer"
            " modelcached that wrote it",
            (long long)version, (long long)INDEX_SCHEMA_VERSION);
    if (version == INDEX_SCHEMA_VERSION)
        return 0;
    ix->made = version == 0;
    if (!ix->made) /* On a full disk the daemon starts all the same: content can be removed then. */
        reserve_give_up(ix->reserve);
    r = ix->made ? index_begin(ix, true, err) : index_begin_removal(ix, err);
    if (r >= 0)
        r = make_steps(ix, version, err);
    if (r >= 0)
        r = index_commit(ix, err);
    ix->removing = false;
    return r;
}

int index_open(Index **ret, const char *path, Err *err) {
    _cleanup_(index_closep) Index *ix = xnew(Index);
    _cleanup_free_ char *reserve = xasprintf("%s-reserve", path);
    int r;

    if (pthread_mutex_init(&ix->lock, NULL) != 0)
        abort();
    ix->path = xstrdup(path);
    reserve_new(&ix->reserve, reserve);
    if (sqlite3_open_v2(path, &ix->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                            SQLITE_OPEN_NOFOLLOW,
                        NULL) != SQLITE_OK)
        return fail(ix->db, err);
    (void)sqlite3_extended_result_codes(ix->db, 1);      /* fails never */
    (void)sqlite3_busy_timeout(ix->db, INDEX_BUSY_MSEC); /* likewise */
    /* Exclusive: the store's lock is ours anyway, and SQLite then keeps the WAL's index in memory
     * instead of in a mapped file, which needs space on a full disk to be opened at all.  Without
     * auto_vacuum, which is set before the first transaction, the memory of temporary rows that
     * went would stay taken. */
    r = run_script(ix,
                   "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous "
                   "= FULL; PRAGMA foreign_keys = ON;"
                   " PRAGMA temp_store = MEMORY; PRAGMA temp.auto_vacuum = FULL;"
                   " PRAGMA trusted_schema = OFF;"
                   " PRAGMA journal_size_limit = 67108864;", /* the WAL of one huge layer goes */
                   err);
    if (r < 0)
        return r;
    r = prepare_schema(ix, err);
    if (r < 0)
        return r;
    r = run_script(ix, temporary_schema, err);
    if (r >= 0)
        r = reserve_hold(ix->reserve, err);
    if (r < 0 && r != -ENOSPC) /* what is stored can be read and removed all the same */
        return r;
    *ret = TAKE_PTR(ix);
    return 0;
}

bool index_was_made(const Index *ix) {
    return ix->made;
}

Index *index_close(Index *ix) {
    if (!ix)
        return NULL;
    for (size_t i = 0; i < ix->n_cached; i++)
        (void)sqlite3_finalize(ix->cached[i].stmt); /* repeats the last error of the statement */
    free(ix->cached);
    (void)sqlite3_close(ix->db); /* all statements are gone: it can't be busy */
    (void)pthread_mutex_destroy(&ix->lock);
    reserve_free(ix->reserve);
    free(ix->path);
    free(ix);
    return NULL;
}

Index *index_acquire(Index *ix) {
    int r = pthread_mutex_lock(&ix->lock);

    assert(r == 0);
    return ix;
}

void index_releasep(Index **p) {
    Index *ix = *p;

    if (!ix)
        return;
    if (ix->removing && lacks_space(ix->db))
        reserve_give_up(ix->reserve); /* for the next try */
    ix->removing = false;
    if (!sqlite3_get_autocommit(ix->db))
        (void)sqlite3_exec(ix->db, "ROLLBACK", NULL, NULL,
                           NULL); /* SQLite may have done it itself */
    int r = pthread_mutex_unlock(&ix->lock);
    assert(r == 0);
    *p = NULL;
}

void index_forget_pages(Index *ix) {
    if (pthread_mutex_trylock(&ix->lock) != 0)
        return;
    (void)sqlite3_db_release_memory(ix->db); /* never fails */
    int r = pthread_mutex_unlock(&ix->lock);
    assert(r == 0);
}

static int begin(Index *ix, bool durable, Err *err) {
    int r =
        run_script(ix, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", err);

    return r < 0 ? r : run_script(ix, "BEGIN IMMEDIATE", err);
}

int index_begin(Index *ix, bool durable, Err *err) {
    int r = reserve_hold(ix->reserve, err);

    return r < 0 ? r : begin(ix, durable, err);
}

/* The log takes what the reserve gave up, before somebody else does who fills the disk: SQLite
 * writes the log from its start again and again.  It locks other files only, so that closing this
 * descriptor takes no lock away. */
static void claim_for_log(Index *ix) {
    _cleanup_free_ char *log = xasprintf("%s-wal", ix->path);
    _cleanup_close_ int fd = open(log, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd >= 0) /* as much as there is */
        (void)fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, INDEX_LOG_BYTES);
}

int index_begin_removal(Index *ix, Err *err) {
    ix->removing = true;
    if (reserve_give_up_if_needed(ix->reserve)) {
        /* What the log holds goes into the database, so that it is written from its start; when
         * that fails, it grows. */
        (void)sqlite3_exec(ix->db, "PRAGMA wal_checkpoint(PASSIVE)", NULL, NULL, NULL);
        claim_for_log(ix);
    }
    return begin(ix, true, err);
}

int index_commit(Index *ix, Err *err) {
    return run_script(ix, "COMMIT", err);
}

static int prepare(Index *ix, sqlite3_stmt **ret, const char *sql, Err *err) {
    Cached c = { .sql = sql };

    for (size_t i = 0; i < ix->n_cached; i++)
        if (ix->cached[i].sql == sql || streq(ix->cached[i].sql, sql)) {
            *ret = ix->cached[i].stmt;
            return 0;
        }
    if (sqlite3_prepare_v3(ix->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &c.stmt, NULL) != SQLITE_OK)
        return fail(ix->db, err);
    ARRAY_GROW(ix->cached, ix->n_cached, ix->cap_cached);
    ix->cached[ix->n_cached++] = c;
    *ret = c.stmt;
    return 0;
}

static int bind_one(sqlite3_stmt *q, int i, char type, va_list *ap) {
    const void *data;

    switch (type) {
    case 'i':
        return sqlite3_bind_int64(q, i, va_arg(*ap, int64_t));
    case 't':
        return sqlite3_bind_text(q, i, va_arg(*ap, const char *), -1, SQLITE_STATIC);
    case 'd':
        return sqlite3_bind_blob(q, i, va_arg(*ap, const Digest *)->bytes, DIGEST_BYTES,
                                 SQLITE_STATIC);
    case 'b':
        data = va_arg(*ap, const void *);
        return sqlite3_bind_blob64(q, i, data ? data : "", va_arg(*ap, size_t), SQLITE_STATIC);
    default:
        abort();
    }
}

static int query_va(Index *ix, sqlite3_stmt **ret, Err *err, const char *sql, const char *types,
                    va_list *ap) {
    sqlite3_stmt *q;
    int r = prepare(ix, &q, sql, err);

    if (r < 0)
        return r;
    assert(!sqlite3_stmt_busy(q));
    for (int i = 0; types[i]; i++)
        if (bind_one(q, i + 1, types[i], ap) != SQLITE_OK) {
            r = fail(ix->db, err);
            index_endp(&q);
            return r;
        }
    *ret = q;
    return 0;
}

int index_query(Index *ix, sqlite3_stmt **ret, Err *err, const char *sql, const char *types, ...) {
    va_list ap;

    va_start(ap, types);
    int r = query_va(ix, ret, err, sql, types, &ap);
    va_end(ap);
    return r;
}

int index_step(sqlite3_stmt *q, Err *err) {
    switch (sqlite3_step(q)) {
    case SQLITE_ROW:
        return 1;
    case SQLITE_DONE:
        return 0;
    default:
        return fail(sqlite3_db_handle(q), err);
    }
}

void index_endp(sqlite3_stmt **q) {
    if (!*q)
        return;
    (void)sqlite3_reset(*q); /* repeats the error of the last step */
    (void)sqlite3_clear_bindings(*q);
    *q = NULL;
}

int index_run(Index *ix, Err *err, const char *sql, const char *types, ...) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    va_list ap;

    va_start(ap, types);
    int r = query_va(ix, &q, err, sql, types, &ap);
    va_end(ap);
    if (r < 0)
        return r;
    r = index_step(q, err);
    return r < 0 ? r : sqlite3_changes(ix->db);
}

int index_get(Index *ix, int64_t *ret, Err *err, const char *sql, const char *types, ...) {
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    va_list ap;

    va_start(ap, types);
    int r = query_va(ix, &q, err, sql, types, &ap);
    va_end(ap);
    if (r < 0)
        return r;
    r = index_step(q, err);
    if (r > 0)
        *ret = sqlite3_column_int64(q, 0);
    return r;
}

int64_t index_last_id(Index *ix) {
    return sqlite3_last_insert_rowid(ix->db);
}

int64_t index_int(sqlite3_stmt *q, int column) {
    return sqlite3_column_int64(q, column);
}

char *index_text(sqlite3_stmt *q, int column) {
    return xstrdup((const char *)sqlite3_column_text(q, column));
}

int index_digest(sqlite3_stmt *q, int column, Digest *ret, Err *err) {
    const void *bytes = sqlite3_column_blob(q, column);

    if (digest_from_bytes(ret, bytes, (size_t)sqlite3_column_bytes(q, column)) < 0)
        return err_set(err, -EUCLEAN,
                       "the store's index is damaged: it holds a digest that is not 32 bytes long");
    return 0;
}
