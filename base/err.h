/* SPDX-License-Identifier: Apache-2.0 */
/* err: the sentence for a person that goes with a negative errno. */
#pragma once

#include "base/macro.h"

/* A sentence: what failed, on what, why, what to do.  Lives on the caller's stack; every function
 * that takes one also takes NULL.  It is only meaningful after a negative return. */
typedef struct Err {
    char text[512];
} Err;

/* Sets the sentence and returns `r` (negative errno), so that `return err_set(err, -EINVAL, "…")`
 * is one line. */
int err_set(Err *err, int r, const char *format, ...) _printf_(3, 4);
/* Sets "<format>: <strerror(errno)>" and returns -errno, but -ENOSPC for EDQUOT.  For a failed
 * system call. */
int err_errno(Err *err, const char *format, ...) _printf_(2, 3);
/* The same for an error number that is at hand as negative `r`. */
int err_errnum(Err *err, int r, const char *format, ...) _printf_(3, 4);
/* Puts "<format>: " before the sentence that is there; returns `r`.  Only where you know what the
 * callee does not. */
int err_prefix(Err *err, int r, const char *format, ...) _printf_(3, 4);
/* The sentence, or strerror of `r` when nobody set one.  Borrowed from `err`; never NULL. */
const char *err_text(const Err *err, int r);
