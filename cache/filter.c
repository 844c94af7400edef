/* SPDX-License-Identifier: Apache-2.0 */
/* filter: which files of an artifact a subset of it has, by patterns of their paths. */
#include "cache/filter.h"

#include "base/limits.h"

#define INCLUDE "include="
#define EXCLUDE "\nexclude="

typedef struct Patterns {
    char *text; /* canonical, with commas */
    char **items;
    size_t n, cap;
} Patterns;

struct Filter {
    Patterns include, exclude;
};

static void patterns_done(Patterns *p) {
    for (size_t i = 0; i < p->n; i++)
        free(p->items[i]);
    free(p->items);
    free(p->text);
}

Filter *filter_free(Filter *f) {
    if (!f)
        return NULL;
    patterns_done(&f->include);
    patterns_done(&f->exclude);
    free(f);
    return NULL;
}

static int refuse(const char *list, const char *pattern, const char *why, Err *err) {
    return err_set(err, -EINVAL, "%s has the pattern \"%.128s\", %s", list, pattern, why);
}

static int check_component(const char *list, const char *pattern, const char *c, size_t n,
                           Err *err) {
    if (n == 0)
        return refuse(list, pattern, "which has an empty component", err);
    if ((n == 1 && *c == '.') || (n == 2 && memcmp(c, "..", 2) == 0))
        return refuse(list, pattern, "which has the component \".\" or \"..\"", err);
    if (n > 2 && memmem(c, n, "**", 2))
        return refuse(list, pattern, "in which \"**\" is not a whole component, as in \"a/**/b\"",
                      err);
    return 0;
}

/* Brackets, braces and backslashes mean something to other programs, and nothing here. */
static int check_pattern(const char *list, const char *pattern, Err *err) {
    const char *c = pattern + (*pattern == '/');
    int r = 0;

    if (strpbrk(pattern, "[]{}\\") || *pattern == '!')
        return refuse(list, pattern,
                      "with a '[', ']', '{', '}', '\\' or a leading '!'; known are '*', '?' and "
                      "the component \"**\"",
                      err);
    for (const char *p = pattern; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return refuse(list, "…", "which has a control character", err);
    do {
        size_t n = strcspn(c, "/");

        r = check_component(list, pattern, c, n, err);
        c += n + (c[n] == '/');
    } while (r >= 0 && *c); /* a slash at the end is fine */
    return r;
}

static bool begins_at_any_depth(const char *text, size_t n) {
    return n > 3 && strncmp(text, "**/", 3) == 0;
}

/* The form that equal patterns have: "dir/" is "dir"; a leading slash says something only before a
 * single name, and "**" not before one, nor before another. */
static char *canonical(const char *text, size_t n) {
    if (n > 1 && text[n - 1] == '/')
        n--;
    if (n > 1 && *text == '/' && memchr(text + 1, '/', n - 1)) {
        text++;
        n--;
    }
    while (begins_at_any_depth(text, n) &&
           (!memchr(text + 3, '/', n - 3) || begins_at_any_depth(text + 3, n - 3))) {
        text += 3;
        n -= 3;
    }
    return xstrndup(text, n);
}

static int add_pattern(Patterns *p, const char *list, const char *text, size_t n, Err *err) {
    _cleanup_free_ char *given = xstrndup(text, n), *pattern = canonical(text, n);
    int r = check_pattern(list, given, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < p->n; i++)
        if (streq(p->items[i], pattern))
            return 0;
    if (p->n == LIMIT_FILTER_PATTERNS)
        return err_set(err, -EINVAL, "%s has more than %d patterns", list, LIMIT_FILTER_PATTERNS);
    ARRAY_GROW(p->items, p->n, p->cap);
    p->items[p->n++] = TAKE_PTR(pattern);
    return 0;
}

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void make_text(Patterns *p) {
    size_t n = 1;
    char *end;

    if (p->n > 0)
        qsort(p->items, p->n, sizeof(*p->items), compare);
    for (size_t i = 0; i < p->n; i++)
        n += strlen(p->items[i]) + 1;
    end = p->text = xcalloc(1, n);
    for (size_t i = 0; i < p->n; i++)
        end = stpcpy(stpcpy(end, i > 0 ? "," : ""), p->items[i]);
}

/* What means everything is the same as no list. */
static void drop_include_all(Patterns *p) {
    for (size_t i = 0; i < p->n; i++)
        if (streq(p->items[i] + (*p->items[i] == '/'), "*") ||
            streq(p->items[i] + (*p->items[i] == '/'), "**")) {
            patterns_done(p);
            *p = (Patterns){ .text = xstrdup("") };
            return;
        }
}

static int parse_list(Patterns *p, const char *list, const char *text, Err *err) {
    int r = 0;

    if (text && strlen(text) > LIMIT_FILTER_BYTES)
        return err_set(err, -EINVAL, "%s has more than %llu bytes", list,
                       (unsigned long long)LIMIT_FILTER_BYTES);
    while (text && *text && r >= 0) {
        size_t n = strcspn(text, ",\n"), k = n;
        const char *start = text;

        for (; k > 0 && strchr(" \t\r", *start); k--)
            start++;
        while (k > 0 && strchr(" \t\r", start[k - 1]))
            k--;
        if (k > 0)
            r = add_pattern(p, list, start, k, err);
        text += n + (text[n] != '\0');
    }
    make_text(p);
    return r;
}

int filter_parse(Filter **ret, const char *include, const char *exclude, Err *err) {
    _cleanup_(filter_freep) Filter *f = xnew(Filter);
    int r = parse_list(&f->include, "include", include, err);

    if (r >= 0)
        r = parse_list(&f->exclude, "exclude", exclude, err);
    if (r < 0)
        return r;
    drop_include_all(&f->include);
    *ret = f->include.n + f->exclude.n > 0 ? TAKE_PTR(f) : NULL;
    return 0;
}

Filter *filter_copy(const Filter *f) {
    Filter *copy = NULL;
    Err err;
    int r = f ? filter_parse(&copy, f->include.text, f->exclude.text, &err) : 0;

    assert(r >= 0); /* it was parsed before */
    return copy;
}

const char *filter_include(const Filter *f) {
    return f->include.text;
}

const char *filter_exclude(const Filter *f) {
    return f->exclude.text;
}

char *filter_text(const Filter *f) {
    return f ? xasprintf(INCLUDE "%s" EXCLUDE "%s", f->include.text, f->exclude.text) : xstrdup("");
}

int filter_from_text(Filter **ret, const char *text, Err *err) {
    const char *include = startswith(text, INCLUDE), *end = strstr(text, EXCLUDE);
    _cleanup_free_ char *list = NULL;

    *ret = NULL;
    if (!*text)
        return 0;
    if (!include || !end || end < include)
        return err_set(err, -EINVAL, "\"%.128s\" is no subset", text);
    list = xstrndup(include, (size_t)(end - include));
    return filter_parse(ret, list, end + strlen(EXCLUDE), err);
}

void filter_key(const Filter *f, const Digest *manifest, Digest *ret) {
    _cleanup_free_ char *text = filter_text(f);
    _cleanup_(hasher_freep) Hasher *h = NULL;

    *ret = *manifest;
    if (!f)
        return;
    h = hasher_new();
    hasher_update(h, "modelcached subset\n", strlen("modelcached subset\n"));
    hasher_update(h, manifest->bytes, DIGEST_BYTES);
    hasher_update(h, text, strlen(text));
    hasher_final(h, ret);
}

/* A piece of a pattern or a path. */
typedef struct Piece {
    const char *s;
    size_t n;
} Piece;

static Piece piece_of(const char *s) {
    return (Piece){ s, strcspn(s, "/") };
}

static const char *piece_next(Piece p) {
    return p.s + p.n + (p.s[p.n] == '/');
}

static bool is_any_depth(Piece p) {
    return p.n == 2 && memcmp(p.s, "**", 2) == 0;
}

static bool spend(uint64_t *steps) {
    *steps -= *steps > 0;
    return *steps > 0;
}

/* One component.  After a mismatch only the last '*' has to try again: what an earlier one would
 * take, it can take as well. */
static bool match_piece(Piece pattern, Piece name, uint64_t *steps) {
    size_t p = 0, i = 0, star = SIZE_MAX, from = 0;

    while (i < name.n) {
        if (!spend(steps))
            return false;
        if (p < pattern.n && pattern.s[p] == '*') {
            star = ++p;
            from = i;
        } else if (p < pattern.n && (pattern.s[p] == '?' || pattern.s[p] == name.s[i])) {
            /* '?' is a character, not a byte of one */
            i++;
            while (pattern.s[p] == '?' && i < name.n && ((unsigned char)name.s[i] & 0xc0) == 0x80)
                i++;
            p++;
        } else if (star != SIZE_MAX) {
            p = star;
            i = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.s[p] == '*')
        p++;
    return p == pattern.n;
}

/* Does the pattern mean the path, or a directory above it?  "**" is to components what '*' is to
 * characters, and so is the beginning of a pattern for any depth. */
static bool match(const char *pattern, const char *path, uint64_t *steps) {
    const char *p = pattern + (*pattern == '/'), *again = NULL, *from = path;

    if (*pattern != '/' && !strchr(pattern, '/'))
        again = p;
    while (*p) {
        Piece c = piece_of(p), name = piece_of(path);

        if (is_any_depth(c)) {
            again = p = piece_next(c);
            from = path;
        } else if (!*path || *steps == 0) {
            return false; /* what begins later has fewer components still */
        } else if (match_piece(c, name, steps)) {
            p = piece_next(c);
            path = piece_next(name);
        } else if (again) {
            p = again;
            path = from = piece_next(piece_of(from));
        } else {
            return false;
        }
    }
    return true;
}

static bool match_any(const Patterns *p, const char *path, uint64_t *steps) {
    for (size_t i = 0; i < p->n; i++)
        if (match(p->items[i], path, steps))
            return true;
    return false;
}

bool filter_keeps(const Filter *f, const char *path, uint64_t *steps) {
    return !f || ((f->include.n == 0 || match_any(&f->include, path, steps)) &&
                  !match_any(&f->exclude, path, steps));
}

int filter_check_steps(uint64_t steps, Err *err) {
    return steps > 0 ? 0
                     : err_set(err, -E2BIG,
                               "include and exclude take too long to compare with the artifact's "
                               "paths; use fewer '*' and patterns");
}
