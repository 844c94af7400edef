/* SPDX-License-Identifier: Apache-2.0 */
/* trim: gives memory back to the system once the daemon has become quiet.  A pull of 100,000 files
 * leaves tens of MiB of free pieces in the heap, which malloc keeps for ever between pieces that
 * are in use, and the store keeps pages of its index. */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "cache/store.h"

typedef struct Trim Trim;

/* Watches the loop: when it did something, and then nothing for a second, the store (borrowed) is
 * shrunk, and memory is given back, once.  Errors: -EIO the loop takes no more sources. */
int trim_new(Trim **ret, sd_event *event, Store *store, Err *err) _must_check_;
Trim *trim_free(Trim *t);
DEFINE_CLEANUP(Trim, trim_free);
