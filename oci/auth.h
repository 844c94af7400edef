/* SPDX-License-Identifier: Apache-2.0 */
/* auth: what a registry says about authentication (WWW-Authenticate) and what a token server
 * answers; bytes in, bytes out. */
#pragma once

#include "base/err.h"

typedef enum AuthScheme {
    AUTH_NONE,
    AUTH_BASIC,
    AUTH_BEARER,
} AuthScheme;

/* The challenge to answer, of all that an answer holds: Bearer before Basic, others are left out.
 */
typedef struct AuthChallenge {
    AuthScheme scheme;
    char *realm, *service, *scope; /* of Bearer; NULL: not there */
    char *error;                   /* RFC 6750 section 3: "invalid_token", "insufficient_scope" */
} AuthChallenge;
void auth_challenge_done(AuthChallenge *c);

/* Reads one header's value, which may hold several challenges (RFC 9110 section 11.6.1); keeps the
 * best in `c`, which may hold one of another header.  What cannot be read is left out.  Returns
 * nothing: no challenge is AUTH_NONE. */
void auth_challenge_parse(AuthChallenge *c, const char *value);

typedef struct AuthToken {
    char *token;
    uint64_t lifetime_usec; /* from the answer's arrival; 60 s when the server says nothing */
} AuthToken;
void auth_token_done(AuthToken *t);
/* Reads a token server's answer (distribution's token specification; OAuth 2.0).  Errors: -EPROTO.
 */
int auth_token_parse(AuthToken *ret, const void *data, size_t n, Err *err) _must_check_;

/* "Authorization: Basic …" and "Authorization: Bearer …".  NULL when a byte does not belong into a
 * header. */
char *auth_basic_header(const char *username, const char *password) _must_check_;
char *auth_bearer_header(const char *token) _must_check_;

/* `realm` with service and scope in its query. */
char *auth_token_url(const char *realm, const char *service, const char *scope) _must_check_;
/* Body of the OAuth request for a refresh token. */
char *auth_token_form(const char *service, const char *scope, const char *refresh_token)
    _must_check_;
