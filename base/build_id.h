/* SPDX-License-Identifier: Apache-2.0 */
/* build_id: which build of a library this process has loaded. */
#pragma once

#include "base/macro.h"

/* The build id (ELF note NT_GNU_BUILD_ID) of the loaded object in which `address` lies: its length,
 * at most `max` bytes of it in `ret`; 0: it has none. */
size_t build_id_of(const void *address, uint8_t *ret, size_t max);
