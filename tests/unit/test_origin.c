/* SPDX-License-Identifier: Apache-2.0 */
/* test_origin: URLs, whose credentials may go where, and which addresses are not of the internet.
 */
#include "oci/origin.h"

#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static Origin *origin(const char *url) {
    Origin *o = NULL;
    Err err = { 0 };

    if (origin_parse(&o, NULL, url, &err) < 0)
        test_fail(__FILE__, __LINE__, "%s: %s", url, err.text);
    return o;
}

TEST(origin_parses_absolute_and_relative_urls) {
    static const struct {
        const char *base, *text, *url, *shown;
    } cases[] = {
        { NULL, "https://Host.Example/a/b?q=s#f", "https://Host.Example/a/b?q=s",
          "https://host.example/a/b" },
        { NULL, "http://h:5000/", "http://h:5000/", "http://h:5000/" },
        { NULL, "https://h:443", "https://h:443/", "https://h/" },
        { NULL, "https://[::1]:5000/x", "https://[::1]:5000/x", "https://[::1]:5000/x" },
        { "https://h/v2/a/blobs/x?y", "/c?d", "https://h/c?d", "https://h/c" },
        { "https://h/v2/a/blobs/x", "z", "https://h/v2/a/blobs/z", "https://h/v2/a/blobs/z" },
        { "https://h/v2/x", "//other/c", "https://other/c", "https://other/c" },
        { "https://h/v2/x", "http://other/c", "http://other/c", "http://other/c" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(origin_freep) Origin *base = cases[i].base ? origin(cases[i].base) : NULL,
                                       *o = NULL;
        ASSERT_OK(origin_parse(&o, base, cases[i].text, NULL));
        ASSERT_STREQ(o->url, cases[i].url);
        ASSERT_STREQ(o->shown, cases[i].shown);
    }
}

TEST(origin_refuses) {
    static const char *const texts[] = {
        "",
        "h",
        "/x",
        "ftp://h/",
        "file:///etc/passwd",
        "https://",
        "https://u@h/",
        "https://u:p@h/",
        "https://h/a b",
        "https://h/\r\nX: y",
        "https://h:0/",
        "https://h:65536/",
        "https://h/\x80",
        "javascript:x",
        "https://h:x/",
        "gopher://h/",
        "https://h%84/",
        "http:/%37",
        "https://h%0a/",
        "https://h%2fx/",
        "https://[::1/",
    };
    _cleanup_free_ char *lengthy = xcalloc(20000, 1);
    Origin *o = NULL;

    for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
        Err err = { 0 };
        if (origin_parse(&o, NULL, texts[i], &err) != -EPROTO)
            test_fail(__FILE__, __LINE__, "\"%s\" was not refused", texts[i]);
        ASSERT_TRUE(err.text[0]);
    }
    memset(lengthy, 'a', 19999);
    memcpy(lengthy, "https://h/", 10);
    ASSERT_ERR(origin_parse(&o, NULL, lengthy, NULL), -EPROTO);
}

TEST(origin_same) {
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        { "https://h/x", "https://H:443/y", true }, { "https://h/", "http://h/", false },
        { "https://h/", "https://h:5000/", false }, { "https://h/", "https://h.example/", false },
        { "http://h:80/", "http://h/", true },      { "https://h/", "http://h:443/", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(origin_freep) Origin *a = origin(cases[i].a), *b = origin(cases[i].b);
        ASSERT_EQ(origin_is_same(a, b), cases[i].same);
    }
}

TEST(origin_credentials) {
    static const struct {
        const char *registry, *realm;
        bool may;
    } cases[] = {
        { "https://registry-1.docker.io/", "https://auth.docker.io/token", true },
        { "https://r.example.com/", "https://r.example.com:8443/token", true },
        { "https://r.example.com/", "https://example.com/token", true },
        { "https://r.example.com/", "https://auth.example.org/token", false },
        { "https://r.example.com/", "https://evilexample.com/token", false },
        { "https://r.example.com/", "http://r.example.com/token", false },
        { "http://r.example.com:5000/", "http://r.example.com/token", true },
        { "http://r.example.com:5000/", "http://auth.example.com/token", false },
        { "http://r.example.com:5000/", "https://auth.example.com/token", true },
        { "https://10.1.2.3/", "https://9.8.2.3/token", false },
        { "https://10.1.2.3/", "https://10.1.2.3:5001/token", true },
        { "https://[::1]/", "https://[::2]/token", false },
        { "https://localhost/", "https://a.localhost/token", false },
        { "https://registry/", "https://auth/token", false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(origin_freep) Origin *a = origin(cases[i].registry), *b = origin(cases[i].realm);
        if (origin_may_get_credentials(a, b) != cases[i].may)
            test_fail(__FILE__, __LINE__, "%s %s", cases[i].registry, cases[i].realm);
    }
}

TEST(origin_private_addresses) {
    static const struct {
        const char *text;
        AddressKind kind;
    } cases[] = {
        { "127.0.0.1", ADDRESS_LOOPBACK },
        { "127.255.0.1", ADDRESS_LOOPBACK },
        { "10.0.0.1", ADDRESS_PRIVATE },
        { "11.0.0.1", ADDRESS_PUBLIC },
        { "172.16.0.1", ADDRESS_PRIVATE },
        { "172.32.0.1", ADDRESS_PUBLIC },
        { "192.168.1.1", ADDRESS_PRIVATE },
        { "192.169.1.1", ADDRESS_PUBLIC },
        { "169.254.169.254", ADDRESS_SPECIAL },
        { "0.0.0.0", ADDRESS_SPECIAL },
        { "100.64.0.1", ADDRESS_PRIVATE },
        { "100.128.0.1", ADDRESS_PUBLIC },
        { "224.0.0.1", ADDRESS_SPECIAL },
        { "255.255.255.255", ADDRESS_SPECIAL },
        { "8.8.8.8", ADDRESS_PUBLIC },
        { "198.18.0.1", ADDRESS_PRIVATE },
        { "::1", ADDRESS_LOOPBACK },
        { "::", ADDRESS_SPECIAL },
        { "fe80::1", ADDRESS_SPECIAL },
        { "fd00:ec2::254", ADDRESS_SPECIAL },
        { "ff02::1", ADDRESS_SPECIAL },
        { "2001:4860::8888", ADDRESS_PUBLIC },
        { "::ffff:10.0.0.1", ADDRESS_PRIVATE },
        { "::ffff:8.8.8.8", ADDRESS_PUBLIC },
        { "64:ff9b::7f00:1", ADDRESS_LOOPBACK },
        { "2002:7f00:1::", ADDRESS_LOOPBACK },
        { "::127.0.0.1", ADDRESS_SPECIAL },
        { "fd00:ec2::253", ADDRESS_PRIVATE },
        { "::ffff:169.254.169.254", ADDRESS_SPECIAL },
        { "fec0::1", ADDRESS_PRIVATE },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        struct sockaddr_in in = { .sin_family = AF_INET };
        struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
        bool is_v6 = strchr(cases[i].text, ':');
        _cleanup_free_ char *url =
            xasprintf(is_v6 ? "https://[%s]/" : "https://%s/", cases[i].text);
        _cleanup_(origin_freep) Origin *o = origin(url);
        ASSERT_EQ(is_v6 ? inet_pton(AF_INET6, cases[i].text, &in6.sin6_addr)
                        : inet_pton(AF_INET, cases[i].text, &in.sin_addr),
                  1);
        if (address_kind(is_v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in) !=
                cases[i].kind ||
            origin_literal_kind(o) != cases[i].kind)
            test_fail(__FILE__, __LINE__, "%s", cases[i].text);
    }
}

TEST(origin_private_literals) {
    static const struct {
        const char *url;
        bool is_private;
    } cases[] = {
        { "https://localhost/", true },  { "https://a.localhost/", true },
        { "https://h.example/", false }, { "https://0x7f000001/", true },
        { "https://2130706433/", true }, { "https://[fe80::1%25eth0]/", true },
        { "https://127.1/", true },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(origin_freep) Origin *o = origin(cases[i].url);
        if (origin_is_private_literal(o) != cases[i].is_private)
            test_fail(__FILE__, __LINE__, "%s is %s", cases[i].url, o->host);
    }
    ASSERT_TRUE(address_is_private(&(struct sockaddr){ .sa_family = AF_UNIX }));
}
