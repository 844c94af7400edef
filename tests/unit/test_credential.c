/* SPDX-License-Identifier: Apache-2.0 */
/* test_credential: docker configs of many makers, matching, fingerprints. */
#include "oci/credential.h"

#include "base/parse.h"
#include "tests/unit/test.h"

static int parse(CredentialList *l, const char *text, Err *err) {
    return credential_parse_docker(l, text, strlen(text), err);
}

TEST(credential_reads_docker_configs) {
    /* Zm9vOmJhcg== is foo:bar */
    static const struct {
        const char *text, *registry, *repository, *username, *password;
    } cases[] = {
        { "{\"auths\":{\"r.example\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "r.example", "a", "foo",
          "bar" },
        { "{\"auths\":{\"r.example\":{\"auth\":\"Zm9vOmJhcg\"}}}", "r.example", "a", "foo", "bar" },
        { "{\"auths\":{\"https://r.example:5000/v2/\":{\"auth\":\"Zm9vOmJhcg==\"}}}",
          "r.example:5000", "a", "foo", "bar" },
        { "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "docker.io",
          "a/b", "foo", "bar" },
        { "{\"auths\":{\"docker.io\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "docker.io", "a/b", "foo",
          "bar" },
        { "{\"auths\":{\"R.Example\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "r.example", "a", "foo",
          "bar" },
        { "{\"r.example\":{\"auth\":\"Zm9vOmJhcg==\",\"email\":\"x@y\"}}", "r.example", "a", "foo",
          "bar" },
        { "{\"auths\":{\"r.example\":{\"username\":\"u\",\"password\":\"p:q\"}}}", "r.example", "a",
          "u", "p:q" },
        { "{\"auths\":{\"r.example\":{\"username\":\"u\",\"password\":\"p\",\"auth\":\"Zm9vOmJhcg=="
          "\"}}}",
          "r.example", "a", "foo", "bar" },
        { "{\"auths\":{\"r.example/team\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "r.example", "team/x",
          "foo", "bar" },
        { "{\"auths\":{\"r.example/team\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "r.example", "teams/x",
          NULL, NULL },
        { "{\"auths\":{\"r.example\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "r.example:5000", "a", NULL,
          NULL },
        { "{\"auths\":{\"r.example\":{}},\"credsStore\":\"x\"}", "r.example", "a", NULL, NULL },
        { "{\"auths\":{}}", "r.example", "a", NULL, NULL },
        { "{}", "r.example", "a", NULL, NULL },
        { "{\"credHelpers\":{\"r.example\":\"gcloud\"}}", "r.example", "a", NULL, NULL },
        { "{\"auths\":{\"not a host\":{\"auth\":\"Zm9vOmJhcg==\"}}}", "r.example", "a", NULL,
          NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(credential_list_done) CredentialList l = { 0 };
        const Credential *c;
        Err err = { 0 };
        ASSERT_OK(parse(&l, cases[i].text, &err));
        c = credential_find(&l, cases[i].registry, cases[i].repository);
        if (!cases[i].username) {
            ASSERT_TRUE(!c);
            continue;
        }
        ASSERT_TRUE(c);
        ASSERT_STREQ(c->username, cases[i].username);
        ASSERT_STREQ(c->password, cases[i].password);
    }
}

TEST(credential_reads_tokens) {
    _cleanup_(credential_list_done) CredentialList l = { 0 };
    const Credential *c;

    ASSERT_OK(parse(&l,
                    "{\"auths\":{\"a.example\":{\"identitytoken\":\"idt\"},\"b.example\":{"
                    "\"registrytoken\":\"rt\"}}}",
                    NULL));
    c = credential_find(&l, "a.example", "x");
    ASSERT_STREQ(c->identity_token, "idt");
    c = credential_find(&l, "b.example", "x");
    ASSERT_STREQ(c->registry_token, "rt");
}

TEST(credential_the_longest_path_wins) {
    _cleanup_(credential_list_done) CredentialList l = { 0 };

    ASSERT_OK(credential_add(&l, "r.example", "all", "p", NULL));
    ASSERT_OK(credential_add(&l, "r.example/a/b", "deep", "p", NULL));
    ASSERT_OK(credential_add(&l, "r.example/a", "team", "p", NULL));
    ASSERT_OK(credential_add(&l, "r.example", "second", "p", NULL));
    ASSERT_STREQ(credential_find(&l, "r.example", "x")->username, "all");
    ASSERT_STREQ(credential_find(&l, "r.example", "a/x")->username, "team");
    ASSERT_STREQ(credential_find(&l, "r.example", "a/b")->username, "deep");
    ASSERT_STREQ(credential_find(&l, "r.example", "a/b/c")->username, "deep");
    ASSERT_STREQ(credential_find(&l, "R.EXAMPLE", "x")->username, "all");
    ASSERT_TRUE(!credential_find(&l, "other.example", "x"));
}

TEST(credential_errors_never_quote_the_content) {
    static const char *const cases[] = {
        "",
        "[]",
        "{\"auths\":[]}",
        "{\"auths\":{\"r.example\":\"hunter2\"}}",
        "{\"auths\":{\"r.example\":{\"auth\":\"hunter2!\"}}}",
        "{\"auths\":{\"r.example\":{\"auth\":\"aHVudGVyMg==\"}}}", /* without ':' */
        "{\"auths\":{\"r.example\":{\"auth\":17}}}",
        "{\"auths\":{\"r.example\":{\"username\":\"u\",\"password\":\"hunter2\\n\"}}}",
        "{\"auths\":{\"r.example\":{\"identitytoken\":\"hunter2\\r\\nX: y\"}}}",
        "{\"auths\":{\"r.example\":{\"auth\":\"Zm9vOmIACg==\"}}}",
        "{\"auths\":{\"r.example\":{\"auth\":\"a\",\"auth\":\"hunter2\"}}}",
        "{\"auths\":{\"r.example\":{\"auth\":\"hunter2",
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(credential_list_done) CredentialList l = { 0 };
        Err err = { 0 };
        if (parse(&l, cases[i], &err) != -EPROTO)
            test_fail(__FILE__, __LINE__, "%s was not refused", cases[i]);
        ASSERT_TRUE(err.text[0] && !strstr(err.text, "hunter2"));
    }
}

TEST(credential_add_refuses) {
    _cleanup_(credential_list_done) CredentialList l = { 0 };
    Err err = { 0 };

    ASSERT_ERR(credential_add(&l, "r.example", "a:b", "p", &err), -EINVAL);
    ASSERT_STRSTR(err.text, "':'");
    ASSERT_ERR(credential_add(&l, "r.example", "a\n", "p", &err), -EINVAL);
    ASSERT_STRSTR(err.text, "control");
    ASSERT_ERR(credential_add(&l, "r.example", "a", "p\x7f", &err), -EINVAL);
    ASSERT_ERR(credential_add(&l, "r.example", "", "p", &err), -EINVAL);
    ASSERT_ERR(credential_add(&l, "r.example", "a", NULL, &err), -EINVAL);
    ASSERT_ERR(credential_add(&l, "r example", "a", "p", &err), -EINVAL);
    ASSERT_STRSTR(err.text, "host");
    ASSERT_EQ(l.n, 0);
}

TEST(credential_too_large) {
    _cleanup_(credential_list_done) CredentialList l = { 0 };
    _cleanup_free_ char *text = xcalloc(2 << 20, 1);

    memset(text, ' ', (2 << 20) - 1);
    ASSERT_ERR(parse(&l, text, NULL), -EPROTO);
}

TEST(credential_fingerprints_tell_apart) {
    _cleanup_(credential_list_done) CredentialList l = { 0 };
    uint8_t a[32], b[32], zero[32] = { 0 };

    ASSERT_OK(credential_add(&l, "r.example", "ab", "c", NULL));
    ASSERT_OK(credential_add(&l, "r.example", "a", "bc", NULL));
    ASSERT_OK(credential_add(&l, "s.example", "ab", "c", NULL));
    ASSERT_OK(credential_add(&l, "r.example", "ab", "c", NULL));
    credential_fingerprint(NULL, a);
    ASSERT_MEMEQ(a, zero, 32);
    credential_fingerprint(&l.items[0], a);
    credential_fingerprint(&l.items[1], b);
    ASSERT_NE(memcmp(a, b, 32), 0);
    credential_fingerprint(&l.items[2], b);
    ASSERT_NE(memcmp(a, b, 32), 0);
    credential_fingerprint(&l.items[3], b);
    ASSERT_MEMEQ(a, b, 32);
}
