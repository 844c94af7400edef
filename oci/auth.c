/* SPDX-License-Identifier: Apache-2.0 */
/* auth: what a registry says about authentication (WWW-Authenticate) and what a token server
 * answers; bytes in, bytes out. */
#include "oci/auth.h"

#include "base/json.h"
#include "base/limits.h"
#include "base/parse.h"

#include <strings.h>

#define LIFETIME_DEFAULT 60 /* seconds; the token specification's "expires_in" */
#define LIFETIME_MAX     (24 * 3600)
#define VALUE_MAX        4096 /* of a parameter */

static void wipe(char **s) {
    if (*s)
        explicit_bzero(*s, strlen(*s));
    free(*s);
    *s = NULL;
}

void auth_challenge_done(AuthChallenge *c) {
    free(c->realm);
    free(c->service);
    free(c->scope);
    free(c->error);
    *c = (AuthChallenge){ 0 };
}

void auth_token_done(AuthToken *t) {
    wipe(&t->token);
    *t = (AuthToken){ 0 };
}

/* RFC 9110 section 5.6.2 */
static bool is_token_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_clean(const char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    return true;
}

static const char *skip_blanks(const char *s) {
    return s + strspn(s, " \t");
}

static const char *skip_separators(const char *s) {
    return s + strspn(s, " \t,");
}

static const char *take_token(const char *s, char **ret) {
    size_t n = 0;

    while (is_token_char(s[n]))
        n++;
    *ret = n > 0 ? xstrndup(s, n) : NULL;
    return s + n;
}

/* A quoted string or a token; gives NULL when it is neither, does not end, or holds control
 * characters. */
static const char *take_value(const char *s, char **ret) {
    size_t n = 0;
    char *value;

    if (*s != '"') {
        /* More than RFC 9110 allows: unquoted URLs are seen. */
        n = strcspn(s, " \t,\"");
        value = n > 0 && n <= VALUE_MAX ? xstrndup(s, n) : NULL;
        *ret = value && is_clean(value) ? TAKE_PTR(value) : NULL;
        free(value);
        return s + n;
    }
    value = xcalloc(strlen(s) + 1, 1);
    for (s++; *s && *s != '"'; s++) {
        if (*s == '\\' && s[1])
            s++;
        value[n++] = *s;
    }
    if (*s != '"' || n > VALUE_MAX || !is_clean(value)) {
        free(value);
        value = NULL;
    }
    *ret = value;
    return *s ? s + 1 : s;
}

static void set_parameter(AuthChallenge *c, const char *name, char **value) {
    char **to = strcasecmp(name, "realm") == 0     ? &c->realm
                : strcasecmp(name, "service") == 0 ? &c->service
                : strcasecmp(name, "scope") == 0   ? &c->scope
                : strcasecmp(name, "error") == 0   ? &c->error
                                                   : NULL;
    if (to && !*to)
        *to = TAKE_PTR(*value);
}

/* name=value; returns NULL when there is no parameter here: what follows is the next scheme. */
static const char *take_parameter(AuthChallenge *c, const char *s) {
    _cleanup_free_ char *name = NULL, *value = NULL;

    s = take_token(s, &name);
    s = skip_blanks(s);
    if (!name || *s != '=')
        return NULL;
    s = take_value(skip_blanks(s + 1), &value);
    if (value)
        set_parameter(c, name, &value);
    return s;
}

static void keep_better(AuthChallenge *c, AuthChallenge *found) {
    if (found->scheme <= c->scheme || (found->scheme == AUTH_BEARER && isempty(found->realm)))
        return;
    auth_challenge_done(c);
    *c = *found;
    *found = (AuthChallenge){ 0 };
}

void auth_challenge_parse(AuthChallenge *c, const char *value) {
    const char *s = skip_separators(value);

    while (*s) {
        _cleanup_(auth_challenge_done) AuthChallenge found = { 0 };
        _cleanup_free_ char *scheme = NULL;
        const char *next;

        s = take_token(s, &scheme);
        if (!scheme || (*s && *s != ' ' && *s != '\t' && *s != ','))
            return; /* not a scheme: where the next one begins cannot be told */
        found.scheme = strcasecmp(scheme, "bearer") == 0  ? AUTH_BEARER
                       : strcasecmp(scheme, "basic") == 0 ? AUTH_BASIC
                                                          : AUTH_NONE;
        s = skip_separators(s);
        while (*s && (next = take_parameter(&found, s)))
            s = skip_separators(next);
        if (found.scheme == AUTH_NONE && *s && strspn(s, "=") > 0)
            return;
        keep_better(c, &found);
    }
}

int auth_token_parse(AuthToken *ret, const void *data, size_t n, Err *err) {
    _cleanup_json_ json_t *root = NULL;
    const char *token = NULL, *access = NULL;
    uint64_t seconds = LIFETIME_DEFAULT;

    if (n > LIMIT_TOKEN_BYTES)
        return err_set(err, -EPROTO, "the token server's answer is larger than %zu bytes",
                       (size_t)LIMIT_TOKEN_BYTES);
    if (json_parse(data, n, "the token server's answer", &root, err) < 0)
        return -EPROTO;
    if (!json_is_object(root))
        return err_set(err, -EPROTO, "the token server's answer is not a JSON object");
    if (json_get_string(root, "token", &token, err) < 0 ||
        json_get_string(root, "access_token", &access, err) < 0)
        return err_prefix(err, -EPROTO, "the token server's answer");
    if (isempty(token))
        token = access;
    if (isempty(token) || !is_clean(token))
        return err_set(err, -EPROTO, "the token server's answer holds no %stoken",
                       isempty(token) ? "" : "valid ");
    /* A lifetime that cannot be read is not worth a failure: the registry refuses the token when it
     * is too old. */
    if (json_get_u64(root, "expires_in", LIFETIME_DEFAULT, &seconds, NULL) < 0 || seconds == 0)
        seconds = LIFETIME_DEFAULT;
    *ret = (AuthToken){ .token = xstrdup(token),
                        .lifetime_usec = MIN(seconds, (uint64_t)LIFETIME_MAX) * USEC_PER_SEC };
    return 0;
}

char *auth_basic_header(const char *username, const char *password) {
    char *pair, *base64, *header;

    if (!is_clean(username) || !is_clean(password) || strchr(username, ':'))
        return NULL;
    pair = xasprintf("%s:%s", username, password);
    base64 = format_base64(pair, strlen(pair));
    header = xasprintf("Authorization: Basic %s", base64);
    wipe(&pair);
    wipe(&base64);
    return header;
}

char *auth_bearer_header(const char *token) {
    return is_clean(token) ? xasprintf("Authorization: Bearer %s", token) : NULL;
}

/* RFC 3986: what is not unreserved becomes %XX.  The caller frees. */
static char *escape(const char *s) {
    char *out = xcalloc(strlen(s) * 3 + 1, 1), *to = out;

    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
            strchr("-._~", c))
            *to++ = (char)c;
        else
            to += sprintf(to, "%%%02X", c);
    }
    return out;
}

char *auth_token_url(const char *realm, const char *service, const char *scope) {
    _cleanup_free_ char *s = escape(service ? service : ""), *c = escape(scope);

    return xasprintf("%s%s%s%s%sscope=%s", realm, strchr(realm, '?') ? "&" : "?",
                     service ? "service=" : "", s, service ? "&" : "", c);
}

char *auth_token_form(const char *service, const char *scope, const char *refresh_token) {
    _cleanup_free_ char *s = escape(service ? service : ""), *c = escape(scope);
    char *token = escape(refresh_token), *form;

    form = xasprintf(
        "grant_type=refresh_token&client_id=modelcached&service=%s&scope=%s&refresh_token=%s", s, c,
        token);
    wipe(&token);
    return form;
}
