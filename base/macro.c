/* SPDX-License-Identifier: Apache-2.0 */
/* macro: allocation that ends the process when memory runs out. */
#include "base/macro.h"

#include <stdarg.h>

static void *check(void *p) {
    if (!p) {
        static const char text[] = "out of memory; the store stays consistent, start again\n";
        (void)!write(STDERR_FILENO, text, sizeof(text) - 1); /* Nothing better can be done. */
        abort();
    }
    return p;
}

void *xcalloc(size_t n, size_t size) {
    return check(calloc(MAX(n, (size_t)1), size));
}

void *xrealloc(void *p, size_t n, size_t size) {
    return check(reallocarray(p, MAX(n, (size_t)1), size));
}

char *xstrdup(const char *s) {
    return s ? check(strdup(s)) : NULL;
}

char *xstrndup(const char *s, size_t n) {
    return check(strndup(s, n));
}

char *xasprintf(const char *format, ...) {
    char *s = NULL;
    va_list ap;

    va_start(ap, format);
    if (vasprintf(&s, format, ap) < 0)
        s = NULL;
    va_end(ap);
    return check(s);
}

void xfree_and_strdup(char **p, const char *s) {
    char *copy = xstrdup(s);

    free(*p);
    *p = copy;
}
