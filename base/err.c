/* SPDX-License-Identifier: Apache-2.0 */
/* err: the sentence for a person that goes with a negative errno. */
#include "base/err.h"

#include <stdarg.h>

_printf_(2, 0) static void set_va(Err *err, const char *format, va_list ap) {
    /* A sentence that is too long is cut; it is for reading, not for parsing. */
    (void)vsnprintf(err->text, sizeof(err->text), format, ap);
}

static void append(Err *err, const char *separator, const char *text) {
    size_t n = strlen(err->text);

    (void)snprintf(err->text + n, sizeof(err->text) - n, "%s%s", separator,
                   text); /* cut, as above */
}

/* To all who look at the number a quota that is used up is a lack of space: the same helps. */
static int number_of(int r) {
    return r == -EDQUOT ? -ENOSPC : r;
}

int err_set(Err *err, int r, const char *format, ...) {
    assert(r < 0);
    if (err) {
        va_list ap;
        va_start(ap, format);
        set_va(err, format, ap);
        va_end(ap);
    }
    return r;
}

int err_errnum(Err *err, int r, const char *format, ...) {
    assert(r < 0);
    if (err) {
        va_list ap;
        va_start(ap, format);
        set_va(err, format, ap);
        va_end(ap);
        append(err, ": ", strerror(-r));
    }
    return number_of(r);
}

int err_errno(Err *err, const char *format, ...) {
    int r = errno > 0 ? -errno : -EIO;

    if (err) {
        va_list ap;
        va_start(ap, format);
        set_va(err, format, ap);
        va_end(ap);
        append(err, ": ", strerror(-r));
    }
    return number_of(r);
}

int err_prefix(Err *err, int r, const char *format, ...) {
    assert(r < 0);
    if (err) {
        Err old = *err;
        va_list ap;
        va_start(ap, format);
        set_va(err, format, ap);
        va_end(ap);
        append(err, ": ", err_text(&old, r));
    }
    return r;
}

const char *err_text(const Err *err, int r) {
    if (err && err->text[0])
        return err->text;
    return strerror(r < 0 ? -r : r);
}
