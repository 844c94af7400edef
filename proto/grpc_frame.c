/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_frame: the small formats of gRPC over HTTP/2: message framing, grpc-timeout, grpc-message.
 */
#include "proto/grpc_frame.h"

enum {
    MESSAGE_ENCODED_BYTES = 4096,
    TIMEOUT_DIGITS = 8,
    BODY_KEPT_BYTES = 64 << 10, /* a bigger buffer is given back after its message */
};

void grpc_prefix_write(uint8_t prefix[static GRPC_PREFIX_BYTES], size_t n) {
    assert(n <= UINT32_MAX);
    prefix[0] = 0;
    for (size_t i = 0; i < 4; i++)
        prefix[1 + i] = (uint8_t)(n >> (24 - 8 * i));
}

static int prefix_judge(GrpcReader *r) {
    if (r->prefix[0] == 1)
        return -ENOTSUP;
    if (r->prefix[0] != 0)
        return -EPROTO;
    r->want = 0;
    for (size_t i = 0; i < 4; i++)
        r->want = r->want << 8 | r->prefix[1 + i];
    return r->want > r->body.max ? -E2BIG : 0;
}

int grpc_reader_push(GrpcReader *r, const uint8_t **data, size_t *n) {
    size_t take;
    int error;

    while (r->n_prefix < GRPC_PREFIX_BYTES) {
        if (*n == 0)
            return 0;
        r->prefix[r->n_prefix++] = *(*data)++;
        (*n)--;
        if (r->n_prefix == GRPC_PREFIX_BYTES) {
            error = prefix_judge(r);
            if (error < 0)
                return error;
        }
    }
    take = MIN(*n, r->want - r->body.len);
    error = buf_append(&r->body, *data, take);
    if (error < 0)
        return error;
    *data += take;
    *n -= take;
    return r->body.len == r->want;
}

void grpc_reader_next(GrpcReader *r) {
    r->n_prefix = 0;
    r->body.len = 0;
    if (r->body.alloc > BODY_KEPT_BYTES)
        buf_done(&r->body);
}

bool grpc_reader_is_empty(const GrpcReader *r) {
    return r->n_prefix == 0;
}

void grpc_reader_done(GrpcReader *r) {
    buf_done(&r->body);
}

/* Units of grpc-timeout, finest first. */
static const struct {
    char name;
    uint64_t nsec;
} units[] = {
    { 'n', 1ULL },
    { 'u', NSEC_PER_USEC },
    { 'm', NSEC_PER_USEC *USEC_PER_MSEC },
    { 'S', NSEC_PER_USEC *USEC_PER_SEC },
    { 'M', NSEC_PER_USEC *USEC_PER_SEC * 60 },
    { 'H', NSEC_PER_USEC *USEC_PER_SEC * 3600 },
};

int grpc_timeout_parse(const char *s, size_t n, uint64_t *ret_usec) {
    uint64_t value = 0;

    if (n < 2 || n > TIMEOUT_DIGITS + 1)
        return -EINVAL;
    for (size_t i = 0; i < n - 1; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -EINVAL;
        value = value * 10 + (uint64_t)(s[i] - '0');
    }
    for (size_t i = 0; i < ELEMENTSOF(units); i++) {
        if (units[i].name != s[n - 1])
            continue;
        if (units[i].nsec < NSEC_PER_USEC)
            *ret_usec = (value + NSEC_PER_USEC - 1) / NSEC_PER_USEC;
        else
            *ret_usec = value * (units[i].nsec / NSEC_PER_USEC);
        return 0;
    }
    return -EINVAL;
}

const char *grpc_timeout_format(char buf[static GRPC_TIMEOUT_MAX], uint64_t usec) {
    const uint64_t max = 99999999;

    for (size_t i = 1; i < ELEMENTSOF(units); i++) {
        uint64_t unit_usec = units[i].nsec / NSEC_PER_USEC;
        uint64_t value = usec / unit_usec + (usec % unit_usec > 0);

        if (value <= max || i + 1 == ELEMENTSOF(units)) {
            (void)snprintf(buf, GRPC_TIMEOUT_MAX, "%u%c", (unsigned)MIN(value, max), units[i].name);
            return buf;
        }
    }
    return buf; /* not reached: the last unit always returns */
}

/* Bytes of the UTF-8 character at `p`; 1 for what is none. */
static size_t character_bytes(const unsigned char *p) {
    size_t n = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : *p >= 0xc0 ? 2 : 1;

    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 1;
    return n;
}

/* A header's value may neither begin nor end with a space (RFC 9113, section 8.2.1). */
static bool is_outer_space(const char *text, const unsigned char *p) {
    return *p == ' ' && (p == (const unsigned char *)text || !p[1]);
}

char *grpc_message_encode(const char *text) {
    static const char digits[] = "0123456789ABCDEF";
    char *encoded = xnew_n(char, MIN(3 * strlen(text), (size_t)MESSAGE_ENCODED_BYTES) + 1);
    const unsigned char *p = (const unsigned char *)text;
    size_t n = 0;

    while (*p) {
        size_t k = character_bytes(p);

        if (n + 3 * k > MESSAGE_ENCODED_BYTES)
            break;
        for (size_t i = 0; i < k; i++, p++)
            if (*p >= ' ' && *p <= '~' && *p != '%' && !is_outer_space(text, p)) {
                encoded[n++] = (char)*p;
            } else {
                encoded[n++] = '%';
                encoded[n++] = digits[*p >> 4];
                encoded[n++] = digits[*p & 15];
            }
    }
    return encoded;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

char *grpc_message_decode(const char *s, size_t n) {
    char *text = xnew_n(char, n + 1);
    size_t k = 0;

    for (size_t i = 0; i < n; i++) {
        int high = s[i] == '%' && n - i > 2 ? hex_value(s[i + 1]) : -1;
        int low = high >= 0 ? hex_value(s[i + 2]) : -1;

        if (low >= 0 && high * 16 + low > 0) {
            text[k++] = (char)(high * 16 + low);
            i += 2;
        } else
            text[k++] = s[i];
    }
    return text;
}
