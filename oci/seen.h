/* SPDX-License-Identifier: Apache-2.0 */
/* seen: which contents this pull has brought, so that equal files are kept once. */
#pragma once

#include "cache/digest.h"

/* Used by the loop and by decoders at once.  It saves disk space only: beyond SEEN_MAX contents it
 * knows no new ones. */
typedef struct Seen Seen;

#define SEEN_MAX 131072

Seen *seen_new(void);
Seen *seen_free(Seen *s);
DEFINE_CLEANUP(Seen, seen_free);

/* Does this attempt (`owner`), or one that has ended well, bring the content already?  If not,
 * `owner` is noted for it. */
bool seen_test_and_add(Seen *s, unsigned owner, const Digest *digest, bool executable);
/* The attempt has ended: well, so that others may count on its files, or with its files gone. */
void seen_commit(Seen *s, unsigned owner);
void seen_forget(Seen *s, unsigned owner);
