/* SPDX-License-Identifier: Apache-2.0 */
/* token: gets a bearer token from the token server that a registry names. */
#include "oci/token.h"

#include "base/limits.h"
#include "base/log.h"
#include "oci/answer.h"

#define TOKEN_SECONDS 60

struct TokenRequest {
    TokenOptions options;
    Origin *realm;
    char *service, *scope;
    bool by_post;
    bool may_use_credentials;
    uint64_t retry_usec;
    Exchange *exchange;
};

static int token_send(TokenRequest *q, Err *err);

char *token_scope(const char *challenge_scope, const char *repository) {
    const char *colon = challenge_scope ? strrchr(challenge_scope, ':') : NULL;

    if (!isempty(challenge_scope) && !strchr(challenge_scope, ' ')) {
        if (!startswith(challenge_scope, "repository:")) /* "aws" */
            return xstrdup(challenge_scope);
        if (colon > challenge_scope + strlen("repository"))
            return xasprintf("%.*s:pull", (int)(colon - challenge_scope), challenge_scope);
    }
    return xasprintf("repository:%s:pull", repository);
}

/* Old servers know the GET alone; what they answer to a POST differs. */
static bool post_is_unknown(unsigned status) {
    return status == 400 || status == 401 || status == 404 || status == 405;
}

static int token_read(TokenRequest *q, AuthToken *ret, Err *err) {
    const Buf *body = exchange_body(q->exchange);
    unsigned status = exchange_status(q->exchange);
    int r;

    if (status != 200) {
        q->retry_usec = exchange_retry_usec(q->exchange);
        r = answer_error(status, body, exchange_header(q->exchange, "Retry-After", 0), err);
    } else
        r = auth_token_parse(ret, body->data, body->len, err);
    /* "check the repository and tag" is no advice for a token server */
    if (r == -ENOENT)
        r = err_set(err, -EPROTO, "%u: there is no token server", status);
    if (r == -EACCES) /* that may be about the credentials as well as the repository */
        r = -EKEYREJECTED;
    return r < 0 ? exchange_error(q->exchange, r, err) : 0;
}

static void token_on_done(void *arg, int r, const Err *why) {
    _cleanup_(auth_token_done) AuthToken token = { 0 };
    TokenRequest *q = arg;
    Err err = *why;

    if (r >= 0 && q->by_post && post_is_unknown(exchange_status(q->exchange))) {
        q->by_post = false;
        q->exchange = exchange_free(q->exchange);
        r = token_send(q, &err);
        if (r >= 0)
            return;
    } else if (r >= 0) {
        r = token_read(q, &token, &err);
    }
    q->options.done(q->options.arg, r, &err, r < 0 ? NULL : &token);
}

/* Basic authorization for the token server, or NULL.  A refresh token stands in for the password
 * where POST is unknown. */
static int token_authorization(const TokenRequest *q, char **ret, Err *err) {
    const Credential *c = q->options.credential;
    const char *user, *password;

    *ret = NULL;
    if (!c || !q->may_use_credentials || q->by_post)
        return 0;
    user = isempty(c->username) ? "oauth2accesstoken" : c->username;
    password = isempty(c->password) ? c->identity_token : c->password;
    if (!password || (isempty(c->username) && !c->identity_token))
        return 0;
    *ret = auth_basic_header(user, password);
    return *ret ? 0
                : err_set(err, -EKEYREJECTED,
                          "the credentials hold a control character, or ':' in the user name");
}

static void wipe(char **s) {
    if (*s)
        explicit_bzero(*s, strlen(*s));
    free(*s);
}

static int token_send(TokenRequest *q, Err *err) {
    _cleanup_(wipe) char *authorization = NULL, *form = NULL;
    _cleanup_free_ char *text = NULL;
    _cleanup_(origin_freep) Origin *url = NULL;
    int r;

    r = token_authorization(q, &authorization, err);
    if (r < 0)
        return r;
    if (q->by_post) {
        form = auth_token_form(q->service, q->scope, q->options.credential->identity_token);
        text = xstrdup(q->realm->url);
    } else {
        text = auth_token_url(q->realm->url, q->service, q->scope);
    }
    r = origin_parse(&url, NULL, text, err);
    if (r < 0)
        return err_prefix(err, r, "the token server's address");
    return exchange_start(&q->exchange,
                          &(ExchangeOptions){ .http = q->options.http,
                                              .policy = q->options.policy,
                                              .url = url,
                                              .accept = "application/json",
                                              .authorization = authorization,
                                              .form = form,
                                              .max_body = LIMIT_TOKEN_BYTES,
                                              .timeout_seconds = TOKEN_SECONDS,
                                              .handlers = { .on_done = token_on_done, .arg = q } },
                          err);
}

int token_request_new(TokenRequest **ret, const TokenOptions *options, Err *err) {
    _cleanup_(token_request_freep) TokenRequest *q = xnew(TokenRequest);
    const Origin *home = options->policy->home;
    int r;

    q->options = *options;
    q->options.challenge = NULL;
    r = origin_parse(&q->realm, NULL, options->challenge->realm, err);
    if (r < 0)
        return err_prefix(err, r, "the token server that the registry %s names", home->host);
    if (!q->realm->is_https && home->is_https)
        return err_set(
            err, -EPROTO,
            "the registry %s names a token server without TLS (%s); tokens are not asked for there",
            home->host, q->realm->shown);
    q->service = xstrdup(options->challenge->service);
    q->scope = token_scope(options->challenge->scope, options->repository);
    q->may_use_credentials = origin_may_get_credentials(home, q->realm);
    q->by_post =
        options->credential && options->credential->identity_token && q->may_use_credentials;
    if (options->credential && !q->may_use_credentials)
        log_debug("the token server %s is foreign to %s and does not get its credentials",
                  q->realm->host, home->host);
    r = token_send(q, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(q);
    return 0;
}

uint64_t token_request_retry_usec(const TokenRequest *q) {
    return q->retry_usec;
}

TokenRequest *token_request_free(TokenRequest *q) {
    if (!q)
        return NULL;
    exchange_free(q->exchange);
    origin_free(q->realm);
    free(q->service);
    free(q->scope);
    free(q);
    return NULL;
}
