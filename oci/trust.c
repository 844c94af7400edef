/* SPDX-License-Identifier: Apache-2.0 */
/* trust: the CAs that are believed, read once for all connections. */
#include "oci/trust.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

struct Trust {
    X509_STORE *store;
};

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

int trust_new(Trust **ret, const char *pem, Err *err) {
    _cleanup_(trust_freep) Trust *t = xnew(Trust);
    BIO *text = BIO_new_mem_buf(pem, -1);
    size_t n = 0;
    int r;

    t->store = X509_STORE_new();
    r = text && t->store ? 1 : -ENOMEM;
    for (; r > 0; n += r > 0)
        r = read_certificate(t->store, text);
    BIO_free(text);
    ERR_clear_error();
    if (r == -EINVAL)
        return err_set(err, r, "certificate %zu of the trusted CAs is damaged", n + 1);
    if (r < 0)
        return err_errnum(err, r, "cannot read the trusted CAs");
    if (n == 0)
        return err_set(err, -EINVAL, "there is no certificate in PEM among the trusted CAs");
    (void)X509_STORE_set_flags(t->store, X509_V_FLAG_PARTIAL_CHAIN); /* as libcurl does */
    *ret = TAKE_PTR(t);
    return 0;
}

Trust *trust_free(Trust *t) {
    if (!t)
        return NULL;
    X509_STORE_free(t->store);
    free(t);
    return NULL;
}

void trust_use(const Trust *t, SSL_CTX *ctx) {
    SSL_CTX_set1_cert_store(ctx, t->store);
}
