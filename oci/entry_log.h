/* SPDX-License-Identifier: Apache-2.0 */
/* entry_log: the entries of a tar layer, kept as finished messages in a file until the layer is
 * proved. */
#pragma once

#include "cache/store.h"

typedef struct EntryLog EntryLog;

/* So much of a list, and the digest of that. */
typedef struct EntryLogMark {
    uint64_t bytes;
    Digest digest;
} EntryLogMark;

/* One entry of a list that is read; borrowed.  < 0 ends it. */
typedef int (*EntryLogVisit)(void *arg, const LayerEntry *entry, Err *err);

typedef struct EntryLogResume {
    const char *name;
    unsigned layer;
    EntryLogMark mark;
    EntryLogVisit visit;
    void *arg;
} EntryLogResume;

/* For layer `layer`, the file "<name>-entries" in the directory `dir_fd` (borrowed), made anew.
 * Errors: -ENOSPC, -EIO. */
int entry_log_new(EntryLog **ret, int dir_fd, const char *name, unsigned layer, Err *err)
    _must_check_;
/* Goes on with the file where it was marked, and shows what stands there, once that is proved; what
 * follows is dropped.  Errors: -EBADMSG it is another one; -ENOENT, -EIO; those of `visit`. */
int entry_log_reopen(EntryLog **ret, int dir_fd, const EntryLogResume *from, Err *err) _must_check_;
/* Removes the file. */
void entry_log_remove(EntryLog *l);
/* The file stays. */
EntryLog *entry_log_free(EntryLog *l);
DEFINE_CLEANUP(EntryLog, entry_log_free);

/* Appends one.  Errors: -ENOSPC, -EIO. */
int entry_log_add(EntryLog *l, const LayerEntry *entry, Err *err) _must_check_;
/* All that was added is in the file up to this mark.  Errors: -ENOSPC, -EIO. */
int entry_log_mark(EntryLog *l, EntryLogMark *ret, Err *err) _must_check_;
/* Hands over the file: FromWorker messages with their lengths, as they go over the wire, from its
 * start to its last mark. */
int entry_log_take(EntryLog *l);
