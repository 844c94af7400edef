/* SPDX-License-Identifier: Apache-2.0 */
/* test_auth: challenges as registries write them, answers of token servers, headers and URLs for
 * them. */
#include "oci/auth.h"

#include "base/limits.h"
#include "tests/unit/test.h"

TEST(auth_challenges) {
    static const struct {
        const char *value;
        AuthScheme scheme;
        const char *realm, *service, *scope, *error;
    } cases[] = {
        { "Bearer "
          "realm=\"https://auth.docker.io/"
          "token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull\"",
          AUTH_BEARER, "https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull",
          NULL },
        { "bEaReR Realm = \"r\" , SERVICE=s, error=\"invalid_token\"", AUTH_BEARER, "r", "s", NULL,
          "invalid_token" },
        { "Bearer realm=\"a\\\"b\\\\c\"", AUTH_BEARER, "a\"b\\c", NULL, NULL, NULL },
        { "Bearer realm=\"r\",realm=\"second\"", AUTH_BEARER, "r", NULL, NULL, NULL },
        { "Bearer realm=https://h/token,service=x", AUTH_BEARER, "https://h/token", "x", NULL,
          NULL },
        { "Bearer realm=\"r\",scope=\"repository:a:pull,push\"", AUTH_BEARER, "r", NULL,
          "repository:a:pull,push", NULL },
        { "Basic realm=\"x\"", AUTH_BASIC, "x", NULL, NULL, NULL },
        { "Basic", AUTH_BASIC, NULL, NULL, NULL, NULL },
        { "BASIC ", AUTH_BASIC, NULL, NULL, NULL, NULL },
        { "Basic realm=\"x\", Bearer realm=\"r\",service=\"s\"", AUTH_BEARER, "r", "s", NULL,
          NULL },
        { "Bearer realm=\"r\", Basic realm=\"x\"", AUTH_BEARER, "r", NULL, NULL, NULL },
        { "Negotiate, Basic realm=\"x\"", AUTH_BASIC, "x", NULL, NULL, NULL },
        { "Digest realm=\"d\",nonce=\"n\", Bearer realm=\"r\"", AUTH_BEARER, "r", NULL, NULL,
          NULL },
        { ",, Basic realm=x ,", AUTH_BASIC, "x", NULL, NULL, NULL },
        { "Bearer", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "Bearer service=\"s\"", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "Bearer realm=\"", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "Bearer realm=\"a\x01\"", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "Bearer realm=a\x01", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "Negotiate", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "=", AUTH_NONE, NULL, NULL, NULL, NULL },
        { "\"", AUTH_NONE, NULL, NULL, NULL, NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(auth_challenge_done) AuthChallenge c = { 0 };
        auth_challenge_parse(&c, cases[i].value);
        if (c.scheme != cases[i].scheme || !streq_ptr(c.realm, cases[i].realm) ||
            !streq_ptr(c.service, cases[i].service) || !streq_ptr(c.scope, cases[i].scope) ||
            !streq_ptr(c.error, cases[i].error))
            test_fail(__FILE__, __LINE__, "%s: %d %s %s %s %s", cases[i].value, c.scheme, c.realm,
                      c.service, c.scope, c.error);
    }
}

TEST(auth_challenges_of_several_headers) {
    _cleanup_(auth_challenge_done) AuthChallenge c = { 0 };

    auth_challenge_parse(&c, "Basic realm=\"x\"");
    auth_challenge_parse(&c, "Negotiate");
    auth_challenge_parse(&c, "Bearer realm=\"r\"");
    auth_challenge_parse(&c, "Basic realm=\"y\"");
    ASSERT_EQ(c.scheme, AUTH_BEARER);
    ASSERT_STREQ(c.realm, "r");
}

static int parse(AuthToken *t, const char *text, Err *err) {
    return auth_token_parse(t, text, strlen(text), err);
}

TEST(auth_tokens) {
    static const struct {
        const char *text, *token;
        unsigned seconds;
    } cases[] = {
        { "{\"token\":\"t\"}", "t", 60 },
        { "{\"access_token\":\"a\"}", "a", 60 },
        { "{\"token\":\"t\",\"access_token\":\"a\",\"expires_in\":300}", "t", 300 },
        { "{\"token\":\"\",\"access_token\":\"a\",\"expires_in\":0}", "a", 60 },
        { "{\"token\":\"t\",\"expires_in\":\"many\"}", "t", 60 },
        { "{\"token\":\"t\",\"expires_in\":99999999999}", "t", 24 * 3600 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(auth_token_done) AuthToken t = { 0 };
        ASSERT_OK(parse(&t, cases[i].text, NULL));
        ASSERT_STREQ(t.token, cases[i].token);
        ASSERT_EQ(t.lifetime_usec, cases[i].seconds * USEC_PER_SEC);
    }
}

TEST(auth_tokens_refused) {
    static const char *const cases[] = {
        "",
        "[]",
        "{}",
        "{\"token\":7}",
        "{\"token\":\"\"}",
        "{\"token\":\"secret\\r\\nX: y\"}",
        "{\"token\":\"secret\\u007f\"}",
        "{\"token\":\"secret\"",
        "{\"token\":\"secret\"}x",
        "{\"token\":\"secret\",\"token\":\"b\"}",
    };
    size_t big = LIMIT_TOKEN_BYTES + 1;
    _cleanup_free_ char *text = xcalloc(big, 1);
    AuthToken t = { 0 };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Err err = { 0 };
        ASSERT_ERR(parse(&t, cases[i], &err), -EPROTO);
        ASSERT_TRUE(err.text[0] && !strstr(err.text, "secret"));
    }
    ASSERT_ERR(auth_token_parse(&t, text, big, NULL), -EPROTO);
}

TEST(auth_headers) {
    _cleanup_free_ char *basic = auth_basic_header("user", "pass"),
                        *bearer = auth_bearer_header("abc");

    ASSERT_STREQ(basic, "Authorization: Basic dXNlcjpwYXNz");
    ASSERT_STREQ(bearer, "Authorization: Bearer abc");
    ASSERT_TRUE(!auth_basic_header("a:b", "c") && !auth_basic_header("a\n", "c") &&
                !auth_basic_header("a", "c\r"));
    ASSERT_TRUE(!auth_bearer_header("a\nb") && !auth_bearer_header("a\x7f"));
}

TEST(auth_urls) {
    _cleanup_free_ char *plain = auth_token_url("https://h/t", "a b&c", "repository:x/y:pull");
    _cleanup_free_ char *more = auth_token_url("https://h/t?z=1", NULL, "x");
    _cleanup_free_ char *form = auth_token_form(NULL, "s", "a+b/=");

    ASSERT_STREQ(plain, "https://h/t?service=a%20b%26c&scope=repository%3Ax%2Fy%3Apull");
    ASSERT_STREQ(more, "https://h/t?z=1&scope=x");
    ASSERT_STREQ(form, "grant_type=refresh_token&client_id=modelcached&service=&scope=s&refresh_"
                       "token=a%2Bb%2F%3D");
}
