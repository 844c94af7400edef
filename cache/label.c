/* SPDX-License-Identifier: Apache-2.0 */
/* label: the SELinux label of what containers see. */
#include "cache/label.h"

#include "base/fs.h"
#include "cache/store_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/xattr.h>

#define LABEL_XATTR "security.selinux"
#define LABEL_MAX   512

bool label_is_needed(const char *proc) {
    _cleanup_free_ char *path = xasprintf("%s/filesystems", proc), *text = NULL;

    /* "nodev\tselinuxfs\n": registered when SELinux is on at boot. */
    return fs_read_file(AT_FDCWD, path, KiB(64), &text, NULL, NULL) >= 0 &&
           strstr(text, "\tselinuxfs\n");
}

typedef struct Labelling {
    const char *label;
    uint64_t n;
} Labelling;

/* 1: it has the label.  Symlinks have one of their own. */
static int has_label(const Labelling *l, const char *path) {
    char have[LABEL_MAX];
    ssize_t n = lgetxattr(path, LABEL_XATTR, have, sizeof(have));
    size_t want = strlen(l->label);

    /* The kernel counts the NUL; what others wrote may have none. */
    return n > 0 && ((size_t)n == want || ((size_t)n == want + 1 && have[want] == '\0')) &&
           memcmp(have, l->label, want) == 0;
}

static int set_label(Labelling *l, int dir_fd, const char *name, Err *err) {
    _cleanup_free_ char *path = xasprintf("/proc/self/fd/%d/%s", dir_fd, name);

    if (has_label(l, path))
        return 0;
    if (lsetxattr(path, LABEL_XATTR, l->label, strlen(l->label) + 1, 0) < 0)
        return err_errno(err, "giving %.200s the label %s failed", name, l->label);
    l->n++;
    return 0;
}

static int label_directory(Labelling *l, int dir_fd, const char *name, Err *err);

static int label_entries(Labelling *l, DIR *dir, Err *err) {
    int r = 0;

    for (const struct dirent *e; r >= 0 && (errno = 0, e = readdir(dir));) {
        if (streq(e->d_name, ".") || streq(e->d_name, ".."))
            continue;
        r = e->d_type == DT_DIR ? label_directory(l, dirfd(dir), e->d_name, err)
                                : set_label(l, dirfd(dir), e->d_name, err);
    }
    return r >= 0 && errno != 0 ? err_errno(err, "reading a folder of the store failed") : r;
}

/* What is in it comes first: a folder that has the label was done as a whole.  Depth is bound by
 * that of trees. */
static int label_directory(Labelling *l, int dir_fd, const char *name, Err *err) {
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

    if (!dir) {
        r = err_errno(err, "opening the folder %.200s of the store failed", name);
        (void)safe_close(fd);
        return r;
    }
    r = label_entries(l, dir, err);
    (void)closedir(dir); /* only read from */
    return r < 0 ? r : set_label(l, dir_fd, name, err);
}

int label_content(Store *s, const char *label, uint64_t *ret_n, Err *err) {
    static const char *const folders[] = { "ingest", "objects", "partial", "trees" };
    Labelling l = { .label = label };
    int r = 0;

    for (size_t i = 0; i < ELEMENTSOF(folders) && r >= 0; i++) {
        _cleanup_free_ char *path = xasprintf("/proc/self/fd/%d/%s", s->fd, folders[i]);

        if (!has_label(&l, path))
            r = label_directory(&l, s->fd, folders[i], err);
    }
    *ret_n = l.n;
    return r;
}
