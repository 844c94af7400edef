/* SPDX-License-Identifier: Apache-2.0 */
/* worker_spawn: starts the process of a worker with exactly the descriptors and variables it may
 * have. */
#pragma once

#include "base/err.h"

#include <sys/types.h>

/* Waits for its job. */
typedef struct WorkerProcess {
    pid_t pid;       /* also of its process group; 0: there is none */
    int socket_fd;   /* our end */
    int messages_fd; /* what it writes to stderr comes here; does not block */
} WorkerProcess;
#define WORKER_PROCESS_NONE ((WorkerProcess){ 0, -EBADF, -EBADF })

/* With the other end of the socket as descriptor 3, and no environment but proxies.  The caller
 * ends and waits for it.  Errors: -ENOENT the program is missing; -EACCES; -EMFILE, -EAGAIN,
 * -ENOMEM. */
int worker_spawn(WorkerProcess *ret, const char *program, Err *err) _must_check_;
