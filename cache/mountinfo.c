/* SPDX-License-Identifier: Apache-2.0 */
/* mountinfo: /proc/self/mountinfo, as proc_pid_mountinfo(5) describes it. */
#include "cache/mount.h"

#include "base/fs.h"
#include "base/limits.h"
#include "base/parse.h"

#include <fcntl.h>

enum { MOUNTINFO_FIELDS = 6 };

/* The next field of a line: ends at a space.  -EPROTO when it is empty. */
static int next_field(const char **line, const char **ret, size_t *ret_n) {
    size_t n = strcspn(*line, " \n");

    if (n == 0)
        return -EPROTO;
    *ret = *line;
    *ret_n = n;
    *line += n + ((*line)[n] == ' ');
    return 0;
}

/* Space, tab, newline and backslash are written as three octal digits. */
static int unescape(const char *field, size_t n, char **ret) {
    _cleanup_free_ char *out = xcalloc(1, n + 1);
    size_t len = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned value = 0;

        if (field[i] != '\\') {
            out[len++] = field[i];
            continue;
        }
        if (n - i < 4)
            return -EPROTO;
        for (size_t k = 1; k <= 3; k++) {
            if (field[i + k] < '0' || field[i + k] > '7')
                return -EPROTO;
            value = value * 8 + (unsigned)(field[i + k] - '0');
        }
        if (value == 0 || value > 255)
            return -EPROTO;
        out[len++] = (char)value;
        i += 3;
    }
    *ret = TAKE_PTR(out);
    return 0;
}

static int parse_number(const char *text, size_t n, unsigned *ret) {
    _cleanup_free_ char *copy = xstrndup(text, n);
    uint64_t value;

    if (parse_u64(copy, &value) < 0 || value > UINT32_MAX)
        return -EPROTO;
    *ret = (unsigned)value;
    return 0;
}

static int parse_device(const char *text, size_t n, MountInfo *m) {
    const char *colon = memchr(text, ':', n);

    if (!colon || parse_number(text, (size_t)(colon - text), &m->dev_major) < 0 ||
        parse_number(colon + 1, n - (size_t)(colon - text) - 1, &m->dev_minor) < 0)
        return -EPROTO;
    return 0;
}

/* Is `option` one of the comma-separated options? */
static bool has_option(const char *options, size_t n, const char *option) {
    size_t len = strlen(option);

    while (n > 0) {
        const char *comma = memchr(options, ',', n);
        size_t one = comma ? (size_t)(comma - options) : n;

        if (one == len && memcmp(options, option, len) == 0)
            return true;
        one += comma != NULL;
        options += one;
        n -= one;
    }
    return false;
}

/* 36 35 98:0 /root /target rw,noatime … */
int mount_info_parse(const char *line, MountInfo *ret) {
    const char *fields[MOUNTINFO_FIELDS];
    size_t sizes[MOUNTINFO_FIELDS];
    _cleanup_free_ char *root = NULL, *target = NULL;
    MountInfo m = { 0 };
    unsigned id;

    for (size_t i = 0; i < MOUNTINFO_FIELDS; i++)
        if (next_field(&line, &fields[i], &sizes[i]) < 0)
            return -EPROTO;
    if (parse_number(fields[0], sizes[0], &id) < 0 || parse_number(fields[1], sizes[1], &id) < 0 ||
        parse_device(fields[2], sizes[2], &m) < 0 || unescape(fields[3], sizes[3], &root) < 0 ||
        unescape(fields[4], sizes[4], &target) < 0)
        return -EPROTO;
    m.read_only = has_option(fields[5], sizes[5], "ro");
    m.root = TAKE_PTR(root);
    m.target = TAKE_PTR(target);
    *ret = m;
    return 0;
}

void mount_info_free(MountInfo *m, size_t n) {
    for (size_t i = 0; i < n; i++) {
        free(m[i].target);
        free(m[i].root);
    }
    free(m);
}

/* What of `path` lies beneath the mount point `target`: "" or "/…"; NULL when it is not beneath it.
 */
static const char *beneath(const char *path, const char *target) {
    const char *rest = streq(target, "/") ? path : startswith(path, target);

    return rest && (*rest == '\0' || *rest == '/') ? rest : NULL;
}

char *mount_path_in_filesystem(const MountInfo *list, size_t n, const char *path) {
    const MountInfo *best = NULL;

    for (size_t i = 0; i < n; i++)
        if (beneath(path, list[i].target) &&
            (!best || strlen(list[i].target) >= strlen(best->target)))
            best = &list[i];
    if (!best)
        return NULL;
    return xasprintf("%s%s", streq(best->root, "/") ? "" : best->root, beneath(path, best->target));
}

int mount_list(MountInfo **ret, size_t *ret_n, Err *err) {
    _cleanup_free_ char *text = NULL;
    MountInfo *list = NULL;
    size_t n = 0, cap = 0;
    int r = fs_read_file(AT_FDCWD, "/proc/self/mountinfo", LIMIT_MOUNTINFO_BYTES, &text, NULL, err);

    if (r < 0)
        return err_prefix(err, r, "reading the list of mounts failed");
    for (char *line = text, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end)
            *end++ = '\0';
        ARRAY_GROW(list, n, cap);
        if (mount_info_parse(line, &list[n]) < 0) {
            r = err_set(err, -EPROTO, "a line of /proc/self/mountinfo is not understood: %.200s",
                        line);
            mount_info_free(list, n);
            return r;
        }
        n++;
    }
    *ret = list;
    *ret_n = n;
    return 0;
}
