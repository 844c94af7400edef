/* SPDX-License-Identifier: Apache-2.0 */
/* credential: who we are at which registry; from a volume's secret or a docker config.json. */
#include "oci/credential.h"

#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/parse.h"
#include "oci/ref.h"

#include <ctype.h>
#include <openssl/evp.h>

/* Enough to make guessing of weak passwords dear, little enough (under 1 ms) for each publish. */
#define FINGERPRINT_ROUNDS 1000

static void wipe(char **s) {
    if (*s)
        explicit_bzero(*s, strlen(*s));
    free(*s);
    *s = NULL;
}

static void credential_done(Credential *c) {
    wipe(&c->origin);
    wipe(&c->path);
    wipe(&c->username);
    wipe(&c->password);
    wipe(&c->identity_token);
    wipe(&c->registry_token);
}

void credential_list_done(CredentialList *l) {
    for (size_t i = 0; i < l->n; i++)
        credential_done(&l->items[i]);
    free(l->items);
    *l = (CredentialList){ 0 };
}

static bool is_clean(const char *s) {
    for (; s && *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    return true;
}

static bool is_docker_hub(const char *host) {
    static const char *const names[] = { "docker.io", "index.docker.io", "registry-1.docker.io",
                                         "www.docker.io", "registry.hub.docker.com" };

    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        if (streq(host, names[i]))
            return true;
    return false;
}

/* "https://Host/v2/" -> "host" and NULL; "host/team/" -> "host" and "team".  -EINVAL: no host in
 * it. */
static int split_key(const char *key, char **ret_origin, char **ret_path) {
    _cleanup_free_ char *origin = NULL, *path = NULL;
    const char *s = key;
    size_t n;

    if (startswith(s, "https://"))
        s += 8;
    else if (startswith(s, "http://"))
        s += 7;
    n = strcspn(s, "/");
    origin = xstrndup(s, n);
    for (char *c = origin; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    if (!reference_registry_is_valid(origin))
        return -EINVAL;
    if (is_docker_hub(origin))
        xfree_and_strdup(&origin, "docker.io");
    s += n + strspn(s + n, "/");
    n = strlen(s);
    while (n > 0 && s[n - 1] == '/')
        n--;
    path = n > 0 ? xstrndup(s, n) : NULL;
    if (path && (streq(path, "v1") || streq(path, "v2"))) {
        free(path);
        path = NULL;
    }
    *ret_origin = TAKE_PTR(origin);
    *ret_path = TAKE_PTR(path);
    return 0;
}

/* Takes the strings of `c` over. */
static void append(CredentialList *l, Credential *c) {
    l->items = xrealloc(l->items, l->n + 1, sizeof(*l->items));
    l->items[l->n++] = *c;
    *c = (Credential){ 0 };
}

/* "auth": base64 of "user:password"; some tools leave the padding out, some end it with NULs. */
static int decode_auth(const char *text, Credential *c) {
    size_t n = strlen(text), len = 0;
    char *padded = xasprintf("%s%s", text, n % 4 == 2 ? "==" : n % 4 == 3 ? "=" : "");
    char *plain = NULL, *colon;
    int r = parse_base64(padded, strlen(padded), &plain, &len);

    wipe(&padded);
    if (r < 0)
        return r;
    while (len > 0 && plain[len - 1] == 0)
        len--;
    colon = memchr(plain, ':', len);
    if (!colon || memchr(plain, 0, len)) {
        explicit_bzero(plain, len);
        free(plain);
        return -EINVAL;
    }
    wipe(&c->username);
    wipe(&c->password);
    c->username = xstrndup(plain, (size_t)(colon - plain));
    c->password = xstrndup(colon + 1, len - (size_t)(colon - plain) - 1);
    explicit_bzero(plain, len);
    free(plain);
    return 0;
}

/* The members are read in the order docker's own client prefers: "auth" before "username" and
 * "password". */
static int read_entry(const json_t *entry, const char *key, Credential *c, Err *err) {
    const char *auth = NULL, *user = NULL, *password = NULL, *identity = NULL, *token = NULL;

    if (json_get_string(entry, "auth", &auth, err) < 0 ||
        json_get_string(entry, "username", &user, err) < 0 ||
        json_get_string(entry, "password", &password, err) < 0 ||
        json_get_string(entry, "identitytoken", &identity, err) < 0 ||
        json_get_string(entry, "registrytoken", &token, err) < 0)
        return err_prefix(err, -EPROTO, "credentials for \"%.100s\"", key);
    if (!isempty(auth)) {
        if (decode_auth(auth, c) < 0)
            return err_set(err, -EPROTO,
                           "credentials for \"%.100s\": \"auth\" is not base64 of user:password",
                           key);
    } else if (!isempty(user)) {
        c->username = xstrdup(user);
        c->password = xstrdup(password ? password : "");
    }
    c->identity_token = isempty(identity) ? NULL : xstrdup(identity);
    c->registry_token = isempty(token) ? NULL : xstrdup(token);
    if (!is_clean(c->username) || !is_clean(c->password) || !is_clean(c->identity_token) ||
        !is_clean(c->registry_token))
        return err_set(err, -EPROTO, "credentials for \"%.100s\" hold a control character", key);
    return 0;
}

static int add_entry(CredentialList *l, const char *key, const json_t *entry, Err *err) {
    _cleanup_(credential_done) Credential c = { 0 };
    int r;

    if (!is_clean(key) || split_key(key, &c.origin, &c.path) < 0) {
        log_debug("credentials: a key that is not a host is left out");
        return 0;
    }
    r = read_entry(entry, key, &c, err);
    if (r < 0)
        return r;
    /* {} is what docker leaves behind when a credential store has the secret. */
    if (!isempty(c.username) || c.identity_token || c.registry_token)
        append(l, &c);
    return 0;
}

static bool looks_like_entry(const json_t *value) {
    static const char *const names[] = { "auth", "username", "identitytoken", "registrytoken" };

    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        if (json_is_string(json_object_get(value, names[i])))
            return true;
    return false;
}

int credential_parse_docker(CredentialList *l, const void *data, size_t n, Err *err) {
    _cleanup_json_ json_t *root = NULL;
    json_t *auths = NULL, *value = NULL;
    const char *key = NULL;
    int r;

    if (n > LIMIT_CREDENTIALS_BYTES)
        return err_set(err, -EPROTO, "the docker config is larger than %zu bytes",
                       (size_t)LIMIT_CREDENTIALS_BYTES);
    if (json_parse(data, n, "the docker config", &root, err) < 0)
        return -EPROTO;
    if (!json_is_object(root))
        return err_set(err, -EPROTO, "the docker config is not a JSON object");
    if (json_get_object(root, "auths", &auths, err) < 0)
        return err_prefix(err, -EPROTO, "the docker config");
    if (json_object_get(root, "credsStore") || json_object_get(root, "credHelpers"))
        log_debug("the docker config names credential helpers; they are not run");
    json_object_foreach (auths ? auths : root, key, value) {
        if (auths ? !json_is_object(value) : !looks_like_entry(value)) {
            if (auths)
                return err_set(err, -EPROTO, "credentials for \"%.100s\" are not an object",
                               is_clean(key) ? key : "");
            continue;
        }
        r = add_entry(l, key, value, err);
        if (r < 0)
            return r;
    }
    return 0;
}

int credential_add(CredentialList *l, const char *origin, const char *username,
                   const char *password, Err *err) {
    _cleanup_(credential_done) Credential c = { 0 };

    if (isempty(username) || !password)
        return err_set(err, -EINVAL, "a user name and a password are needed together");
    if (!is_clean(username) || !is_clean(password))
        return err_set(err, -EINVAL, "the user name or the password holds a control character");
    if (strchr(username, ':'))
        return err_set(err, -EINVAL, "the user name holds a ':' (RFC 7617 does not allow it)");
    if (!is_clean(origin) || split_key(origin, &c.origin, &c.path) < 0)
        return err_set(err, -EINVAL,
                       "the credentials are for \"%.100s\", which is not a host or host:port",
                       is_clean(origin) ? origin : "");
    c.username = xstrdup(username);
    c.password = xstrdup(password);
    append(l, &c);
    return 0;
}

/* Length of the path when it covers the repository, else -1. */
static ssize_t covers(const Credential *c, const char *repository) {
    const char *rest;

    if (!c->path)
        return 0;
    rest = startswith(repository, c->path);
    return rest && (!*rest || *rest == '/') ? (ssize_t)strlen(c->path) : -1;
}

const Credential *credential_find(const CredentialList *l, const char *registry,
                                  const char *repository) {
    _cleanup_free_ char *origin = NULL, *path = NULL;
    const Credential *best = NULL;
    ssize_t best_n = -1;

    if (split_key(registry, &origin, &path) < 0)
        return NULL;
    for (size_t i = 0; i < l->n; i++) {
        ssize_t n = streq(l->items[i].origin, origin) ? covers(&l->items[i], repository) : -1;
        if (n > best_n) {
            best = &l->items[i];
            best_n = n;
        }
    }
    return best;
}

void credential_fingerprint(const Credential *c, uint8_t ret[static 32]) {
    static const unsigned char salt[] = "modelcached credential v1";
    _cleanup_(hasher_freep) Hasher *h = NULL;
    Digest d;
    int r;

    if (!c) {
        memset(ret, 0, 32);
        return;
    }
    h = hasher_new();
    for (size_t i = 0; i < 6; i++) {
        const char *s =
            (const char *const[]){ c->origin,   c->path,           c->username,
                                   c->password, c->identity_token, c->registry_token }[i];
        uint64_t n = s ? strlen(s) + 1 : 0; /* with the NUL: NULL and "" differ */
        hasher_update(h, &n, sizeof(n));
        if (s)
            hasher_update(h, s, n);
    }
    hasher_final(h, &d);
    r = PKCS5_PBKDF2_HMAC((const char *)d.bytes, sizeof(d.bytes), salt, sizeof(salt),
                          FINGERPRINT_ROUNDS, EVP_sha256(), 32, ret);
    assert(r == 1);
    explicit_bzero(&d, sizeof(d));
}
