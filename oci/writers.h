/* SPDX-License-Identifier: Apache-2.0 */
/* writers: threads that hash and write the files of a tar while the next bytes are decoded.
 *
 * One thread, the feeder, says what the tar holds; the entries are told to it again, each complete,
 * in the same order.  Between them is one block of memory of a fixed size: when it is full, the
 * feeder waits. */
#pragma once

#include "oci/unpack.h"

typedef struct Writers Writers;

/* `o` (borrowed) says where files go and who is told.  Errors: -EAGAIN, -ENOMEM. */
int writers_new(Writers **ret, const UnpackOptions *o, Err *err) _must_check_;
/* Ends the threads; what was not finished is dropped, its files are closed. */
Writers *writers_free(Writers *w);
DEFINE_CLEANUP(Writers, writers_free);

/* The rest is the feeder's.  Each may tell entries; a failure of a writer (-ENOSPC, -EIO) or of
 * on_entry() shows in one of the next calls, and nothing can go on then. */

/* The next entry; copied.  A file's digest and ingest come later: its `size` bytes
 * (writers_write()) follow, the file is "<name>-<sequence>". */
int writers_add(Writers *w, const LayerEntry *e, uint64_t sequence, Err *err) _must_check_;
/* The next bytes of the file that was added last; no more than its size. */
int writers_write(Writers *w, const void *data, size_t n, Err *err) _must_check_;
/* Waits until all that was added is written and told. */
int writers_finish(Writers *w, Err *err) _must_check_;

/* In the middle of a file: waits until all that can be is written, and all entries before it are
 * told.  `*ret` is good until the next call. */
int writers_pause(Writers *w, UnpackOpen *ret, Err *err) _must_check_;
/* As writers_add() of that file, by another worker.  Errors: those of unpack_file_reopen(). */
int writers_resume(Writers *w, const LayerEntry *e, uint64_t sequence, const UnpackOpen *open,
                   Err *err) _must_check_;

/* The name of a file in the pull's folder. */
#define WRITERS_NAME_MAX 48
const char *writers_name(char buf[static WRITERS_NAME_MAX], const char *name, uint64_t sequence);
