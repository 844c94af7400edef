/* SPDX-License-Identifier: Apache-2.0 */
/* unpack_file: writes one file of a tar into the pull's folder and hashes it; inner part of unpack.
 */
#pragma once

#include "oci/unpack.h"

/* Kept for all files of a layer, for its buffer. */
typedef struct UnpackFile UnpackFile;

int unpack_file_new(UnpackFile **ret, int dir_fd, Err *err) _must_check_;
UnpackFile *unpack_file_free(UnpackFile *f);
DEFINE_CLEANUP(UnpackFile, unpack_file_free);

/* Begins the file `name` (borrowed) of `size` bytes; nothing is made on disk yet. */
void unpack_file_begin(UnpackFile *f, const char *name, uint64_t size);
/* Errors: -ENOSPC, -EIO. */
int unpack_file_write(UnpackFile *f, const void *data, size_t n, Err *err) _must_check_;
/* The digest of all that was written. */
void unpack_file_digest(UnpackFile *f, Digest *ret);
/* Finishes and closes the file (`keep`), or removes what there is of it. */
int unpack_file_end(UnpackFile *f, bool keep, Err *err) _must_check_;
