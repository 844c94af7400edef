/* SPDX-License-Identifier: Apache-2.0 */
/* unpack_file: writes one file of a tar into the pull's folder and hashes it; inner part of
 * writers. */
#pragma once

#include "cache/digest.h"

/* Kept for the next file. */
typedef struct UnpackFile UnpackFile;

/* Content comes in blocks of this many bytes, aligned to as many; the last is filled up. */
#define UNPACK_FILE_BLOCK 4096
/* A file of at most so many bytes comes at once; the disk space of others is asked for before. */
#define UNPACK_FILE_WHOLE MiB(1)
/* From this size on it goes past the page cache, where that is possible. */
#define UNPACK_FILE_DIRECT MiB(4)

/* The first bytes of a file, and what they hash to. */
typedef struct UnpackWritten {
    uint64_t bytes;
    Digest digest;
} UnpackWritten;

/* A file in the middle of which its feeder is (writers.h). */
typedef struct UnpackOpen {
    UnpackWritten written;
    const uint8_t *pending; /* what follows; borrowed: less than a chunk, written when it is full */
    size_t n_pending;
} UnpackOpen;

void unpack_file_new(UnpackFile **ret, int dir_fd);
UnpackFile *unpack_file_free(UnpackFile *f);
DEFINE_CLEANUP(UnpackFile, unpack_file_free);

/* Begins the file `name` (borrowed) of `size` bytes; nothing is made on disk yet. */
void unpack_file_begin(UnpackFile *f, const char *name, uint64_t size, bool executable);
/* After unpack_file_begin(): goes on with what another worker has written.  Error: -EBADMSG it is
 * not there as it was. */
int unpack_file_reopen(UnpackFile *f, const UnpackWritten *written, Err *err) _must_check_;
/* What is written now; nobody writes or hashes at this moment. */
void unpack_file_written(const UnpackFile *f, UnpackWritten *ret);
void unpack_file_hash(UnpackFile *f, const void *data, size_t n);
/* The digest of all that was hashed. */
void unpack_file_digest(UnpackFile *f, Digest *ret);
/* Writes the next bytes, whole blocks but at the file's end; there, what the last block has beyond
 * them is overwritten.  Errors: -ENOSPC, -EIO. */
int unpack_file_write(UnpackFile *f, uint8_t *data, size_t n, Err *err) _must_check_;
/* Finishes and closes the file (`keep`), or removes what there is of it. */
int unpack_file_end(UnpackFile *f, bool keep, Err *err) _must_check_;
