/* SPDX-License-Identifier: Apache-2.0 */
/* parallel: the same step for many items, by a few threads at once. */
#pragma once

#include "base/err.h"

/* The step for item `i`; may block; called by several threads at once, once for each item. */
typedef int (*ParallelStep)(void *arg, size_t i, Err *err);

/* Calls `step` for 0 to n - 1, neighbours mostly by the same thread, and waits for all.  Few items
 * are done by the caller alone, as are all of them when no thread can be had.  After a failure no
 * more are begun; returns 0, or the failure that came first. */
int parallel_each(size_t n, ParallelStep step, void *arg, Err *err) _must_check_;
