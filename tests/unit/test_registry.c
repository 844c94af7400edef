/* SPDX-License-Identifier: Apache-2.0 */
/* test_registry: the registry client against a server that plays registry, token server and
 * storage. */
#include "oci/registry.h"

#include "base/parse.h"
#include "tests/unit/http_server.h"

#define BLOB "0123456789"

/* What the server does, and its other half (a second origin). */
typedef struct Play {
    bool basic, bearer;     /* what it asks for */
    int expires_in;         /* of its tokens; 0: says nothing */
    const char *realm_path; /* NULL: /token */
    const char *access;     /* "access_token" or NULL: "token" */
    Server *other;          /* redirects lead there */
    int tokens;             /* how many were given out */
    int first_token_bad;    /* the first n tokens are refused */
    const char *answer;     /* to everything but tokens: a whole answer */
    const char *post;       /* answer to a POST for a token */
    useconds_t wait_usec;   /* before the answer */
} Play;

static bool authorized(const Play *play, const char *auth) {
    const char *number = startswith(auth, "Bearer token-");

    if (play->basic)
        return streq(auth, "Basic dXNlcjpwYXNz"); /* user:pass */
    if (play->bearer)
        return number && atoi(number) > play->first_token_bad;
    return true;
}

static void give_token(ServerConn *c, const ServerRequest *q, Play *play) {
    char body[256], more[64] = "";

    if (q->method[0] == 'P' && play->post) {
        server_write(c, play->post, strlen(play->post));
        return;
    }
    if (play->expires_in)
        (void)snprintf(more, sizeof(more), ",\"expires_in\":%d", play->expires_in);
    (void)snprintf(body, sizeof(body), "{\"%s\":\"token-%d\"%s}",
                   play->access ? play->access : "token", ++play->tokens, more);
    server_reply(c, 200, "Content-Type: application/json\r\n", body);
}

static void challenge(ServerConn *c, const Play *play) {
    char header[512];

    if (play->basic)
        (void)snprintf(header, sizeof(header), "WWW-Authenticate: Basic realm=\"x\"\r\n");
    else
        (void)snprintf(header, sizeof(header),
                       "WWW-Authenticate: Negotiate\r\nwww-authenticate: BEARER "
                       "realm=\"http://127.0.0.1:%u%s\",service=\"a "
                       "b\",scope=\"repository:team/model:pull,push\"\r\n",
                       c->server->port, play->realm_path ? play->realm_path : "/token");
    server_reply(
        c, 401, header,
        "{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"authentication\\nrequired\"}]}");
}

static void serve_content(ServerConn *c, const ServerRequest *q, Play *play) {
    char header[256];

    if (strstr(q->path, "/manifests/tag"))
        server_reply(c, 200, "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", "{}");
    else if (strstr(q->path, "/manifests/sha256:44136fa3"))
        server_reply(c, 200, "", "{}");
    else if (strstr(q->path, "/manifests/sha256:"))
        server_reply(c, 200, "", "{ }");
    else if (strstr(q->path, "/manifests/gone"))
        server_reply(
            c, 404, "",
            "{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}");
    else if (strstr(q->path, "/blobs/sha256:") && play->other) {
        (void)snprintf(header, sizeof(header),
                       "Location: http://127.0.0.1:%u/storage?signature=secret\r\n",
                       play->other->port);
        server_reply(c, 307, header, "see there");
    } else
        server_reply(c, 200, "", BLOB);
}

static void handler(ServerConn *c, const ServerRequest *q, void *arg) {
    char auth[1024];
    Play *play = arg;

    (void)usleep(play->wait_usec);
    if (startswith(q->path, "/token"))
        give_token(c, q, play);
    else if (play->answer)
        server_write(c, play->answer, strlen(play->answer));
    else if (!authorized(play, server_header(q, "Authorization", auth, sizeof(auth))))
        challenge(c, play);
    else
        serve_content(c, q, play);
}

typedef struct Seen {
    RegistryRequest *q;
    Registry **registry;
    char body[64], type[80];
    size_t n;
    int done, r, pauses;
    enum { NORMAL, PAUSES, FREES_REQUEST, FREES_REGISTRY, FREES_REGISTRY_AT_THE_END } mode;
    Err err;
    uint64_t begin, end, retry_usec; /* of a range */
    uint64_t answer_usec;
    bool probe, whole;
    const char *etag;
} Seen;

static void on_end(Seen *s, int r, const Err *err) {
    ASSERT_TRUE(!s->done);
    s->done = 1;
    s->retry_usec = registry_request_retry_usec(s->q);
    s->r = r;
    s->err = *err;
    registry_request_free(s->q); /* does nothing here */
    if (s->mode == FREES_REGISTRY_AT_THE_END)
        *s->registry = registry_free(*s->registry);
}

static void on_doc(void *arg, int r, const Err *err, const RegistryDoc *doc) {
    Seen *s = arg;

    if (r >= 0) {
        s->n = MIN(doc->n, sizeof(s->body) - 1);
        memcpy(s->body, doc->data, s->n);
        (void)snprintf(s->type, sizeof(s->type), "%s", doc->content_type ? doc->content_type : "");
        s->answer_usec = doc->answer_usec;
    }
    on_end(s, r, err);
}

static int on_data(void *arg, const uint8_t *data, size_t n) {
    Seen *s = arg;

    if (s->mode == PAUSES && s->pauses++ == 0)
        return 1;
    if (s->mode == FREES_REQUEST || s->mode == FREES_REGISTRY) {
        s->done = 1;
        if (s->mode == FREES_REQUEST)
            registry_request_free(s->q);
        else
            *s->registry = registry_free(*s->registry);
        return 0;
    }
    ASSERT_TRUE(s->n + n < sizeof(s->body));
    memcpy(s->body + s->n, data, n);
    s->n += n;
    return 0;
}

static void on_head(void *arg, const RegistryBlobHead *head) {
    ((Seen *)arg)->whole = head->whole;
    ((Seen *)arg)->answer_usec = head->answer_usec;
}

static void on_blob(void *arg, int r, const Err *err) {
    on_end(arg, r, err);
}

typedef struct Fixture {
    Play play, other_play;
    sd_event *event;
    Server *server, *other;
    Registry *registry;
    CredentialList credentials;
} Fixture;

static void fixture_done(Fixture *f) {
    registry_free(f->registry);
    if (f->server)
        server_free(f->server);
    if (f->other)
        server_free(f->other);
    credential_list_done(&f->credentials);
    sd_event_unref(f->event);
}

static void fixture_registry(Fixture *f, RegistryOptions options) {
    _cleanup_free_ char *host = xasprintf("127.0.0.1:%u", f->server->port);

    f->registry = registry_free(f->registry);
    options.event = f->event;
    options.host = options.registry = host;
    options.repository = "team/model";
    options.plain_http = true;
    options.trust = trust_new();
    options.stall_seconds = 1;
    if (f->credentials.n > 0)
        options.credential = &f->credentials.items[0];
    ASSERT_OK(registry_new(&f->registry, &options, NULL));
}

static void fixture_init(Fixture *f, Play play, const char *username) {
    *f = (Fixture){ .play = play };
    f->server = server_new(handler, &f->play, false);
    f->other = server_new(handler, &f->other_play, false);
    if (username)
        ASSERT_OK(credential_add(&f->credentials, "127.0.0.1", username, "pass", NULL));
    ASSERT_OK(sd_event_new(&f->event));
    fixture_registry(f, (RegistryOptions){ 0 });
}

static void start_manifest(Fixture *f, Seen *s, const char *tag) {
    s->registry = &f->registry;
    ASSERT_OK(registry_get_manifest(f->registry, &s->q, tag, on_doc, s));
}

static void get_manifest(Fixture *f, Seen *s, const char *tag) {
    start_manifest(f, s, tag);
    run_until(f->event, &s->done, 1);
}

static void start_blob(Fixture *f, Seen *s, uint64_t size) {
    Digest d;

    s->registry = &f->registry;
    digest_of(&d, BLOB, strlen(BLOB));
    ASSERT_OK(registry_get_blob(
        f->registry, &s->q,
        &(RegistryBlob){ .digest = d,
                         .size = size,
                         .begin = s->begin,
                         .end = s->end ? s->end : size,
                         .probe = s->probe,
                         .etag = s->etag },
        &(RegistryBlobHandlers){
            .on_data = on_data, .on_done = on_blob, .on_head = on_head, .arg = s }));
}

static void get_blob(Fixture *f, Seen *s, uint64_t size) {
    start_blob(f, s, size);
    run_until(f->event, &s->done, 1);
}

#define EMPTY "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
#define OTHER "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

TEST(registry_anonymous) {
    _cleanup_(fixture_done) Fixture f;
    Seen tag = { 0 }, digest = { 0 }, wrong = { 0 }, blob = { 0 };

    fixture_init(&f, (Play){ 0 }, NULL);
    get_manifest(&f, &tag, "tag");
    ASSERT_EQ(tag.r, 0);
    ASSERT_STREQ(tag.body, "{}");
    ASSERT_STREQ(tag.type, "application/vnd.oci.image.manifest.v1+json");
    get_manifest(&f, &digest, EMPTY);
    ASSERT_EQ(digest.r, 0);
    get_manifest(&f, &wrong, OTHER);
    ASSERT_EQ(wrong.r, -EBADMSG);
    ASSERT_STRSTR(wrong.err.text,
                  "/v2/team/model/manifests/" OTHER ": what came has the digest sha256:");
    get_blob(&f, &blob, 10);
    ASSERT_EQ(blob.r, 0);
    ASSERT_STREQ(blob.body, BLOB);
}

TEST(registry_basic) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { 0 }, again = { 0 };
    _cleanup_free_ char *log = NULL;

    fixture_init(&f, (Play){ .basic = true }, "user");
    get_manifest(&f, &s, "tag");
    ASSERT_EQ(s.r, 0);
    get_blob(&f, &again, 10);
    ASSERT_EQ(again.r, 0);
    log = server_log(f.server);
    /* Not before it was asked for, then always. */
    ASSERT_TRUE(startswith(
        log,
        "GET /v2/team/model/manifests/tag \nGET /v2/team/model/manifests/tag Basic dXNlcjpwYXNz\n"
        "GET /v2/team/model/blobs/sha256:"));
}

TEST(registry_refused_credentials) {
    static const Play plays[] = { { .basic = true }, { .bearer = true, .first_token_bad = 100 } };
    static const char *const users[] = { NULL, "wrong" };

    for (size_t i = 0; i < 4; i++) {
        _cleanup_(fixture_done) Fixture f;
        Seen s = { 0 };
        fixture_init(&f, plays[i / 2], users[i % 2]);
        get_manifest(&f, &s, "tag");
        ASSERT_EQ(s.r, -EKEYREJECTED);
        ASSERT_STRSTR(s.err.text, "401 Unauthorized (UNAUTHORIZED: authentication required): the "
                                  "credentials are missing or "
                                  "not good for this repository");
        ASSERT_TRUE(f.play.tokens <= 1);
    }
}

TEST(registry_bearer) {
    static const struct {
        Play play;
        const char *user, *token_request;
    } cases[] = {
        { { .bearer = true },
          NULL,
          "GET /token?service=a%20b&scope=repository%3Ateam%2Fmodel%3Apull \n" },
        { { .bearer = true, .access = "access_token", .expires_in = 300 },
          "user",
          "GET /token?service=a%20b&scope=repository%3Ateam%2Fmodel%3Apull Basic dXNlcjpwYXNz\n" },
        { { .bearer = true, .realm_path = "/token?x=1" },
          NULL,
          "GET /token?x=1&service=a%20b&scope=repository%3Ateam%2Fmodel%3Apull \n" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(fixture_done) Fixture f;
        _cleanup_free_ char *log = NULL;
        Seen s = { 0 }, again = { 0 };
        fixture_init(&f, cases[i].play, cases[i].user);
        get_manifest(&f, &s, "tag");
        ASSERT_EQ(s.r, 0);
        get_blob(&f, &again, 10);
        ASSERT_EQ(again.r, 0);
        log = server_log(f.server);
        ASSERT_STRSTR(log, cases[i].token_request);
        ASSERT_STRSTR(log, "manifests/tag Bearer token-1\n");
        ASSERT_EQ(f.play.tokens, 1);
    }
}

TEST(registry_one_token_for_many_requests) {
    _cleanup_(fixture_done) Fixture f;
    Seen s[20] = { 0 };

    fixture_init(&f, (Play){ .bearer = true }, "user");
    for (size_t i = 0; i < ELEMENTSOF(s); i++)
        start_blob(&f, &s[i], 10);
    for (size_t i = 0; i < ELEMENTSOF(s); i++) {
        run_until(f.event, &s[i].done, 1);
        ASSERT_EQ(s[i].r, 0);
        ASSERT_STREQ(s[i].body, BLOB);
    }
    ASSERT_EQ(f.play.tokens, 1);
}

TEST(registry_renews_tokens) {
    _cleanup_(fixture_done) Fixture f;
    Seen first = { 0 }, second = { 0 }, third = { 0 };

    fixture_init(&f, (Play){ .bearer = true, .expires_in = 1 }, NULL);
    get_blob(&f, &first, 10);
    (void)usleep(800 * 1000); /* a quarter before its end */
    get_blob(&f, &second, 10);
    ASSERT_EQ(second.r, 0);
    ASSERT_EQ(f.play.tokens, 2);
    f.play.expires_in = 300;
    f.play.first_token_bad = 2; /* the registry has forgotten it early */
    get_blob(&f, &third, 10);
    ASSERT_EQ(third.r, 0);
    ASSERT_EQ(f.play.tokens, 3);
}

TEST(registry_identity_token) {
    static const struct {
        const char *post, *log;
    } cases[] = {
        { NULL, "POST /token \nGET /v2/team/model/manifests/tag Bearer token-1\n" },
        { "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
          "POST /token \nGET /token?service=a%20b&scope=repository%3Ateam%2Fmodel%3Apull Basic "
          "dXNlcjpyZWZyZXNo\n" },
        { "HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n", "Basic dXNlcjpyZWZyZXNo\n" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(fixture_done) Fixture f;
        _cleanup_free_ char *log = NULL;
        Seen s = { 0 };
        fixture_init(&f, (Play){ .bearer = true, .post = cases[i].post }, "user");
        f.credentials.items[0].identity_token = xstrdup("refresh");
        xfree_and_strdup(&f.credentials.items[0].password, "");
        fixture_registry(&f, (RegistryOptions){ 0 });
        get_manifest(&f, &s, "tag");
        ASSERT_EQ(s.r, 0);
        log = server_log(f.server);
        ASSERT_STRSTR(log, cases[i].log);
        ASSERT_TRUE(!strstr(log, "=refresh")); /* not in a URL */
    }
}

TEST(registry_given_token) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { 0 }, refused = { 0 };

    fixture_init(&f, (Play){ .bearer = true }, "user");
    f.credentials.items[0].registry_token = xstrdup("token-7");
    fixture_registry(&f, (RegistryOptions){ 0 });
    get_manifest(&f, &s, "tag");
    ASSERT_EQ(s.r, 0);
    ASSERT_EQ(f.play.tokens, 0);
    f.play.first_token_bad = 100;
    get_manifest(&f, &refused, "tag");
    ASSERT_EQ(refused.r, -EKEYREJECTED);
    ASSERT_EQ(f.play.tokens, 0);
}

TEST(registry_redirects_carry_no_credentials) {
    static const Play plays[] = { { .basic = true }, { .bearer = true } };

    for (size_t i = 0; i < ELEMENTSOF(plays); i++) {
        _cleanup_(fixture_done) Fixture f;
        _cleanup_free_ char *log = NULL;
        Seen s = { 0 };
        fixture_init(&f, plays[i], "user");
        f.play.other = f.other;
        get_blob(&f, &s, 10);
        ASSERT_EQ(s.r, 0);
        ASSERT_STREQ(s.body, BLOB);
        log = server_log(f.other);
        ASSERT_STREQ(log, "GET /storage?signature=secret \n");
    }
}

TEST(registry_a_foreign_challenge_gets_nothing) {
    _cleanup_(fixture_done) Fixture f;
    _cleanup_free_ char *log = NULL;
    Seen s = { 0 };

    fixture_init(&f, (Play){ 0 }, "user");
    f.play.other = f.other;
    f.other_play.basic = true;
    get_blob(&f, &s, 10);
    ASSERT_EQ(s.r, -EKEYREJECTED);
    ASSERT_TRUE(!strstr(s.err.text, "secret")); /* of the query */
    log = server_log(f.other);
    ASSERT_STREQ(log, "GET /storage?signature=secret \n");
}

#define ANSWER(status, headers, body) "HTTP/1.1 " status " X\r\n" headers "\r\n" body
#define LENGTH(n)                     "Content-Length: " n "\r\n"

TEST(registry_errors) {
    static const struct {
        int r;
        const char *answer, *sentence;
    } cases[] = {
        { -EKEYREJECTED, ANSWER("401", LENGTH("0"), ""), "401 Unauthorized: the credentials" },
        { -EACCES, ANSWER("403", LENGTH("2"), "{}"), "403 Forbidden; these" },
        { -ENOENT, ANSWER("404", LENGTH("4"), "nope"),
          "404 Not Found; check the repository and tag" },
        { -ECONNREFUSED, ANSWER("408", LENGTH("0"), ""), "408" },
        { -ECONNREFUSED, ANSWER("429", LENGTH("0") "Retry-After: 17\r\n", ""), "wait for 17 s" },
        { -ECONNREFUSED, ANSWER("500", LENGTH("0"), ""), "500 Internal Server Error" },
        { -ECONNREFUSED, ANSWER("503", LENGTH("0"), ""), "503" },
        { -ECONNREFUSED, ANSWER("599", LENGTH("0"), ""), "599" },
        { -EPROTO, ANSWER("418", LENGTH("0"), ""), "418" },
        { -EPROTO, ANSWER("204", "", ""), "204" },
        { -EPROTO, ANSWER("206", LENGTH("10"), BLOB), "206" },
        { -EPROTO, ANSWER("304", "", ""), "304" },
        { -EPROTO, ANSWER("302", LENGTH("0"), ""), "302" }, /* without Location */
        { -EPROTO, ANSWER("302", LENGTH("0") "Location: /\r\n", ""), "more than 10 redirects" },
        { -EPROTO, ANSWER("302", LENGTH("0") "Location: ftp://x/\r\n", ""), "scheme" },
        { -EPROTO, ANSWER("302", LENGTH("0") "Location: file:///etc/passwd\r\n", ""),
          "redirect (302)" },
        { -EPROTO, ANSWER("302", LENGTH("0") "Location: http://u:p@x/\r\n", ""), "user name" },
        { -EPROTO, ANSWER("302", LENGTH("0") "Location: http://a b/\r\n", ""), "blank" },
        { -EPROTO, ANSWER("200", LENGTH("10") "Content-Encoding: gzip\r\n", BLOB),
          "Content-Encoding" },
        { -EBADMSG, ANSWER("200", LENGTH("11"), BLOB "x"), "has 11 bytes, the manifest says 10" },
        { -EBADMSG, ANSWER("200", LENGTH("9"), "012345678"), "has 9 bytes" },
        { -EBADMSG,
          ANSWER("200", "Transfer-Encoding: chunked\r\n", "b\r\n01234567890\r\n0\r\n\r\n"),
          "longer than the 10" },
        { -ECONNRESET, ANSWER("200", "Transfer-Encoding: chunked\r\n", "2\r\n01\r\n0\r\n\r\n"),
          "2 of 10 bytes" },
        { -ETIMEDOUT, ANSWER("200", LENGTH("10"), "01234"), "" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(fixture_done) Fixture f;
        Seen s = { 0 };
        fixture_init(&f, (Play){ .answer = cases[i].answer }, NULL);
        get_blob(&f, &s, 10);
        if (s.r != cases[i].r)
            test_fail(__FILE__, __LINE__, "%s: %d %s", cases[i].answer, s.r, s.err.text);
        ASSERT_STRSTR(s.err.text, "GET http://127.0.0.1:");
        ASSERT_STRSTR(s.err.text, cases[i].sentence);
    }
}

TEST(registry_says_what_the_registry_says) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { 0 };

    fixture_init(&f, (Play){ 0 }, NULL);
    get_manifest(&f, &s, "gone");
    ASSERT_EQ(s.r, -ENOENT);
    ASSERT_STRSTR(s.err.text, "/v2/team/model/manifests/gone: 404 Not Found (MANIFEST_UNKNOWN: "
                              "manifest unknown); check the "
                              "repository and tag");
}

TEST(registry_refused_connection) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { 0 };

    fixture_init(&f, (Play){ 0 }, NULL);
    f.server = server_free(f.server);
    get_blob(&f, &s, 10);
    ASSERT_EQ(s.r, -ECONNREFUSED);
}

TEST(registry_limits_documents) {
    _cleanup_(fixture_done) Fixture f;
    size_t big = (4 << 20) + 1;
    char *answer = xcalloc(big + 100, 1);
    int n = sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", big);
    Seen s = { 0 }, error = { 0 };

    memset(answer + n, ' ', big);
    fixture_init(&f, (Play){ .answer = answer }, NULL);
    get_manifest(&f, &s, "tag");
    ASSERT_EQ(s.r, -E2BIG);
    ASSERT_STRSTR(s.err.text, "larger than 4194304 bytes");
    memcpy(answer + 9, "404", 3); /* of an error the beginning is enough */
    get_manifest(&f, &error, "tag");
    ASSERT_EQ(error.r, -ENOENT);
    fixture_done(&f);
    f = (Fixture){ 0 };
    free(answer);
}

TEST(registry_token_server_errors) {
    static const struct {
        const char *realm, *sentence;
    } cases[] = {
        { "http://127.0.0.1:1/token", "" },
        { "ftp://127.0.0.1/token", "scheme" },
        { "token", "" },
        { "http://u:p@127.0.0.1/", "user name" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(fixture_done) Fixture f;
        _cleanup_free_ char *answer = xasprintf(
            "HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm=\"%s\"\r\nContent-Length: 0\r\n"
            "\r\n",
            cases[i].realm);
        Seen s[2] = { 0 };
        fixture_init(&f, (Play){ .answer = answer }, "user");
        start_blob(&f, &s[0], 10);
        start_blob(&f, &s[1], 10);
        run_until(f.event, &s[0].done, 1);
        run_until(f.event, &s[1].done, 1);
        ASSERT_TRUE(s[0].r < 0 && s[1].r < 0);
        ASSERT_STRSTR(s[0].err.text, cases[i].sentence);
        fixture_done(&f);
        f = (Fixture){ 0 };
    }
}

TEST(registry_pause_and_cancel) {
    _cleanup_(fixture_done) Fixture f;
    Seen paused = { .mode = PAUSES }, cancelled = { 0 }, in_data = { .mode = FREES_REQUEST },
         last = { 0 };

    fixture_init(&f, (Play){ 0 }, NULL);
    start_blob(&f, &paused, 10);
    start_blob(&f, &cancelled, 10);
    registry_request_free(cancelled.q);
    get_blob(&f, &in_data, 10);
    run_until(f.event, &paused.pauses, 1);
    ASSERT_EQ(paused.done, 0);
    registry_request_resume(paused.q);
    run_until(f.event, &paused.done, 1);
    ASSERT_EQ(paused.r, 0);
    ASSERT_STREQ(paused.body, BLOB);
    get_blob(&f, &last, 10);
    ASSERT_EQ(last.r, 0);
    ASSERT_EQ(cancelled.done, 0);
}

TEST(registry_may_be_freed_anywhere) {
    for (int mode = FREES_REGISTRY; mode <= FREES_REGISTRY_AT_THE_END; mode++) {
        _cleanup_(fixture_done) Fixture f;
        Seen s = { .mode = mode }, other = { .mode = PAUSES }, third = { 0 };
        fixture_init(&f, (Play){ 0 }, NULL);
        start_blob(&f, &other, 10);
        run_until(f.event, &other.pauses, 1);
        get_blob(&f, &s, 10);
        ASSERT_TRUE(!f.registry);
        for (int i = 0; i < 3; i++)
            ASSERT_OK(sd_event_run(f.event, 0));
        ASSERT_TRUE(!other.done && !third.done);
    }
}

TEST(registry_refuses_bad_arguments) {
    _cleanup_(fixture_done) Fixture f;
    _cleanup_(registry_freep) Registry *r = NULL;
    Seen s = { 0 };
    Err err = { 0 };

    fixture_init(&f, (Play){ 0 }, NULL);
    ASSERT_ERR(registry_get_manifest(f.registry, &s.q, "a b", on_doc, &s), -EINVAL);
    ASSERT_ERR(registry_get_manifest(f.registry, &s.q, "../x", on_doc, &s), -EINVAL);
    ASSERT_ERR(registry_get_manifest(f.registry, &s.q, "a\r\nb", on_doc, &s), -EINVAL);
    ASSERT_ERR(
        registry_new(&r,
                     &(RegistryOptions){
                         .event = f.event, .host = "a b", .registry = "a b", .repository = "x" },
                     &err),
        -EINVAL);
    ASSERT_STRSTR(err.text, "a b");
}

#define PARTIAL "HTTP/1.1 206 X\r\nContent-Length: 3\r\nContent-Range: "

/* Bytes 2 to 4 of 10 are asked for, with the ETag "a" from before. */
TEST(registry_ranges) {
    static const struct {
        const char *answer;
        int r;
    } cases[] = {
        { PARTIAL "bytes 2-4/10\r\nETag: \"a\"\r\n\r\n234", 0 },
        { PARTIAL "bytes 2-4/*\r\n\r\n234", 0 },
        { PARTIAL "bytes 2-4/11\r\n\r\n234", REGISTRY_RANGE_WRONG },
        { PARTIAL "bytes 1-3/10\r\n\r\n123", REGISTRY_RANGE_WRONG },
        { PARTIAL "bytes 2-5/10\r\n\r\n234", REGISTRY_RANGE_WRONG },
        { PARTIAL "nonsense\r\n\r\n234", REGISTRY_RANGE_WRONG },
        { PARTIAL "bytes 2-4/10\r\nETag: \"b\"\r\n\r\n234", REGISTRY_RANGE_CHANGED },
        { PARTIAL "bytes 2-4/10\r\nContent-Encoding: br\r\n\r\n234", REGISTRY_RANGE_IGNORED },
        { "HTTP/1.1 206 X\r\nContent-Length: 3\r\n\r\n234", REGISTRY_RANGE_WRONG },
        { "HTTP/1.1 206 X\r\nContent-Length: 4\r\nContent-Range: bytes 2-4/10\r\n\r\n2345",
          REGISTRY_RANGE_WRONG },
        { "HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\n" BLOB, REGISTRY_RANGE_IGNORED },
        { "HTTP/1.1 200 X\r\nETag: \"b\"\r\nContent-Length: 10\r\n\r\n" BLOB,
          REGISTRY_RANGE_CHANGED },
        { "HTTP/1.1 416 X\r\nContent-Length: 0\r\n\r\n", REGISTRY_RANGE_REFUSED },
        { "HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", -ECONNREFUSED },
    };

    for (size_t i = 0; i < 2 * ELEMENTSOF(cases); i++) {
        _cleanup_(fixture_done) Fixture f;
        bool later = i >= ELEMENTSOF(cases); /* the ETag is told behind the request */
        size_t c = i % ELEMENTSOF(cases);
        Seen s = { .begin = 2, .end = 5, .etag = later ? NULL : "\"a\"" };

        fixture_init(&f, (Play){ .answer = cases[c].answer }, NULL);
        start_blob(&f, &s, 10);
        if (later)
            registry_request_expect(s.q, "\"a\"");
        run_until(f.event, &s.done, 1);
        if (s.r != cases[c].r)
            test_fail(__FILE__, __LINE__, "%zu: %d: %s", i, s.r, s.err.text);
        ASSERT_STREQ(s.body, s.r < 0 ? "" : "234");
        ASSERT_EQ(s.retry_usec, s.r == -ECONNREFUSED ? 7 * USEC_PER_SEC : 0);
    }
}

TEST(registry_a_probe_takes_all_of_the_blob_too) {
    _cleanup_(fixture_done) Fixture f;
    Seen s = { .end = 5, .probe = true };

    fixture_init(&f, (Play){ 0 }, NULL);
    get_blob(&f, &s, 10);
    ASSERT_EQ(s.r, 0);
    ASSERT_TRUE(s.whole);
    ASSERT_STREQ(s.body, BLOB);
}

TEST(registry_tells_how_long_an_answer_takes) {
    for (useconds_t wait = 0; wait <= 30000; wait += 30000) {
        _cleanup_(fixture_done) Fixture f;
        Seen manifest = { 0 }, blob = { 0 };

        fixture_init(&f, (Play){ .wait_usec = wait }, NULL);
        get_manifest(&f, &manifest, "v1");
        get_blob(&f, &blob, 10);
        ASSERT_TRUE(manifest.answer_usec > wait);
        ASSERT_TRUE(blob.answer_usec > wait);
    }
}
