/* SPDX-License-Identifier: Apache-2.0 */
/* json: reading of untrusted documents with jansson: capped, no duplicate names, no trailing bytes.
 */
#pragma once

#include "base/err.h"

#include <jansson.h>

#define _cleanup_json_ _cleanup_(json_decrefp) /* json_decrefp() is jansson's */

/* Parses `n` bytes of UTF-8.  The caller drops the reference in `ret`.  `what` names the document
 * in the sentence. Errors: -EBADMSG not JSON, duplicate names, trailing bytes, deeper than
 * LIMIT_JSON_DEPTH. */
int json_parse(const void *data, size_t n, const char *what, json_t **ret, Err *err) _must_check_;
/* Members of an object; `ret` is borrowed from it.  An absent member (or null) gives 0 and
 * NULL/`fallback`; another type is -EBADMSG with a sentence that names the member. */
int json_get_string(const json_t *object, const char *name, const char **ret, Err *err)
    _must_check_;
int json_get_u64(const json_t *object, const char *name, uint64_t fallback, uint64_t *ret, Err *err)
    _must_check_;
int json_get_object(const json_t *object, const char *name, json_t **ret, Err *err) _must_check_;
int json_get_array(const json_t *object, const char *name, json_t **ret, Err *err) _must_check_;
