/* SPDX-License-Identifier: Apache-2.0 */
/* output: tables for people, JSON for programs. */
#pragma once

#include "base/json.h"
#include "base/parse.h"

/* Prints one document (or one line of a stream) and drops it. */
void output_json(json_t *document, bool line);
/* The same for a document whose last member `name` is a list that is too long to be kept: prints it
 * up to the list and drops it; then come the items, and the end.  `first`: no item came before. */
void output_json_begin(json_t *document, const char *name);
void output_json_item(json_t *item, bool first);
void output_json_end(bool first);
/* A JSON string; NULL, "" (protobuf for what is not known) and bytes that are not UTF-8 become
 * null. */
json_t *output_json_string(const char *s);
/* Microseconds since the epoch as RFC 3339 in UTC, or null for 0. */
json_t *output_json_time(int64_t usec);
json_t *output_json_strings(char *const *strings, size_t n);

typedef struct OutputTable OutputTable;
/* `columns`: names, ends with NULL.  A name that begins with '>' is aligned to the right. */
OutputTable *output_table_new(const char *const *columns);
/* Takes over the strings in `cells` (as many as columns). */
void output_table_row(OutputTable *t, char **cells);
OutputTable *output_table_free(OutputTable *t); /* NULL is fine; returns NULL */
/* Prints and frees.  What a terminal would obey is replaced. */
void output_table_print(OutputTable *t);

/* "3 min ago", "2 d ago", "never" for 0.  The caller frees. */
char *output_ago(int64_t usec) _must_check_;
/* The first 12 digits of "sha256:…", or all of it when `full`.  The caller frees. */
char *output_digest(const char *digest, bool full) _must_check_;
/* A copy without control characters. */
char *output_clean(const char *s) _must_check_;
