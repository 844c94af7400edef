/* SPDX-License-Identifier: Apache-2.0 */
/* seen: which contents a layer has brought, so that equal files are kept once. */
#pragma once

#include "cache/digest.h"

/* Used by several threads at once.  It saves disk space only: beyond SEEN_MAX contents it knows no
 * new ones.  Files that are equal in two layers are written twice, and one of them is dropped by
 * the daemon: so a layer that is gone on with needs no other one. */
typedef struct Seen Seen;

#define SEEN_MAX 131072

Seen *seen_new(void);
Seen *seen_free(Seen *s);
DEFINE_CLEANUP(Seen, seen_free);

/* Is the content there already?  From now on it is. */
bool seen_test_and_add(Seen *s, const Digest *digest, bool executable);
/* The same, but it stays as it is. */
bool seen_test(Seen *s, const Digest *digest, bool executable);
void seen_clear(Seen *s);
