/* SPDX-License-Identifier: Apache-2.0 */
/* token: gets a bearer token from the token server that a registry names. */
#pragma once

#include "oci/auth.h"
#include "oci/credential.h"
#include "oci/exchange.h"

typedef struct TokenRequest TokenRequest;
/* `token` is borrowed during the call, NULL on errors.  Once; the request may be freed in here. */
typedef void (*TokenDone)(void *arg, int r, const Err *err, const AuthToken *token);

typedef struct TokenOptions {
    Http *http; /* borrowed, like `policy` and `credential`, for the request's life */
    ExchangePolicy *policy;
    const AuthChallenge *challenge; /* borrowed during the call */
    const char *repository;
    const Credential *credential; /* NULL: anonymous */
    TokenDone done;
    void *arg;
} TokenOptions;

/* Credentials go along when the realm's host belongs to the registry's
 * (origin_may_get_credentials()), else it is asked without.  With a refresh token by POST, and by
 * GET when the server does not know that; else by GET. Errors, here and of `done`: -EPROTO a realm
 * or an answer that cannot be; -EKEYREJECTED, -EACCES refused; the others of exchange.h and
 * answer.h. */
int token_request_new(TokenRequest **ret, const TokenOptions *options, Err *err) _must_check_;
/* In `done`: how long the token server asks to wait (Retry-After); 0: it does not. */
uint64_t token_request_retry_usec(const TokenRequest *q);
TokenRequest *token_request_free(TokenRequest *q);
DEFINE_CLEANUP(TokenRequest, token_request_free);
/* The scope to ask for: the challenge's own, but never more than to pull.  The caller frees. */
char *token_scope(const char *challenge_scope, const char *repository) _must_check_;
