/* SPDX-License-Identifier: Apache-2.0 */
/* registry_auth: answers a registry's challenges and keeps its token fresh. */
#include "oci/registry_internal.h"

/* Renewed so long before the end: what is sent with a token arrives before it ends. */
#define MARGIN_USEC    (15 * USEC_PER_SEC)
#define CHALLENGES_MAX 5

static void drop_header(RegistryAuth *a) {
    if (a->header)
        explicit_bzero(a->header, strlen(a->header));
    free(a->header);
    a->header = NULL;
    a->until_usec = 0;
}

static void set_header(RegistryAuth *a, char *header, uint64_t until_usec) {
    drop_header(a);
    a->header = header;
    a->until_usec = until_usec;
    a->generation++;
}

void registry_auth_done(RegistryAuth *a) {
    drop_header(a);
    a->request = token_request_free(a->request);
    auth_challenge_done(&a->challenge);
}

/* A token that was given to us goes along from the start. */
void registry_auth_init(Registry *r) {
    char *header = r->credential && r->credential->registry_token
                       ? auth_bearer_header(r->credential->registry_token)
                       : NULL;
    if (header)
        set_header(&r->auth, header, UINT64_MAX);
}

/* All that wait need the token that did not come. */
static void fail_waiting(Registry *r, int result, const Err *err, uint64_t retry_usec) {
    RegistryRequest *q = r->requests;

    while (q) {
        if (q->exchange) {
            q = q->next;
            continue;
        }
        q->retry_usec = retry_usec;
        registry_request_finish(q, result, err, NULL);
        q = r->requests; /* the callback may have changed the list */
    }
}

static void on_token(void *arg, int result, const Err *err, const AuthToken *token) {
    _cleanup_(registry_unrefp) Registry *r = registry_ref(arg);
    RegistryAuth *a = &r->auth;
    uint64_t retry_usec = token_request_retry_usec(a->request);
    Err why = *err;

    if (result >= 0) {
        uint64_t margin = MIN(MARGIN_USEC, token->lifetime_usec / 4);
        char *header = auth_bearer_header(token->token);
        if (header)
            set_header(a, header, now_usec() + token->lifetime_usec - margin);
        else
            result = err_set(&why, -EPROTO, "the token server's token holds a control character");
    }
    a->request = token_request_free(a->request);
    if (result < 0)
        fail_waiting(r, result, &why, retry_usec);
    else
        registry_schedule(r);
}

int registry_auth_ready(Registry *r, Err *err) {
    RegistryAuth *a = &r->auth;
    int result;

    if (a->request)
        return 0;
    if (a->challenge.scheme != AUTH_BEARER || (a->header && now_usec() < a->until_usec))
        return 1;
    result = token_request_new(&a->request,
                               &(TokenOptions){ .http = r->http,
                                                .policy = &r->policy,
                                                .challenge = &a->challenge,
                                                .repository = r->repository,
                                                .credential = r->credential,
                                                .done = on_token,
                                                .arg = r },
                               err);
    return result < 0 ? result : 0;
}

/* Password in hand and the registry wants it; it goes to the registry's own origin alone. */
static int use_basic(Registry *r) {
    const Credential *c = r->credential;
    char *header = c && !isempty(c->username) && c->password
                       ? auth_basic_header(c->username, c->password)
                       : NULL;

    if (!header)
        return 0;
    set_header(&r->auth, header, UINT64_MAX);
    return 1;
}

int registry_auth_challenged(RegistryRequest *q) {
    _cleanup_(auth_challenge_done) AuthChallenge challenge = { 0 };
    Registry *r = q->registry;
    RegistryAuth *a = &r->auth;
    bool expired = q->generation_used > 0 && now_usec() >= q->until_used_usec;
    const char *value;

    if (!origin_is_same(exchange_url(q->exchange), r->base) ||
        (r->credential && r->credential->registry_token))
        return 0;
    /* Once; again only when the token has become too old while the request waited for a connection.
     */
    if (q->challenged++ >= (expired ? CHALLENGES_MAX : 1))
        return 0;
    if (q->generation_used < a->generation && a->header)
        return 1; /* another request has got a new one meanwhile */
    for (size_t i = 0; (value = exchange_header(q->exchange, "WWW-Authenticate", i)); i++)
        auth_challenge_parse(&challenge, value);
    if (challenge.scheme == AUTH_NONE)
        return 0;
    drop_header(a);
    auth_challenge_done(&a->challenge);
    a->challenge = challenge;
    challenge = (AuthChallenge){ 0 };
    return a->challenge.scheme == AUTH_BASIC ? use_basic(r) : 1;
}
