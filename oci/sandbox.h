/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox: what confines the pull worker before it hears a word from a registry. */
#pragma once

#include "base/err.h"

typedef enum SandboxFeature {
    SANDBOX_CAPABILITIES, /* none, and none to be had again */
    SANDBOX_UID,          /* not root: the owner of the pull's folder */
    SANDBOX_NO_NEW_PRIVS,
    SANDBOX_LANDLOCK, /* files: the pull's folder, and what name resolution reads */
    SANDBOX_SECCOMP,  /* a list of the system calls that a pull needs */
    SANDBOX_FEATURE_COUNT,
} SandboxFeature;

typedef struct SandboxState {
    bool active;
    char detail[160]; /* "ABI 6", or why it is not active; may be empty */
} SandboxState;

typedef struct SandboxOptions {
    int dir_fd; /* the pull's folder, borrowed; its owner becomes our user when we are root */
    uint64_t file_max_bytes; /* RLIMIT_FSIZE; 0: none */
    unsigned
        absent; /* for tests: bit set of features that are handled as if the kernel had them not */
} SandboxOptions;

/* "capabilities", "uid", …: the names of proto/worker.proto. */
const char *sandbox_feature_name(SandboxFeature feature);

/* Confines the process for good; it must have one thread.  What the kernel lacks is not active, and
 * says why in `ret`. Errors: -EPERM, -EIO: root could not become another user, or drop what it has.
 */
int sandbox_enter(const SandboxOptions *options, SandboxState ret[static SANDBOX_FEATURE_COUNT],
                  Err *err) _must_check_;
