/* SPDX-License-Identifier: Apache-2.0 */
/* exchange: one request followed through its redirects to an answer; decides what may go where. */
#include "oci/exchange.h"

#include "base/limits.h"
#include "oci/retry.h"

#include <strings.h>

struct Exchange {
    ExchangeOptions options; /* its strings are ours */
    Origin *first, *url;     /* `url`: of the hop that runs */
    HttpTransfer *transfer;
    unsigned hops;
    uint64_t answer_usec; /* of the hops before this one */
    bool streams;         /* the body goes to on_data */
    bool truncated;       /* enough of an error's body is there */
    bool too_big;
    Buf body;
    Err head_err; /* of on_head */
};

static int start_hop(Exchange *x, Err *err);

static bool is_redirect(const Exchange *x) {
    unsigned status = http_status(x->transfer);

    return (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) &&
           http_header(x->transfer, "Location", 0);
}

static bool is_success(const Exchange *x) {
    return http_status(x->transfer) / 100 == 2;
}

static bool is_home(const Exchange *x) {
    return origin_is_same(x->url, x->options.policy->home);
}

static int check_encoding(const Exchange *x, Err *err) {
    const char *encoding = http_header(x->transfer, "Content-Encoding", 0);

    if (!encoding || !*encoding || strcasecmp(encoding, "identity") == 0)
        return 0;
    return err_set(
        err, -EPROTO,
        "the answer has a Content-Encoding, which was not asked for; a proxy may be at fault");
}

static int on_head(void *arg, _unused_ HttpTransfer *t) {
    Exchange *x = arg;
    int r = 0;

    x->streams = false;
    if (!is_success(x))
        return 0;
    if (x->options.handlers.on_head)
        r = x->options.handlers.on_head(x->options.handlers.arg, x, &x->head_err);
    if (r >= 0)
        r = check_encoding(x, &x->head_err);
    x->streams = x->options.handlers.on_data;
    return r;
}

static int collect(Exchange *x, const uint8_t *data, size_t n) {
    size_t max = is_success(x) ? x->options.max_body : LIMIT_ERROR_BODY_BYTES;

    x->body.max = max;
    if (n <= max - x->body.len)
        return buf_append(&x->body, data, n);
    if (is_success(x)) {
        x->too_big = true;
        return -E2BIG;
    }
    x->truncated = true; /* ends the transfer, which is then as good as done */
    return -ECANCELED;
}

static int on_data(void *arg, const uint8_t *data, size_t n) {
    Exchange *x = arg;

    if (!x->streams)
        return collect(x, data, n);
    return x->options.handlers.on_data(x->options.handlers.arg, data,
                                       n); /* may have freed the exchange */
}

/* Goes on with the redirect that has come. */
static int follow(Exchange *x, Err *err) {
    const char *location = http_header(x->transfer, "Location", 0);
    _cleanup_(origin_freep) Origin *next = NULL;
    int r;

    if (x->options.form)
        return err_set(err, -EPROTO, "a request with credentials in its body was redirected");
    if (++x->hops > LIMIT_HTTP_REDIRECTS)
        return err_set(err, -EPROTO, "more than %d redirects", LIMIT_HTTP_REDIRECTS);
    r = origin_parse(&next, x->url, location, err);
    if (r < 0)
        return err_prefix(err, r, "the redirect (%u)", http_status(x->transfer));
    if (x->url->is_https && !next->is_https)
        return err_set(err, -EPROTO, "redirected from https to http (%s), which is not followed",
                       next->shown);
    x->answer_usec = exchange_answer_usec(x);
    origin_free(x->url);
    x->url = TAKE_PTR(next);
    x->body.len = 0;
    x->truncated = false;
    x->transfer = NULL; /* http.c frees it when this call returns */
    return start_hop(x, err);
}

static void on_done(void *arg, HttpTransfer *t, int r, const Err *why) {
    Exchange *x = arg;
    Err err = *why;

    if (is_home(x))
        x->options.policy->home_kind = MAX(x->options.policy->home_kind, http_used_address(t));
    if (r == -ECANCELED && x->truncated)
        r = 0;
    if (r >= 0 && is_redirect(x)) {
        r = follow(x, &err);
        if (r >= 0)
            return;
    } else if (r < 0 && x->head_err.text[0]) {
        err = x->head_err;
    } else if (x->too_big) {
        (void)err_set(&err, r, "the answer is larger than %zu bytes", x->options.max_body);
    }
    if (r < 0)
        (void)exchange_error(x, r, &err);
    x->options.handlers.on_done(x->options.handlers.arg, r, &err);
}

/* What a redirect or a realm may lead to.  Metadata servers give secrets to whoever asks from this
 * node, and so do services on loopback: nobody sends us there but one who is there himself. */
static AddressKind may_reach(const Exchange *x) {
    const ExchangePolicy *policy = x->options.policy;
    AddressKind home = MAX(policy->home_kind, origin_literal_kind(policy->home));

    if (is_home(x))
        return ADDRESS_SPECIAL;
    if (!policy->allow_private && policy->home_kind == ADDRESS_PUBLIC)
        return ADDRESS_PUBLIC;
    if (origin_is_private_literal(x->url) && streq(x->url->host, policy->home->host))
        return ADDRESS_SPECIAL; /* the very address, another port */
    return home == ADDRESS_LOOPBACK ? ADDRESS_LOOPBACK : ADDRESS_PRIVATE;
}

static int start_hop(Exchange *x, Err *err) {
    const ExchangePolicy *policy = x->options.policy;
    _cleanup_free_ char *accept =
        x->options.accept ? xasprintf("Accept: %s", x->options.accept) : NULL;
    bool home = is_home(x);
    AddressKind reach = may_reach(x);
    const char *headers[6] = { "Accept-Encoding: identity" };
    size_t n = 1;

    if (!x->url->is_https && policy->home->is_https)
        return err_set(err, -EPROTO, "http is not allowed here");
    if (origin_literal_kind(x->url) > reach)
        return err_set(err, -EPROTO, "%s has %s", x->url->shown, address_refusal(reach));
    if (accept)
        headers[n++] = accept;
    if (x->options.range)
        headers[n++] = x->options.range;
    if (x->options.range && x->options.if_range)
        headers[n++] = x->options.if_range;
    if (x->options.authorization && origin_is_same(x->url, x->first))
        headers[n++] = x->options.authorization;
    return http_start(x->options.http, &x->transfer,
                      &(HttpRequest){ .url = x->url,
                                      .headers = headers,
                                      .form = x->options.form,
                                      .skip_verify = home && policy->skip_verify,
                                      .may_reach = reach,
                                      .timeout_seconds = x->options.timeout_seconds,
                                      .handlers = { on_head, on_data, on_done, x } },
                      err);
}

int exchange_start(Exchange **ret, const ExchangeOptions *options, Err *err) {
    _cleanup_(exchange_freep) Exchange *x = xnew(Exchange);
    int r;

    x->options = *options;
    x->options.accept = xstrdup(options->accept);
    x->options.authorization = xstrdup(options->authorization);
    x->options.range = xstrdup(options->range);
    x->options.if_range = xstrdup(options->if_range);
    x->options.form = xstrdup(options->form);
    x->options.url = NULL;
    r = origin_parse(&x->first, NULL, options->url->url, err);
    if (r >= 0)
        r = origin_parse(&x->url, NULL, options->url->url, err);
    if (r >= 0)
        r = start_hop(x, err);
    if (r < 0)
        return x->url ? exchange_error(x, r, err) : r;
    *ret = TAKE_PTR(x);
    return 0;
}

static void wipe(const char *s) {
    if (s)
        explicit_bzero((char *)(uintptr_t)s, strlen(s)); /* our own copy */
    free((char *)(uintptr_t)s);
}

Exchange *exchange_free(Exchange *x) {
    if (!x)
        return NULL;
    http_transfer_free(x->transfer);
    origin_free(x->first);
    origin_free(x->url);
    wipe(x->options.accept);
    wipe(x->options.authorization);
    wipe(x->options.range);
    wipe(x->options.if_range);
    wipe(x->options.form);
    buf_done(&x->body);
    free(x);
    return NULL;
}

void exchange_resume(Exchange *x) {
    http_resume(x->transfer);
}

unsigned exchange_status(const Exchange *x) {
    return http_status(x->transfer);
}

const char *exchange_header(const Exchange *x, const char *name, size_t i) {
    return http_header(x->transfer, name, i);
}

uint64_t exchange_answer_usec(const Exchange *x) {
    return x->answer_usec + http_answer_usec(x->transfer);
}

const Buf *exchange_body(const Exchange *x) {
    return &x->body;
}

uint64_t exchange_retry_usec(const Exchange *x) {
    const char *value = exchange_header(x, "Retry-After", 0);
    uint64_t usec = 0;

    return value && retry_after_parse(value, exchange_header(x, "Date", 0), now_realtime_usec(),
                                      &usec) >= 0
               ? usec
               : 0;
}

const Origin *exchange_url(const Exchange *x) {
    return x->url;
}

int exchange_error(const Exchange *x, int r, Err *err) {
    return err_prefix(err, r, "%s %s", x->options.form ? "POST" : "GET", x->url->shown);
}
