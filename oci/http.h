/* SPDX-License-Identifier: Apache-2.0 */
/* http: libcurl's multi interface on the event loop: one request, one answer; no redirects, no
 * retries, no authentication. */
#pragma once

#include "base/loop.h"
#include "oci/origin.h"
#include "oci/trust.h"

typedef struct Http Http;
typedef struct HttpTransfer HttpTransfer;

typedef struct HttpOptions {
    sd_event *event;
    Trust *trust;             /* taken over, also when it fails */
    const char *user_agent;   /* NULL: "modelcached" */
    unsigned max_connections; /* at once; 0: 8 */
    unsigned
        stall_seconds; /* a transfer that gets (nearly) nothing for so long has failed; 0: 30 */
} HttpOptions;

/* What http_new() does first, which takes a while; to be done ahead.  Errors: -EIO. */
int http_load(Err *err) _must_check_;
/* Opens all files that it will ever need.  Errors: -EIO libcurl; -ENOMEM; those of the loop. */
int http_new(Http **ret, const HttpOptions *options, Err *err) _must_check_;
/* Drops all transfers without calling anybody.  May be called in any callback. */
Http *http_free(Http *h);
DEFINE_CLEANUP(Http, http_free);

typedef struct HttpHandlers {
    /* The answer's head is there (1xx answers and those of proxies are not told). */
    int (*on_head)(void *arg, HttpTransfer *t);
    /* Body bytes, undecoded.  Both: 0 go on; < 0 end the transfer with that.  on_data also: 1
     * nothing taken, pause. */
    int (*on_data)(void *arg, const uint8_t *data, size_t n);
    /* Once, last, unless the transfer is freed before; it is gone afterwards.  Not called from
     * http_start(). */
    void (*on_done)(void *arg, HttpTransfer *t, int r, const Err *err);
    void *arg;
} HttpHandlers;

typedef struct HttpRequest {
    const Origin *url; /* borrowed during the call, like all below */
    const char *const
        *headers; /* "Name: value"; no byte of them may be a control character; ends with NULL */
    const char *form;         /* POST it as application/x-www-form-urlencoded; NULL: GET */
    bool skip_verify;         /* do not verify the server's certificate */
    AddressKind may_reach;    /* the host may have such an address, or one of less trust */
    unsigned timeout_seconds; /* for all of it; 0: none */
    HttpHandlers handlers;
} HttpRequest;

/* Errors of on_done: -EPROTO TLS, malformed answers, a private address where none is allowed;
 * -EHOSTUNREACH -ECONNREFUSED -ECONNRESET -ETIMEDOUT network; whatever a handler returned; -EIO.
 * -ECONNRESET too when the body is shorter than its Content-Length. */
int http_start(Http *h, HttpTransfer **ret, const HttpRequest *request, Err *err) _must_check_;
/* Goes on after on_data returned 1.  May be called anywhere, also before on_data returns. */
void http_resume(HttpTransfer *t);
/* Cancels: no callback is called any more.  May be called anywhere. */
HttpTransfer *http_transfer_free(HttpTransfer *t);
DEFINE_CLEANUP(HttpTransfer, http_transfer_free);

unsigned http_status(const HttpTransfer *t);
/* The value of the i-th header of that name, without blanks around it; NULL: there are not so many.
 */
const char *http_header(const HttpTransfer *t, const char *name, size_t i);
/* Microseconds between the request and the first byte of its answer, of a transfer that has one; no
 * connecting in it, no TLS. */
uint64_t http_answer_usec(const HttpTransfer *t);
/* The kind of address that this transfer opened a connection to. */
AddressKind http_used_address(const HttpTransfer *t);
