/* SPDX-License-Identifier: Apache-2.0 */
/* store: opening the content-addressed store: its format, file system and lock; the folders of
 * pulls. */
#include "cache/grant.h"

#include "base/fs.h"
#include "base/parse.h"
#include "cache/partial.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/vfs.h>
#include <time.h>

enum { STORE_SHARDS = 256, STORE_FORMAT_MAX = 4096 };

static const char format_head[] = "modelcached store\nversion ";

static const struct {
    uint32_t magic; /* statfs(2) */
    const char *name;
} filesystems[] = {
    { 0xef53, "ext4" },
    { 0x58465342, "xfs" },
    { 0x9123683e, "btrfs" },
};

Store *content_lock_shared(Store *s) {
    int r = pthread_rwlock_rdlock(&s->content);

    assert(r == 0);
    return s;
}

Store *content_lock_exclusive(Store *s) {
    int r = pthread_rwlock_wrlock(&s->content);

    assert(r == 0);
    return s;
}

void content_unlockp(Store **s) {
    if (!*s)
        return;
    int r = pthread_rwlock_unlock(&(*s)->content);
    assert(r == 0);
    *s = NULL;
}

pthread_mutex_t *mutex_lock(pthread_mutex_t *m) {
    int r = pthread_mutex_lock(m);

    assert(r == 0);
    return m;
}

void mutex_unlockp(pthread_mutex_t **m) {
    if (!*m)
        return;
    int r = pthread_mutex_unlock(*m);
    assert(r == 0);
    *m = NULL;
}

static void locks_init(Store *s) {
    pthread_rwlockattr_t attr;

    /* Else a steady stream of pulls would keep removal waiting for ever. */
    if (pthread_rwlockattr_init(&attr) != 0 ||
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) != 0 ||
        pthread_rwlock_init(&s->content, &attr) != 0 || pthread_mutex_init(&s->naming, NULL) != 0 ||
        pthread_mutex_init(&s->tree, NULL) != 0 || pthread_mutex_init(&s->partial, NULL) != 0)
        abort();
    (void)pthread_rwlockattr_destroy(&attr);
}

static int open_root(Store *s, const char *path, Err *err) {
    if (!path_is_clean_absolute(path))
        return err_set(
            err, -EINVAL,
            "store path '%.200s' is not an absolute path without '.', '..' and double slashes",
            path);
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_errno(err, "making the store directory %s failed", path);
    s->path = realpath(path, NULL); /* administrators put symlinks to big disks there */
    if (!s->path)
        return err_errno(err, "finding the store directory %s failed", path);
    s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->fd < 0)
        return err_errno(err, "opening the store directory %s failed", s->path);
    return 0;
}

static int check_filesystem(Store *s, Err *err) {
    struct statfs fs;

    if (fstatfs(s->fd, &fs) < 0)
        return err_errno(err, "looking at the file system of the store %s failed", s->path);
    for (size_t i = 0; i < ELEMENTSOF(filesystems); i++)
        if ((uint32_t)fs.f_type == filesystems[i].magic) {
            s->filesystem = filesystems[i].name;
            return 0;
        }
    return err_set(
        err, -ENOTSUP,
        "the store %s is on a file system of type 0x%x; it must be on ext4, xfs or btrfs: set "
        "store.path"
        " to a directory on such a disk (in a container: mount one there, a hostPath for example)",
        s->path, (unsigned)fs.f_type);
}

/* What may be in a directory that becomes a store: nothing but leftovers of making one. */
static bool may_be_in_new_store(const char *name) {
    return streq(name, ".") || streq(name, "..") || streq(name, "lost+found") ||
           streq(name, "lock") || startswith(name, ".tmp-");
}

static int check_empty(Store *s, Err *err) {
    int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int r = 0;

    if (!dir) {
        r = err_errno(err, "reading the store directory %s failed", s->path);
        safe_close(fd);
        return r;
    }
    for (const struct dirent *entry; r == 0 && (entry = readdir(dir));)
        if (!may_be_in_new_store(entry->d_name))
            r = err_set(err, -EUCLEAN,
                        "directory %s is no store and not empty (it holds '%.100s'): set "
                        "store.path to an empty or new"
                        " directory",
                        s->path, entry->d_name);
    (void)closedir(dir); /* only read from */
    return r;
}

/* Before anything is written: nobody's files get a lock or folders of ours among them. */
static int refuse_foreign(Store *s, Err *err) {
    if (faccessat(s->fd, "format", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0; /* check_format() looks into it */
    return errno == ENOENT ? check_empty(s, err)
                           : err_errno(err, "looking for %s/format failed", s->path);
}

static int take_lock(Store *s, Err *err) {
    s->lock_fd = openat(s->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return err_errno(err, "making %s/lock failed", s->path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        return err_set(
            err, -EWOULDBLOCK,
            "another modelcached has the store %s: stop it, or set store.path to another directory",
            s->path);
    return err_errno(err, "locking the store %s failed", s->path);
}

static int make_format(Store *s, Err *err) {
    uint8_t id[16];
    char hex[2 * sizeof(id) + 1];
    _cleanup_free_ char *text = NULL;
    int r;

    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return err_errno(err, "making an id for the store failed");
    format_hex(id, sizeof(id), hex);
    text = xasprintf("%s%d\nid %s\n", format_head, STORE_FORMAT_VERSION, hex);
    r = fs_write_file_durably(s->fd, "format", text, strlen(text), 0600, err);
    return r < 0 ? err_prefix(err, r, "making the store %s failed", s->path) : 0;
}

static int check_format(Store *s, Err *err) {
    _cleanup_free_ char *text = NULL;
    const char *version;
    uint64_t n;
    int r = fs_read_file(s->fd, "format", STORE_FORMAT_MAX, &text, NULL, err);

    if (r == -ENOENT)
        return make_format(s, err);
    if (r < 0 && r != -E2BIG)
        return err_prefix(err, r, "reading the format of the store %s failed", s->path);
    version = r < 0 ? NULL : startswith(text, format_head);
    if (version) {
        _cleanup_free_ char *digits = xstrndup(version, strcspn(version, "\n"));

        if (parse_u64(digits, &n) == 0 && n == STORE_FORMAT_VERSION)
            return 0;
        return err_set(err, -ENOTSUP,
                       "the store %s has format version '%.20s', this modelcached knows %d: use "
                       "the modelcached that"
                       " made it, or set store.path to a new directory",
                       s->path, digits, STORE_FORMAT_VERSION);
    }
    return err_set(err, -ENOTSUP,
                   "the file %s/format is not modelcached's: the directory belongs to something "
                   "else; set store.path"
                   " to another one",
                   s->path);
}

static int open_folder(Store *s, const char *name, int *ret_fd, Err *err) {
    if (mkdirat(s->fd, name, 0700) < 0 && errno != EEXIST)
        return err_errno(err, "making %s/%s failed", s->path, name);
    *ret_fd = fs_open_beneath(s->fd, name, O_RDONLY | O_DIRECTORY, 0, err);
    if (*ret_fd == -EXDEV)
        return err_set(err, -EBUSY,
                       "something is mounted on %s/%s, in the midst of the store: unmount it, then "
                       "start modelcached again",
                       s->path, name);
    return *ret_fd < 0 ? err_prefix(err, *ret_fd, "opening the store %s failed", s->path) : 0;
}

/* ext4 puts a new file beside its directory, and, when it has no journal, looks at each inode there
 * that was freed within the last minutes, again for each file.  With this flag each pull's folder
 * begins elsewhere.  Other file systems have no such flag, and no such need. */
static void spread_folders(int fd) {
    int flags;

    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || (flags & FS_TOPDIR_FL))
        return;
    flags |= FS_TOPDIR_FL;
    (void)ioctl(fd, FS_IOC_SETFLAGS, &flags); /* it is about speed only */
}

/* All shards are there from the start, so that no commit has to make one durable. */
static int make_shards(Store *s, Err *err) {
    bool made = false;

    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        char name[3];

        (void)snprintf(name, sizeof(name), "%02x", i);
        if (mkdirat(s->objects_fd, name, 0700) == 0)
            made = true;
        else if (errno != EEXIST)
            return err_errno(err, "making %s/objects/%s failed", s->path, name);
    }
    if (made && (fsync(s->objects_fd) < 0 || fsync(s->fd) < 0))
        return err_errno(err, "making the directories of the store %s durable failed", s->path);
    return 0;
}

static int open_folders(Store *s, Err *err) {
    int r = open_folder(s, "objects", &s->objects_fd, err);

    if (r < 0)
        return r;
    r = open_folder(s, "ingest", &s->ingest_fd, err);
    if (r < 0)
        return r;
    spread_folders(s->ingest_fd);
    r = open_folder(s, "partial", &s->partial_fd, err);
    if (r < 0)
        return r;
    r = open_folder(s, "trees", &s->trees_fd, err);
    if (r < 0)
        return r;
    r = open_folder(s, "staging", &s->staging_fd, err);
    return r < 0 ? r : make_shards(s, err);
}

/* The worker opens its folder by a descriptor it gets, so nobody but root needs to pass through the
 * store. */
static int make_private(Store *s, Err *err) {
    if (fchown(s->fd, 0, 0) < 0 || fchmod(s->fd, 0700) < 0)
        return errno == EPERM ? err_set(err, -EPERM,
                                        "the store %s cannot be made root's alone; run modelcached "
                                        "as root",
                                        s->path)
                              : err_errno(err, "making the store %s root's alone failed", s->path);
    return 0;
}

int store_open(Store **ret, const char *path, Err *err) {
    _cleanup_(store_closep) Store *s = xnew(Store);
    static int (*const steps[])(Store *, Err *) = {
        check_filesystem, refuse_foreign, take_lock, check_format, make_private, open_folders,
    };
    _cleanup_free_ char *index_path = NULL;
    int r;

    s->fd = s->lock_fd = s->objects_fd = s->ingest_fd = -EBADF;
    s->partial_fd = s->trees_fd = s->staging_fd = -EBADF;
    locks_init(s);
    r = open_root(s, path, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < ELEMENTSOF(steps); i++) {
        r = steps[i](s, err);
        if (r < 0)
            return r;
    }
    index_path = xasprintf("%s/index.db", s->path);
    r = index_open(&s->index, index_path, err);
    if (r < 0)
        return err_prefix(err, r, "opening the store %s failed", s->path);
    r = grant_open(s, err);
    if (r < 0)
        return err_prefix(err, r, "opening the store %s failed", s->path);
    r = store_recover(s, err);
    if (r < 0)
        return err_prefix(err, r, "recovering the store %s failed", s->path);
    *ret = TAKE_PTR(s);
    return 0;
}

Store *store_close(Store *s) {
    if (!s)
        return NULL;
    index_close(s->index);
    safe_close(s->staging_fd);
    safe_close(s->trees_fd);
    safe_close(s->partial_fd);
    safe_close(s->ingest_fd);
    safe_close(s->objects_fd);
    safe_close(s->lock_fd);
    safe_close(s->fd);
    (void)pthread_mutex_destroy(&s->partial);
    (void)pthread_mutex_destroy(&s->tree);
    (void)pthread_mutex_destroy(&s->naming);
    (void)pthread_rwlock_destroy(&s->content);
    explicit_bzero(s->grant_key, sizeof(s->grant_key));
    free(s->partial_sizes);
    free(s->path);
    free(s);
    return NULL;
}

void store_shrink(Store *s) {
    index_forget_pages(s->index);
}

int store_trees_fd(const Store *s) {
    return s->trees_fd;
}

int store_staging_fd(const Store *s) {
    return s->staging_fd;
}

const char *store_path(const Store *s) {
    return s->path;
}

const char *store_filesystem(const Store *s) {
    return s->filesystem;
}

int store_ingest_name(char buf[static STORE_INGEST_NAME_MAX], const char *origin, Err *err) {
    const size_t half = STORE_INGEST_NAME_MAX / 2 - 1; /* hex digits */
    uint8_t random[16];
    Digest d;

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return err_errno(err, "making a name for a pull's folder failed");
    digest_of(&d, origin, strlen(origin));
    format_hex(d.bytes, half / 2, buf);
    buf[half] = '-';
    format_hex(random, sizeof(random), buf + half + 1);
    return 0;
}

int store_ingest_begin(Store *s, const char *name, uid_t uid, gid_t gid, int *ret_fd, Err *err) {
    _cleanup_close_ int fd = -EBADF;

    if (!name_is_safe(name, strlen(name)))
        return err_set(err, -EINVAL, "'%.200s' can't be the name of a pull's folder", name);
    if (mkdirat(s->ingest_fd, name, 0700) < 0)
        return err_errno(err, "making the pull's folder ingest/%s failed", name);
    fd = openat(s->ingest_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchown(fd, uid, gid) < 0) {
        int r = err_errno(err, "preparing the pull's folder ingest/%s failed", name);

        (void)unlinkat(s->ingest_fd, name, AT_REMOVEDIR); /* else the next start removes it */
        return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

int store_ingest_release(Store *s, const char *name, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    int r = index_run(ix, err, "DELETE FROM leases WHERE ingest = ?", "t", name);

    if (r >= 0)
        r = index_run(ix, err, "DELETE FROM layer_leases WHERE ingest = ?", "t", name);
    return r < 0 ? r : 0;
}

int store_ingest_end(Store *s, const char *name, Err *err) {
    int r, removed;

    if (!name_is_safe(name, strlen(name)))
        return err_set(err, -EINVAL, "'%.200s' can't be the name of a pull's folder", name);
    removed = fs_remove_recursive(s->ingest_fd, name, err);
    r = store_ingest_release(s, name, removed < 0 ? NULL : err);
    return removed < 0 ? removed : r;
}

static int count_rows(Store *s, StoreStats *ret, Err *err) {
    _cleanup_(index_releasep) Index *ix = index_acquire(s->index);
    _cleanup_(index_endp) sqlite3_stmt *q = NULL;
    int r = index_query(
        ix, &q, err,
        "SELECT (SELECT coalesce(sum(size), 0) FROM objects), (SELECT count(*) FROM objects),"
        " (SELECT count(*) FROM manifests WHERE complete), (SELECT count(*) FROM volumes),"
        " (SELECT count(*) FROM manifests WHERE NOT complete)",
        "");
    if (r < 0)
        return r;
    r = index_step(q, err);
    if (r < 0)
        return r;
    ret->bytes = (uint64_t)index_int(q, 0);
    ret->objects = (unsigned)index_int(q, 1);
    ret->artifacts = (unsigned)index_int(q, 2);
    ret->volumes = (unsigned)index_int(q, 3);
    ret->incomplete = (unsigned)index_int(q, 4);
    return 0;
}

int store_stats(Store *s, StoreStats *ret, Err *err) {
    StoreStats stats = { .deduplicated_bytes = s->deduplicated_bytes };
    struct statfs fs;
    int r;

    if (fstatfs(s->fd, &fs) < 0)
        return err_errno(err, "looking at the file system of the store %s failed", s->path);
    stats.fs_bytes = (uint64_t)fs.f_blocks * (uint64_t)fs.f_bsize;
    stats.fs_free_bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    r = count_rows(s, &stats, err);
    if (r >= 0)
        r = partial_count(s, &stats.partial_layers, &stats.partial_bytes, err);
    if (r >= 0)
        *ret = stats;
    return r;
}
