/* SPDX-License-Identifier: Apache-2.0 */
/* registry: the pull side of the OCI distribution-spec v1.1 for one repository: challenges, tokens,
 * redirects, errors. */
#include "oci/registry_internal.h"

#include "base/limits.h"
#include "base/parse.h"
#include "oci/answer.h"
#include "oci/content_range.h"
#include "oci/media.h"
#include "oci/ref.h"

#include <strings.h>

#define DOCUMENT_SECONDS 120

static int on_work(_unused_ sd_event_source *s, void *arg);

void registry_schedule(Registry *r) {
    (void)sd_event_source_set_enabled(r->work,
                                      SD_EVENT_ONESHOT); /* cannot fail: the source is ours */
}

int registry_new(Registry **ret, const RegistryOptions *options, Err *err) {
    _cleanup_(registry_freep) Registry *r = xnew(Registry);
    _cleanup_free_ char *url = NULL;
    int result;

    r->n_refs = 1;
    r->repository = xstrdup(options->repository);
    r->credential = options->credential;
    url = xasprintf("%s://%s/", options->plain_http ? "http" : "https", options->host);
    result = origin_parse(&r->base, NULL, url, err);
    if (result < 0) {
        (void)trust_free(options->trust);
        return err_prefix(err, -EINVAL, "the registry \"%.100s\"", options->host);
    }
    r->policy = (ExchangePolicy){ .home = r->base,
                                  .skip_verify = options->skip_verify,
                                  .allow_private = options->allow_private_redirects };
    result = http_new(&r->http,
                      &(HttpOptions){ .event = options->event,
                                      .trust = options->trust,
                                      .user_agent = options->user_agent,
                                      .max_connections = options->max_connections,
                                      .stall_seconds = options->stall_seconds },
                      err);
    if (result < 0)
        return result;
    result = sd_event_add_defer(options->event, &r->work, on_work, r);
    if (result >= 0)
        result = sd_event_source_set_enabled(r->work, SD_EVENT_OFF);
    if (result < 0)
        return err_errnum(err, result, "event loop");
    registry_auth_init(r);
    *ret = TAKE_PTR(r);
    return 0;
}

Registry *registry_ref(Registry *r) {
    r->n_refs++;
    return r;
}

Registry *registry_unref(Registry *r) {
    if (--r->n_refs > 0)
        return NULL;
    registry_auth_done(&r->auth);
    http_free(r->http);
    sd_event_source_disable_unref(r->work);
    origin_free(r->base);
    free(r->repository);
    free(r);
    return NULL;
}

Registry *registry_free(Registry *r) {
    if (!r)
        return NULL;
    while (r->requests)
        registry_request_free(r->requests);
    registry_auth_done(&r->auth);
    if (r->work)
        (void)sd_event_source_set_enabled(r->work, SD_EVENT_OFF);
    return registry_unref(r);
}

static void unlink_request(RegistryRequest *q) {
    if (q->prev)
        q->prev->next = q->next;
    else
        q->registry->requests = q->next;
    if (q->next)
        q->next->prev = q->prev;
    q->next = q->prev = NULL;
}

static void destroy_request(RegistryRequest *q) {
    exchange_free(q->exchange);
    origin_free(q->url);
    free(q->range);
    free(q->if_range);
    free(q->etag);
    free(q);
}

RegistryRequest *registry_request_free(RegistryRequest *q) {
    if (!q || q->finishing)
        return NULL;
    unlink_request(q);
    q->exchange = exchange_free(q->exchange);
    if (q->in_data)
        q->doomed = true; /* on_data() below frees it */
    else
        destroy_request(q);
    return NULL;
}

void registry_request_finish(RegistryRequest *q, int result, const Err *err,
                             const RegistryDoc *doc) {
    unlink_request(q);
    q->finishing = true;
    if (q->doc_done)
        q->doc_done(q->blob.arg, result, err, doc);
    else
        q->blob.on_done(q->blob.arg, result, err);
    destroy_request(q);
}

void registry_request_expect(RegistryRequest *q, const char *etag) {
    if (!q->etag)
        q->etag = xstrdup(etag);
}

void registry_request_resume(RegistryRequest *q) {
    if (q->exchange && !q->doomed && !q->finishing)
        exchange_resume(q->exchange);
}

/* Does the 206 hold what was asked for? */
static int check_range(const RegistryRequest *q, const Exchange *x, Err *err) {
    const char *value = exchange_header(x, "Content-Range", 0);
    const char *length = exchange_header(x, "Content-Length", 0);
    ContentRange range;
    uint64_t n = 0;

    if (!value || content_range_parse(value, &range) < 0 || range.begin != q->begin ||
        range.end != q->end || (range.total != CONTENT_RANGE_UNKNOWN && range.total != q->size))
        return err_set(err, REGISTRY_RANGE_WRONG,
                       "bytes %llu-%llu of %llu were asked for, the answer's Content-Range is "
                       "\"%.60s\"",
                       (unsigned long long)q->begin, (unsigned long long)q->end - 1,
                       (unsigned long long)q->size, value ? value : "");
    if (length && (parse_u64(length, &n) < 0 || n != q->end - q->begin))
        return err_set(err, REGISTRY_RANGE_WRONG, "%llu bytes were asked for, the answer has %.20s",
                       (unsigned long long)(q->end - q->begin), length);
    return 0;
}

/* RFC 9110, 13.1.5: If-Range takes a strong one. */
static const char *strong_etag(const Exchange *x) {
    const char *etag = exchange_header(x, "ETag", 0);
    size_t n = etag ? strlen(etag) : 0;

    if (n < 2 || n > 256 || etag[0] != '"' || etag[n - 1] != '"')
        return NULL;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)etag[i] < 0x20 || etag[i] == 0x7f)
            return NULL;
    return etag;
}

/* The head of an answer to a range.  From byte 0 on, all of the blob is as good. */
static int check_range_head(RegistryRequest *q, const Exchange *x, Err *err) {
    const char *encoding = exchange_header(x, "Content-Encoding", 0);
    const char *etag = exchange_header(x, "ETag", 0);

    if (q->etag && etag && !streq(q->etag, etag))
        return err_set(err, REGISTRY_RANGE_CHANGED, "the blob's ETag changed from %.60s to %.60s",
                       q->etag, etag);
    if (encoding && *encoding && strcasecmp(encoding, "identity") != 0)
        return err_set(err, REGISTRY_RANGE_IGNORED, "the range came in a Content-Encoding");
    if (exchange_status(x) == 206)
        return check_range(q, x, err);
    if (exchange_status(x) == 200 && q->begin > 0)
        return err_set(err, REGISTRY_RANGE_IGNORED, "the registry ignores ranges");
    q->begin = 0;
    q->end = q->size;
    return 0;
}

/* The head of a blob's answer: what does not fit is not worth a byte. */
static int on_blob_head(void *arg, const Exchange *x, Err *err) {
    RegistryRequest *q = arg;
    const char *length = exchange_header(x, "Content-Length", 0);
    bool ranged = q->range && exchange_status(x) == 206;
    uint64_t n = 0;
    int r = q->range ? check_range_head(q, x, err) : 0;

    if (r < 0)
        return r;
    if (!ranged && exchange_status(x) != 200)
        return err_set(err, -EPROTO, "%u is no answer to this request", exchange_status(x));
    if (!ranged && length && (parse_u64(length, &n) < 0 || n != q->size))
        return err_set(err, -EBADMSG, "the registry has %.20s bytes, the manifest says %llu",
                       length, (unsigned long long)q->size);
    if (q->blob.on_head)
        q->blob.on_head(q->blob.arg, &(RegistryBlobHead){ .whole = !ranged,
                                                          .etag = strong_etag(x),
                                                          .answer_usec = exchange_answer_usec(x) });
    return 0;
}

static int on_blob_data(void *arg, const uint8_t *data, size_t n) {
    RegistryRequest *q = arg;
    int r;

    if (n > q->end - q->begin - q->received) {
        q->received = UINT64_MAX; /* tells on_exchange_done() */
        return q->end - q->begin < q->size ? REGISTRY_RANGE_WRONG : -EBADMSG;
    }
    q->in_data = true;
    r = q->blob.on_data(q->blob.arg, data, n);
    q->in_data = false;
    if (q->doomed) {
        destroy_request(q);
        return -ECANCELED;
    }
    if (r == 0)
        q->received += n;
    return r;
}

static int check_blob(const RegistryRequest *q, int r, Err *err) {
    if (r < 0 && q->received == UINT64_MAX)
        return exchange_error(q->exchange,
                              err_set(err, r, "the %s is longer than the %llu bytes that %s",
                                      r == -EBADMSG ? "blob" : "answer",
                                      (unsigned long long)(q->end - q->begin),
                                      r == -EBADMSG ? "the manifest says" : "were asked for"),
                              err);
    if (r >= 0 && q->received != q->end - q->begin)
        return exchange_error(q->exchange,
                              err_set(err, -ECONNRESET, "the answer ended after %llu of %llu bytes",
                                      (unsigned long long)q->received,
                                      (unsigned long long)(q->end - q->begin)),
                              err);
    return r;
}

static int check_document(const RegistryRequest *q, Err *err) {
    const Buf *body = exchange_body(q->exchange);
    Digest digest;

    if (exchange_status(q->exchange) != 200)
        return exchange_error(
            q->exchange,
            err_set(err, -EPROTO, "%u is no answer to this request", exchange_status(q->exchange)),
            err);
    digest_of(&digest, body->data, body->len);
    if (q->has_digest && !digest_equal(&digest, &q->digest))
        return exchange_error(
            q->exchange, err_set(err, -EBADMSG, "what came has the digest %s", DIGEST_STR(&digest)),
            err);
    return 0;
}

/* Sends it again, now or when a token is there. */
static void start_again(RegistryRequest *q) {
    q->exchange = exchange_free(q->exchange);
    q->received = 0;
    registry_schedule(q->registry);
}

uint64_t registry_request_retry_usec(const RegistryRequest *q) {
    return q->retry_usec;
}

bool registry_request_was_answered(const RegistryRequest *q) {
    return q->answered;
}

static void on_exchange_done(void *arg, int r, const Err *why) {
    RegistryRequest *q = arg;
    _cleanup_(registry_unrefp) _unused_ Registry *registry = registry_ref(q->registry);
    RegistryDoc doc = { 0 };
    Err err = *why;

    if (r >= 0 && exchange_status(q->exchange) == 401 && registry_auth_challenged(q)) {
        start_again(q);
        return;
    }
    if (r >= 0 && exchange_status(q->exchange) / 100 != 2) {
        q->retry_usec = exchange_retry_usec(q->exchange);
        q->answered = answer_is_registrys(exchange_body(q->exchange));
        r = answer_error(exchange_status(q->exchange), exchange_body(q->exchange),
                         exchange_header(q->exchange, "Retry-After", 0), &err);
        r = exchange_error(
            q->exchange,
            q->range && exchange_status(q->exchange) == 416 ? REGISTRY_RANGE_REFUSED : r, &err);
    } else if (!q->doc_done) {
        r = check_blob(q, r, &err);
    } else if (r >= 0) {
        r = check_document(q, &err);
        doc = (RegistryDoc){ .data = exchange_body(q->exchange)->data,
                             .n = exchange_body(q->exchange)->len,
                             .content_type = exchange_header(q->exchange, "Content-Type", 0),
                             .answer_usec = exchange_answer_usec(q->exchange) };
    }
    registry_request_finish(q, r, &err, r < 0 || !q->doc_done ? NULL : &doc);
}

static int start_request(RegistryRequest *q, Err *err) {
    Registry *r = q->registry;
    ExchangeHandlers handlers = { .on_done = on_exchange_done, .arg = q };

    if (!q->doc_done) {
        handlers.on_head = on_blob_head;
        handlers.on_data = on_blob_data;
    }
    q->generation_used = r->auth.header ? r->auth.generation : 0;
    q->until_used_usec = r->auth.until_usec;
    return exchange_start(&q->exchange,
                          &(ExchangeOptions){ .http = r->http,
                                              .policy = &r->policy,
                                              .url = q->url,
                                              .accept = q->accept,
                                              .range = q->range,
                                              .if_range = q->if_range,
                                              .authorization = r->auth.header,
                                              .max_body = LIMIT_MANIFEST_BYTES,
                                              .timeout_seconds = q->doc_done ? DOCUMENT_SECONDS : 0,
                                              .handlers = handlers },
                          err);
}

/* Starts all that wait, oldest last in the list, unless a token must come first. */
static int on_work(_unused_ sd_event_source *s, void *arg) {
    _cleanup_(registry_unrefp) Registry *r = registry_ref(arg);
    RegistryRequest *q = r->requests;

    while (q && q->next)
        q = q->next;
    while (q) {
        Err err = { 0 };
        int result;
        if (q->exchange) {
            q = q->prev;
            continue;
        }
        result = registry_auth_ready(r, &err);
        if (result == 0)
            return 0;
        if (result > 0)
            result = start_request(q, &err);
        if (result >= 0) {
            q = q->prev;
            continue;
        }
        registry_request_finish(q, result, &err, NULL);
        registry_schedule(r); /* the callback may have changed the list: once more from the start */
        return 0;
    }
    return 0;
}

static int add_request(Registry *r, RegistryRequest **ret, RegistryRequest *q, const char *path) {
    _cleanup_free_ char *text = xasprintf("/v2/%s/%s", r->repository, path);
    int result = origin_parse(&q->url, r->base, text, NULL);

    if (result < 0) {
        destroy_request(q);
        return -EINVAL;
    }
    q->registry = r;
    q->next = r->requests;
    if (q->next)
        q->next->prev = q;
    r->requests = q;
    registry_schedule(r);
    *ret = q;
    return 0;
}

int registry_get_manifest(Registry *r, RegistryRequest **ret, const char *tag_or_digest,
                          RegistryDocDone done, void *arg) {
    _cleanup_free_ char *path = xasprintf("manifests/%s", tag_or_digest);
    RegistryRequest *q;
    Digest digest = { 0 };
    bool has_digest = digest_parse(&digest, tag_or_digest, NULL) >= 0;

    if (!has_digest && !reference_tag_is_valid(tag_or_digest))
        return -EINVAL;
    q = xnew(RegistryRequest);
    q->accept = MEDIA_ACCEPT;
    q->doc_done = done;
    q->blob.arg = arg;
    q->has_digest = has_digest;
    q->digest = digest;
    return add_request(r, ret, q, path);
}

int registry_get_blob(Registry *r, RegistryRequest **ret, const RegistryBlob *blob,
                      const RegistryBlobHandlers *handlers) {
    _cleanup_free_ char *path = xasprintf("blobs/%s", DIGEST_STR(&blob->digest));
    RegistryRequest *q = xnew(RegistryRequest);

    assert(blob->begin < blob->end && blob->end <= blob->size);
    q->blob = *handlers;
    q->size = blob->size;
    q->begin = blob->begin;
    q->end = blob->end;
    q->etag = xstrdup(blob->etag);
    if (blob->probe || q->end - q->begin < q->size) {
        q->range = xasprintf("Range: bytes=%llu-%llu", (unsigned long long)q->begin,
                             (unsigned long long)q->end - 1);
        q->if_range = blob->etag ? xasprintf("If-Range: %s", blob->etag) : NULL;
    }
    return add_request(r, ret, q, path);
}
