/* SPDX-License-Identifier: Apache-2.0 */
/* origin: URLs as registries send them: where they lead, and whether credentials may go there. */
#include "oci/origin.h"

#include "base/limits.h"
#include "base/parse.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <strings.h>

#define URL_MAX   KiB(16) /* presigned URLs have 2 KiB and more */
#define SHOWN_MAX 200

static void url_cleanupp(CURLU **u) {
    curl_url_cleanup(*u);
}
static void curl_freep(char **s) {
    curl_free(*s);
}

Origin *origin_free(Origin *o) {
    if (!o)
        return NULL;
    if (o->url)
        explicit_bzero(o->url, strlen(o->url));
    free(o->url);
    free(o->host);
    free(o->shown);
    free(o);
    return NULL;
}

static int check_text(const char *text, Err *err) {
    size_t n = strnlen(text, URL_MAX + 1);

    if (n == 0 || n > URL_MAX)
        return err_set(err, -EPROTO, "the URL is empty or longer than %zu bytes", (size_t)URL_MAX);
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return err_set(
                err, -EPROTO,
                "the URL holds a blank, a control character or a byte that is not ASCII");
    return 0;
}

/* A part of the URL; NULL when there is none. */
static char *part(CURLU *u, CURLUPart what, unsigned flags) {
    char *s = NULL;

    return curl_url_get(u, what, &s, flags) == CURLUE_OK ? s : NULL;
}

static int refuse_user_info(CURLU *u, Err *err) {
    _cleanup_(curl_freep) char *user = part(u, CURLUPART_USER, 0),
                               *password = part(u, CURLUPART_PASSWORD, 0);

    if (user || password)
        return err_set(err, -EPROTO, "the URL holds a user name or password");
    return 0;
}

/* libcurl undoes percent-encoding in hosts. */
static bool host_is_valid(const char *host) {
    for (const char *c = host; *c; c++)
        if (!isascii(*c) ||
            !(isalnum((unsigned char)*c) || strchr(host[0] == '[' ? "-._~:[]%" : "-._", *c)))
            return false;
    return true;
}

/* Fills `o` from a URL that is whole. */
static int read_parts(Origin *o, CURLU *u, Err *err) {
    _cleanup_(curl_freep) char *scheme = part(u, CURLUPART_SCHEME, 0),
                               *host = part(u, CURLUPART_HOST, 0);
    _cleanup_(curl_freep) char *port = part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT),
                               *path = part(u, CURLUPART_PATH, 0);
    _cleanup_(curl_freep) char *url = part(u, CURLUPART_URL, 0);
    uint64_t number = 0;

    if (!scheme || isempty(host) || !port || !url || parse_u64(port, &number) < 0 || number == 0 ||
        number > 65535)
        return err_set(err, -EPROTO, "the URL has no host or a wrong port");
    if (!host_is_valid(host))
        return err_set(err, -EPROTO, "the URL's host is not a host name");
    if (!streq(scheme, "https") && !streq(scheme, "http"))
        return err_set(err, -EPROTO,
                       "the URL has the scheme %.20s; only https (and http) are allowed", scheme);
    o->is_https = streq(scheme, "https");
    o->port = (unsigned)number;
    o->host = xstrdup(host);
    for (char *c = o->host; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    o->url = xstrdup(url);
    if (o->port == (o->is_https ? 443 : 80))
        o->shown = xasprintf("%s://%s%.*s", scheme, o->host, SHOWN_MAX, path ? path : "");
    else
        o->shown =
            xasprintf("%s://%s:%u%.*s", scheme, o->host, o->port, SHOWN_MAX, path ? path : "");
    return 0;
}

/* Does libcurl find the same host again when it connects?  ("http://%37/" becomes "http://7/", and
 * that 0.0.0.7.) */
static bool is_stable(const Origin *o) {
    _cleanup_(url_cleanupp) CURLU *u = curl_url();
    _cleanup_(curl_freep) char *host = NULL;

    if (curl_url_set(u, CURLUPART_URL, o->url, 0) != CURLUE_OK)
        return false;
    host = part(u, CURLUPART_HOST, 0);
    return host && strcasecmp(host, o->host) == 0;
}

int origin_parse(Origin **ret, const Origin *base, const char *text, Err *err) {
    _cleanup_(url_cleanupp) CURLU *u = curl_url();
    _cleanup_(origin_freep) Origin *o = xnew(Origin);
    CURLUcode code = CURLUE_OK;
    int r;

    r = check_text(text, err);
    if (r < 0)
        return r;
    if (base)
        code = curl_url_set(u, CURLUPART_URL, base->url, 0);
    if (code == CURLUE_OK)
        code = curl_url_set(u, CURLUPART_URL, text, 0);
    if (code == CURLUE_OK)
        code = curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
    if (code == CURLUE_UNSUPPORTED_SCHEME)
        return err_set(err, -EPROTO, "the URL's scheme is neither https nor http");
    if (code != CURLUE_OK)
        return err_set(err, -EPROTO, "the URL is malformed: %s", curl_url_strerror(code));
    r = refuse_user_info(u, err);
    if (r >= 0)
        r = read_parts(o, u, err);
    if (r < 0)
        return r;
    if (!is_stable(o))
        return err_set(err, -EPROTO, "the URL's host is written in a way that hides it");
    *ret = TAKE_PTR(o);
    return 0;
}

bool origin_is_same(const Origin *a, const Origin *b) {
    return a->is_https == b->is_https && a->port == b->port && streq(a->host, b->host);
}

static bool is_ip_literal(const char *host) {
    struct in_addr v4;

    return host[0] == '[' || inet_pton(AF_INET, host, &v4) == 1;
}

/* "a.b.example.com" -> "example.com"; the whole name when it has no more labels. */
static const char *last_two_labels(const char *host) {
    const char *last = strrchr(host, '.'), *s = last;

    while (s && s > host && s[-1] != '.')
        s--;
    return s ? s : host;
}

bool origin_may_get_credentials(const Origin *registry, const Origin *realm) {
    const char *domain;

    if (!realm->is_https)
        return !registry->is_https && streq(registry->host, realm->host);
    if (streq(registry->host, realm->host))
        return true;
    if (is_ip_literal(registry->host) || is_ip_literal(realm->host))
        return false;
    domain = last_two_labels(registry->host);
    return strchr(domain, '.') && streq(domain, last_two_labels(realm->host));
}

static AddressKind v4_kind(uint32_t a) {
    static const struct {
        uint32_t net;
        unsigned bits;
        AddressKind kind;
    } nets[] = {
        { 0x00000000, 8, ADDRESS_SPECIAL },  /* this network; 0.0.0.0 reaches loopback */
        { 0x0a000000, 8, ADDRESS_PRIVATE },  /* RFC 1918 */
        { 0x64400000, 10, ADDRESS_PRIVATE }, /* RFC 6598, shared */
        { 0x7f000000, 8, ADDRESS_LOOPBACK }, /* RFC 1122 */
        { 0xa9fe0000, 16, ADDRESS_SPECIAL }, /* link-local: metadata servers of clouds */
        { 0xac100000, 12, ADDRESS_PRIVATE }, /* RFC 1918 */
        { 0xc0000000, 24, ADDRESS_PRIVATE }, /* RFC 6890 */
        { 0xc0a80000, 16, ADDRESS_PRIVATE }, /* RFC 1918 */
        { 0xc6120000, 15, ADDRESS_PRIVATE }, /* RFC 2544, benchmarks */
        { 0xe0000000, 3, ADDRESS_SPECIAL },  /* multicast, reserved, broadcast */
    };

    for (size_t i = 0; i < ELEMENTSOF(nets); i++)
        if ((a ^ nets[i].net) >> (32 - nets[i].bits) == 0)
            return nets[i].kind;
    return ADDRESS_PUBLIC;
}

static uint32_t v4_at(const uint8_t *b) {
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static AddressKind v6_kind(const uint8_t b[static 16]) {
    static const uint8_t zero[12], loopback[16] = { [15] = 1 };
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff },
                         nat64[12] = { 0x00, 0x64, 0xff, 0x9b };
    static const uint8_t metadata[16] = {
        0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54
    }; /* fd00:ec2::254, of EC2 */

    if (memcmp(b, mapped, 12) == 0 || memcmp(b, nat64, 12) == 0)
        return v4_kind(v4_at(b + 12));
    if (memcmp(b, loopback, 16) == 0)
        return ADDRESS_LOOPBACK;
    if (memcmp(b, zero, 12) == 0) /* :: reaches loopback; the old form with an IPv4 address in it */
        return ADDRESS_SPECIAL;
    if (b[0] == 0x20 && b[1] == 0x02) /* 6to4 */
        return v4_kind(v4_at(b + 2));
    if (b[0] == 0xff || (b[0] == 0xfe && (b[1] & 0xc0) == 0x80) || memcmp(b, metadata, 16) == 0)
        return ADDRESS_SPECIAL;
    /* Only 2000::/3 is the internet: not fc00::/7 … */
    return (b[0] & 0xe0) == 0x20 ? ADDRESS_PUBLIC : ADDRESS_PRIVATE;
}

AddressKind address_kind(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        return v4_kind(ntohl(in.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof(in6));
        return v6_kind(in6.sin6_addr.s6_addr);
    }
    return ADDRESS_SPECIAL;
}

bool address_is_private(const struct sockaddr *address) {
    return address_kind(address) != ADDRESS_PUBLIC;
}

AddressKind origin_literal_kind(const Origin *o) {
    struct in6_addr v6;
    struct in_addr v4;
    size_t n = strlen(o->host);

    if (streq(o->host, "localhost") || endswith(o->host, ".localhost"))
        return ADDRESS_LOOPBACK;
    if (inet_pton(AF_INET, o->host, &v4) == 1)
        return v4_kind(ntohl(v4.s_addr));
    if (o->host[0] == '[') {
        _cleanup_free_ char *inner = xstrndup(o->host + 1, n - 2);
        inner[strcspn(inner, "%")] = 0; /* a zone id: link-local */
        return inet_pton(AF_INET6, inner, &v6) != 1 ? ADDRESS_SPECIAL : v6_kind(v6.s6_addr);
    }
    return ADDRESS_PUBLIC;
}

bool origin_is_private_literal(const Origin *o) {
    return origin_literal_kind(o) != ADDRESS_PUBLIC;
}

const char *address_refusal(AddressKind may_reach) {
    return may_reach == ADDRESS_PUBLIC
               ? "a private or local address, where a registry on the internet must not lead"
               : "an address of this node or of its link, where a registry must not lead unless it "
                 "is there itself";
}
