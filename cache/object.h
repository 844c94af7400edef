/* SPDX-License-Identifier: Apache-2.0 */
/* object: the files of objects/: their names, how an untrusted file becomes one, copies of one. */
#pragma once

#include "cache/digest.h"

#include <sys/types.h>

/* All objects look alike: root, 0444 or 0555, this time. */
#define OBJECT_MTIME_SEC 1

/* "ab/cdef…" or "ab/cdef….x", relative to objects/. */
#define OBJECT_NAME_MAX (DIGEST_HEX_MAX + 3)
const char *object_name(char buf[static OBJECT_NAME_MAX], const Digest *d, bool exec);
#define OBJECT_NAME(d, exec) object_name((char[OBJECT_NAME_MAX]){ "" }, (d), (exec))
/* The other way round: `shard` is the directory 0…255, `name` what is in it; -EINVAL when it is no
 * object's name. */
int object_name_parse(unsigned shard, const char *name, Digest *ret, bool *ret_exec) _must_check_;

/* A file in a pull's folder that is to become an object. */
typedef struct ObjectFile {
    int dir_fd;       /* the pull's folder; borrowed */
    const char *name; /* one component; borrowed */
    uint64_t size;    /* bytes it must have */
    bool exec;
    ino_t ino; /* set by object_seal() */
} ObjectFile;

/* Makes the file root's and read-only, after proof that it is a regular file with one name, of the
 * right size, that nobody can write to any more; with `sync` also durable.  The worker could still
 * put another file in its place: object_publish() looks again. Errors: -EPROTO it is not such a
 * file; -ENOENT; -EBADMSG the size differs; -EBUSY somebody has it open for writing; -ENOSPC, -EIO
 * the sync failed: the file must be discarded. */
int object_seal(ObjectFile *f, bool sync, Err *err) _must_check_;

/* Gives the sealed, durable file its name in `objects_fd`; it keeps the old one.  Replaces what is
 * there.  Errors: as object_seal(). */
int object_publish(const ObjectFile *f, int objects_fd, const Digest *d, Err *err) _must_check_;

/* Makes the object (d, exec) of (d, !exec), by reflink or copy, durable but for its name.  Replaces
 * what is there. Errors: -ENOENT the other one is not there; -ENOSPC; -EIO. */
int object_derive(int objects_fd, const Digest *d, bool exec, Err *err) _must_check_;

/* Copies an object's content to a new file `path` beneath `dir_fd`, with the same metadata; not
 * synced. */
int object_copy_to(int object_fd, int dir_fd, const char *path, bool exec, Err *err) _must_check_;
