/* SPDX-License-Identifier: Apache-2.0 */
/* fs_remove: removal of a whole tree with a bounded number of descriptors, however deep it is. */
#include "base/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>

/* Directories open at once.  What lies deeper is moved up into the first one, and removed from
 * there. */
#define OPEN_LEVELS 32

typedef struct Level {
    DIR *dir;
    char *name; /* in the level above */
} Level;

typedef struct Removal {
    Level levels[OPEN_LEVELS];
    size_t n;
    uint64_t n_moved; /* directories moved up; their names are numbers */
    bool again;       /* something was moved up since the first level was read from its start */
} Removal;

static void removal_done(Removal *rm) {
    while (rm->n > 0) {
        Level *l = &rm->levels[--rm->n];
        (void)closedir(l->dir); /* only read from */
        free(l->name);
    }
}

/* A directory that may not be read or changed (trees are 0555) is made so first: through an O_PATH
 * descriptor, which cannot be a symlink.  When it is not ours, opening it fails with the reason. */
static void make_changeable(int dir_fd, const char *name) {
    _cleanup_close_ int fd = fs_open_beneath(dir_fd, name, O_PATH | O_DIRECTORY, 0, NULL);
    char path[40];
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || (st.st_mode & 0700) == 0700)
        return;
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    (void)chmod(path, (st.st_mode & 07777) | 0700); /* see above */
}

static int descend(Removal *rm, int dir_fd, const char *name, Err *err) {
    DIR *dir;
    int fd;

    make_changeable(dir_fd, name);
    fd = fs_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0, err);
    if (fd == -EXDEV)
        return err_set(err, fd, "something is mounted on %s: unmount it first", name);
    if (fd < 0)
        return fd;
    dir = fdopendir(fd);
    if (!dir) {
        int r = err_errno(err, "cannot read the directory %s", name);
        (void)safe_close(fd);
        return r;
    }
    rm->levels[rm->n++] = (Level){ .dir = dir, .name = xstrdup(name) };
    return 0;
}

static int move_up(Removal *rm, int dir_fd, const char *name, Err *err) {
    int top = dirfd(rm->levels[0].dir), r;
    char to[32];

    make_changeable(dir_fd, name); /* its ".." changes */
    do {
        (void)snprintf(to, sizeof(to), ".deep-%llu", (unsigned long long)rm->n_moved++);
        r = renameat2(dir_fd, name, top, to, RENAME_NOREPLACE);
    } while (r < 0 && errno == EEXIST);
    if (r < 0)
        return err_errno(err, "cannot move the directory %s up to remove it", name);
    rm->again = true;
    return 0;
}

static int remove_entry(Removal *rm, int dir_fd, const struct dirent *entry, Err *err) {
    if (entry->d_type != DT_DIR) {
        if (unlinkat(dir_fd, entry->d_name, 0) == 0 || errno == ENOENT)
            return 0;
        if (errno != EISDIR) /* a file system may not tell types */
            return err_errno(err, "cannot remove %s", entry->d_name);
    }
    if (unlinkat(dir_fd, entry->d_name, AT_REMOVEDIR) == 0)
        return 0;
    return rm->n < OPEN_LEVELS ? descend(rm, dir_fd, entry->d_name, err)
                               : move_up(rm, dir_fd, entry->d_name, err);
}

/* The directory of the last level was read to its end: it is empty, or read again when it is the
 * first. */
static int ascend(Removal *rm, int dir_fd, Err *err) {
    Level *l = &rm->levels[rm->n - 1];
    int above = rm->n > 1 ? dirfd(rm->levels[rm->n - 2].dir) : dir_fd, r = 0;

    if (rm->n == 1 && rm->again) {
        rm->again = false;
        rewinddir(l->dir);
        return 0;
    }
    if (unlinkat(above, l->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        r = err_errno(err, "cannot remove the directory %s", l->name);
    (void)closedir(l->dir); /* only read from */
    free(l->name);
    rm->n--;
    return r;
}

static int remove_tree(Removal *rm, int dir_fd, const char *name, Err *err) {
    int r = descend(rm, dir_fd, name, err);

    while (r >= 0 && rm->n > 0) {
        DIR *dir = rm->levels[rm->n - 1].dir;
        struct dirent *entry;

        errno = 0;
        entry = readdir(dir);
        if (!entry && errno != 0)
            r = err_errno(err, "cannot read the directory %s", rm->levels[rm->n - 1].name);
        else if (!entry)
            r = ascend(rm, dir_fd, err);
        else if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
            r = remove_entry(rm, dirfd(dir), entry, err);
    }
    return r;
}

int fs_remove_recursive(int dir_fd, const char *name, Err *err) {
    _cleanup_(removal_done) Removal rm = { .n = 0 };
    int r;

    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR)
        return err_errno(err, "cannot remove %s", name);
    r = remove_tree(&rm, dir_fd, name, err);
    if (r < 0)
        return err_prefix(err, r, "cannot remove %s and all in it", name);
    return 0;
}
