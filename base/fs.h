/* SPDX-License-Identifier: Apache-2.0 */
/* fs: file system calls with the care that a store and untrusted names need. */
#pragma once

#include "base/buf.h"

#include <sys/stat.h>

/* Opens `path` beneath `dir_fd` without following a symlink or crossing a mount (openat2(2) with
 * RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS).  O_CLOEXEC is added.  Returns the descriptor.
 * Errors: -EXDEV or -ELOOP the path leaves the directory or passes a symlink; others as open(2). */
int fs_open_beneath(int dir_fd, const char *path, int flags, mode_t mode, Err *err) _must_check_;

/* Opens an absolute, clean path (see path_is_clean_absolute) component-safe: no symlink anywhere.
 * As above. */
int fs_open_absolute(const char *path, int flags, Err *err) _must_check_;

/* Reads a whole file of at most `max` bytes into `ret`, which the caller frees; the NUL behind it
 * is not counted in `ret_len` (which may be NULL).  Errors: -E2BIG; -ENOENT; others as open(2),
 * read(2). */
int fs_read_file(int dir_fd, const char *path, size_t max, char **ret, size_t *ret_len, Err *err)
    _must_check_;

/* Writes a file durably and visibly at once: temporary name, fsync, rename over `name`, fsync of
 * the directory. */
int fs_write_file_durably(int dir_fd, const char *name, const void *data, size_t n, mode_t mode,
                          Err *err) _must_check_;

/* Writes all of `n` bytes, going on after EINTR and short writes. */
int fs_write_all(int fd, const void *data, size_t n, Err *err) _must_check_;

/* Takes the disk space of a new file of `n` bytes, or of one of which a part is there, as one
 * extent where that can be.  When there is not as much, none is taken: fallocate(2) would take all
 * there is before it fails, and others on the file system fail meanwhile.  File systems that cannot
 * allocate are fine.  -ENOSPC, also for a quota. */
int fs_allocate(int fd, uint64_t n) _must_check_;

/* What to do where bytes are missing: the end of a sentence. */
#define FS_BYTES_ADVICE "free space on its file system"
/* The same where something new, a file, directory or link, found no space on the file system of
 * `fd`.  Some have room for so many files only (inodes), and that may end before the bytes do. */
const char *fs_space_advice(int fd);
/* Does the file system of `fd` have no inode left, and room for bytes?  Then it is these that
 * something new lacks. */
bool fs_lacks_inodes(int fd);

/* Makes the directories of `path` beneath `dir_fd`, mode `mode`; existing ones are fine when they
 * are directories. */
int fs_mkdir_p(int dir_fd, const char *path, mode_t mode, Err *err) _must_check_;

/* Makes the directory that is to hold `path` (absolute; from the configuration: symlinks and mounts
 * on the way are the administrator's), but not those above it; one that exists is fine.  Errors: as
 * mkdir(2). */
int fs_mkdir_for(const char *path, mode_t mode, Err *err) _must_check_;

/* Removes `name` in `dir_fd` with all that is in it, without following symlinks or passing a mount;
 * an absent name is fine.  Errors: -EXDEV something is mounted on it or in it; as unlink(2). */
int fs_remove_recursive(int dir_fd, const char *name, Err *err) _must_check_;

/* fsync of a directory by name, and of an open file or directory (`path` NULL or ""). */
int fs_fsync_dir(int dir_fd, const char *path, Err *err) _must_check_;

/* Is `path` absolute with no empty, "." or ".." component and no trailing slash?  ("/" itself is
 * not accepted.) */
bool path_is_clean_absolute(const char *path);
/* Is `path` `root` or something beneath it?  Both clean absolute. */
bool path_is_beneath(const char *path, const char *root);
/* May `name`, `n` bytes, be one component of a tree?  Not empty, ".", "..", no '/', no NUL, at most
 * LIMIT_NAME_BYTES. */
bool name_is_safe(const char *name, size_t n);
/* A relative path all of whose components are safe, without leading, double or trailing slash, at
 * most LIMIT_PATH_BYTES. */
bool path_is_safe_relative(const char *path);
/* How many components a safe relative path has. */
size_t path_depth(const char *path);

/* Does the symlink at `path` (safe relative) with `target` stay inside its tree when resolved by
 * names alone?  Absolute targets do not; nor does ".." behind a name, which may itself be a symlink
 * that leads elsewhere. */
bool symlink_stays_inside(const char *path, const char *target);
