/* SPDX-License-Identifier: Apache-2.0 */
/* test_token: scopes, and token servers that must not get credentials; the rest is in
 * test_registry. */
#include "oci/token.h"

#include "tests/unit/http_server.h"

TEST(token_scopes) {
    static const struct {
        const char *challenge, *scope;
    } cases[] = {
        { NULL, "repository:a/b:pull" },
        { "", "repository:a/b:pull" },
        { "repository:a/b:pull,push", "repository:a/b:pull" },
        { "repository:mirror/a/b:*", "repository:mirror/a/b:pull" },
        { "repository:h:5000/a:push", "repository:h:5000/a:pull" },
        { "repository:", "repository:a/b:pull" },
        { "repository:a:pull repository:b:push", "repository:a/b:pull" },
        { "aws", "aws" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_free_ char *scope = token_scope(cases[i].challenge, "a/b");
        ASSERT_STREQ(scope, cases[i].scope);
    }
}

static void handler(ServerConn *c, const ServerRequest *q, _unused_ void *arg) {
    if (startswith(q->path, "/gone"))
        server_reply(c, 404, "", "");
    else if (startswith(q->path, "/no"))
        server_reply(c, 401, "", "{\"details\":\"wrong password\"}");
    else if (startswith(q->path, "/busy"))
        server_reply(c, 503, "Retry-After: 9\r\n", "");
    else if (startswith(q->path, "/junk"))
        server_reply(c, 200, "", "<html>");
    else
        server_reply(c, 200, "", "{\"token\":\"t\"}");
}

typedef struct Seen {
    TokenRequest *q;
    int done, r;
    uint64_t retry_usec;
    Err err;
} Seen;

static void on_done(void *arg, int r, const Err *err, const AuthToken *token) {
    Seen *s = arg;

    s->done = 1;
    s->r = r;
    s->err = *err;
    s->retry_usec = token_request_retry_usec(s->q);
    ASSERT_EQ(r >= 0, token != NULL);
    s->q = token_request_free(s->q);
}

/* Asks the server's `path` as the token server of `home`, and waits. */
static char *ask(Seen *s, const char *home, const char *path, bool refresh) {
    Server *server = server_new(handler, NULL, false);
    _cleanup_free_ char *realm = startswith(path, "/")
                                     ? xasprintf("http://127.0.0.1:%u%s", server->port, path)
                                     : xstrdup(path);
    Credential c = { .username = (char[]){ "user" }, .password = (char[]){ "pass" } };
    _cleanup_(origin_freep) Origin *origin = NULL;
    _cleanup_event_ sd_event *event = NULL;
    _cleanup_(http_freep) Http *http = NULL;
    ExchangePolicy policy = { .allow_private = true, .home_kind = ADDRESS_LOOPBACK };
    char *log;

    if (refresh)
        c.identity_token = (char[]){ "refresh" };
    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(http_new(&http, &(HttpOptions){ .event = event, .trust = trust_new() }, NULL));
    ASSERT_OK(origin_parse(&origin, NULL, home, NULL));
    policy.home = origin;
    s->r = token_request_new(
        &s->q,
        &(TokenOptions){ .http = http,
                         .policy = &policy,
                         .challenge = &(AuthChallenge){ .scheme = AUTH_BEARER, .realm = realm },
                         .repository = "a/b",
                         .credential = &c,
                         .done = on_done,
                         .arg = s },
        &s->err);
    if (s->r >= 0)
        run_until(event, &s->done, 1);
    log = server_log(server);
    server_free(server);
    return log;
}

TEST(token_credentials_go_to_the_registrys_own_server_only) {
    _cleanup_free_ char *own = NULL, *foreign = NULL, *refresh = NULL;
    Seen s[3] = { 0 };

    own = ask(&s[0], "http://127.0.0.1:5000/", "/t", false);
    ASSERT_EQ(s[0].r, 0);
    ASSERT_STREQ(own, "GET /t?scope=repository%3Aa%2Fb%3Apull Basic dXNlcjpwYXNz\n");
    foreign = ask(&s[1], "http://registry.example/", "/t", false);
    ASSERT_EQ(s[1].r, 0);
    ASSERT_STREQ(foreign, "GET /t?scope=repository%3Aa%2Fb%3Apull \n");
    refresh = ask(&s[2], "http://registry.example/", "/t", true);
    ASSERT_STREQ(refresh, "GET /t?scope=repository%3Aa%2Fb%3Apull \n");
}

TEST(token_errors) {
    static const struct {
        const char *home, *realm;
        int r;
        const char *sentence;
    } cases[] = {
        { "https://registry.example/", "/t", -EPROTO, "without TLS" },
        { "http://127.0.0.1/", "ftp://127.0.0.1/", -EPROTO, "scheme" },
        { "http://127.0.0.1/", "not a url", -EPROTO, "blank" },
        { "http://127.0.0.1/", "/gone", -EPROTO, "there is no token server" },
        { "http://127.0.0.1/", "/no", -EKEYREJECTED, "wrong password" },
        { "http://127.0.0.1/", "/busy", -ECONNREFUSED, "503" },
        { "http://127.0.0.1/", "/junk", -EPROTO, "JSON" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Seen s = { 0 };
        _cleanup_free_ char *log = ask(&s, cases[i].home, cases[i].realm, false);
        ASSERT_EQ(s.r, cases[i].r);
        ASSERT_STRSTR(s.err.text, cases[i].sentence);
        ASSERT_TRUE(!strstr(s.err.text, "scope")); /* no query */
        ASSERT_EQ(s.retry_usec, s.r == -ECONNREFUSED ? 9 * USEC_PER_SEC : 0);
    }
}
