/* SPDX-License-Identifier: Apache-2.0 */
/* secrets: the credentials in a volume's secrets; no value ever reaches a sentence or a log. */
#include "base/limits.h"
#include "csi/params.h"

/* The kubelet puts service account tokens here when CSIDriver says serviceAccountTokenInSecrets. */
#define KUBELET_PREFIX "csi.storage.k8s.io/"
#define KNOWN          ".dockerconfigjson, .dockercfg, or username with password"

typedef struct Pair {
    const char *username, *password;
} Pair;

/* Keys of Kubernetes secrets are [-._a-zA-Z0-9]; anything else is not repeated to anybody. */
static const char *key_shown(const char *key) {
    static const char allowed[] =
        "-._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

    return strlen(key) <= 63 && strspn(key, allowed) == strlen(key) ? key : "?";
}

static int secret_take(CredentialList *l, Pair *pair, const KeyValue *secret, Err *err) {
    int r;

    if (startswith(secret->key, KUBELET_PREFIX))
        return 0;
    if (streq(secret->key, ".dockerconfigjson") || streq(secret->key, ".dockercfg")) {
        r = credential_parse_docker(l, secret->value, strlen(secret->value), err);
        return r < 0 ? err_prefix(err, -EINVAL, "the volume's secret %s", secret->key) : 0;
    }
    if (streq(secret->key, "username"))
        pair->username = secret->value;
    else if (streq(secret->key, "password"))
        pair->password = secret->value;
    else
        return err_set(err, -EINVAL,
                       "the key \"%s\" of the volume's secret is not known; known are " KNOWN,
                       key_shown(secret->key));
    return 0;
}

static int secrets_check_size(const KeyValue *secrets, size_t n, Err *err) {
    size_t bytes = 0;

    for (size_t i = 0; i < n; i++)
        bytes += strlen(secrets[i].key) + strlen(secrets[i].value);
    return bytes > LIMIT_CREDENTIALS_BYTES
               ? err_set(err, -E2BIG, "the volume's secret has %zu bytes; at most %llu are taken",
                         bytes, (unsigned long long)LIMIT_CREDENTIALS_BYTES)
               : 0;
}

int params_parse_secrets(CredentialList *ret, const Reference *reference, const KeyValue *secrets,
                         size_t n, Err *err) {
    _cleanup_(credential_list_done) CredentialList l = { 0 };
    Pair pair = { 0 };
    int r;

    r = secrets_check_size(secrets, n, err);
    for (size_t i = 0; i < n && r >= 0; i++)
        r = secret_take(&l, &pair, &secrets[i], err);
    if (r < 0)
        return r;
    if (!pair.username != !pair.password)
        return err_set(err, -EINVAL, "the volume's secret has a %s but no %s; give both",
                       pair.username ? "username" : "password",
                       pair.username ? "password" : "username");
    if (pair.username) {
        r = credential_add(&l, reference->registry, pair.username, pair.password, err);
        if (r < 0)
            return err_prefix(err, -EINVAL, "the volume's secret");
    }
    *ret = l;
    l = (CredentialList){ 0 };
    return 0;
}
