/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_filter: the first line is a list of patterns, the second says whether they include or
 * exclude, the others are paths: what the filter says is what a naive matcher says. */
#include "cache/filter.h"

#include "base/fs.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One component, by trying everything. */
static bool naive_piece(const char *p, size_t np, const char *s, size_t ns) {
    if (np == 0)
        return ns == 0;
    if (*p == '*')
        return naive_piece(p + 1, np - 1, s, ns) || (ns > 0 && naive_piece(p, np, s + 1, ns - 1));
    if (ns == 0)
        return false;
    if (*p == '?') {
        size_t n = 1;

        while (n < ns && ((unsigned char)s[n] & 0xc0) == 0x80)
            n++;
        return naive_piece(p + 1, np - 1, s + n, ns - n);
    }
    return *p == *s && naive_piece(p + 1, np - 1, s + 1, ns - 1);
}

static const char *after(const char *s) {
    s += strcspn(s, "/");
    return s + (*s == '/');
}

/* The pattern, which begins at the root, means the path or a directory above it. */
static bool naive(const char *p, const char *path) {
    size_t n = strcspn(p, "/");

    if (!*p)
        return true;
    if (n == 2 && strncmp(p, "**", 2) == 0)
        return naive(after(p), path) || (*path && naive(p, after(path)));
    return *path && naive_piece(p, n, path, strcspn(path, "/")) && naive(after(p), after(path));
}

static bool naive_any(const char *list, const char *path) {
    _cleanup_free_ char *copy = xstrdup(list);
    bool found = false;

    for (char *save = NULL, *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        bool rooted = strchr(p, '/');
        _cleanup_free_ char *whole = xasprintf("%s%s", rooted ? "" : "**/", p + (*p == '/'));

        found |= naive(whole, path);
    }
    return found;
}

static void try_path(const Filter *f, const char *path) {
    uint64_t steps = 1000000;
    bool want = (isempty(filter_include(f)) || naive_any(filter_include(f), path)) &&
                !naive_any(filter_exclude(f), path);

    assert(filter_keeps(f, path, &steps) == want && steps > 0);
}

static void try_text(const Filter *f) {
    _cleanup_(filter_freep) Filter *again = NULL;
    _cleanup_free_ char *text = filter_text(f), *second = NULL;
    Err err;

    if (filter_from_text(&again, text, &err) < 0)
        abort();
    second = filter_text(again);
    assert(streq(text, second));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t n = MIN(size, (size_t)200); /* the naive matcher is slow */
    _cleanup_free_ char *text = xcalloc(1, n + 1);
    _cleanup_(filter_freep) Filter *f = NULL;
    char *save = NULL, *list, *way;
    bool include;
    Err err;

    if (n > 0)
        memcpy(text, data, n);
    list = strtok_r(text, "\n", &save);
    way = strtok_r(NULL, "\n", &save);
    include = way && startswith(way, "include");

    if (filter_parse(&f, include ? list : NULL, include ? NULL : list, &err) < 0)
        assert(*err.text);
    if (!f)
        return 0;
    try_text(f);
    for (char *path; (path = strtok_r(NULL, "\n", &save));)
        if (path_is_safe_relative(path) && strlen(path) < 64)
            try_path(f, path);
    return 0;
}
