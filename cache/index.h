/* SPDX-License-Identifier: Apache-2.0 */
/* index: the store's SQLite database: one connection, its schema, cached statements, transactions.
 */
#pragma once

#include "cache/digest.h"

#include <sqlite3.h>

typedef struct Index Index;

/* Opens or makes the database file at the absolute `path`, and beside it "<path>-reserve", space
 * for removal (see reserve.h).  Errors: -EUCLEAN it is damaged;
 * -ENOTSUP a newer schema; -ENOSPC, -EROFS, -EACCES, -EIO. */
int index_open(Index **ret, const char *path, Err *err) _must_check_;
/* Was the database made by index_open()? */
bool index_was_made(const Index *ix);
Index *index_close(Index *ix);
DEFINE_CLEANUP(Index, index_close);

/* Takes the connection for this thread; the release rolls an open transaction back:
 *     _cleanup_(index_releasep) Index *ix = index_acquire(s->index); */
Index *index_acquire(Index *ix) _must_check_;
void index_releasep(Index **ix);
/* Frees the pages that SQLite keeps in memory, up to 2 MiB; it reads them again when it needs them.
 * Never waits: when a thread has the connection, nothing is done. */
void index_forget_pages(Index *ix);

/* `durable`: the commit is on disk when it returns; else it is with the next durable one.  -ENOSPC:
 * the reserve for removal was given up, and there is no space to make it again. */
int index_begin(Index *ix, bool durable, Err *err) _must_check_;
/* The same for a transaction that only takes away, durably: on a full disk, too. */
int index_begin_removal(Index *ix, Err *err) _must_check_;
int index_commit(Index *ix, Err *err) _must_check_;

/* Statements.  `sql` is a string literal (it is cached by its text); `types` tells what follows, in
 * the order of the parameters: i int64_t, t const char * (may be NULL), d const Digest *, b const
 * void * and size_t. Errors of all: as index_open(), and -EEXIST for a row that is there or a row
 * that others need. */

/* Starts a query; end it with index_endp.  Bound strings must live until then. */
int index_query(Index *ix, sqlite3_stmt **ret, Err *err, const char *sql, const char *types, ...)
    _must_check_;
/* The next row: 1, or 0 when there is none. */
int index_step(sqlite3_stmt *q, Err *err) _must_check_;
void index_endp(sqlite3_stmt **q);
/* Runs a statement without rows; returns how many rows it changed. */
int index_run(Index *ix, Err *err, const char *sql, const char *types, ...) _must_check_;
/* First column of the first row.  Returns 1, or 0 when there is no row (*ret is left alone). */
int index_get(Index *ix, int64_t *ret, Err *err, const char *sql, const char *types, ...)
    _must_check_;
int64_t index_last_id(Index *ix);

/* Columns of the row that a query stands on. */
int64_t index_int(sqlite3_stmt *q, int column);
char *index_text(sqlite3_stmt *q, int column) _must_check_; /* the caller frees; NULL for NULL */
/* -EUCLEAN when it is not 32 bytes. */
int index_digest(sqlite3_stmt *q, int column, Digest *ret, Err *err) _must_check_;
