/* SPDX-License-Identifier: Apache-2.0 */
/* test_ref: references and platforms as people write them. */
#include "oci/ref.h"

#include "tests/unit/test.h"

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct {
    const char *text, *normal, *api_host;
} good[] = {
    { "busybox", "docker.io/library/busybox:latest", "registry-1.docker.io" },
    { "team/llama", "docker.io/team/llama:latest", "registry-1.docker.io" },
    { "docker.io/busybox:1.36", "docker.io/library/busybox:1.36", "registry-1.docker.io" },
    { "index.docker.io/library/busybox", "docker.io/library/busybox:latest",
      "registry-1.docker.io" },
    { "localhost/a", "localhost/a:latest", "localhost" },
    { "localhost:5000/a/b:v1", "localhost:5000/a/b:v1", "localhost:5000" },
    { "127.0.0.1:5000/x", "127.0.0.1:5000/x:latest", "127.0.0.1:5000" },
    { "[::1]:5000/x:y", "[::1]:5000/x:y", "[::1]:5000" },
    { "[2001:db8::1]/x", "[2001:db8::1]/x:latest", "[2001:db8::1]" },
    { "Registry.Example/x", "registry.example/x:latest", "registry.example" },
    { "registry.example/a__b/c.d/e---f:_x.y-Z", "registry.example/a__b/c.d/e---f:_x.y-Z",
      "registry.example" },
    { "r.example/a@sha256:" HEX, "r.example/a@sha256:" HEX, "r.example" },
    { "r.example/a:v1@sha256:" HEX, "r.example/a@sha256:" HEX, "r.example" },
    { "r.example:443/a:v1", "r.example:443/a:v1", "r.example:443" },
};

TEST(reference_normalises) {
    for (size_t i = 0; i < ELEMENTSOF(good); i++) {
        _cleanup_(reference_freep) Reference *r = NULL;
        _cleanup_free_ char *text = NULL;
        Err err = { 0 };
        ASSERT_OK(reference_parse(&r, good[i].text, &err));
        text = reference_text(r);
        ASSERT_STREQ(text, good[i].normal);
        ASSERT_STREQ(reference_api_host(r), good[i].api_host);
    }
}

TEST(reference_normal_form_is_stable) {
    for (size_t i = 0; i < ELEMENTSOF(good); i++) {
        _cleanup_(reference_freep) Reference *r = NULL;
        _cleanup_free_ char *text = NULL;
        ASSERT_OK(reference_parse(&r, good[i].normal, NULL));
        text = reference_text(r);
        ASSERT_STREQ(text, good[i].normal);
    }
}

TEST(reference_keeps_its_parts) {
    _cleanup_(reference_freep) Reference *r = NULL, *latest = NULL, *by_digest = NULL;

    ASSERT_OK(reference_parse(&r, "host.example:5000/a/b:v1@sha256:" HEX, NULL));
    ASSERT_STREQ(r->registry, "host.example:5000");
    ASSERT_STREQ(r->repository, "a/b");
    ASSERT_STREQ(r->tag, "v1");
    ASSERT_TRUE(r->has_digest);
    ASSERT_TRUE(!reference_is_latest(r));
    ASSERT_OK(reference_parse(&latest, "a", NULL));
    ASSERT_TRUE(reference_is_latest(latest));
    ASSERT_OK(reference_parse(&by_digest, "a@sha256:" HEX, NULL));
    ASSERT_TRUE(!by_digest->tag);
    ASSERT_TRUE(!reference_is_latest(by_digest));
}

static const struct {
    const char *text, *sentence;
} bad[] = {
    { "", "empty" },
    { "https://r.example/a", "scheme" },
    { "r.example/", "not a repository" },
    { "/a", "not a repository" },
    { "r.example//a", "not a repository" },
    { "r.example/a/", "not a repository" },
    { "r.example/A", "not a repository" },
    { "a b", "blank" },
    { "a\nb", "blank" },
    { "a\xc3\xa4", "ASCII" },
    { "r.example/a..b", "not a repository" },
    { "r.example/a___b", "not a repository" },
    { "r.example/-a", "not a repository" },
    { "r.example/../a", "not a repository" },
    { "a:", "tag" },
    { "a:.x", "tag" },
    { "a:b:c", "not a repository" },
    { "a:x@y", "digest" },
    { "a@sha256:" HEX "0", "digest" },
    { "a@sha256:ABCDEF", "digest" },
    { "a@sha512:" HEX HEX, "sha512" },
    { "r.example:0/a", "host" },
    { "r.example:65536/a", "host" },
    { "r.example:x/a", "host" },
    { "-r.example/a", "host" },
    { "r-.example/a", "host" },
    { "r..example/a", "host" },
    { "u:p@r.example/a", "digest" },
    { "[::1/a", "host" },
    { "[]/a", "host" },
};

TEST(reference_refuses_with_a_sentence) {
    for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
        _cleanup_(reference_freep) Reference *r = NULL;
        Err err = { 0 };
        if (reference_parse(&r, bad[i].text, &err) != -EINVAL)
            test_fail(__FILE__, __LINE__, "\"%s\" was not refused", bad[i].text);
        ASSERT_TRUE(!r);
        ASSERT_STRSTR(err.text, bad[i].sentence);
    }
}

TEST(reference_has_length_limits) {
    _cleanup_(reference_freep) Reference *r = NULL;
    char text[2000];

    memset(text, 'a', sizeof(text));
    text[255] = 0;
    ASSERT_ERR(reference_parse(&r, text, NULL), -EINVAL); /* with library/ it is longer than 255 */
    text[200] = 0;
    ASSERT_OK(reference_parse(&r, text, NULL));
    text[200] = 'a';
    text[1500] = 0;
    ASSERT_ERR(reference_parse(&r, text, NULL), -EINVAL);
    text[1] = ':';
    text[2 + 129] = 0;
    ASSERT_ERR(reference_parse(&r, text, NULL), -EINVAL);
}

TEST(platform_parses) {
    static const struct {
        const char *text, *normal;
    } cases[] = {
        { "linux/amd64", "linux/amd64" },       { "linux/x86_64", "linux/amd64" },
        { "linux/aarch64", "linux/arm64" },     { "linux/arm/v7", "linux/arm/v7" },
        { "linux/arm64/v8", "linux/arm64/v8" }, { "linux/armhf", "linux/arm/v7" },
    };
    static const char *const refused[] = {
        "",        "linux",        "linux/",
        "/amd64",  "linux/amd64/", "linux/amd64/v2/x",
        "Linux/a", "linux/a b",    "a/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
    };
    Platform p;

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        ASSERT_OK(platform_parse(&p, cases[i].text, NULL));
        ASSERT_STREQ(platform_text((char[PLATFORM_TEXT_MAX]){ "" }, &p), cases[i].normal);
    }
    for (size_t i = 0; i < ELEMENTSOF(refused); i++) {
        Err err = { 0 };
        ASSERT_ERR(platform_parse(&p, refused[i], &err), -EINVAL);
        ASSERT_STRSTR(err.text, "linux/amd64");
    }
}

TEST(reference_origin_is_the_same_for_tags_and_digests) {
    static const char *const texts[] = {
        "busybox", "docker.io/library/busybox:1",
        "busybox@sha256:00000000000000000000000000000000000000000000"
        "00000000000000000001"
    };

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        _cleanup_(reference_freep) Reference *r = NULL;
        _cleanup_free_ char *origin = NULL;
        Err err;

        ASSERT_OK(reference_parse(&r, texts[i], &err));
        origin = reference_origin(r);
        ASSERT_STREQ(origin, "docker.io/library/busybox");
    }
}

TEST(platform_of_node_is_a_platform) {
    Platform p, again;

    platform_of_node(&p);
    ASSERT_STREQ(p.os, "linux");
    ASSERT_OK(platform_parse(&again, platform_text((char[PLATFORM_TEXT_MAX]){ "" }, &p), NULL));
}
