/* SPDX-License-Identifier: Apache-2.0 */
/* ref: artifact references as people write them: [host[:port]/]repository[:tag][@digest]. */
#include "oci/ref.h"

#include "base/limits.h"
#include "base/parse.h"

#include <ctype.h>
#include <sys/utsname.h>

#define REPOSITORY_MAX \
    255 /* distribution-spec v1.1, "Pulling manifests": many clients limit name and host to it */
#define TAG_MAX 128
#define FORM    "write [host[:port]/]repository[:tag][@sha256:digest]"

static bool is_lower_alnum(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c) {
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

/* Lower-case letters and digits, separated by one '.', one or two '_', or any number of '-'. */
static bool component_is_valid(const char *s, size_t n) {
    size_t i = 0;

    for (;;) {
        size_t start = i;
        while (i < n && is_lower_alnum(s[i]))
            i++;
        if (i == start)
            return false;
        if (i == n)
            return true;
        if (s[i] == '.')
            i++;
        else if (s[i] == '_')
            i += i + 1 < n && s[i + 1] == '_' ? 2 : 1;
        else if (s[i] == '-')
            while (i < n && s[i] == '-')
                i++;
        else
            return false;
    }
}

static bool repository_is_valid(const char *s) {
    if (strlen(s) > REPOSITORY_MAX)
        return false;
    for (;;) {
        size_t n = strcspn(s, "/");
        if (!component_is_valid(s, n))
            return false;
        if (!s[n])
            return true;
        s += n + 1;
    }
}

bool reference_tag_is_valid(const char *s) {
    size_t n = strlen(s);

    if (n < 1 || n > TAG_MAX || (!is_alnum(s[0]) && s[0] != '_'))
        return false;
    for (size_t i = 1; i < n; i++)
        if (!is_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
            return false;
    return true;
}

static bool port_is_valid(const char *s) {
    uint64_t port = 0;

    return strlen(s) <= 5 && parse_u64(s, &port) == 0 && port >= 1 && port <= 65535;
}

/* Labels of letters, digits and inner '-'. */
static bool host_name_is_valid(const char *s, size_t n) {
    bool label_open = false;

    for (size_t i = 0; i < n; i++) {
        bool edge = i + 1 == n || s[i + 1] == '.';
        if (s[i] == '.') {
            if (!label_open)
                return false;
            label_open = false;
        } else if (is_alnum(s[i]) || (s[i] == '-' && label_open && !edge)) {
            label_open = true;
        } else {
            return false;
        }
    }
    return label_open;
}

/* "host", "host:port", "[v6]", "[v6]:port" */
bool reference_registry_is_valid(const char *s) {
    const char *port = NULL;
    size_t n;

    if (strlen(s) > REPOSITORY_MAX)
        return false;
    if (s[0] == '[') {
        n = strspn(s + 1, "0123456789abcdefABCDEF:.");
        if (n < 2 || s[1 + n] != ']')
            return false;
        port = s + n + 2;
    } else {
        n = strcspn(s, ":");
        if (!host_name_is_valid(s, n))
            return false;
        port = s + n;
    }
    return !*port || (*port == ':' && port_is_valid(port + 1));
}

/* Does the first component name a host? */
static bool is_host(const char *s, size_t n) {
    return memchr(s, '.', n) || memchr(s, ':', n) || (n == 9 && memcmp(s, "localhost", 9) == 0) ||
           s[0] == '[';
}

static void lower(char *s) {
    for (; *s; s++)
        *s = (char)tolower((unsigned char)*s);
}

static int take_registry(Reference *ref, char **text, const char *whole, Err *err) {
    char *slash = strchr(*text, '/');

    if (!slash || !is_host(*text, (size_t)(slash - *text))) {
        ref->registry = xstrdup("docker.io");
        return 0;
    }
    ref->registry = xstrndup(*text, (size_t)(slash - *text));
    if (!reference_registry_is_valid(ref->registry))
        return err_set(err, -EINVAL,
                       "reference \"%.200s\": \"%.100s\" is not a host or host:port; " FORM, whole,
                       ref->registry);
    lower(ref->registry);
    if (streq(ref->registry, "index.docker.io"))
        xfree_and_strdup(&ref->registry, "docker.io");
    *text = slash + 1;
    return 0;
}

static int take_digest(Reference *ref, char *text, const char *whole, Err *err) {
    char *at = strchr(text, '@');
    int r;

    if (!at)
        return 0;
    *at = 0;
    r = digest_parse(&ref->digest, at + 1, err);
    if (r < 0)
        return err_prefix(err, -EINVAL, "reference \"%.200s\"", whole);
    ref->has_digest = true;
    return 0;
}

static int take_tag(Reference *ref, char *text, const char *whole, Err *err) {
    char *colon = strrchr(text, ':');

    if (colon && !strchr(colon, '/')) {
        *colon = 0;
        if (!reference_tag_is_valid(colon + 1))
            return err_set(err, -EINVAL,
                           "reference \"%.200s\": the tag is not valid: 1 to 128 letters, digits, "
                           "'_', '.', '-', and "
                           "neither '.' nor '-' first; " FORM,
                           whole);
        ref->tag = xstrdup(colon + 1);
    } else if (!ref->has_digest) {
        ref->tag = xstrdup("latest");
    }
    return 0;
}

static int text_is_plain(const char *text, Err *err) {
    size_t n = strlen(text);

    if (n == 0)
        return err_set(err, -EINVAL, "the reference is empty; " FORM);
    if (n > LIMIT_REFERENCE_BYTES)
        return err_set(err, -EINVAL, "the reference is longer than %d bytes; " FORM,
                       LIMIT_REFERENCE_BYTES);
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return err_set(err, -EINVAL,
                           "the reference holds a blank, a control character or a byte that is not "
                           "ASCII; " FORM);
    if (strstr(text, "://"))
        return err_set(err, -EINVAL, "reference \"%.200s\": it has a scheme like https://; " FORM,
                       text);
    return 0;
}

int reference_parse(Reference **ret, const char *text, Err *err) {
    _cleanup_(reference_freep) Reference *ref = xnew(Reference);
    _cleanup_free_ char *copy = NULL;
    char *rest;
    int r;

    r = text_is_plain(text, err);
    if (r < 0)
        return r;
    rest = copy = xstrdup(text);
    r = take_digest(ref, rest, text, err);
    if (r >= 0)
        r = take_registry(ref, &rest, text, err);
    if (r >= 0)
        r = take_tag(ref, rest, text, err);
    if (r < 0)
        return r;
    if (streq(ref->registry, "docker.io") && !strchr(rest, '/'))
        ref->repository = xasprintf("library/%s", rest);
    else
        ref->repository = xstrdup(rest);
    if (!*rest || !repository_is_valid(ref->repository))
        return err_set(err, -EINVAL,
                       "reference \"%.200s\": \"%.100s\" is not a repository: lower-case letters "
                       "and digits, with '.', "
                       "'_', '-' between them, in components separated by '/'; " FORM,
                       text, rest);
    *ret = TAKE_PTR(ref);
    return 0;
}

Reference *reference_free(Reference *r) {
    if (!r)
        return NULL;
    free(r->registry);
    free(r->repository);
    free(r->tag);
    free(r);
    return NULL;
}

char *reference_text(const Reference *r) {
    if (r->has_digest)
        return xasprintf("%s/%s@%s", r->registry, r->repository, DIGEST_STR(&r->digest));
    return xasprintf("%s/%s:%s", r->registry, r->repository, r->tag);
}

char *reference_origin(const Reference *r) {
    return xasprintf("%s/%s", r->registry, r->repository);
}

const char *reference_api_host(const Reference *r) {
    return streq(r->registry, "docker.io") ? "registry-1.docker.io" : r->registry;
}

bool reference_is_latest(const Reference *r) {
    return !r->has_digest && r->tag && streq(r->tag, "latest");
}

/* Other spellings that people and uname(2) use. */
static const struct {
    const char *name, *architecture, *variant;
} platform_aliases[] = {
    { "x86_64", "amd64", "" }, { "x86-64", "amd64", "" }, { "aarch64", "arm64", "" },
    { "armv8l", "arm", "v8" }, { "armv7l", "arm", "v7" }, { "armv6l", "arm", "v6" },
    { "armhf", "arm", "v7" },  { "i386", "386", "" },     { "i486", "386", "" },
    { "i586", "386", "" },     { "i686", "386", "" },     { "loongarch64", "loong64", "" },
};

static void platform_normalize(Platform *p) {
    for (size_t i = 0; i < ELEMENTSOF(platform_aliases); i++)
        if (streq(p->architecture, platform_aliases[i].name)) {
            (void)snprintf(p->architecture, sizeof(p->architecture), "%s",
                           platform_aliases[i].architecture);
            if (!p->variant[0])
                (void)snprintf(p->variant, sizeof(p->variant), "%s", platform_aliases[i].variant);
            return;
        }
}

/* Copies one component up to '/' or the end; returns what follows, or NULL when it is not good. */
static const char *take_component(const char *s, char *ret, size_t size) {
    size_t n = strcspn(s, "/");

    if (n == 0 || n >= size)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!is_lower_alnum(s[i]) && s[i] != '_' && s[i] != '.' && s[i] != '-')
            return NULL;
    memcpy(ret, s, n);
    ret[n] = 0;
    return s + n;
}

int platform_parse(Platform *ret, const char *text, Err *err) {
    Platform p = { 0 };
    const char *s = take_component(text, p.os, sizeof(p.os));

    s = s && *s == '/' ? take_component(s + 1, p.architecture, sizeof(p.architecture)) : NULL;
    if (s && *s == '/')
        s = take_component(s + 1, p.variant, sizeof(p.variant));
    if (!s || *s)
        return err_set(
            err, -EINVAL,
            "\"%.100s\" is not a platform; write os/architecture[/variant], like linux/amd64",
            text);
    platform_normalize(&p);
    *ret = p;
    return 0;
}

void platform_of_node(Platform *ret) {
    struct utsname u;

    *ret = (Platform){ .os = "linux" };
    (void)uname(&u); /* cannot fail: the buffer is good */
    (void)snprintf(ret->architecture, sizeof(ret->architecture), "%.31s", u.machine);
    platform_normalize(ret);
}

const char *platform_text(char buf[static PLATFORM_TEXT_MAX], const Platform *p) {
    (void)snprintf(buf, PLATFORM_TEXT_MAX, "%s/%s%s%s", p->os, p->architecture,
                   p->variant[0] ? "/" : "", p->variant);
    return buf;
}
