/* SPDX-License-Identifier: Apache-2.0 */
/* tarname: what a name in a tar means: a clean path of the tree, its root, or a whiteout. */
#include "oci/tarname.h"

#include "base/fs.h"

#define WHITEOUT_PREFIX ".wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"
#define WHITEOUT_AUFS   ".wh..wh."

const char *tarname_show(char buf[static TARNAME_SHOWN_MAX], const char *name) {
    size_t n = 0;

    for (; name[n] && n < TARNAME_SHOWN_MAX - 1; n++)
        buf[n] = name[n] >= 0x20 && name[n] < 0x7f ? name[n] : '?';
    buf[n] = '\0';
    return buf;
}

/* The length of the UTF-8 sequence at `s` (RFC 3629: no surrogates, no overlong forms), 0 when it
 * is none. */
static size_t utf8_sequence(const uint8_t *s) {
    size_t n = s[0] < 0x80   ? 1
               : s[0] < 0xc2 ? 0
               : s[0] < 0xe0 ? 2
               : s[0] < 0xf0 ? 3
               : s[0] < 0xf5 ? 4
                             : 0;

    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static bool is_utf8(const char *s) {
    while (*s) {
        size_t n = utf8_sequence((const uint8_t *)s);

        if (n == 0)
            return false;
        s += n;
    }
    return true;
}

/* Says what is wrong with a path that path_is_safe_relative() refused. */
static int refuse(const char *name, Err *err) {
    const char *why = "a component is too long";

    if (!name[0])
        why = "it is empty";
    else if (name[0] == '/')
        why = "it is absolute";
    else if (strstr(name, "/../") || startswith(name, "../") || endswith(name, "/..") ||
             streq(name, ".."))
        why = "it has a \"..\" component";
    else if (strlen(name) > LIMIT_PATH_BYTES)
        why = "it is too long";
    return err_set(err, -EPROTO, "the name \"%s\" in the tar is refused: %s", TARNAME_STR(name),
                   why);
}

/* Is a component before the last one a whiteout?  A directory of such a name cannot be in an image.
 */
static bool beneath_whiteout(const char *path) {
    for (const char *p = path, *slash; (slash = strchr(p, '/')); p = slash + 1)
        if (startswith(p, WHITEOUT_PREFIX))
            return true;
    return false;
}

static int read_whiteout(Tarname *t, const char *name, Err *err) {
    char *slash = strrchr(t->path, '/'), *base = slash ? slash + 1 : t->path;
    const char *hidden = startswith(base, WHITEOUT_PREFIX);

    if (beneath_whiteout(t->path))
        return err_set(err, -EPROTO, "the name \"%s\" in the tar has a whiteout as a directory",
                       TARNAME_STR(name));
    if (!hidden)
        return 0;
    if (streq(base, WHITEOUT_OPAQUE)) {
        t->kind = TARNAME_OPAQUE;
        *(slash ? slash : base) = '\0';
    } else if (startswith(base, WHITEOUT_AUFS)) {
        t->kind = TARNAME_IGNORED;
    } else if (name_is_safe(hidden, strlen(hidden))) {
        t->kind = TARNAME_WHITEOUT;
        memmove(base, hidden, strlen(hidden) + 1);
    } else {
        return err_set(err, -EPROTO, "the whiteout \"%s\" in the tar hides no name",
                       TARNAME_STR(name));
    }
    return 0;
}

/* Copies a relative name without components that say nothing.  False when it is too long. */
static bool copy_components(char ret[static LIMIT_PATH_BYTES + 1], const char *name) {
    size_t len = 0;

    for (const char *p = name; *p; p += *p == '/') {
        size_t n = strcspn(p, "/");
        bool dot = n == 0 || (n == 1 && *p == '.');

        if (!dot && len + (len > 0) + n > LIMIT_PATH_BYTES)
            return false;
        if (!dot && len > 0)
            ret[len++] = '/';
        if (!dot)
            memcpy(ret + len, p, n);
        len += dot ? 0 : n;
        p += n;
    }
    ret[len] = '\0';
    return true;
}

int tarname_read(Tarname *ret, const char *name, bool whiteouts, Err *err) {
    ret->kind = TARNAME_PLAIN;
    if (!*name || *name == '/' || !copy_components(ret->path, name))
        return refuse(name, err);
    if (!*ret->path) {
        ret->kind = TARNAME_ROOT;
        return 0;
    }
    if (!path_is_safe_relative(ret->path))
        return refuse(ret->path, err);
    if (path_depth(ret->path) > LIMIT_PATH_DEPTH)
        return err_set(err, -E2BIG, "the name \"%s\" in the tar lies deeper than %d directories",
                       TARNAME_STR(name), LIMIT_PATH_DEPTH);
    if (!is_utf8(ret->path))
        return err_set(err, -ENOTSUP, "the name \"%s\" in the tar is not UTF-8", TARNAME_STR(name));
    return whiteouts ? read_whiteout(ret, name, err) : 0;
}
