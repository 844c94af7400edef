/* SPDX-License-Identifier: Apache-2.0 */
/* tarname: what a name in a tar means: a clean path of the tree, its root, or a whiteout. */
#pragma once

#include "base/err.h"
#include "base/limits.h"

typedef enum TarnameKind {
    TARNAME_PLAIN,    /* `path` */
    TARNAME_ROOT,     /* the tree itself */
    TARNAME_WHITEOUT, /* lower layers lose `path` */
    TARNAME_OPAQUE,   /* lower layers lose what is in `path`; empty: the root */
    TARNAME_IGNORED,  /* .wh..wh.*: notes of aufs */
} TarnameKind;

typedef struct Tarname {
    TarnameKind kind;
    char path[LIMIT_PATH_BYTES + 1]; /* safe relative */
} Tarname;

/* Reads a name.  Empty components and "." say nothing and are left out.  With `whiteouts` the names
 * of OCI image-spec v1.1, layer.md, "Whiteouts", are read as such.  Errors: -EPROTO absolute, "..",
 * too long components or none, bad whiteouts; -E2BIG deeper than LIMIT_PATH_DEPTH; -ENOTSUP not
 * UTF-8.  The sentence shows the name. */
int tarname_read(Tarname *ret, const char *name, bool whiteouts, Err *err) _must_check_;

/* A name for a sentence: printable, cut. */
#define TARNAME_SHOWN_MAX 201
const char *tarname_show(char buf[static TARNAME_SHOWN_MAX], const char *name);
#define TARNAME_STR(name) tarname_show((char[TARNAME_SHOWN_MAX]){ "" }, (name))
