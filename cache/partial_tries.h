/* SPDX-License-Identifier: Apache-2.0 */
/* partial_tries: how often what is kept of a layer was given to a pull in vain; inner part of
 * partial.
 *
 * The number is an extended attribute of the notes, which are the layer's map or checkpoint: it is
 * there before the pull has them, moves with them, and so survives whoever is killed.  With it
 * stands when the notes were last written: a worker that gets further writes them, and one that
 * begins the layer anew makes new ones; then nothing is counted any more. */
#pragma once

#include "cache/digest.h"

/* In vain; then the layer is dropped.  Workers that are killed at any moment, as by want of memory,
 * now and then have not written anything yet: two or three times in a row say little. */
#define PARTIAL_TRIES 5

/* The notes, of the blob, are about to be given to a pull, which is counted.  Error: -ESTALE so
 * many had them in vain: the layer is to be dropped, and the sentence says that. */
int partial_tries_begin(int dir_fd, const char *notes, const Digest *blob, Err *err) _must_check_;
/* The pull ended, but not by what it was given: it does not count. */
void partial_tries_excuse(int dir_fd, const char *notes);
