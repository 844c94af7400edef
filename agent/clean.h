/* SPDX-License-Identifier: Apache-2.0 */
/* clean: text from outside, made fit for logs, errors and messages. */
#pragma once

#include "base/macro.h"

/* Is it well-formed UTF-8 (RFC 3629: no overlong forms, no surrogates)? */
bool utf8_is_valid(const char *s);
/* The same, and without control characters. */
bool text_is_clean(const char *s);
/* Copies at most `max` bytes; what is not clean becomes '?'.  NULL gives "". */
char *text_clean(const char *s, size_t max) _must_check_;
