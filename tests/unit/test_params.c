/* SPDX-License-Identifier: Apache-2.0 */
/* test_params: volume attributes and secrets, good and hostile. */
#include "csi/params.h"

#include "base/limits.h"
#include "tests/unit/test.h"

#define DIGEST_TEXT "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define MANY        8

typedef struct Case {
    KeyValue in[MANY];
    const char *error; /* part of the sentence; NULL: fine */
    const char *text;  /* params_text() */
} Case;

static size_t count(const KeyValue *in) {
    size_t n = 0;

    while (n < MANY && in[n].key)
        n++;
    return n;
}

static const Case cases[] = {
    { { { "reference", "r.example/team/model:v1" } },
      NULL,
      "reference=r.example/team/model:v1\nplatform=\npolicy=0\nsubPath=\nexec=0\n" },
    { { { "image", "r.example/m@" DIGEST_TEXT } },
      NULL,
      "reference=r.example/m@" DIGEST_TEXT "\nplatform=\npolicy=0\nsubPath=\nexec=0\n" },
    { { { "reference", "busybox" }, { "image", "busybox" }, { "pullPolicy", "Always" } },
      NULL,
      "reference=docker.io/library/busybox:latest\nplatform=\npolicy=1\nsubPath=\nexec=0\n" },
    { { { "reference", "a.b/c:d" },
        { "subPath", "weights/fp8" },
        { "noexec", "false" },
        { "platform", "linux/arm64" },
        { "pullPolicy", "Never" },
        { "csi.storage.k8s.io/serviceAccount.tokens", "{\"\":{\"token\":\"secret\"}}" },
        { "csi.storage.k8s.io/ephemeral", "true" } },
      NULL,
      "reference=a.b/c:d\nplatform=linux/arm64\npolicy=3\nsubPath=weights/fp8\nexec=1\n" },
    { { { "reference", "a.b/c:d" }, { "subPath", "" }, { "noexec", "true" }, { "platform", "" } },
      NULL,
      "reference=a.b/c:d\nplatform=\npolicy=0\nsubPath=\nexec=0\n" },
    { { { NULL, NULL } }, "reference is missing", NULL },
    { { { "reference", "" } }, "reference is missing", NULL },
    { { { "reference", "a.b/c:d" }, { "image", "a.b/c:e" } }, "differ", NULL },
    { { { "reference", "a.b/c:d" }, { "reference", "a.b/c:d" } }, "twice", NULL },
    { { { "reference", "a.b/../c:d" } }, "volume attribute reference", NULL },
    { { { "reference", "a.b/c:d\n" } }, "control character", NULL },
    { { { "reference", "a.b/c:d" }, { "pullPolicy", "always" } }, "IfNotPresent", NULL },
    { { { "reference", "a.b/c:d" }, { "platform", "linux" } }, "platform", NULL },
    { { { "reference", "a.b/c:d" }, { "include", "b.json\n a/\n" }, { "exclude", "*.md,/x" } },
      NULL,
      "reference=a.b/c:d\nplatform=\npolicy=0\nsubPath=\nexec=0\n"
      "include=a,b.json\nexclude=*.md,/x\n" },
    { { { "reference", "a.b/c:d" }, { "include", "" }, { "exclude", "\n" } },
      NULL,
      "reference=a.b/c:d\nplatform=\npolicy=0\nsubPath=\nexec=0\n" },
    { { { "reference", "a.b/c:d" }, { "include", "a\033" } }, "control character", NULL },
    { { { "reference", "a.b/c:d" }, { "exclude", "a//b" } }, "exclude", NULL },
    { { { "reference", "a.b/c:d" }, { "subPath", "a\nb" } }, "control character", NULL },
    { { { "reference", "a.b/c:d" }, { "timeout", "10m" } },
      NULL,
      "reference=a.b/c:d\nplatform=\npolicy=0\nsubPath=\nexec=0\n" },
    { { { "reference", "a.b/c:d" }, { "timeout", "900ms" } }, "from 1s to 24h", NULL },
    { { { "reference", "a.b/c:d" }, { "timeout", "25h" } }, "from 1s to 24h", NULL },
    { { { "reference", "a.b/c:d" }, { "timeout", "ten" } }, "from 1s to 24h", NULL },
    { { { "reference", "a.b/c:d" }, { "warm", "true" } },
      NULL,
      "reference=a.b/c:d\nplatform=\npolicy=0\nsubPath=\nexec=0\n" },
    { { { "reference", "a.b/c:d" }, { "warm", "1" } }, "warm is \"1\"", NULL },
    { { { "reference", "a.b/c:d" }, { "noexec", "yes" } }, "\"true\" or \"false\"", NULL },
    { { { "reference", "a.b/c:d" }, { "refrence", "x" } }, "known are reference", NULL },
    { { { "reference", "a.b/c:d" }, { "warmer", "true" } }, "\"warmer\" is not known", NULL },
    { { { "reference", "a.b/c:d" }, { "x\ny", "true" } }, "\"?\" is not known", NULL },
    { { { "reference", "a.b/c:d" }, { "subPath", "../x" } }, "subPath", NULL },
    { { { "reference", "a.b/c:d" }, { "subPath", "/etc" } }, "subPath", NULL },
    { { { "reference", "a.b/c:d" }, { "subPath", "a/./b" } }, "subPath", NULL },
    { { { "reference", "a.b/c:d" }, { "subPath", "a//b" } }, "subPath", NULL },
    { { { "reference", "a.b/c:d" }, { "subPath", "a/" } }, "subPath", NULL },
    { { { "reference", "a.b/c:d" }, { "subPath", ".." } }, "subPath", NULL },
};

TEST(params_parse_table) {
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(params_done) Params p = { 0 };
        Err err;
        int r = params_parse(&p, cases[i].in, count(cases[i].in), &err);

        if (cases[i].error) {
            ASSERT_ERR(r, -EINVAL);
            ASSERT_STRSTR(err.text, cases[i].error);
        } else {
            _cleanup_free_ char *text = NULL;

            ASSERT_OK(r);
            text = params_text(&p);
            ASSERT_STREQ(text, cases[i].text);
        }
    }
}

TEST(params_keep_the_pod) {
    static const KeyValue in[] = {
        { "reference", "a.b/c:d" },
        { "csi.storage.k8s.io/pod.name", "web-0" },
        { "csi.storage.k8s.io/pod.namespace", "prod" },
        { "csi.storage.k8s.io/pod.uid", "1234" },
    };
    _cleanup_(params_done) Params p = { 0 };
    Err err;

    ASSERT_OK(params_parse(&p, in, ELEMENTSOF(in), &err));
    ASSERT_STREQ(p.pod_name, "web-0");
    ASSERT_STREQ(p.pod_namespace, "prod");
    ASSERT_STREQ(p.pod_uid, "1234");
}

TEST(params_cap_the_names_of_the_pod) {
    static const char *const keys[] = { "csi.storage.k8s.io/pod.name",
                                        "csi.storage.k8s.io/pod.namespace",
                                        "csi.storage.k8s.io/pod.uid" };
    char name[LIMIT_POD_NAME_BYTES + 2] = "";

    for (size_t i = 0; i < ELEMENTSOF(keys); i++)
        for (size_t more = 0; more < 2; more++) {
            const KeyValue in[] = { { "reference", "a.b/c:d" }, { keys[i], name } };
            _cleanup_(params_done) Params p = { 0 };
            Err err;

            memset(name, 'x', LIMIT_POD_NAME_BYTES + more);
            name[LIMIT_POD_NAME_BYTES + more] = 0;
            ASSERT_EQ(params_parse(&p, in, ELEMENTSOF(in), &err), more ? -EINVAL : 0);
            if (more)
                ASSERT_STRSTR(err.text, "has more than 253 bytes");
        }
}

TEST(pull_policies) {
    PullPolicy p;
    Err err;

    ASSERT_OK(pull_policy_parse(&p, NULL, &err));
    ASSERT_EQ(p, PULL_POLICY_DEFAULT);
    ASSERT_OK(pull_policy_parse(&p, "IfNotPresent", &err));
    ASSERT_EQ(p, PULL_POLICY_IF_NOT_PRESENT);
    ASSERT_ERR(pull_policy_parse(&p, "Sometimes", &err), -EINVAL);
    ASSERT_STRSTR(err.text, "Always, IfNotPresent, Never");
}

#define AUTHS "{\"auths\":{\"r.example\":{\"username\":\"u\",\"password\":\"hunter2\"}}}"

static const struct {
    KeyValue in[MANY];
    int want;
    const char *error;
    size_t n;
} secrets[] = {
    { { { NULL, NULL } }, 0, NULL, 0 },
    { { { ".dockerconfigjson", AUTHS } }, 0, NULL, 1 },
    { { { ".dockercfg", "{\"r.example\":{\"username\":\"u\",\"password\":\"hunter2\"}}" } },
      0,
      NULL,
      1 },
    { { { "username", "u" }, { "password", "hunter2" } }, 0, NULL, 1 },
    { { { "username", "u" }, { "password", "hunter2" }, { ".dockerconfigjson", AUTHS } },
      0,
      NULL,
      2 },
    { { { "csi.storage.k8s.io/serviceAccount.tokens", "hunter2" } }, 0, NULL, 0 },
    { { { "username", "u" } }, -EINVAL, "no password", 0 },
    { { { "password", "hunter2" } }, -EINVAL, "no username", 0 },
    { { { "token", "hunter2" } }, -EINVAL, "known are .dockerconfigjson", 0 },
    { { { "tok en", "hunter2" } }, -EINVAL, "\"?\"", 0 },
    { { { ".dockerconfigjson", "{\"auths\":hunter2" } }, -EINVAL, ".dockerconfigjson", 0 },
    { { { "username", "u:v" }, { "password", "hunter2" } }, -EINVAL, "secret", 0 },
};

TEST(params_parse_secrets_table) {
    _cleanup_(reference_freep) Reference *ref = NULL;
    Err err;

    ASSERT_OK(reference_parse(&ref, "r.example/team/model:v1", &err));
    for (size_t i = 0; i < ELEMENTSOF(secrets); i++) {
        _cleanup_(credential_list_done) CredentialList l = { 0 };
        int r = params_parse_secrets(&l, ref, secrets[i].in, count(secrets[i].in), &err);

        ASSERT_EQ(r, secrets[i].want);
        ASSERT_EQ(l.n, secrets[i].n);
        if (r < 0) {
            ASSERT_STRSTR(err.text, secrets[i].error);
            ASSERT_TRUE(!strstr(err.text, "hunter2"));
        } else if (l.n > 0) {
            ASSERT_TRUE(credential_find(&l, "r.example", "team/model"));
            ASSERT_TRUE(!credential_find(&l, "other.example", "team/model"));
        }
    }
}

TEST(params_parse_secrets_has_a_cap) {
    _cleanup_(reference_freep) Reference *ref = NULL;
    _cleanup_free_ char *big = xnew_n(char, LIMIT_CREDENTIALS_BYTES + 1);
    CredentialList l = { 0 };
    Err err;

    memset(big, 'x', LIMIT_CREDENTIALS_BYTES);
    ASSERT_OK(reference_parse(&ref, "r.example/m", &err));
    ASSERT_ERR(params_parse_secrets(&l, ref, &(KeyValue){ "password", big }, 1, &err), -E2BIG);
}
