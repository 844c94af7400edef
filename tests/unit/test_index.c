/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/index: statements, transactions, refusals of files that are no index of ours. */
#include "cache/index.h"
#include "tests/unit/store_env.h"

static const char insert_object[] =
    "INSERT INTO objects (digest, exec, size, origin) VALUES (?, ?, ?, 'o')";

static int insert(Index *ix, const char *name, Err *err) {
    Digest d;

    digest_of(&d, name, strlen(name));
    return index_run(ix, err, insert_object, "dii", &d, (int64_t)0, (int64_t)5);
}

static int64_t count(Index *ix) {
    int64_t n = -1;

    ASSERT_EQ(index_get(ix, &n, NULL, "SELECT count(*) FROM objects", ""), 1);
    return n;
}

TEST(index_keeps_what_was_committed) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "index.db");
    Index *db = NULL;
    Err err;

    ASSERT_OK(index_open(&db, path, &err));
    for (int durable = 0; durable < 2; durable++) {
        _cleanup_(index_releasep) Index *ix = index_acquire(db);

        ASSERT_OK(index_begin(ix, durable, &err));
        ASSERT_EQ(insert(ix, durable ? "a" : "b", &err), 1);
        ASSERT_OK(index_commit(ix, &err));
    }
    {
        _cleanup_(index_releasep) Index *ix = index_acquire(db);

        ASSERT_OK(index_begin(ix, true, &err));
        ASSERT_OK(insert(ix, "c", &err));
        ASSERT_EQ(count(ix), 3);
    } /* released without a commit: rolled back */
    {
        _cleanup_(index_releasep) Index *ix = index_acquire(db);

        ASSERT_EQ(count(ix), 2);
        ASSERT_ERR(insert(ix, "a", &err), -EEXIST);
        ASSERT_ERR(index_run(ix, &err, "DELETE FROM nothing", ""), -EIO);
        ASSERT_STRSTR(err.text, "nothing");
    }
    index_close(db);
    ASSERT_OK(index_open(&db, path, &err));
    {
        _cleanup_(index_releasep) Index *ix = index_acquire(db);

        ASSERT_EQ(count(ix), 2);
    }
    index_close(db);
}

TEST(index_checks_digests_it_reads) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(index_closep) Index *db = NULL;
    Err err;
    Digest d;

    ASSERT_OK(index_open(&db, tmpdir_join(dir, "index.db"), &err));
    {
        _cleanup_(index_releasep) Index *ix = index_acquire(db);
        _cleanup_(index_endp) sqlite3_stmt *q = NULL;
        _cleanup_free_ char *text = NULL;

        ASSERT_OK(index_query(ix, &q, &err, "SELECT x'0011', NULL, 'text'", ""));
        ASSERT_EQ(index_step(q, &err), 1);
        ASSERT_ERR(index_digest(q, 0, &d, &err), -EUCLEAN);
        ASSERT_ERR(index_digest(q, 1, &d, &err), -EUCLEAN);
        text = index_text(q, 1);
        ASSERT_STREQ(text, NULL);
        text = index_text(q, 2);
        ASSERT_STREQ(text, "text");
    }
}

TEST(index_refuses_other_files) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "index.db");
    _cleanup_(index_closep) Index *db = NULL;
    sqlite3 *raw = NULL;
    Err err;

    env_write(tmpdir_fd(dir), "index.db",
              "this is no database, only a text that is long enough to be "
              "read as the header of one, which has 100 bytes",
              104);
    ASSERT_ERR(index_open(&db, path, &err), -EUCLEAN);
    ASSERT_STRSTR(err.text, "damaged");
    ASSERT_OK(unlink(path));
    ASSERT_EQ(sqlite3_open(path, &raw), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(raw, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    ASSERT_EQ(sqlite3_close(raw), SQLITE_OK);
    ASSERT_ERR(index_open(&db, path, &err), -ENOTSUP);
    ASSERT_STRSTR(err.text, "version 99");
    ASSERT_OK(unlink(path));
    ASSERT_OK(mkdir(path, 0700));
    ASSERT_ERR(index_open(&db, path, &err), -EIO);
}

/* The schema of version 1, as it was released. */
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

TEST(index_of_an_older_version_is_brought_up) {
    static const char rows[] =
        "INSERT INTO manifests VALUES (7, x'00112233', NULL, NULL, NULL, NULL, x'', 0, 1, 0, 0, "
        "x'', 'o'); INSERT INTO refs VALUES ('r', '', 7);"
        "INSERT INTO events (time_usec, type, text) VALUES (1, 't', 'old');"
        "INSERT INTO volumes VALUES ('v', '/t', 'r', NULL, '', 7, 0, 0, 1);"
        "PRAGMA user_version = 1";
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    const char *path = tmpdir_join(dir, "index.db");
    sqlite3 *raw = NULL;
    Index *db = NULL;
    int64_t n = 0;
    Err err;

    ASSERT_EQ(sqlite3_open(path, &raw), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(raw, schema_1, NULL, NULL, NULL), SQLITE_OK);
    ASSERT_EQ(sqlite3_exec(raw, rows, NULL, NULL, NULL), SQLITE_OK);
    ASSERT_EQ(sqlite3_close(raw), SQLITE_OK);
    for (int i = 0; i < 2; i++) {
        ASSERT_OK(index_open(&db, path, &err));
        ASSERT_TRUE(!index_was_made(db));
        {
            _cleanup_(index_releasep) Index *ix = index_acquire(db);

            ASSERT_EQ(index_get(ix, &n, &err,
                                "SELECT m.id FROM refs AS r JOIN manifests AS m ON m.id = "
                                "r.manifest_id WHERE m.manifest = m.digest AND m.filter = ''",
                                ""),
                      1);
            ASSERT_EQ(n, 7);
            ASSERT_EQ(index_get(ix, &n, &err,
                                "SELECT count(*) FROM events WHERE pull IS NULL AND text = 'old'",
                                ""),
                      1);
            ASSERT_EQ(n, 1);
            ASSERT_EQ(index_get(ix, &n, &err, "SELECT count(*) FROM grants", ""), 1);
            ASSERT_EQ(n, 0);
            ASSERT_EQ(index_get(ix, &n, &err,
                                "SELECT count(*) FROM volumes WHERE pod_namespace IS NULL AND "
                                "pod_name IS NULL",
                                ""),
                      1);
            ASSERT_EQ(n, 1);
            ASSERT_EQ(index_get(ix, &n, &err, "PRAGMA user_version", ""), 1);
            ASSERT_EQ(n, 5);
        }
        db = index_close(db);
    }
}
