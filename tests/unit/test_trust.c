/* SPDX-License-Identifier: Apache-2.0 */
/* test_trust: servers of several chains, asked by libcurl with CAs of which one signed them, or
 * none. */
#include "oci/http.h"
#include "oci/trust.h"

#include "base/fs.h"
#include "tests/unit/http_server.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>

#define SYSTEM_FILE "/etc/ssl/certs/ca-certificates.crt"

typedef struct Issued {
    X509 *certificate;
    EVP_PKEY *key;
    char *pem, *trusted_pem;
} Issued;

static void add_extension(X509 *x, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509_EXTENSION *e;

    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    ASSERT_TRUE(e);
    ASSERT_EQ(X509_add_ext(x, e, -1), 1);
    X509_EXTENSION_free(e);
}

static char *to_pem(X509 *x, int (*write)(BIO *out, const X509 *x)) {
    BIO *out = BIO_new(BIO_s_mem());
    char *data, *text;
    long n;

    ASSERT_EQ(write(out, x), 1);
    n = BIO_get_mem_data(out, &data);
    text = xcalloc((size_t)n + 1, 1);
    memcpy(text, data, (size_t)n);
    BIO_free(out);
    return text;
}

/* By itself when `issuer` is NULL. */
static Issued issue(const char *name, bool ca, const Issued *issuer) {
    Issued i = { .certificate = X509_new(), .key = EVP_EC_gen("P-256") };
    X509 *x = i.certificate, *by = issuer ? issuer->certificate : x;

    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(by));
    X509_set_pubkey(x, i.key);
    add_extension(x, by, NID_basic_constraints, ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    add_extension(x, by, NID_subject_key_identifier, "hash");
    add_extension(x, by, NID_authority_key_identifier, "keyid"); /* tells namesakes apart */
    if (!ca)
        add_extension(x, by, NID_subject_alt_name, "IP:127.0.0.1");
    ASSERT_TRUE(X509_sign(x, issuer ? issuer->key : i.key, EVP_sha256()) > 0);
    i.pem = to_pem(x, PEM_write_bio_X509);
    i.trusted_pem = to_pem(x, PEM_write_bio_X509_AUX);
    return i;
}

static void issued_done(Issued *i) {
    X509_free(i->certificate);
    EVP_PKEY_free(i->key);
    free(i->pem);
    free(i->trusted_pem);
}

static void handler(ServerConn *c, _unused_ const ServerRequest *q, _unused_ void *arg) {
    server_reply(c, 200, "", "");
}

typedef struct Seen {
    int done, r;
    Err err;
} Seen;

static void on_done(void *arg, _unused_ HttpTransfer *t, int r, const Err *err) {
    *(Seen *)arg = (Seen){ .done = 1, .r = r, .err = *err };
}

/* Asks a server that shows `leaf` and, unless it is NULL, `between`. */
static Seen ask(const char *ca_pem, const Issued *leaf, const Issued *between) {
    _cleanup_(server_freep) Server *server = server_new(handler, NULL, true);
    _cleanup_(sd_event_unrefp) sd_event *event = NULL;
    _cleanup_(http_freep) Http *http = NULL;
    _cleanup_(origin_freep) Origin *url = NULL;
    _cleanup_free_ char *text = xasprintf("https://127.0.0.1:%u/", server->port);
    HttpTransfer *t;
    Seen s = { 0 };

    SSL_CTX_use_certificate(server->tls, leaf->certificate);
    SSL_CTX_use_PrivateKey(server->tls, leaf->key);
    if (between)
        SSL_CTX_add1_chain_cert(server->tls, between->certificate);
    ASSERT_OK(sd_event_new(&event));
    ASSERT_OK(http_new(&http, &(HttpOptions){ .event = event, .trust = trust_of(ca_pem) }, NULL));
    ASSERT_OK(origin_parse(&url, NULL, text, NULL));
    ASSERT_OK(http_start(http, &t,
                         &(HttpRequest){ .url = url,
                                         .may_reach = ADDRESS_LOOPBACK,
                                         .handlers = { .on_done = on_done, .arg = &s } },
                         NULL));
    run_until(event, &s.done, 1);
    return s;
}

TEST(trust_believes_who_a_ca_of_the_list_signed) {
    _cleanup_(issued_done)
        Issued root = issue("root", true, NULL),
               namesake = issue("root", true, NULL), other = issue("other", true, NULL),
               middle = issue("middle", true, &root), near = issue("server", false, &root),
               far = issue("server", false, &middle), alone = issue("server", false, NULL);
    const struct {
        const char *cas[3];
        const Issued *leaf, *between;
        bool good;
    } cases[] = {
        { { root.pem }, &near, NULL, true },
        { { other.pem, root.pem }, &near, NULL, true },
        { { "Comment\n", root.trusted_pem, "more" }, &near, NULL, true },
        { { namesake.pem, root.pem }, &near, NULL, true },
        { { root.pem, namesake.pem }, &near, NULL, true },
        { { root.pem }, &far, &middle, true },
        { { middle.pem, root.pem }, &far, NULL, true },
        { { middle.pem }, &far, NULL, true }, /* that is enough for libcurl */
        { { near.pem }, &near, NULL, true },
        { { alone.pem }, &alone, NULL, true },
        { { other.pem }, &near, NULL, false },
        { { namesake.pem }, &near, NULL, false },
        { { root.pem }, &far, NULL, false },
        { { other.pem }, &far, &middle, false },
        { { root.pem }, &alone, NULL, false },
        { { near.pem }, &alone, NULL, false }, /* of the same name */
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_free_ char *pem =
            xasprintf("%s%s%s", cases[i].cas[0], cases[i].cas[1] ?: "", cases[i].cas[2] ?: "");
        Seen s = ask(pem, cases[i].leaf, cases[i].between);

        ASSERT_EQ(s.r, cases[i].good ? 0 : -EPROTO);
        if (!cases[i].good)
            ASSERT_STRSTR(s.err.text, "certificate");
    }
}

TEST(trust_wants_certificates) {
    _cleanup_(issued_done) Issued root = issue("root", true, NULL);
    _cleanup_free_ char *cut = xstrdup(root.pem), *damaged = NULL, *no_certificate = NULL;
    const struct {
        const char **pem, *text;
    } cases[] = {
        { (const char *[]){ "" }, "no certificate" },
        { (const char *[]){ "certificates" }, "no certificate" },
        { (const char *[]){ "-----BEGIN X-----\nAAAA\n-----END X-----\n" }, "no certificate" },
        { (const char **)&damaged, "certificate 2" },
        { (const char **)&no_certificate, "certificate 2" },
    };
    Seen s;
    Err err;

    cut[strlen(cut) / 2] = '\0';
    damaged = xasprintf("%s%s%s", root.pem, cut, root.pem);
    no_certificate =
        xasprintf("%s-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n", root.pem);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(trust_freep) Trust *t = trust_of(*cases[i].pem);

        for (unsigned again = 0; again < 2; again++) {
            ASSERT_ERR(trust_load(t, &err), -EINVAL);
            ASSERT_STRSTR(err.text, cases[i].text);
        }
    }
    s = ask(damaged, &root, NULL);
    ASSERT_EQ(s.r, -EPROTO);
    ASSERT_STRSTR(s.err.text, "certificate 2 of the trusted CAs is damaged");
    ASSERT_STRSTR(s.err.text, "ca_file");
}

static void append(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    ASSERT_TRUE(fd >= 0);
    ASSERT_OK(fs_write_all(fd, text, strlen(text), NULL));
    ASSERT_OK(close(fd));
}

/* What was read ahead, and what came later, count together; but not once the system's file is
 * another one. */
TEST(trust_of_the_system) {
    _cleanup_(issued_done) Issued root = issue("root", true, NULL);
    _cleanup_(trust_freep) Trust *t = NULL;
    TmpDir *dir;
    const char *path;
    Err err;

    if (geteuid() != 0 || access(SYSTEM_FILE, R_OK) < 0)
        SKIP("needs root and the system's file of CAs, over which it mounts one of its own");
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        SKIP("a mount namespace of its own is refused");
    dir = tmpdir_new();
    path = tmpdir_join(dir, "cas");
    append(path, root.pem);
    ASSERT_OK(mount(path, SYSTEM_FILE, NULL, MS_BIND, NULL));
    t = trust_new();
    trust_add_system(t);
    ASSERT_OK(trust_load(t, &err));
    ASSERT_TRUE(trust_is_current(t));
    trust_add(t, "-----BEGIN CERTIFICATE-----\nMAMC", 32);
    ASSERT_ERR(trust_load(t, &err), -EINVAL);
    ASSERT_STRSTR(err.text, "certificate 2");
    append(path, root.pem);
    ASSERT_TRUE(!trust_is_current(t));
    ASSERT_OK(umount(SYSTEM_FILE));
    dir = tmpdir_free(dir);
}
