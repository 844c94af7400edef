/* SPDX-License-Identifier: Apache-2.0 */
/* filter: which files of an artifact a subset of it has, by patterns of their paths.
 *
 * A list holds patterns, separated by commas or line ends; blanks around them are dropped.  Between
 * slashes '*' stands for any characters and '?' for one; a component "**" stands for any number of
 * components.  A pattern without a slash, but at its end, is looked for in every directory
 * ("*.bin"); one with a slash begins at the root of the artifact ("a/b", "/b").  What a pattern
 * means has all beneath it.  A file belongs to the subset when the list `include` means it, or is
 * empty, and the list `exclude` does not. */
#pragma once

#include "cache/digest.h"

typedef struct Filter Filter;

/* NULL or "" is an empty list.  `*ret` is NULL when all belongs to it.
 * Errors: -EINVAL a pattern that cannot be, more than LIMIT_FILTER_PATTERNS, longer than
 * LIMIT_FILTER_BYTES. */
int filter_parse(Filter **ret, const char *include, const char *exclude, Err *err) _must_check_;
Filter *filter_copy(const Filter *f); /* NULL gives NULL */
Filter *filter_free(Filter *f);
DEFINE_CLEANUP(Filter, filter_free);

/* The lists in the form that equal ones have: sorted, with commas; "" is empty.  Borrowed. */
const char *filter_include(const Filter *f);
const char *filter_exclude(const Filter *f);
/* Both in one text, "" for NULL, which the caller frees; and back.  -EINVAL it is none. */
char *filter_text(const Filter *f) _must_check_;
int filter_from_text(Filter **ret, const char *text, Err *err) _must_check_;

/* By what the store knows the subset of an artifact; that of all of it is the manifest's digest. */
void filter_key(const Filter *f, const Digest *manifest, Digest *ret);

/* Does what is at the path (safe relative) belong to it?  NULL: all does.  The patterns are a pod's
 * and the paths a registry's, and together they can be made to take hours: `steps` counts down what
 * it cost, and at 0 nothing is compared any more, and the answer is worth nothing. */
bool filter_keeps(const Filter *f, const char *path, uint64_t *steps);
/* -E2BIG once `steps` is 0, else 0. */
int filter_check_steps(uint64_t steps, Err *err) _must_check_;
