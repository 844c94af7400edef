/* SPDX-License-Identifier: Apache-2.0 */
/* test_exchange: redirects: which are followed, and what goes along. */
#include "oci/exchange.h"

#include "tests/unit/http_server.h"

/* /to?URL redirects there; /loop?N redirects N times; all else is answered. */
static void handler(ServerConn *c, const ServerRequest *q, _unused_ void *arg) {
    char header[8192], auth[100];
    const char *query = strchr(q->path, '?');

    if (startswith(q->path, "/to?"))
        (void)snprintf(header, sizeof(header), "Location: %s\r\n", query + 1);
    else if (startswith(q->path, "/loop?") && atoi(query + 1) > 0)
        (void)snprintf(header, sizeof(header), "Location: /loop?%d\r\n", atoi(query + 1) - 1);
    else {
        server_reply(c, 200, "", server_header(q, "Authorization", auth, sizeof(auth)));
        return;
    }
    server_reply(c, 307, header, "body of the redirect");
}

typedef struct Seen {
    Exchange *x;
    int done, r;
    Err err;
    char body[200];
    unsigned status;
} Seen;

static void on_done(void *arg, int r, const Err *err) {
    Seen *s = arg;

    s->done = 1;
    s->r = r;
    s->err = *err;
    if (r >= 0) {
        s->status = exchange_status(s->x);
        (void)snprintf(s->body, sizeof(s->body), "%.*s", (int)exchange_body(s->x)->len,
                       (const char *)exchange_body(s->x)->data);
    }
    s->x = exchange_free(s->x);
}

typedef struct Fixture {
    sd_event *event;
    Server *server, *other;
    Http *http;
    Origin *home;
    ExchangePolicy policy;
} Fixture;

static void fixture_done(Fixture *f) {
    http_free(f->http);
    server_free(f->server);
    server_free(f->other);
    origin_free(f->home);
    sd_event_unref(f->event);
}

/* `home` NULL: the server. */
static void fixture_init(Fixture *f, bool tls, bool other_tls, const char *home) {
    _cleanup_free_ char *url = NULL, *cas = NULL;

    *f = (Fixture){ .server = server_new(handler, NULL, tls),
                    .other = server_new(handler, NULL, other_tls) };
    url =
        home ? xstrdup(home) : xasprintf("http%s://127.0.0.1:%u/", tls ? "s" : "", f->server->port);
    cas = xasprintf("%s%s", f->server->ca_pem ?: "", f->other->ca_pem ?: "");
    ASSERT_OK(sd_event_new(&f->event));
    ASSERT_OK(http_new(
        &f->http, &(HttpOptions){ .event = f->event, .trust = trust_of(cas), .stall_seconds = 2 },
        NULL));
    ASSERT_OK(origin_parse(&f->home, NULL, url, NULL));
    f->policy.home = f->home;
}

static char *url_of(const Server *s, const char *path) {
    return xasprintf("http%s://127.0.0.1:%u%s", s->tls ? "s" : "", s->port, path);
}

/* Asks for `url` and waits; an error at the start counts as an answer. */
static void ask(Fixture *f, Seen *s, const char *url, const char *form) {
    _cleanup_(origin_freep) Origin *o = NULL;
    int r;

    ASSERT_OK(origin_parse(&o, NULL, url, NULL));
    r = exchange_start(&s->x,
                       &(ExchangeOptions){ .http = f->http,
                                           .policy = &f->policy,
                                           .url = o,
                                           .authorization = "Authorization: mine",
                                           .form = form,
                                           .max_body = 100,
                                           .handlers = { .on_done = on_done, .arg = s } },
                       &s->err);
    if (r < 0)
        s->r = r;
    else
        run_until(f->event, &s->done, 1);
}

TEST(exchange_follows_redirects) {
    _cleanup_(fixture_done) Fixture f;
    _cleanup_free_ char *same = NULL, *ten = NULL, *eleven = NULL, *form = NULL;
    Seen s[4] = { 0 };

    fixture_init(&f, false, false, NULL);
    same = url_of(f.server, "/to?/there?x");
    ask(&f, &s[0], same, NULL);
    ASSERT_EQ(s[0].r, 0);
    ASSERT_STREQ(s[0].body, "mine");
    ten = url_of(f.server, "/loop?10");
    ask(&f, &s[1], ten, NULL);
    ASSERT_EQ(s[1].r, 0);
    eleven = url_of(f.server, "/loop?11");
    ask(&f, &s[2], eleven, NULL);
    ASSERT_EQ(s[2].r, -EPROTO);
    ASSERT_STRSTR(s[2].err.text, "more than 10 redirects");
    form = url_of(f.server, "/to?/there");
    ask(&f, &s[3], form, "secret=1");
    ASSERT_EQ(s[3].r, -EPROTO);
    ASSERT_STRSTR(s[3].err.text, "POST http://127.0.0.1");
    ASSERT_STRSTR(s[3].err.text, "was redirected");
}

TEST(exchange_authorization_stays_at_its_origin) {
    _cleanup_(fixture_done) Fixture f;
    _cleanup_free_ char *there = NULL, *back = NULL, *path = NULL, *log = NULL;
    Seen away = { 0 }, round = { 0 };

    fixture_init(&f, false, false, NULL);
    path = xasprintf("/to?http://127.0.0.1:%u/x", f.other->port); /* another port */
    there = url_of(f.server, path);
    ask(&f, &away, there, NULL);
    ASSERT_EQ(away.r, 0);
    ASSERT_STREQ(away.body, "");
    back = xasprintf("http://127.0.0.1:%u/to?http://127.0.0.1:%u/to?http://127.0.0.1:%u/z",
                     f.server->port, f.other->port, f.server->port);
    ask(&f, &round, back, NULL);
    ASSERT_EQ(round.r, 0);
    ASSERT_STREQ(round.body, "mine");
    log = server_log(f.other);
    ASSERT_TRUE(!strstr(log, "mine"));
}

TEST(exchange_never_goes_from_https_to_http) {
    _cleanup_(fixture_done) Fixture f;
    _cleanup_free_ char *path = NULL, *url = NULL, *log = NULL;
    Seen s = { 0 };

    fixture_init(&f, true, false, NULL);
    path = xasprintf("/to?http://127.0.0.1:%u/x?signature=secret", f.other->port);
    url = url_of(f.server, path);
    ask(&f, &s, url, NULL);
    ASSERT_EQ(s.r, -EPROTO);
    ASSERT_STRSTR(s.err.text, "from https to http");
    ASSERT_TRUE(!strstr(s.err.text, "secret"));
    log = server_log(f.other);
    ASSERT_STREQ(log, "");
}

TEST(exchange_tls_and_skip_verify_are_for_home_alone) {
    _cleanup_(fixture_done) Fixture f, g;
    _cleanup_free_ char *path = NULL, *url = NULL;
    Seen good = { 0 }, bad = { 0 };

    fixture_init(&f, true, true, NULL);
    path = xasprintf("/to?https://127.0.0.1:%u/x", f.other->port);
    url = url_of(f.server, path);
    ask(&f, &good, url, NULL);
    ASSERT_EQ(good.r, 0);
    ASSERT_STREQ(good.body, "");
    fixture_init(&g, true, true, NULL);
    g.policy.skip_verify = true;
    http_free(g.http); /* one that trusts nobody of these */
    ASSERT_OK(http_new(
        &g.http, &(HttpOptions){ .event = g.event, .trust = trust_of(f.server->ca_pem) }, NULL));
    free(path);
    path = xasprintf("/to?https://127.0.0.1:%u/x", g.other->port);
    free(url);
    url = url_of(g.server, path);
    ask(&g, &bad, url, NULL);
    ASSERT_EQ(bad.r, -EPROTO);
    ASSERT_STRSTR(bad.err.text, "ca_file");
}

TEST(exchange_a_public_registry_does_not_lead_inside) {
    static const char *const hosts[] = { "127.0.0.1", "localhost", "[::1]", "2130706433" };

    for (size_t i = 0; i < ELEMENTSOF(hosts); i++) {
        _cleanup_(fixture_done) Fixture f;
        _cleanup_free_ char *url = NULL, *log = NULL;
        Seen refused = { 0 }, allowed = { 0 };
        fixture_init(&f, false, false, "http://registry.example/");
        url = xasprintf("http://%s:%u/x", hosts[i], f.other->port);
        ask(&f, &refused, url, NULL);
        ASSERT_EQ(refused.r, -EPROTO);
        ASSERT_STRSTR(refused.err.text, "private");
        log = server_log(f.other);
        ASSERT_STREQ(log, "");
        f.policy.allow_private = true; /* the local network, but not this node */
        ask(&f, &refused, url, NULL);
        ASSERT_EQ(refused.r, -EPROTO);
        ASSERT_STRSTR(refused.err.text, "this node");
        f.policy.home_kind = ADDRESS_LOOPBACK; /* a name that stands for this node */
        if (i > 1)
            continue;
        ask(&f, &allowed, url, NULL);
        ASSERT_EQ(allowed.r, 0);
    }
}

/* Nothing is there; what counts is that nobody is asked. */
TEST(exchange_nobody_leads_to_metadata_servers) {
    static const char *const hosts[] = {
        "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "0.0.0.0", "[::ffff:169.254.1.1]",
        "224.0.0.1",       "[::]"
    };

    for (size_t i = 0; i < ELEMENTSOF(hosts); i++) {
        _cleanup_(fixture_done) Fixture f;
        _cleanup_free_ char *path = xasprintf("/to?http://%s/latest/", hosts[i]), *url = NULL;
        Seen s = { 0 };

        fixture_init(&f, false, false, NULL); /* home on loopback */
        f.policy.allow_private = true;
        url = url_of(f.server, path);
        ask(&f, &s, url, NULL);
        ASSERT_EQ(s.r, -EPROTO);
        ASSERT_STRSTR(s.err.text, "must not lead");
    }
}

TEST(exchange_no_http_for_a_registry_with_tls) {
    _cleanup_(fixture_done) Fixture f;
    _cleanup_free_ char *url = NULL;
    Seen s = { 0 };

    fixture_init(&f, false, false, "https://registry.example/");
    url = url_of(f.other, "/x");
    ask(&f, &s, url, NULL);
    ASSERT_EQ(s.r, -EPROTO);
    ASSERT_STRSTR(s.err.text, "http is not allowed");
}
