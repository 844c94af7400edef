/* SPDX-License-Identifier: Apache-2.0 */
/* memory: how much of it the page cache of this process may still take. */
#pragma once

#include "base/macro.h"

/* Bytes that are free or page cache (which gives way), of the machine and of every cgroup (v2) with
 * a limit that the process is in, the smallest, less a tenth that is left to others.  UINT64_MAX:
 * it cannot be told.  `proc` and `cgroup` are "/proc" and "/sys/fs/cgroup", but in tests. */
uint64_t memory_room(const char *proc, const char *cgroup);
