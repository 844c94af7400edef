/* SPDX-License-Identifier: Apache-2.0 */
/* httpd: a small HTTP/1.1 server on the loop (libmicrohttpd parses): GET and HEAD, one request a
 * connection.
 *
 * Whoever reaches the address may be hostile: connections, their memory and their time are capped,
 * the oldest of whoever has the most gives way to a new one, and everything else on the loop goes
 * first. */
#pragma once

#include "base/loop.h"

typedef struct Httpd Httpd;

typedef struct HttpAnswer {
    unsigned status;  /* 200 … */
    const char *type; /* of the body; static */
    char *body;       /* malloc()ed; taken */
    size_t n;
} HttpAnswer;

typedef struct HttpdOptions {
    sd_event *event;     /* a reference is kept */
    const char *address; /* as address_parse() takes it */
    /* Answers a GET of `path` (without its query).  Must not block. */
    void (*handle)(void *arg, const char *path, HttpAnswer *ret);
    void *arg;
} HttpdOptions;

/* Listens.  Errors: -EINVAL the address; -EADDRINUSE; others as bind(2). */
int httpd_new(Httpd **ret, const HttpdOptions *options, Err *err) _must_check_;
/* Ends everything.  NULL is fine; returns NULL. */
Httpd *httpd_free(Httpd *h);
DEFINE_CLEANUP(Httpd, httpd_free);
