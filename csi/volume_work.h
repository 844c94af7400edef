/* SPDX-License-Identifier: Apache-2.0 */
/* volume_work: what volumes do in pool threads: records, directories, mounts.  All of it blocks. */
#pragma once

#include "cache/shown.h"
#include "csi/volume.h"

/* What is there of a volume that shall be published. */
typedef enum VolumeLook {
    VOLUME_LOOK_ABSENT,   /* nothing */
    VOLUME_LOOK_MOUNTED,  /* all: it is published */
    VOLUME_LOOK_RECORDED, /* the record and the content it names, not the mount */
    VOLUME_LOOK_STALE,    /* the record, not its content */
} VolumeLook;

/* Compares `want` (its manifest is not looked at) with the records; `ret_manifest` is the recorded
 * one. Errors: -EEXIST, -EBUSY as volume_publish(). */
int volume_look(Store *s, const Volume *want, VolumeLook *ret, Digest *ret_manifest, Err *err)
    _must_check_;

/* Makes the directory, records, mounts; `replaces`: takes a stale record away first.  On failure
 * nothing is left. Errors: as volume_publish(); -EAGAIN the content was removed meanwhile. */
int volume_mount(Store *s, MountMethod method, const Volume *v, bool replaces, Err *err)
    _must_check_;

/* Unmounts, removes the directory, then the record.  Returns 1 when there was something, else 0. */
int volume_unmount(Store *s, const VolumeKey *key, Err *err) _must_check_;

/* Opens the directory of a tree that the volume shows (O_PATH).
 * Errors: -ESTALE the tree is gone; -ENOENT no such subPath; -EINVAL it is a file or passes a
 * symlink. */
int volume_open_tree(Store *s, const Volume *v, int *ret_fd, Err *err) _must_check_;
/* Is it mounted?  1; 0 not, or the target is gone; -EBUSY something else is mounted there. */
int volume_is_mounted(Store *s, const Volume *v, Err *err) _must_check_;
/* Is mount `i` one of a tree of this store?  Told by device and root, not by content: the tree
 * itself may be gone. */
bool volume_mount_is_ours(const Store *s, const Shown *shown, size_t i);
