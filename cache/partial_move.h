/* SPDX-License-Identifier: Apache-2.0 */
/* partial_move: files that go from the folder of a pull to partial/ and back: the care that takes.
 */
#pragma once

#include "cache/digest.h"

#include <sys/stat.h>

/* Files that go from one directory to another, as the property of uid and gid. */
typedef struct PartialMove {
    int from_fd, to_fd; /* borrowed */
    uid_t uid;
    gid_t gid;
    unsigned flags; /* of renameat2(2) */
    unsigned waits; /* for writers, that are left for all of the files: one that stays long is
                     * alive, and has all of them open that are */
    uint64_t bytes; /* out: what they take on disk */
} PartialMove;
#define PARTIAL_WAITS 100 /* of 10 ms */

/* Notes and blobs are their owner's alone; content has one of the two modes that an object has, and
 * is writable for its owner when it was: the worker goes on in the middle of such a file. */
typedef enum PartialMode {
    PARTIAL_MODE_PRIVATE,
    PARTIAL_MODE_CONTENT,
} PartialMode;

/* Makes `name` of `from_fd` the property of uid and gid, after proof that it is a regular file with
 * one name; then waits until nobody can write to it any more.  Errors: -EPROTO, -ELOOP or -EXDEV it
 * is something else; -EBUSY somebody still has it open for writing; -ENOENT; -EIO and the like. */
int partial_take_over(PartialMove *m, const char *name, PartialMode mode, struct stat *ret)
    _must_check_;
/* That, and gives it the name `to` in `to_fd`, where nobody else can change it, and where it is
 * looked at again. Errors: as above; those of renameat2(2). */
int partial_move(PartialMove *m, const char *name, const char *to, PartialMode mode) _must_check_;

/* Calls `visit` for each name of a directory; `fd` is the callee's.  A visit may take the name
 * away. */
int partial_each(int fd, void (*visit)(void *arg, const char *name), void *arg, Err *err)
    _must_check_;

/* "<64 hex><suffix>", of a blob in the folder of a pull, of its key in partial/. */
#define PARTIAL_NAME_MAX (2 * DIGEST_BYTES + sizeof(".part"))
const char *partial_name(char buf[static PARTIAL_NAME_MAX], const Digest *d, const char *suffix);
#define PARTIAL_NAME(d, suffix) partial_name((char[PARTIAL_NAME_MAX]){ "" }, (d), (suffix))
/* The other way round; false when it is no such name.  The suffix is what follows, within `name`.
 */
bool partial_name_parse(const char *name, Digest *ret, const char **ret_suffix);
