/* SPDX-License-Identifier: Apache-2.0 */
/* trust: the CAs that are believed, read once for all connections. */
#include "oci/trust.h"

#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

struct Trust {
    X509_STORE *store; /* NULL: nothing was read yet */
    size_t n;          /* certificates in it */
    char *unread;      /* or NULL */
    const char *path;  /* of the system's file, or NULL … */
    struct stat st;    /* … as it was */
};

Trust *trust_new(void) {
    return xnew(Trust);
}

Trust *trust_free(Trust *t) {
    if (!t)
        return NULL;
    X509_STORE_free(t->store);
    free(t->unread);
    free(t);
    return NULL;
}

void trust_add(Trust *t, const char *pem, size_t n) {
    char *old = t->unread;

    t->unread = xasprintf("%s%.*s\n", old ? old : "", (int)n, pem);
    free(old);
}

void trust_add_system(Trust *t) {
    const char *paths[] = { "/etc/ssl/certs/ca-certificates.crt",
                            curl_version_info(CURLVERSION_NOW)->cainfo,
                            "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
                            "/etc/ssl/cert.pem" };
    _cleanup_free_ char *pem = NULL;
    size_t n;

    for (size_t i = 0; i < ELEMENTSOF(paths); i++)
        if (paths[i] && stat(paths[i], &t->st) == 0 &&
            fs_read_file(AT_FDCWD, paths[i], LIMIT_CA_BYTES, &pem, &n, NULL) >= 0) {
            t->path = paths[i];
            trust_add(t, pem, n);
            return;
        }
    log_debug("there is no bundle of trusted CAs; https needs a CA file in the configuration");
}

bool trust_is_current(const Trust *t) {
    struct stat st;

    return t->path && stat(t->path, &st) == 0 && st.st_dev == t->st.st_dev &&
           st.st_ino == t->st.st_ino && st.st_size == t->st.st_size &&
           st.st_ctim.tv_sec == t->st.st_ctim.tv_sec && st.st_ctim.tv_nsec == t->st.st_ctim.tv_nsec;
}

/* The next certificate of the text: 1, or 0 at its end. */
static int read_certificate(X509_STORE *store, BIO *text) {
    X509 *x = PEM_read_bio_X509_AUX(text, NULL, NULL, (void *)""); /* asks nobody for a password */
    int r;

    if (!x)
        return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? 0 : -EINVAL;
    r = X509_STORE_add_cert(store, x) == 1 ? 1 : -ENOMEM; /* the same one twice is no error */
    X509_free(x);
    return r;
}

static int make_store(Trust *t) {
    if (!t->store)
        t->store = X509_STORE_new();
    if (!t->store)
        return -ENOMEM;
    (void)X509_STORE_set_flags(t->store, X509_V_FLAG_PARTIAL_CHAIN); /* as libcurl does */
    return 1;
}

int trust_load(Trust *t, Err *err) {
    BIO *text = BIO_new_mem_buf(t->unread ? t->unread : "", -1);
    size_t n = t->n;
    int r = text ? make_store(t) : -ENOMEM;

    for (; r > 0; n += r > 0)
        r = read_certificate(t->store, text);
    BIO_free(text);
    ERR_clear_error();
    if (r == -EINVAL)
        return err_set(err, r, "certificate %zu of the trusted CAs is damaged", n + 1);
    if (r < 0)
        return err_errnum(err, r, "cannot read the trusted CAs");
    if (n == 0 && t->unread)
        return err_set(err, -EINVAL, "there is no certificate in PEM among the trusted CAs");
    t->n = n;
    free(TAKE_PTR(t->unread));
    return 0;
}

void trust_use(const Trust *t, SSL_CTX *ctx) {
    SSL_CTX_set1_cert_store(ctx, t->store);
}
