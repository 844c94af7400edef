/* SPDX-License-Identifier: Apache-2.0 */
/* worker_spawn: starts the process of a worker with exactly the descriptors and variables it may
 * have. */
#pragma once

#include "base/err.h"

#include <sys/types.h>

typedef struct SpawnOptions {
    const char *program;
    int socket_fd; /* becomes 3; borrowed */
    int ingest_fd; /* becomes 4; borrowed */
    int stderr_fd; /* becomes 2; borrowed */
} SpawnOptions;

/* Errors: as posix_spawn(3). */
int worker_spawn(pid_t *ret, const SpawnOptions *options, Err *err) _must_check_;
