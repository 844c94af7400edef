/* SPDX-License-Identifier: Apache-2.0 */
/* privilege: what this process may do. */
#pragma once

#include "base/macro.h"

/* Whether it has the capability (CAP_…) in effect: capabilities(7). */
bool privilege_has(unsigned capability);
