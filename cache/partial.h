/* SPDX-License-Identifier: Apache-2.0 */
/* partial: raw blobs that came in part, for the modules of the store; store.h has the rest. */
#pragma once

#include "cache/store_internal.h"

/* At the start: takes what a killed daemon left in one folder of ingest/. */
int partial_recover(Store *s, const char *ingest, Err *err) _must_check_;
/* Drops what has lost its other half, is too old, or too many. */
int partial_trim(Store *s, Err *err) _must_check_;
/* The blob is an object now, as the pull with that folder gave it. */
void partial_forget(Store *s, const char *ingest, const Digest *blob);
/* Drops all; adds the bytes that this frees. */
int partial_clear(Store *s, uint64_t *bytes, Err *err) _must_check_;
