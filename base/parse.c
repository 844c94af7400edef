/* SPDX-License-Identifier: Apache-2.0 */
/* parse: numbers, sizes, times and bytes as people and protocols write them; strict, whole strings
 * only. */
#include "base/parse.h"

/* Products of two 64 bit numbers fit; the result is checked before it is narrowed. */
__extension__ typedef unsigned __int128 Wide;

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

/* Reads the digits at `*s` and leaves `*s` behind them. */
static int take_u64(const char **s, uint64_t *ret) {
    const char *p = *s;
    uint64_t n = 0;

    if (!is_digit(*p))
        return -EINVAL;
    for (; is_digit(*p); p++) {
        if (__builtin_mul_overflow(n, 10U, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
            return -ERANGE;
    }
    *s = p;
    *ret = n;
    return 0;
}

int parse_u64(const char *s, uint64_t *ret) {
    uint64_t n;
    int r = take_u64(&s, &n);

    if (r < 0)
        return r;
    if (*s)
        return -EINVAL;
    *ret = n;
    return 0;
}

int parse_bool(const char *s, bool *ret) {
    static const struct {
        const char *word;
        bool value;
    } words[] = { { "true", true }, { "false", false }, { "yes", true }, { "no", false },
                  { "on", true },   { "off", false },   { "1", true },   { "0", false } };

    for (size_t i = 0; i < ELEMENTSOF(words); i++)
        if (streq(words[i].word, s)) {
            *ret = words[i].value;
            return 0;
        }
    return -EINVAL;
}

typedef struct Unit {
    const char *name;
    uint64_t factor;
} Unit;

static const Unit *find_unit(const Unit *units, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (streq(units[i].name, name))
            return &units[i];
    return NULL;
}

/* The digits behind a point, as a fraction `*ret_part` / `*ret_of`; more than nine are not worth a
 * unit. */
static int take_fraction(const char **s, uint64_t *ret_part, uint64_t *ret_of) {
    uint64_t part = 0, of = 1;

    if (**s == '.') {
        const char *begin = ++*s;
        int r = take_u64(s, &part);
        if (r < 0 || *s - begin > 9)
            return -EINVAL;
        for (const char *p = begin; p < *s; p++)
            of *= 10;
    }
    *ret_part = part;
    *ret_of = of;
    return 0;
}

int parse_size(const char *s, uint64_t *ret_bytes) {
    static const Unit units[] = {
        { "", 1 }, { "KiB", KiB(1) }, { "MiB", MiB(1) }, { "GiB", GiB(1) }, { "TiB", GiB(1024) }
    };
    uint64_t whole, part, of;
    const Unit *unit;
    Wide bytes;
    int r;

    r = take_u64(&s, &whole);
    if (r < 0)
        return r;
    r = take_fraction(&s, &part, &of);
    if (r < 0)
        return r;
    unit = find_unit(units, ELEMENTSOF(units), s);
    if (!unit || (of > 1 && unit->factor == 1)) /* there is no half a byte */
        return -EINVAL;
    bytes = (Wide)whole * unit->factor + (Wide)part * unit->factor / of;
    if (bytes > UINT64_MAX)
        return -ERANGE;
    *ret_bytes = (uint64_t)bytes;
    return 0;
}

int parse_duration(const char *s, uint64_t *ret_usec) {
    static const Unit units[] = { { "", USEC_PER_SEC },
                                  { "ms", USEC_PER_MSEC },
                                  { "s", USEC_PER_SEC },
                                  { "m", 60 * USEC_PER_SEC },
                                  { "h", 3600 * USEC_PER_SEC } };
    const Unit *unit;
    uint64_t n;
    int r;

    r = take_u64(&s, &n);
    if (r < 0)
        return r;
    unit = find_unit(units, ELEMENTSOF(units), s);
    if (!unit)
        return -EINVAL;
    if (__builtin_mul_overflow(n, unit->factor, &n))
        return -ERANGE;
    *ret_usec = n;
    return 0;
}

static int hex_value(char c) {
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -EINVAL;
}

int parse_hex(const char *s, size_t n, uint8_t *ret) {
    if (n % 2 != 0)
        return -EINVAL;
    for (size_t i = 0; i < n;
         i++) /* first look, then write: `*ret` is not touched on failure; a NUL ends it too */
        if (hex_value(s[i]) < 0)
            return -EINVAL;
    for (size_t i = 0; i < n; i += 2)
        ret[i / 2] = (uint8_t)(hex_value(s[i]) << 4 | hex_value(s[i + 1]));
    return 0;
}

void format_hex(const uint8_t *bytes, size_t n, char *ret) {
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[2 * n] = '\0';
}

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (is_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -EINVAL;
}

int parse_base64(const char *s, size_t n, char **ret, size_t *ret_n) {
    _cleanup_free_ char *out = NULL;
    size_t padding = 0, len = 0;
    uint32_t bits = 0;

    if (n % 4 != 0)
        return -EINVAL;
    while (padding < 2 && padding < n && s[n - 1 - padding] == '=')
        padding++;
    out = xcalloc(n / 4 * 3 + 1, 1);
    for (size_t i = 0; i < n - padding; i++) {
        int v = base64_value(s[i]);
        if (v < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)v;
        if (i % 4 > 0) /* 6, 12, 18 and 24 bits are there after each of four; a byte is whole from
                          the second on */
            out[len++] = (char)(uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
    if (padding > 0 && (bits & ((1U << 2 * padding) - 1)) !=
                           0) /* section 3.5: bits that belong to no byte are zero */
        return -EINVAL;
    *ret = TAKE_PTR(out);
    *ret_n = len;
    return 0;
}

char *format_base64(const void *data, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = data;
    char *out = xcalloc((n + 2) / 3 * 4 + 1, 1), *to = out;

    for (size_t i = 0; i < n; i += 3) {
        size_t left = MIN(n - i, (size_t)3);
        uint32_t bits = (uint32_t)in[i] << 16;
        if (left > 1)
            bits |= (uint32_t)in[i + 1] << 8;
        if (left > 2)
            bits |= in[i + 2];
        for (size_t k = 0; k < 4; k++)
            *to++ = k <= left ? digits[bits >> (18 - 6 * k) & 63] : '=';
    }
    return out;
}

const char *format_bytes(char buf[static FORMAT_BYTES_MAX], uint64_t bytes) {
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    uint64_t tenths = 0;
    size_t i;

    for (i = 0; i < ELEMENTSOF(units); i++) { /* 16 EiB are less than 1024 of the last unit */
        tenths = (uint64_t)(((Wide)bytes * 10 + ((Wide)1 << 10 * i) / 2) >> 10 * i);
        if (tenths < 10240)
            break;
    }
    if (tenths < 1000 && tenths % 10 != 0)
        (void)snprintf(buf, FORMAT_BYTES_MAX, "%u.%u %s", (unsigned)(tenths / 10),
                       (unsigned)(tenths % 10), units[i]);
    else
        (void)snprintf(buf, FORMAT_BYTES_MAX, "%u %s", (unsigned)((tenths + 5) / 10), units[i]);
    return buf;
}

const char *format_duration(char buf[static FORMAT_DURATION_MAX], uint64_t usec) {
    uint64_t s = usec / USEC_PER_SEC;

    if (usec > 0 && usec < USEC_PER_MSEC)
        (void)snprintf(buf, FORMAT_DURATION_MAX, "%u us", (unsigned)usec);
    else if (usec > 0 && s == 0)
        (void)snprintf(buf, FORMAT_DURATION_MAX, "%u ms", (unsigned)(usec / USEC_PER_MSEC));
    else if (s < 60)
        (void)snprintf(buf, FORMAT_DURATION_MAX, "%u s", (unsigned)s);
    else if (s < 3600)
        (void)snprintf(buf, FORMAT_DURATION_MAX, "%u min %u s", (unsigned)(s / 60),
                       (unsigned)(s % 60));
    else if (s < 86400)
        (void)snprintf(buf, FORMAT_DURATION_MAX, "%u h %u min", (unsigned)(s / 3600),
                       (unsigned)(s % 3600 / 60));
    else
        (void)snprintf(buf, FORMAT_DURATION_MAX, "%llu d %u h", (unsigned long long)(s / 86400),
                       (unsigned)(s % 86400 / 3600));
    return buf;
}

size_t control_character(const char *s) {
    const unsigned char *c = (const unsigned char *)s;

    if (*c == 0xc2)
        return c[1] >= 0x80 && c[1] <= 0x9f ? 2 : 0;
    if (c[0] == 0xe2 && c[1] == 0x80)
        return (c[2] >= 0xa8 && c[2] <= 0xae) || c[2] == 0x8e || c[2] == 0x8f ? 3 : 0;
    if (c[0] == 0xe2 && c[1] == 0x81)
        return c[2] >= 0xa6 && c[2] <= 0xa9 ? 3 : 0;
    return *c > 0 && (*c < 0x20 || *c == 0x7f);
}
