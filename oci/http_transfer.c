/* SPDX-License-Identifier: Apache-2.0 */
/* http_transfer: one transfer of libcurl: its options, what comes in, and how it ended. */
#include "oci/http_internal.h"

#include "base/limits.h"

#include <netinet/in.h>
#include <strings.h>

#define CONNECT_SECONDS     15
#define STALL_BYTES_PER_SEC 100
#define BUFFER_BYTES        KiB(512)
#define HEADER_LINES_MAX    256

static void clear_head(HttpTransfer *t) {
    for (size_t i = 0; i < t->n_lines; i++)
        free(t->lines[i]);
    t->n_lines = 0;
}

/* "HTTP/1.1 200 OK" -> 200; 0: not a status line. */
static unsigned read_status(const char *line, size_t n) {
    const char *s = memchr(line, ' ', n);
    unsigned status = 0;

    if (n < 5 || memcmp(line, "HTTP/", 5) != 0 || !s)
        return 0;
    for (s++; s < line + n && *s >= '0' && *s <= '9' && status < 1000; s++)
        status = status * 10 + (unsigned)(*s - '0');
    return status;
}

static int end_head(HttpTransfer *t) {
    if (t->status < 200 ||
        t->head_done) /* 100 Continue, 103 Early Hints; trailers of a chunked body */
        return 0;
    t->head_done = true;
    return t->handlers.on_head ? t->handlers.on_head(t->handlers.arg, t) : 0;
}

static int take_line(HttpTransfer *t, const char *line, size_t n) {
    unsigned status;

    t->head_bytes += n;
    if (t->head_bytes > LIMIT_HTTP_HEADER_BYTES || t->n_lines >= HEADER_LINES_MAX)
        return -EPROTO;
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == '\n'))
        n--;
    if (n == 0)
        return end_head(t);
    if (t->head_done)
        return 0;
    status = read_status(line, n);
    if (status > 0) {
        clear_head(t);
        t->status = status;
        return 0;
    }
    ARRAY_GROW(t->lines, t->n_lines, t->cap_lines);
    t->lines[t->n_lines] = xcalloc(n + 1, 1); /* not strndup: no NUL ends the line */
    memcpy(t->lines[t->n_lines++], line, n);
    return 0;
}

static size_t header_callback(char *data, size_t size, size_t n, void *arg) {
    HttpTransfer *t = arg;
    int r = t->dead ? -ECANCELED : take_line(t, data, size * n);

    if (r < 0) {
        t->r = r;
        return 0;
    }
    return size * n;
}

static size_t write_callback(char *data, size_t size, size_t n, void *arg) {
    HttpTransfer *t = arg;
    int r = -ECANCELED;

    t->wants_resume = false; /* of a pause that was over already */
    if (!t->dead && t->handlers.on_data)
        r = t->handlers.on_data(t->handlers.arg, (const uint8_t *)data, size * n);
    if (r > 0) {
        t->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (r < 0) {
        t->r = r;
        return CURL_WRITEFUNC_ERROR;
    }
    return size * n;
}

/* Here the address is known that a name stands for; nothing that a registry says leads us into the
 * node's network. */
static curl_socket_t open_callback(void *arg, _unused_ curlsocktype purpose,
                                   struct curl_sockaddr *address) {
    HttpTransfer *t = arg;
    AddressKind kind = address_kind(&address->addr);

    if (kind > t->may_reach) {
        t->blocked = true;
        return CURL_SOCKET_BAD;
    }
    t->used = MAX(t->used, kind);
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

#define SET(option, value) \
    (code = code == CURLE_OK ? curl_easy_setopt(t->easy, (option), (value)) : code)

static CURLcode set_callbacks(HttpTransfer *t) {
    CURLcode code = CURLE_OK;

    SET(CURLOPT_PRIVATE, t);
    SET(CURLOPT_ERRORBUFFER, t->curl_text);
    SET(CURLOPT_HEADERFUNCTION, header_callback);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, write_callback);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_callback);
    SET(CURLOPT_OPENSOCKETDATA, t);
    return code;
}

/* What libcurl could do by itself, and must not.  Files are named so that none is opened. */
static CURLcode set_restrictions(HttpTransfer *t, const HttpRequest *q) {
    CURLcode code = CURLE_OK;

    SET(CURLOPT_PROTOCOLS_STR, q->url->is_https ? "https" : "http");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_UNRESTRICTED_AUTH, 0L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_HSTS_CTRL, 0L);
    SET(CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE); /* ours do not go to a proxy */
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_HTTP_CONTENT_DECODING, 0L);
    SET(CURLOPT_ACCEPT_ENCODING, NULL);
    SET(CURLOPT_COOKIEFILE, NULL);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L);
    return code;
}

static CURLcode set_network(HttpTransfer *t, const HttpRequest *q) {
    CURLcode code = CURLE_OK;

    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_TCP_KEEPIDLE, 30L);
    SET(CURLOPT_TCP_KEEPINTVL, 10L);
    SET(CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    SET(CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES_PER_SEC);
    SET(CURLOPT_LOW_SPEED_TIME, (long)t->http->stall_seconds);
    SET(CURLOPT_TIMEOUT, (long)q->timeout_seconds);
    return code;
}

/* Who only speaks plain HTTP needs none of the CAs. */
static CURLcode ssl_ctx_callback(_unused_ CURL *easy, void *ssl_ctx, void *arg) {
    Http *h = arg;

    if (trust_load(h->trust, &h->trust_err) < 0)
        return CURLE_SSL_CACERT_BADFILE;
    trust_use(h->trust, ssl_ctx);
    return CURLE_OK;
}

static CURLcode set_tls(HttpTransfer *t, const HttpRequest *q) {
    CURLcode code = CURLE_OK;

    SET(CURLOPT_CAINFO, NULL);
    SET(CURLOPT_CAPATH, NULL);
    if (!q->skip_verify) {
        SET(CURLOPT_SSL_CTX_FUNCTION, ssl_ctx_callback);
        SET(CURLOPT_SSL_CTX_DATA, t->http);
    }
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_VERIFYPEER, q->skip_verify ? 0L : 1L);
    SET(CURLOPT_SSL_VERIFYHOST, q->skip_verify ? 0L : 2L);
    return code;
}

static bool add_header(HttpTransfer *t, const char *line) {
    struct curl_slist *list = curl_slist_append(t->headers, line);

    if (list)
        t->headers = list;
    return list;
}

static CURLcode set_request(HttpTransfer *t, const HttpRequest *q) {
    CURLcode code = CURLE_OK;
    bool ok = true;

    for (const char *const *line = q->headers; line && *line; line++)
        ok = ok && add_header(t, *line);
    if (!ok)
        return CURLE_OUT_OF_MEMORY;
    SET(CURLOPT_URL, q->url->url);
    SET(CURLOPT_USERAGENT, t->http->user_agent);
    SET(CURLOPT_HTTPHEADER, t->headers);
    if (q->form) {
        t->form = xstrdup(q->form);
        SET(CURLOPT_POSTFIELDS, t->form);
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(t->form));
    } else {
        SET(CURLOPT_HTTPGET, 1L);
    }
    return code;
}

int transfer_setup(HttpTransfer *t, const HttpRequest *request, Err *err) {
    CURLcode code;

    for (const char *const *line = request->headers; line && *line; line++)
        for (const char *c = *line; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                return err_set(err, -EIO, "a control character would get into a header");
    t->easy = curl_easy_init();
    code = t->easy ? set_callbacks(t) : CURLE_OUT_OF_MEMORY;
    if (code == CURLE_OK)
        code = set_restrictions(t, request);
    if (code == CURLE_OK)
        code = set_network(t, request);
    if (code == CURLE_OK)
        code = set_tls(t, request);
    if (code == CURLE_OK)
        code = set_request(t, request);
    if (code != CURLE_OK)
        return err_set(err, -EIO, "libcurl could not be set up: %s", curl_easy_strerror(code));
    return 0;
}

void transfer_destroy(HttpTransfer *t) {
    if (t->easy)
        curl_easy_cleanup(t->easy);
    for (struct curl_slist *l = t->headers; l; l = l->next)
        explicit_bzero(l->data, strlen(l->data)); /* Authorization */
    curl_slist_free_all(t->headers);
    if (t->form)
        explicit_bzero(t->form, strlen(t->form));
    free(t->form);
    clear_head(t);
    free(t->lines);
    free(t);
}

unsigned http_status(const HttpTransfer *t) {
    return t->status;
}

uint64_t http_answer_usec(const HttpTransfer *t) {
    curl_off_t sent = 0, first_byte = 0;

    (void)curl_easy_getinfo(t->easy, CURLINFO_PRETRANSFER_TIME_T, &sent);
    (void)curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte);
    return first_byte > sent ? (uint64_t)(first_byte - sent) : 0;
}

AddressKind http_used_address(const HttpTransfer *t) {
    return t->used;
}

const char *http_header(const HttpTransfer *t, const char *name, size_t i) {
    size_t n = strlen(name);

    for (size_t k = 0; k < t->n_lines; k++) {
        char *line = t->lines[k];
        if (strncasecmp(line, name, n) != 0 || line[n] != ':' || i-- > 0)
            continue;
        line += n + 1;
        line += strspn(line, " \t");
        for (size_t end = strlen(line); end > 0 && (line[end - 1] == ' ' || line[end - 1] == '\t');
             end--)
            line[end - 1] = 0;
        return line;
    }
    return NULL;
}

/* What the system said, or what fits the result best. */
static int network_errno(const HttpTransfer *t, int fallback) {
    long os = 0;

    (void)curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os);
    switch (os) {
    case ECONNREFUSED:
        return -ECONNREFUSED;
    case ECONNRESET:
    case EPIPE:
        return -ECONNRESET;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
        return -EHOSTUNREACH;
    case ETIMEDOUT:
        return -ETIMEDOUT;
    default:
        return fallback;
    }
}

static int result_errno(const HttpTransfer *t) {
    switch (t->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return -EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
        return network_errno(t, -ECONNREFUSED);
    case CURLE_OPERATION_TIMEDOUT:
        return -ETIMEDOUT;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        return network_errno(t, -ECONNRESET);
    case CURLE_SSL_CONNECT_ERROR:
        return network_errno(t, -EPROTO);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_CIPHER:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_HTTP2:
    case CURLE_BAD_CONTENT_ENCODING:
        return -EPROTO;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    default:
        return network_errno(t, -EIO);
    }
}

static const char *result_advice(const HttpTransfer *t) {
    switch (t->code) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return "; the registry's CA must be in its ca_file in the configuration, or among the "
               "system's";
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return "; if it does not speak TLS, it needs plain_http in the configuration";
    case CURLE_COULDNT_RESOLVE_HOST:
        return "; check the name and the DNS of this machine";
    case CURLE_COULDNT_CONNECT:
        return "; is the registry up, and is its port reachable from this node?";
    case CURLE_OPERATION_TIMEDOUT:
        return "; is the registry overloaded, or a firewall in between?";
    default:
        return "";
    }
}

/* Ours is the cap on all lines; libcurl has one on a single line (100 KiB), which it never gives us
 * and calls out of memory. */
static bool head_too_large(const HttpTransfer *t) {
    curl_off_t first_byte = 0;

    if (t->r < 0)
        return t->head_bytes > LIMIT_HTTP_HEADER_BYTES || t->n_lines >= HEADER_LINES_MAX;
    (void)curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &first_byte);
    return t->code == CURLE_OUT_OF_MEMORY && first_byte > 0 && !t->head_done;
}

int transfer_result(const HttpTransfer *t, Err *err) {
    char text[CURL_ERROR_SIZE];

    if (t->blocked)
        return err_set(err, -EPROTO, "the host has %s", address_refusal(t->may_reach));
    if (head_too_large(t))
        return err_set(err, -EPROTO, "the answer's head is larger than %zu bytes or %d lines",
                       (size_t)LIMIT_HTTP_HEADER_BYTES, HEADER_LINES_MAX);
    if (t->r < 0)
        return err_errnum(err, t->r, "ended");
    if (t->code == CURLE_OK)
        return 0;
    if (t->code == CURLE_SSL_CACERT_BADFILE) /* libcurl has but that our callback failed */
        return err_set(
            err, result_errno(t),
            "%.300s; these are the system's, and then those of the registry's ca_file in "
            "the configuration",
            t->http->trust_err.text);
    (void)snprintf(text, sizeof(text), "%s",
                   t->curl_text[0] ? t->curl_text : curl_easy_strerror(t->code));
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    return err_set(err, result_errno(t), "%s%s", text, result_advice(t));
}
