/* SPDX-License-Identifier: Apache-2.0 */
/* worker_stderr: what a worker writes to stderr, as lines of our log: cleaned, short, and not too
 * many. */
#pragma once

#include "base/loop.h"

typedef struct WorkerStderr WorkerStderr;

/* Reads from `fd`, the non-blocking end of a pipe, which it owns from now on.  A line that begins
 * with "<N>" has the level N (LOG_FORMAT_LEVELS), any other is a warning.  Each gets the fields
 * `label` (the reference) and `pull` (its id, NULL: none), both copied: whose line it is does not
 * depend on what the worker says. */
int worker_stderr_new(WorkerStderr **ret, sd_event *event, int fd, const char *label,
                      const char *pull, Err *err) _must_check_;
/* Reads what is there, and says the last line. */
WorkerStderr *worker_stderr_free(WorkerStderr *e);
DEFINE_CLEANUP(WorkerStderr, worker_stderr_free);
