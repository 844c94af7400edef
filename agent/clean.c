/* SPDX-License-Identifier: Apache-2.0 */
/* clean: text from outside, made fit for logs, errors and messages. */
#include "agent/clean.h"

#include "base/parse.h"

/* Length of the sequence at `s` (NUL-terminated), 0 when it is malformed. */
static size_t sequence(const unsigned char *s) {
    static const struct {
        unsigned char mask, lead;
        uint32_t min;
        size_t n;
    } forms[] = { { 0x80, 0x00, 0, 1 },
                  { 0xe0, 0xc0, 0x80, 2 },
                  { 0xf0, 0xe0, 0x800, 3 },
                  { 0xf8, 0xf0, 0x10000, 4 } };

    for (size_t i = 0; i < ELEMENTSOF(forms); i++) {
        uint32_t c = s[0] & (unsigned char)~forms[i].mask;
        if ((s[0] & forms[i].mask) != forms[i].lead)
            continue;
        for (size_t k = 1; k < forms[i].n; k++) {
            if ((s[k] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (s[k] & 0x3f);
        }
        return c < forms[i].min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : forms[i].n;
    }
    return 0;
}

bool utf8_is_valid(const char *s) {
    for (size_t n; *s; s += n)
        if ((n = sequence((const unsigned char *)s)) == 0)
            return false;
    return true;
}

bool text_is_clean(const char *s) {
    for (const char *p = s; *p; p++)
        if (control_character(p) > 0)
            return false;
    return utf8_is_valid(s);
}

char *text_clean(const char *s, size_t max) {
    char *clean;
    size_t used = 0;

    if (!s)
        s = "";
    clean = xnew_n(char, MIN(strlen(s), max) + 1);
    while (*s) {
        size_t n = sequence((const unsigned char *)s), control = control_character(s);
        if (used + MAX(n, (size_t)1) > max)
            break;
        if (n == 0 || control > 0) {
            clean[used++] = '?';
            s += MAX(control, (size_t)1);
        } else {
            memcpy(clean + used, s, n);
            used += n;
            s += n;
        }
    }
    return clean;
}
