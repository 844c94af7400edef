/* SPDX-License-Identifier: Apache-2.0 */
/* answer: what an HTTP status and a registry's error document mean. */
#pragma once

#include "base/buf.h"

/* The errno of registry.h for a status that is no success, and its sentence: status, the registry's
 * own words (distribution-spec v1.1, "Error Codes"; printable, capped), what to do.  `retry_after`:
 * the header's value or NULL. */
int answer_error(unsigned status, const Buf *body, const char *retry_after, Err *err) _must_check_;
/* Is it an error document of a registry?  A proxy or an ingress that answers in its place sends
 * none. */
bool answer_is_registrys(const Buf *body);
/* The registry's words out of an error document: "CODE: message"; empty when there are none. */
#define ANSWER_WORDS_MAX 200
void answer_words(const void *data, size_t n, char ret[static ANSWER_WORDS_MAX]);
