/* SPDX-License-Identifier: Apache-2.0 */
/* registry_internal: what registry.c (requests) and registry_auth.c (who we are) share. */
#pragma once

#include "oci/exchange.h"
#include "oci/registry.h"
#include "oci/token.h"

/* How the registry wants to be asked; learned from its challenges. */
typedef struct RegistryAuth {
    AuthChallenge challenge;
    char *header;        /* "Authorization: …" or NULL */
    uint64_t until_usec; /* when a token must be renewed; UINT64_MAX: never */
    uint64_t generation; /* counts the headers there were */
    TokenRequest *request;
} RegistryAuth;

struct Registry {
    unsigned
        n_refs; /* two owners: the user, and each call that is on the stack and calls the user */
    sd_event_source *work; /* starts what waits */
    Http *http;
    Origin *base;
    ExchangePolicy policy;
    char *repository;
    const Credential *credential;
    RegistryAuth auth;
    RegistryRequest *requests;
};

struct RegistryRequest {
    Registry *registry;
    RegistryRequest *next, *prev;
    Origin *url;
    const char *accept;       /* static */
    RegistryDocDone doc_done; /* a document … */
    bool has_digest;
    Digest digest;
    RegistryBlobHandlers blob; /* … or a blob */
    uint64_t size, begin, end; /* of the blob, and what was asked for; the answer may change
                                  `begin`, `end` to all */
    uint64_t received;
    char *range, *if_range; /* headers, or NULL */
    char *etag;
    uint64_t retry_usec;
    bool answered;            /* with an error document of a registry */
    Exchange *exchange;       /* NULL: waits for its start or for a token */
    unsigned challenged;      /* how many 401 there were */
    uint64_t generation_used; /* of the header that was sent; 0: none */
    uint64_t until_used_usec;
    bool in_data;   /* the user's on_data is running */
    bool doomed;    /* freed meanwhile */
    bool finishing; /* the user's done callback is running */
};

void registry_schedule(Registry *r);
/* Ends the request: takes it from the list, calls the user, frees it. */
void registry_request_finish(RegistryRequest *q, int result, const Err *err,
                             const RegistryDoc *doc);
Registry *registry_ref(Registry *r);
Registry *registry_unref(Registry *r);
DEFINE_CLEANUP(Registry, registry_unref);

/* Is there something to authorise with now?  1: yes, or nothing is needed; 0: a token is on its
 * way, wait; < 0: it cannot be had. */
int registry_auth_ready(Registry *r, Err *err) _must_check_;
/* A 401 has come: may the request be sent again?  1: yes, after registry_auth_ready(); 0: no. */
int registry_auth_challenged(RegistryRequest *q) _must_check_;
void registry_auth_init(Registry *r);
void registry_auth_done(RegistryAuth *a);
