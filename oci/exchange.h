/* SPDX-License-Identifier: Apache-2.0 */
/* exchange: one request followed through its redirects to an answer; decides what may go where. */
#pragma once

#include "base/buf.h"
#include "oci/http.h"

/* What holds for all requests of one registry. */
typedef struct ExchangePolicy {
    const Origin *home; /* the registry's own API; borrowed */
    bool skip_verify;   /* of home's certificate */
    bool allow_private; /* other hosts may have private addresses, too */
    AddressKind
        home_kind; /* learned: home has a private address, so others may; or a loopback one */
} ExchangePolicy;

typedef struct Exchange Exchange;

typedef struct ExchangeHandlers {
    /* The head of a 2xx answer that is to be streamed; < 0 with a sentence ends the exchange.  May
     * be NULL. */
    int (*on_head)(void *arg, const Exchange *x, Err *err);
    /* Streams the body of a 2xx answer, as on_data of HttpHandlers; NULL: the body is collected. */
    int (*on_data)(void *arg, const uint8_t *data, size_t n);
    /* Once, last.  r 0: an answer is there, whatever its status; see below.  The exchange may be
     * freed in here. */
    void (*on_done)(void *arg, int r, const Err *err);
    void *arg;
} ExchangeHandlers;

typedef struct ExchangeOptions {
    Http *http; /* borrowed, like `policy`, for the exchange's life */
    ExchangePolicy *policy;
    const Origin *url;
    const char *accept;        /* media types, or NULL */
    const char *authorization; /* "Authorization: …", for the origin of `url` alone, or NULL */
    const char *range;         /* "Range: …", or NULL; with it perhaps … */
    const char *if_range;      /* … "If-Range: …" */
    const char *form;          /* POST it; a redirect is then an error.  NULL: GET */
    size_t max_body;           /* of a collected body; a longer one is -E2BIG (of an error: cut) */
    unsigned timeout_seconds;  /* a hop; 0: none */
    ExchangeHandlers handlers;
} ExchangeOptions;

/* Errors of on_done: those of http.h, with method and URL; -EPROTO a redirect that is not allowed
 * (too many, to http, to a private address), a body in a Content-Encoding; -E2BIG. */
int exchange_start(Exchange **ret, const ExchangeOptions *options, Err *err) _must_check_;
Exchange *exchange_free(Exchange *x);
DEFINE_CLEANUP(Exchange, exchange_free);
void exchange_resume(Exchange *x);

/* Of the last answer; in the handlers only. */
unsigned exchange_status(const Exchange *x);
const char *exchange_header(const Exchange *x, const char *name, size_t i);
const Buf *exchange_body(const Exchange *x);
/* Microseconds from the request to the first byte of its answer, over all redirects. */
uint64_t exchange_answer_usec(const Exchange *x);
/* How long its Retry-After asks to wait; 0: it does not. */
uint64_t exchange_retry_usec(const Exchange *x);
/* Where the answer came from. */
const Origin *exchange_url(const Exchange *x);
/* Puts "GET https://host/path: " before the sentence; returns `r`. */
int exchange_error(const Exchange *x, int r, Err *err);
