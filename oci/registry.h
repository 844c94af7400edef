/* SPDX-License-Identifier: Apache-2.0 */
/* registry: the pull side of the OCI distribution-spec v1.1 for one repository: challenges, tokens,
 * redirects, errors. */
#pragma once

#include "base/loop.h"
#include "cache/digest.h"
#include "oci/credential.h"
#include "oci/trust.h"

typedef struct Registry Registry;
typedef struct RegistryRequest RegistryRequest;

typedef struct RegistryOptions {
    sd_event *event;
    const char *host;     /* API host[:port] */
    const char *registry; /* as the reference names it (credentials are looked up by it) */
    const char *repository;
    bool plain_http;
    bool skip_verify;
    Trust *trust;                 /* taken over, also when it fails */
    const Credential *credential; /* NULL: anonymous; borrowed */
    const char *user_agent;
    unsigned max_connections;
    bool allow_private_redirects; /* redirects and token realms may lead to private addresses (the
                                     registry itself is one) */
    unsigned stall_seconds;       /* an answer that gets (nearly) nothing for so long has failed:
                                     -ETIMEDOUT; 0: 30 */
} RegistryOptions;

/* Everything that opens files (CA bundle, libcurl, resolver) is done in here, before the sandbox is
 * closed. */
int registry_new(Registry **ret, const RegistryOptions *options, Err *err) _must_check_;
Registry *registry_free(Registry *r); /* cancels requests */
DEFINE_CLEANUP(Registry, registry_free);

/* The errors of an answer: 401 -EKEYREJECTED, 403 -EACCES, 404 -ENOENT, 407 (of a proxy) -EPERM,
 * 408 429 5xx -ECONNREFUSED (retryable), other statuses -EPROTO; TLS trouble -EPROTO with the
 * reason; no route, refused, reset: -ECONNREFUSED -ECONNRESET -EHOSTUNREACH; body shorter than
 * Content-Length -ECONNRESET; -ETIMEDOUT nothing came for a while.  The sentence holds method,
 * host, path without query, status, and the registry's own words (capped, control characters
 * removed). */

typedef struct RegistryDoc {
    const uint8_t *data;
    size_t n;
    const char *content_type; /* NULL: none */
    uint64_t answer_usec;     /* from the request to the first byte, over redirects */
} RegistryDoc;
typedef void (*RegistryDocDone)(void *arg, int r, const Err *err, const RegistryDoc *doc);
/* A manifest or index by tag or "sha256:…" (capped; verified against the digest when asked by
 * digest).  A request is gone after its done callback; freeing it before cancels it, and the
 * callback is not called. */
int registry_get_manifest(Registry *r, RegistryRequest **ret, const char *tag_or_digest,
                          RegistryDocDone done, void *arg) _must_check_;

/* What to ask for of a blob. */
typedef struct RegistryBlob {
    Digest digest;
    uint64_t size;       /* of the blob */
    uint64_t begin, end; /* bytes [begin, end) of it; 0 and `size`: all, without a Range … */
    bool probe;          /* … unless it is to be found out whether the registry knows ranges */
    const char *etag;    /* of an earlier answer: it must be the same; or NULL; borrowed */
} RegistryBlob;

typedef struct RegistryBlobHead {
    bool whole;           /* the body is all of the blob */
    const char *etag;     /* a strong one, or NULL; borrowed during the call */
    uint64_t answer_usec; /* from the request to the first byte, over redirects */
} RegistryBlobHead;

/* How a registry can mishandle a range (RFC 9110, 14.2); all mean: ask for the whole blob. */
#define REGISTRY_RANGE_IGNORED (-EOPNOTSUPP) /* 200, or a Content-Encoding */
#define REGISTRY_RANGE_REFUSED (-ERANGE)     /* 416 */
#define REGISTRY_RANGE_CHANGED (-ESTALE)     /* another ETag than before */
#define REGISTRY_RANGE_WRONG   (-EILSEQ) /* Content-Range or the length contradict the request */
static inline bool registry_is_range_trouble(int r) {
    return r == REGISTRY_RANGE_IGNORED || r == REGISTRY_RANGE_REFUSED ||
           r == REGISTRY_RANGE_CHANGED || r == REGISTRY_RANGE_WRONG;
}

typedef struct RegistryBlobHandlers {
    /* The answer is good, its body follows.  May be NULL. */
    void (*on_head)(void *arg, const RegistryBlobHead *head);
    /* Body bytes in order.  Returns 0 all taken; 1 none taken, pause until
     * registry_request_resume(); < 0 end with that. */
    int (*on_data)(void *arg, const uint8_t *data, size_t n);
    /* Once, last.  0: the body was complete (exactly the bytes that were asked for, or, when they
     * begin at 0, all of the blob, as on_head said). */
    void (*on_done)(void *arg, int r, const Err *err);
    void *arg;
} RegistryBlobHandlers;
/* A blob or a range of it: a longer or shorter body is -EBADMSG (of a range: REGISTRY_RANGE_WRONG)
 * / -ECONNRESET.  The digest is the caller's to prove. */
int registry_get_blob(Registry *r, RegistryRequest **ret, const RegistryBlob *blob,
                      const RegistryBlobHandlers *handlers) _must_check_;
/* An answer that is still to come must have this ETag, too, unless its request names one. */
void registry_request_expect(RegistryRequest *q, const char *etag);
/* In the done callback of a request that failed: how long the registry asked to wait; 0: it did
 * not. */
uint64_t registry_request_retry_usec(const RegistryRequest *q);
/* In the done callback of a request that failed: did the registry itself answer, as its error
 * document shows? */
bool registry_request_was_answered(const RegistryRequest *q);
/* Goes on after on_data returned 1.  May be called anywhere on the loop's thread, also before
 * on_data returns. */
void registry_request_resume(RegistryRequest *q);
/* Cancels.  All frees may be called in any callback; in the request's own done callback freeing it
 * does nothing. */
RegistryRequest *registry_request_free(RegistryRequest *q);
DEFINE_CLEANUP(RegistryRequest, registry_request_free);
