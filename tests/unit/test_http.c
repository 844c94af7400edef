/* SPDX-License-Identifier: Apache-2.0 */
/* test_http: the HTTP client against a real server that answers well and badly. */
#include "oci/http.h"

#include "tests/unit/http_server.h"

#define BIG ((size_t)3 << 20)

/* What one transfer saw. */
typedef struct Seen {
    HttpTransfer *t;
    Http **http; /* to free in a callback */
    char body[256];
    size_t n;
    unsigned status;
    char type[64];
    int done, r;
    Err err;
    int pauses;
    enum { NORMAL, PAUSES, FAILS, FREES_ITSELF, FREES_HTTP, FREES_HTTP_AT_THE_END } mode;
} Seen;

static int on_head(void *arg, HttpTransfer *t) {
    Seen *s = arg;

    s->status = http_status(t);
    (void)snprintf(s->type, sizeof(s->type), "%s", http_header(t, "content-type", 0) ?: "");
    return 0;
}

static int on_data(void *arg, const uint8_t *data, size_t n) {
    Seen *s = arg;

    if (s->mode == PAUSES && s->pauses++ % 2 == 0) {
        if (s->pauses % 4 == 1)
            http_resume(s->t); /* before the pause itself */
        return 1;
    }
    if (s->mode == FAILS)
        return -ENOSPC;
    if (s->mode == FREES_ITSELF) {
        http_transfer_free(s->t);
        s->done = 1;
        return 0;
    }
    if (s->mode == FREES_HTTP) {
        *s->http = http_free(*s->http);
        s->done = 1;
        return 0;
    }
    if (s->n + n < sizeof(s->body))
        memcpy(s->body + s->n, data, n);
    s->n += n;
    return 0;
}

static void on_done(void *arg, HttpTransfer *t, int r, const Err *err) {
    Seen *s = arg;

    ASSERT_TRUE(t == s->t && !s->done);
    http_transfer_free(t); /* does nothing here */
    s->done = 1;
    s->r = r;
    s->err = *err;
    if (s->mode == FREES_HTTP_AT_THE_END)
        *s->http = http_free(*s->http);
}

static void handler(ServerConn *c, const ServerRequest *q, _unused_ void *arg) {
    char text[200];

    if (streq(q->path, "/ok")) {
        server_reply(c, 200, "Content-Type:  text/plain \r\nX: 1\r\nx: 2\r\n", "hello");
    } else if (streq(q->path, "/echo")) {
        server_reply(c, 200, "",
                     q->method[0] == 'P' ? q->body
                                         : server_header(q, "X-Test", text, sizeof(text)));
    } else if (streq(q->path, "/encoding")) {
        server_reply(c, 200, "", strcasestr(q->head, "accept-encoding") ? "asked" : "not asked");
    } else if (streq(q->path, "/early")) {
        server_printf(c, "HTTP/1.1 103 Early Hints\r\nContent-Type: a/b\r\n\r\n");
        server_reply(c, 200, "", "late");
    } else if (streq(q->path, "/redirect")) {
        server_reply(c, 302, "Location: /ok\r\n", "");
    } else if (streq(q->path, "/chunked")) {
        server_printf(
            c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    } else if (streq(q->path, "/big")) {
        char *big = xcalloc(BIG, 1);
        server_printf(c, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", BIG);
        server_write(c, big, BIG);
        free(big);
    } else if (streq(q->path, "/short")) {
        server_printf(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        c->end = true;
    } else if (streq(q->path, "/close")) {
        c->end = true;
    } else if (streq(q->path, "/garbage")) {
        server_printf(c, "I am no web server\r\n\r\n");
        c->end = true;
    } else if (streq(q->path, "/stall")) {
        server_printf(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    } else if (streq(q->path, "/many-headers")) {
        server_printf(c, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 100000 && !c->end; i++)
            server_printf(c, "X-%d: y\r\n", i);
        server_printf(c, "Content-Length: 0\r\n\r\n");
    } else if (startswith(q->path, "/long")) {
        int n = streq(q->path, "/longer-header") ? 2000 : 400;

        memset(text, 'x', sizeof(text));
        server_printf(c, "HTTP/1.1 200 OK\r\nX: ");
        for (int i = 0; i < n && !c->end; i++)
            server_write(c, text, sizeof(text));
        server_printf(c, "\r\nContent-Length: 0\r\n\r\n");
    }
}

typedef struct Fixture {
    sd_event *event;
    Server *server;
    Http *http;
} Fixture;

static void fixture_done(Fixture *f) {
    http_free(f->http);
    if (f->server)
        server_free(f->server);
    sd_event_unref(f->event);
}

static void fixture_init(Fixture *f, bool tls, const char *ca_pem) {
    *f = (Fixture){ 0 };
    f->server = server_new(handler, NULL, tls);
    ca_pem = ca_pem ? ca_pem : f->server->ca_pem;
    ASSERT_OK(sd_event_new(&f->event));
    ASSERT_OK(http_new(
        &f->http,
        &(HttpOptions){ .event = f->event, .trust = trust_of(ca_pem), .stall_seconds = 1 }, NULL));
}

static void start(Fixture *f, Seen *s, const char *path, HttpRequest q) {
    _cleanup_free_ char *text =
        path[0] == '/'
            ? xasprintf("http%s://127.0.0.1:%u%s", f->server->tls ? "s" : "", f->server->port, path)
            : xstrdup(path);
    _cleanup_(origin_freep) Origin *url = NULL;

    ASSERT_OK(origin_parse(&url, NULL, text, NULL));
    q.url = url;
    q.may_reach = ADDRESS_LOOPBACK;
    q.handlers = (HttpHandlers){ on_head, on_data, on_done, s };
    s->http = &f->http;
    ASSERT_OK(http_start(f->http, &s->t, &q, NULL));
    ASSERT_TRUE(!s->done);
}

static void get(Fixture *f, Seen *s, const char *path) {
    start(f, s, path, (HttpRequest){ 0 });
    run_until(f->event, &s->done, 1);
}

TEST(http_gets) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { 0 }, early = { 0 }, redirect = { 0 }, chunked = { 0 }, encoding = { 0 };

    fixture_init(&f, false, NULL);
    get(&f, &s, "/ok");
    ASSERT_EQ(s.r, 0);
    ASSERT_EQ(s.status, 200);
    ASSERT_STREQ(s.type, "text/plain");
    ASSERT_STREQ(s.body, "hello");
    get(&f, &early, "/early");
    ASSERT_STREQ(early.body, "late");
    ASSERT_STREQ(early.type, "");
    get(&f, &redirect, "/redirect");
    ASSERT_EQ(redirect.status, 302);
    get(&f, &chunked, "/chunked");
    ASSERT_STREQ(chunked.body, "hello");
    get(&f, &encoding, "/encoding");
    ASSERT_STREQ(encoding.body, "not asked");
}

TEST(http_sends_headers_and_forms) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { 0 }, form = { 0 };
    const char *headers[] = { "X-Test: y", NULL }, *bad[] = { "X: y\r\nZ: a", NULL };
    _cleanup_(origin_freep) Origin *url = NULL;
    HttpTransfer *t = NULL;

    fixture_init(&f, false, NULL);
    start(&f, &s, "/echo", (HttpRequest){ .headers = headers });
    run_until(f.event, &s.done, 1);
    ASSERT_STREQ(s.body, "y");
    start(&f, &form, "/echo", (HttpRequest){ .form = "a=b&c=d" });
    run_until(f.event, &form.done, 1);
    ASSERT_STREQ(form.body, "a=b&c=d");
    ASSERT_OK(origin_parse(&url, NULL, "http://localhost/", NULL));
    ASSERT_ERR(http_start(f.http, &t, &(HttpRequest){ .url = url, .headers = bad }, NULL), -EIO);
}

TEST(http_errors) {
    static const struct {
        const char *path;
        int r;
        const char *sentence;
    } cases[] = {
        { "/short", -ECONNRESET, "5 bytes" },
        { "/close", -ECONNRESET, "" },
        { "/garbage", -EPROTO, "HTTP/0.9" },
        { "/stall", -ETIMEDOUT, "" },
        { "/many-headers", -EPROTO, "256 lines" },
        { "/long-header", -EPROTO, "65536 bytes" },
        { "/longer-header", -EPROTO, "65536 bytes" }, /* libcurl has a limit of its own */
        { "http://127.0.0.1:1/", -ECONNREFUSED, "" },
        { "http://nothing.invalid/", -EHOSTUNREACH, "check the name" },
    };
    _cleanup_(fixture_done) Fixture f;

    fixture_init(&f, false, NULL);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Seen s = { 0 };
        get(&f, &s, cases[i].path);
        if (s.r != cases[i].r)
            test_fail(__FILE__, __LINE__, "%s: %d %s", cases[i].path, s.r, s.err.text);
        ASSERT_STRSTR(s.err.text, cases[i].sentence);
        ASSERT_TRUE(s.err.text[0]);
    }
}

TEST(http_pauses_and_resumes) {
    _cleanup_(fixture_done) Fixture f;
    Seen s[4] = { { .mode = PAUSES }, { .mode = PAUSES }, { 0 }, { .mode = PAUSES } };

    fixture_init(&f, false, NULL);
    for (size_t i = 0; i < ELEMENTSOF(s); i++)
        start(&f, &s[i], "/big", (HttpRequest){ 0 });
    for (int rounds = 0; !(s[0].done && s[1].done && s[2].done && s[3].done); rounds++) {
        ASSERT_TRUE(rounds < 1000000);
        ASSERT_OK(sd_event_run(f.event, USEC_PER_MSEC));
        for (size_t i = 0; i < ELEMENTSOF(s); i++)
            if (!s[i].done)
                http_resume(s[i].t); /* also those that are not paused */
    }
    for (size_t i = 0; i < ELEMENTSOF(s); i++) {
        ASSERT_EQ(s[i].r, 0);
        ASSERT_EQ(s[i].n, BIG);
    }
    ASSERT_TRUE(s[0].pauses > 10);
}

TEST(http_a_paused_transfer_does_not_stall) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { .mode = PAUSES, .pauses = 2 }; /* the first pause is without a resume */
    uint64_t end;

    fixture_init(&f, false, NULL);
    start(&f, &s, "/big", (HttpRequest){ 0 });
    end = now_usec() + 2500 * USEC_PER_MSEC; /* longer than the limit for stalls */
    while (now_usec() < end)
        ASSERT_OK(sd_event_run(f.event, 50 * USEC_PER_MSEC));
    ASSERT_EQ(s.done, 0);
    ASSERT_EQ(s.pauses, 3);
    s.mode = NORMAL;
    http_resume(s.t);
    run_until(f.event, &s.done, 1);
    ASSERT_EQ(s.r, 0);
    ASSERT_EQ(s.n, BIG);
}

TEST(http_ends_when_asked) {
    _cleanup_(fixture_done) Fixture f;
    Seen fails = { .mode = FAILS }, itself = { .mode = FREES_ITSELF }, before = { 0 },
         meanwhile = { 0 }, ok = { 0 };

    fixture_init(&f, false, NULL);
    get(&f, &fails, "/big");
    ASSERT_EQ(fails.r, -ENOSPC);
    get(&f, &itself, "/big");
    ASSERT_EQ(itself.r, 0);
    start(&f, &before, "/ok", (HttpRequest){ 0 });
    http_transfer_free(before.t);
    start(&f, &meanwhile, "/stall", (HttpRequest){ 0 });
    while (meanwhile.n == 0)
        ASSERT_OK(sd_event_run(f.event, 50 * USEC_PER_MSEC));
    http_transfer_free(meanwhile.t);
    get(&f, &ok, "/ok");
    ASSERT_EQ(ok.r, 0);
    ASSERT_TRUE(!before.done && !meanwhile.done);
}

TEST(http_may_be_freed_anywhere) {
    for (int mode = FREES_HTTP; mode <= FREES_HTTP_AT_THE_END; mode++) {
        _cleanup_(fixture_done) Fixture f;
        Seen s = { .mode = mode }, other = { 0 };

        fixture_init(&f, false, NULL);
        start(&f, &other, "/stall", (HttpRequest){ 0 });
        get(&f, &s, mode == FREES_HTTP ? "/big" : "/ok");
        for (int i = 0; i < 3; i++)
            ASSERT_OK(sd_event_run(f.event, 0));
        ASSERT_TRUE(!f.http);
        ASSERT_TRUE(!other.done);
    }
}

TEST(http_does_not_connect_to_private_addresses) {
    static const char *const hosts[] = { "127.0.0.1", "localhost" };

    for (size_t i = 0; i < ELEMENTSOF(hosts); i++) {
        _cleanup_(fixture_done) Fixture f;
        _cleanup_(origin_freep) Origin *url = NULL;
        _cleanup_free_ char *text = NULL, *log = NULL;
        Seen s = { 0 };
        fixture_init(&f, false, NULL);
        text = xasprintf("http://%s:%u/ok", hosts[i], f.server->port);
        ASSERT_OK(origin_parse(&url, NULL, text, NULL));
        ASSERT_OK(http_start(
            f.http, &s.t,
            &(HttpRequest){ .url = url, .handlers = { on_head, on_data, on_done, &s } }, NULL));
        run_until(f.event, &s.done, 1);
        ASSERT_EQ(s.r, -EPROTO);
        ASSERT_STRSTR(s.err.text, "private");
        log = server_log(f.server);
        ASSERT_STREQ(log, "");
    }
}

TEST(http_verifies_tls) {
    _cleanup_(fixture_done) Fixture trusting, doubting;
    Seen good = { 0 }, bad = { 0 }, skipped = { 0 }, plain = { 0 };
    _cleanup_free_ char *url = NULL;

    fixture_init(&trusting, true, NULL);
    get(&trusting, &good, "/ok");
    ASSERT_EQ(good.r, 0);
    ASSERT_STREQ(good.body, "hello");
    fixture_init(&doubting, true,
                 trusting.server->ca_pem); /* another certificate of the same name */
    get(&doubting, &bad, "/ok");
    ASSERT_EQ(bad.r, -EPROTO);
    ASSERT_STRSTR(bad.err.text, "ca_file");
    start(&doubting, &skipped, "/ok", (HttpRequest){ .skip_verify = true });
    run_until(doubting.event, &skipped.done, 1);
    ASSERT_EQ(skipped.r, 0);
    url = xasprintf("http://127.0.0.1:%u/ok", trusting.server->port); /* http to a TLS port */
    start(&trusting, &plain, url, (HttpRequest){ 0 });
    run_until(trusting.event, &plain.done, 1);
    ASSERT_TRUE(plain.r < 0);
}

TEST(http_https_to_a_plain_port_says_what_to_do) {
    _cleanup_(fixture_done) Fixture f;
    _cleanup_free_ char *url = NULL;
    Seen s = { 0 };

    fixture_init(&f, false, NULL);
    url = xasprintf("https://127.0.0.1:%u/garbage", f.server->port);
    start(&f, &s, url, (HttpRequest){ 0 });
    run_until(f.event, &s.done, 1);
    ASSERT_EQ(s.r, -EPROTO);
    ASSERT_STRSTR(s.err.text, "plain_http");
}
