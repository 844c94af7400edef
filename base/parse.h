/* SPDX-License-Identifier: Apache-2.0 */
/* parse: numbers, sizes, times and bytes as people and protocols write them; strict, whole strings
 * only. */
#pragma once

#include "base/macro.h"

int parse_u64(const char *s, uint64_t *ret)
    _must_check_;                                      /* decimal digits only; -EINVAL, -ERANGE */
int parse_bool(const char *s, bool *ret) _must_check_; /* true false yes no on off 1 0; -EINVAL */
/* "512", "128MiB", "1.5GiB", KiB MiB GiB TiB; result in bytes.  -EINVAL, -ERANGE */
int parse_size(const char *s, uint64_t *ret_bytes) _must_check_;
/* "300ms", "30s", "5m", "2h", "30" (seconds); -EINVAL, -ERANGE */
int parse_duration(const char *s, uint64_t *ret_usec) _must_check_;
int parse_hex(const char *s, size_t n, uint8_t *ret)
    _must_check_; /* exactly n lower-case digits into n/2 bytes; -EINVAL */
void format_hex(const uint8_t *bytes, size_t n, char *ret); /* 2n digits and a NUL */
/* Strict RFC 4648 section 4, padding required; the caller frees `ret`, which also gets a NUL.
 * -EINVAL */
int parse_base64(const char *s, size_t n, char **ret, size_t *ret_n) _must_check_;
char *format_base64(const void *data, size_t n) _must_check_;

/* The bytes of the control character that the string begins with, 0 when it begins with none: C0,
 * DEL, C1 (terminals obey U+009B as they do ESC [), line separators, and what turns the direction
 * of text around (U+200E, U+200F, U+2028..U+202E, U+2066..U+2069), all in UTF-8. */
size_t control_character(const char *s);

/* For people: "1.5 GiB", "412 MiB/s" is the caller's suffix; "27 s", "3 min 20 s", "2 h 5 min". */
#define FORMAT_BYTES_MAX    24
#define FORMAT_DURATION_MAX 32
const char *format_bytes(char buf[static FORMAT_BYTES_MAX], uint64_t bytes);
const char *format_duration(char buf[static FORMAT_DURATION_MAX], uint64_t usec);
#define FORMAT_BYTES(n)    format_bytes((char[FORMAT_BYTES_MAX]){ "" }, (n))
#define FORMAT_DURATION(n) format_duration((char[FORMAT_DURATION_MAX]){ "" }, (n))
