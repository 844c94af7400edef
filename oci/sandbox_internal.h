/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox_internal: the parts of sandbox. */
#pragma once

#include "oci/sandbox.h"

/* Each fills `ret` with what was reached; none fails: a kernel may lack it. */
void sandbox_landlock(int dir_fd, SandboxState *ret);
void sandbox_seccomp(SandboxState *ret);
