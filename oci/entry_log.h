/* SPDX-License-Identifier: Apache-2.0 */
/* entry_log: the entries of a tar layer, kept as finished messages in a nameless file until the
 * layer is proved. */
#pragma once

#include "cache/store.h"

typedef struct EntryLog EntryLog;

/* For layer `layer`, in the directory `dir_fd` (borrowed).  Errors: -ENOSPC, -EIO. */
int entry_log_new(EntryLog **ret, int dir_fd, unsigned layer, Err *err) _must_check_;
EntryLog *entry_log_free(EntryLog *l);
DEFINE_CLEANUP(EntryLog, entry_log_free);

/* Appends one.  Errors: -ENOSPC, -EIO. */
int entry_log_add(EntryLog *l, const LayerEntry *entry, Err *err) _must_check_;
/* Hands over the file: FromWorker messages with their lengths, as they go over the wire, from its
 * start to
 * `*ret_bytes`.  Errors: -ENOSPC, -EIO. */
int entry_log_finish(EntryLog *l, int *ret_fd, uint64_t *ret_bytes, Err *err) _must_check_;
