/* SPDX-License-Identifier: Apache-2.0 */
/* partial: raw blobs that came in part: kept for the next pull that wants them, handed to it, and
 * dropped.  Nothing here reads them: the worker does, and believes nothing in them. */
#include "cache/partial.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/parse.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>

#define PARTIAL_MAX      64 /* blobs; the oldest go */
#define PARTIAL_AGE_SEC  (7 * 24 * 3600)
#define WRITER_TRIES     100
#define WRITER_WAIT_NSEC (10 * 1000 * (long)NSEC_PER_USEC)
#define PARTIAL_NAME_MAX (2 * DIGEST_BYTES + sizeof(".part"))

static const char *const suffixes[] = { ".part", ".map" };

/* One blob of partial/: both files are there, or it is dropped. */
typedef struct Partial {
    Digest key;
    bool part, map;
    struct timespec time; /* when it was kept */
    uint64_t bytes;       /* on disk */
} Partial;

typedef struct PartialList {
    Partial *items;
    size_t n, cap;
} PartialList;

static void partial_list_done(PartialList *l) {
    free(l->items);
}

/* In partial/ the name is made of a key, in the folder of a pull of the blob's digest. */
static const char *partial_name(char buf[static PARTIAL_NAME_MAX], const Digest *d,
                                const char *suffix) {
    (void)snprintf(buf, PARTIAL_NAME_MAX, "%s%s", DIGEST_HEX(d), suffix);
    return buf;
}
#define PARTIAL_NAME(d, suffix) partial_name((char[PARTIAL_NAME_MAX]){ "" }, (d), (suffix))

/* Of the blob and the repository of the pull, which the name of its folder begins with:
 * store_ingest_name(). */
static Digest partial_key(const char *ingest, const Digest *blob) {
    _cleanup_(hasher_freep) Hasher *h = hasher_new();
    Digest key;

    hasher_update(h, ingest, strcspn(ingest, "-"));
    hasher_update(h, "", 1);
    hasher_update(h, blob->bytes, DIGEST_BYTES);
    hasher_final(h, &key);
    return key;
}

/* Exactly 64 lower-case hexadecimal digits and ".part" or ".map". */
static bool parse_name(const char *name, Digest *ret, bool *ret_part) {
    const size_t hex = 2 * DIGEST_BYTES;

    if (strlen(name) <= hex)
        return false;
    for (size_t i = 0; i < hex; i++)
        if (!isdigit((unsigned char)name[i]) && (name[i] < 'a' || name[i] > 'f'))
            return false;
    *ret_part = streq(name + hex, ".part");
    return (*ret_part || streq(name + hex, ".map")) && parse_hex(name, hex, ret->bytes) == 0;
}

/* A worker that outlived its daemon ends when it sees that the socket is closed; until then it may
 * write. A read lease (fcntl(2)) can only be had once nobody can. */
static int wait_for_writers(int fd) {
    const struct timespec wait = { .tv_nsec = WRITER_WAIT_NSEC };

    if (fcntl(fd, F_SETSIG, SIGURG) < 0) /* ignored; the default, SIGIO, kills */
        return -errno;
    for (int i = 0; i < WRITER_TRIES; i++) {
        if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
            (void)fcntl(fd, F_SETLEASE, F_UNLCK); /* closing the descriptor does it as well */
            return 0;
        }
        if (errno != EAGAIN)
            return -errno;
        (void)nanosleep(&wait, NULL); /* a shorter wait does no harm */
    }
    return -EBUSY;
}

/* A regular file with one name and no writer; uid's and gid's alone from now on.  < 0: it is
 * something else. */
static int take_over(int dir_fd, const char *name, uid_t uid, gid_t gid, struct stat *ret) {
    _cleanup_close_ int fd =
        fs_open_beneath(dir_fd, name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0, NULL);

    if (fd < 0)
        return fd;
    if (fstat(fd, ret) < 0)
        return -errno;
    if (!S_ISREG(ret->st_mode) || ret->st_nlink != 1)
        return -EPROTO;
    if (fchown(fd, uid, gid) < 0 || fchmod(fd, 0600) < 0)
        return -errno;
    return wait_for_writers(fd);
}

typedef struct Place {
    int dir_fd;
    const char *name;
} Place;

/* Whatever is moved is looked at again where nobody else can change it.  Its owner is `owner`'s. */
static int move_file(Place from, Place to, const struct stat *owner, struct stat *ret) {
    struct stat before;
    int r = take_over(from.dir_fd, from.name, owner->st_uid, owner->st_gid, &before);

    if (r < 0)
        return r;
    if (renameat(from.dir_fd, from.name, to.dir_fd, to.name) < 0)
        return -errno;
    if (fstatat(to.dir_fd, to.name, ret, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(ret->st_mode) &&
        ret->st_nlink == 1 && ret->st_ino == before.st_ino)
        return 0;
    (void)!fs_remove_recursive(to.dir_fd, to.name,
                               NULL); /* the end of the pull, or a start, tries again */
    return -EPROTO;
}

/* Calls `visit` for each name of a directory; `fd` is the callee's. */
static int each_file(int fd, void (*visit)(void *arg, const char *name), void *arg, Err *err) {
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int r = 0;

    if (!dir) {
        r = err_errno(err, "reading a directory of partial blobs failed");
        safe_close(fd);
        return r;
    }
    for (const struct dirent *entry; (errno = 0, entry = readdir(dir));)
        if (!streq(entry->d_name, ".") && !streq(entry->d_name, ".."))
            visit(arg, entry->d_name);
    if (errno != 0)
        r = err_errno(err, "reading a directory of partial blobs failed");
    (void)closedir(dir); /* only read from */
    return r;
}

typedef struct Keep {
    const Store *s;
    const char *ingest;
    int dir_fd;
} Keep;

static void keep_visit(void *arg, const char *name) {
    static const struct stat root = { .st_uid = 0, .st_gid = 0 };
    const Keep *k = arg;
    const char *kept;
    struct stat st;
    Digest d;
    bool part;
    int r;

    if (!parse_name(name, &d, &part))
        return;
    d = partial_key(k->ingest, &d);
    kept = PARTIAL_NAME(&d, suffixes[part ? 0 : 1]);
    r = move_file((Place){ k->dir_fd, name }, (Place){ k->s->partial_fd, kept }, &root, &st);
    if (r < 0)
        log_debug("%s is not kept: %s", name, strerror(-r));
    else /* the time only says which is the oldest */
        (void)utimensat(k->s->partial_fd, kept, NULL, AT_SYMLINK_NOFOLLOW);
}

static int keep_folder(Store *s, const char *ingest, Err *err) {
    _cleanup_close_ int fd = fs_open_beneath(s->ingest_fd, ingest, O_RDONLY | O_DIRECTORY, 0, err);
    Keep keep = { s, ingest, fd };

    if (fd < 0) /* something else than a folder holds nothing of use */
        return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV ? 0 : fd;
    return each_file(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), keep_visit, &keep, err);
}

static void drop(const Store *s, const Digest *key) {
    for (size_t i = 0; i < ELEMENTSOF(suffixes); i++) /* what fails here is tried again */
        (void)!fs_remove_recursive(s->partial_fd, PARTIAL_NAME(key, suffixes[i]), NULL);
}

typedef struct List {
    const Store *s;
    PartialList *list;
} List;

static void list_visit(void *arg, const char *name) {
    const List *l = arg;
    PartialList *list = l->list;
    struct stat st;
    Digest key;
    bool part;
    size_t i = 0;

    if (!parse_name(name, &key, &part) ||
        fstatat(l->s->partial_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode)) {
        (void)!fs_remove_recursive(l->s->partial_fd, name, NULL); /* the next start tries again */
        return;
    }
    while (i < list->n && !digest_equal(&list->items[i].key, &key))
        i++;
    if (i == list->n) {
        ARRAY_GROW(list->items, list->n, list->cap);
        list->items[list->n++] = (Partial){ .key = key };
    }
    list->items[i].bytes += (uint64_t)st.st_blocks * 512;
    if (part) {
        list->items[i].part = true;
        list->items[i].time = st.st_mtim;
    } else
        list->items[i].map = true;
}

static int newest_first(const void *a, const void *b) {
    const struct timespec *x = &((const Partial *)a)->time, *y = &((const Partial *)b)->time;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec > y->tv_sec ? -1 : 1;
    return x->tv_nsec > y->tv_nsec ? -1 : x->tv_nsec < y->tv_nsec;
}

/* What is there, newest first. */
static int list_partials(const Store *s, PartialList *ret, Err *err) {
    List l = { s, ret };
    int r = each_file(openat(s->partial_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), list_visit,
                      &l, err);

    if (r >= 0 && ret->n > 1)
        qsort(ret->items, ret->n, sizeof(*ret->items), newest_first);
    return r;
}

/* Drops halves, those that are too old, and the oldest beyond the cap. */
static int trim(const Store *s, Err *err) {
    _cleanup_(partial_list_done) PartialList list = { 0 };
    int r = list_partials(s, &list, err);
    size_t kept = 0;

    for (size_t i = 0; i < list.n; i++) {
        const Partial *p = &list.items[i];

        if (p->part && p->map && kept < PARTIAL_MAX &&
            p->time.tv_sec > time(NULL) - PARTIAL_AGE_SEC)
            kept++;
        else
            drop(s, &p->key);
    }
    return r;
}

int partial_recover(Store *s, const char *ingest, Err *err) {
    return keep_folder(s, ingest, err);
}

int partial_trim(Store *s, Err *err) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);

    return trim(s, err);
}

void partial_forget(Store *s, const char *ingest, const Digest *blob) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    const Digest key = partial_key(ingest, blob);

    drop(s, &key);
}

int partial_clear(Store *s, uint64_t *bytes, Err *err) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    _cleanup_(partial_list_done) PartialList list = { 0 };
    int r = list_partials(s, &list, err);

    for (size_t i = list.n; i-- > 0;) {
        drop(s, &list.items[i].key);
        *bytes += list.items[i].bytes;
    }
    return r;
}

int store_partial_keep(Store *s, const char *ingest, Err *err) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    int r;

    if (!name_is_safe(ingest, strlen(ingest)))
        return err_set(err, -EINVAL, "'%.200s' can't be the name of a pull's folder", ingest);
    r = keep_folder(s, ingest, err);
    return r < 0 ? r : trim(s, err);
}

int store_partial_claim(Store *s, const char *ingest, const Digest *blob, uint64_t *ret_bytes,
                        Err *err) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    _cleanup_close_ int fd = -EBADF;
    const Digest key = partial_key(ingest, blob);
    struct stat folder, st;
    uint64_t bytes = 0;

    if (!name_is_safe(ingest, strlen(ingest)))
        return err_set(err, -EINVAL, "'%.200s' can't be the name of a pull's folder", ingest);
    for (size_t i = 0; i < ELEMENTSOF(suffixes); i++)
        if (faccessat(s->partial_fd, PARTIAL_NAME(&key, suffixes[i]), F_OK, AT_SYMLINK_NOFOLLOW) <
            0)
            return 0;
    fd = fs_open_beneath(s->ingest_fd, ingest, O_RDONLY | O_DIRECTORY, 0, err);
    if (fd < 0)
        return fd;
    if (fstat(fd, &folder) < 0)
        return err_errno(err, "looking at the pull's folder ingest/%s failed", ingest);
    for (size_t i = 0; i < ELEMENTSOF(suffixes); i++) {
        const char *name = PARTIAL_NAME(blob, suffixes[i]);
        Place from = { s->partial_fd, PARTIAL_NAME(&key, suffixes[i]) };
        int r = move_file(from, (Place){ fd, name }, &folder, &st);

        if (r < 0) { /* half of it is of no use */
            drop(s, &key);
            (void)unlinkat(fd, PARTIAL_NAME(blob, suffixes[0]), 0); /* else the pull's end does */
            return err_errnum(err, r, "giving the partial blob %s to a pull failed", name);
        }
        bytes += (uint64_t)st.st_blocks * 512;
    }
    *ret_bytes = bytes;
    return 1;
}

int store_partial_bytes(Store *s, uint64_t *ret_bytes, Err *err) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    _cleanup_(partial_list_done) PartialList list = { 0 };
    int r = list_partials(s, &list, err);

    *ret_bytes = 0;
    for (size_t i = 0; i < list.n; i++)
        *ret_bytes += list.items[i].bytes;
    return r;
}
