/* SPDX-License-Identifier: Apache-2.0 */
/* partial: layers that came in part, for the modules of the store; store.h has the rest. */
#pragma once

#include "cache/store_internal.h"

/* At the start: takes what a killed daemon left in one folder of ingest/. */
int partial_recover(Store *s, const char *ingest, Err *err) _must_check_;
/* Drops what is not whole, is too old, or too many. */
int partial_trim(Store *s, Err *err) _must_check_;
/* The layer is stored, as the pull gave it, whose folder `dir_fd` is: what is kept of it goes, and
 * nothing of it is kept any more. */
void partial_forget(Store *s, const StorePull *pull, int dir_fd, const Layer *layer);
/* What the worker noted of the layer in the pull's folder goes: the files that the notes are about
 * are gone, or are objects.  So nothing of it is kept when the pull ends, or the daemon is killed.
 */
void partial_forget_notes(int dir_fd, const Layer *layer);
/* Drops all; adds the bytes that this frees.  1: there were some. */
int partial_clear(Store *s, uint64_t *bytes, Err *err) _must_check_;
/* How many layers are kept, and what they take on disk. */
int partial_count(Store *s, unsigned *ret_n, uint64_t *ret_bytes, Err *err) _must_check_;
