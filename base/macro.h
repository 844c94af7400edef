/* SPDX-License-Identifier: Apache-2.0 */
/* macro: ownership (_cleanup_, TAKE_PTR, TAKE_FD), allocation of small objects, and other words
 * every file uses. */
#pragma once

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define _cleanup_(f)         __attribute__((__cleanup__(f)))
#define _must_check_         __attribute__((__warn_unused_result__))
#define _printf_(fmt, first) __attribute__((__format__(__printf__, fmt, first)))
#define _unused_             __attribute__((__unused__))
#define _noreturn_           __attribute__((__noreturn__))

/* Defines x_freep() for _cleanup_ from `T *x_free(T *)`. */
#define DEFINE_CLEANUP(T, func)         \
    static inline void func##p(T **p) { \
        if (*p)                         \
            *p = func(*p);              \
    }                                   \
    struct T##_needs_a_semicolon

/* Hands ownership over: yields the value and leaves an empty variable behind. */
#define TAKE_PTR(p)                      \
    ({                                   \
        __typeof__(p) *_take_ = &(p);    \
        __typeof__(p) _taken_ = *_take_; \
        *_take_ = NULL;                  \
        _taken_;                         \
    })
#define TAKE_FD(fd)            \
    ({                         \
        int *_take_ = &(fd);   \
        int _taken_ = *_take_; \
        *_take_ = -EBADF;      \
        _taken_;               \
    })

#define ELEMENTSOF(a) (sizeof(a) / sizeof((a)[0]))
/* Each use has names of its own, so that they nest without shadowing. */
#define MACRO_JOIN_(a, b) a##b
#define MACRO_JOIN(a, b)  MACRO_JOIN_(a, b)
#define MACRO_PICK_(a, b, op, x, y) \
    ({                              \
        __typeof__(a) x = (a);      \
        __typeof__(b) y = (b);      \
        x op y ? x : y;             \
    })
#define MACRO_PICK(a, b, op, id) \
    MACRO_PICK_(a, b, op, MACRO_JOIN(_pick_a_, id), MACRO_JOIN(_pick_b_, id))
#define MIN(a, b) MACRO_PICK(a, b, <, __COUNTER__)
#define MAX(a, b) MACRO_PICK(a, b, >, __COUNTER__)

/* Declares a function through a library's callback typedef, `static SIGNATURE_OF(their_callback)
 * mine;`: the compiler proves that the signature is theirs, and lint does not count its parameters.
 */
#define SIGNATURE_OF(callback) __typeof__(*(callback)NULL)

#define KiB(n)        ((uint64_t)(n) << 10)
#define MiB(n)        ((uint64_t)(n) << 20)
#define GiB(n)        ((uint64_t)(n) << 30)
#define USEC_PER_SEC  1000000ULL
#define USEC_PER_MSEC 1000ULL
#define NSEC_PER_USEC 1000ULL

/* So many in so much time are so many a second; less than a microsecond is one. */
static inline uint64_t per_second(uint64_t n, uint64_t usec) {
    return (uint64_t)((double)n * (double)USEC_PER_SEC / (double)(usec > 0 ? usec : 1));
}

static inline bool streq(const char *a, const char *b) {
    return strcmp(a, b) == 0;
}
/* True also when both are NULL. */
static inline bool streq_ptr(const char *a, const char *b) {
    return a == b || (a && b && streq(a, b));
}
static inline bool isempty(const char *s) {
    return !s || !*s;
}
static inline const char *startswith(const char *s, const char *prefix) {
    size_t n = strlen(prefix);
    return strncmp(s, prefix, n) == 0 ? s + n : NULL;
}
static inline const char *endswith(const char *s, const char *suffix) {
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && streq(s + n - k, suffix) ? s + n - k : NULL;
}

static inline void freep(void *p) {
    free(*(void **)p);
    *(void **)p = NULL;
}
#define _cleanup_free_ _cleanup_(freep)

static inline int safe_close(int fd) {
    if (fd >= 0) {
        int saved = errno;
        (void)close(
            fd); /* Nothing written through a descriptor is trusted before an explicit sync. */
        errno = saved;
    }
    return -EBADF;
}
static inline void closep(int *fd) {
    *fd = safe_close(*fd);
}
#define _cleanup_close_ _cleanup_(closep)

/* Small objects of a size we know: running out of memory here ends the process (the store is
 * crash-safe).  What input sizes goes through Buf, which is capped and can fail. */
void *xcalloc(size_t n, size_t size) _must_check_ __attribute__((__malloc__));
void *xrealloc(void *p, size_t n, size_t size) _must_check_;
char *xstrdup(const char *s) _must_check_; /* NULL gives NULL */
char *xstrndup(const char *s, size_t n) _must_check_;
char *xasprintf(const char *format, ...) _must_check_ _printf_(1, 2);
#define xnew(T)      ((T *)xcalloc(1, sizeof(T)))
#define xnew_n(T, n) ((T *)xcalloc((n), sizeof(T)))
/* Makes room for one more element of the array `a` of `n` elements with capacity `cap` (both
 * lvalues). */
#define ARRAY_GROW(a, n, cap)                         \
    do {                                              \
        if ((n) == (cap)) {                           \
            (cap) = (cap) ? (cap)*2 : 8;              \
            (a) = xrealloc((a), (cap), sizeof(*(a))); \
        }                                             \
    } while (0)
/* Replaces the string that `*p` owns by a copy of `s`. */
void xfree_and_strdup(char **p, const char *s);
