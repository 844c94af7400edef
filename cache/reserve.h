/* SPDX-License-Identifier: Apache-2.0 */
/* reserve: space of the file system put by in a file, so that a full disk never keeps content from
 * being removed, which is how space comes back.
 *
 * It is given up when a removal needs it, and made again before anything is added: until there is
 * space for it, nothing is added. */
#pragma once

#include "base/err.h"

typedef struct Reserve Reserve;

/* `path`: of the file, absolute; one that is there is taken as it is. */
void reserve_new(Reserve **ret, const char *path);
/* The file stays: it is for the next start, too. */
Reserve *reserve_free(Reserve *r);
DEFINE_CLEANUP(Reserve, reserve_free);

/* Makes it unless it is held; on a file system that cannot put space by, there is none, which is
 * fine.  Errors: -ENOSPC there is no space for it, and none was taken; others as open(2). */
int reserve_hold(Reserve *r, Err *err) _must_check_;
/* Gives it up. */
void reserve_give_up(Reserve *r);
/* Gives it up when little more space than it takes is free.  True when it is not held now. */
bool reserve_give_up_if_needed(Reserve *r);
