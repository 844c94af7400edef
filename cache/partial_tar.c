/* SPDX-License-Identifier: Apache-2.0 */
/* partial_tar: tar layers that were unpacked in part; inner part of partial. */
#include "cache/partial_tar.h"

#include "base/fs.h"
#include "base/log.h"
#include "base/parse.h"
#include "cache/partial_tries.h"

#include <fcntl.h>
#include <sys/stat.h>

#define CHECKPOINT     "checkpoint"
#define TAG_HEX        16 /* digits of the blob's digest that the names of a layer's files begin with */
#define NUMBER_DIGITS  20
#define FILE_NAME_MAX  (TAG_HEX + 1 + NUMBER_DIGITS + 1)
#define FILE_PATH_MAX  (PARTIAL_MOVING_MAX + FILE_NAME_MAX)
#define DIRECTORY(key) PARTIAL_NAME((key), ".tar")

#define MOVING        ".of-"
#define GONE          ".gone-"
#define GONE_NAME_MAX (sizeof(GONE) + NUMBER_DIGITS)

static const char *file_path(char buf[static FILE_PATH_MAX], const char *directory,
                             const char *name) {
    (void)snprintf(buf, FILE_PATH_MAX, "%s/%s", directory, name);
    return buf;
}
#define FILE_PATH(directory, name) file_path((char[FILE_PATH_MAX]){ "" }, (directory), (name))

static const char *gone_name(char buf[static GONE_NAME_MAX], uint64_t number) {
    (void)snprintf(buf, GONE_NAME_MAX, GONE "%llu", (unsigned long long)number);
    return buf;
}
#define GONE_NAME(number) gone_name((char[GONE_NAME_MAX]){ "" }, (number))

void partial_tar_init(PartialTar *ret, const char *ingest, const Digest *blob, const Digest *key) {
    Digest folder;

    *ret = (PartialTar){ .blob = *blob, .key = *key };
    digest_of(&folder, ingest, strlen(ingest));
    (void)snprintf(ret->moving, sizeof(ret->moving), "%s" MOVING "%.16s", DIGEST_HEX(key),
                   DIGEST_HEX(&folder));
}

bool partial_tar_is_passing(const char *name) {
    const char *suffix;
    Digest key;

    return startswith(name, GONE) ||
           (partial_name_parse(name, &key, &suffix) && startswith(suffix, MOVING));
}

static const char *list_name(char buf[static FILE_NAME_MAX], const Digest *blob) {
    (void)snprintf(buf, FILE_NAME_MAX, "%.*s-entries", TAG_HEX, DIGEST_HEX(blob));
    return buf;
}
#define LIST_NAME(blob) list_name((char[FILE_NAME_MAX]){ "" }, (blob))

/* Does it belong to a layer?  Its digits, and what the file is. */
static bool parse_file(const char *name, uint8_t ret_tag[static TAG_HEX / 2], PartialMode *ret) {
    const char *rest = name + TAG_HEX + 1;
    size_t digits;

    if (parse_hex(name, TAG_HEX, ret_tag) < 0 || name[TAG_HEX] != '-')
        return false;
    digits = strspn(rest, "0123456789");
    *ret = digits > 0 ? PARTIAL_MODE_CONTENT : PARTIAL_MODE_PRIVATE;
    return digits > 0 ? digits <= NUMBER_DIGITS && !rest[digits] : streq(rest, "entries");
}

static bool has_tag(const PartialTar *l, const uint8_t *tag) {
    return memcmp(l->blob.bytes, tag, TAG_HEX / 2) == 0;
}

/* What a directory takes on disk, as far as it is known. */
static PartialSize *find_size(Store *s, const Digest *key) {
    for (size_t i = 0; i < s->n_partial_sizes; i++)
        if (digest_equal(&s->partial_sizes[i].key, key))
            return &s->partial_sizes[i];
    return NULL;
}

static void forget_size(Store *s, const Digest *key) {
    PartialSize *size = find_size(s, key);

    if (size)
        *size = s->partial_sizes[--s->n_partial_sizes];
}

typedef struct Count {
    int dir_fd;
    uint64_t bytes;
} Count;

static void count_visit(void *arg, const char *name) {
    Count *c = arg;
    struct stat st;

    if (fstatat(c->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        c->bytes += (uint64_t)st.st_blocks * 512;
}

static int open_directory(const Store *s, const char *name) {
    return openat(s->partial_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* When it fails `ret_bytes` is less than it is: nobody is promised too much. */
static int count(const Store *s, const char *directory, uint64_t *ret_bytes) {
    Count c = { .dir_fd = open_directory(s, directory) };
    int r = partial_each(c.dir_fd, count_visit, &c, NULL);

    *ret_bytes = c.bytes;
    return r;
}

static void remember_size(Store *s, const Digest *key, uint64_t bytes) {
    ARRAY_GROW(s->partial_sizes, s->n_partial_sizes, s->cap_partial_sizes);
    s->partial_sizes[s->n_partial_sizes++] = (PartialSize){ *key, bytes };
}

uint64_t partial_tar_bytes(Store *s, const Digest *key) {
    const PartialSize *size = find_size(s, key);
    uint64_t bytes;

    if (size)
        return size->bytes;
    if (count(s, DIRECTORY(key), &bytes) >= 0)
        remember_size(s, key, bytes);
    return bytes;
}

/* A symlink would lead elsewhere. */
static bool is_directory(const Store *s, const char *name) {
    struct stat st;

    return fstatat(s->partial_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

/* The checkpoint was the last that came into the directory. */
static bool is_whole(const Store *s, const char *directory, struct timespec *ret_time) {
    struct stat dir, st;

    if (fstatat(s->partial_fd, directory, &dir, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(dir.st_mode) ||
        fstatat(s->partial_fd, FILE_PATH(directory, CHECKPOINT), &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISREG(st.st_mode))
        return false;
    *ret_time = dir.st_mtim;
    return true;
}

bool partial_tar_is_whole(const Store *s, const Digest *key, struct timespec *ret_time) {
    return is_whole(s, DIRECTORY(key), ret_time);
}

/* What fails here is tried again by the next start. */
static void remove_directory(const Store *s, const char *name) {
    if (is_directory(s, name)) /* first: what a kill leaves is no whole layer */
        (void)unlinkat(s->partial_fd, FILE_PATH(name, CHECKPOINT), 0);
    (void)!fs_remove_recursive(s->partial_fd, name, NULL);
}

void partial_gone_done(PartialGone *g) {
    for (size_t i = 0; i < g->n; i++)
        remove_directory(g->s, GONE_NAME(g->numbers[i]));
    free(g->numbers);
}

void partial_tar_drop(PartialGone *g, const Digest *key) {
    Store *s = g->s;
    const uint64_t number = s->n_partial_gone++;

    forget_size(s, key);
    if (renameat(s->partial_fd, DIRECTORY(key), s->partial_fd, GONE_NAME(number)) < 0) {
        if (errno != ENOENT)
            remove_directory(s, DIRECTORY(key));
        return;
    }
    ARRAY_GROW(g->numbers, g->n, g->cap);
    g->numbers[g->n++] = number;
}

static int give_name(Store *s, const Digest *key, const char *moving, uint64_t bytes) {
    _cleanup_(partial_gone_done) PartialGone gone = { .s = s };
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);

    partial_tar_drop(&gone, key);
    if (renameat(s->partial_fd, moving, s->partial_fd, DIRECTORY(key)) < 0)
        return -errno;
    remember_size(s, key, bytes);
    return 0;
}

/* The layer is whole: pulls can get it.  Its files are counted before others wait. */
static int publish(Store *s, const Digest *key, const char *moving) {
    uint64_t bytes;
    int r = count(s, moving, &bytes);

    return r < 0 ? r : give_name(s, key, moving, bytes);
}

/* The directory, empty, or with what a killed daemon had moved there. */
static int make_directory(const Store *s, const char *moving) {
    struct timespec time;

    if (!is_directory(s, moving) || is_whole(s, moving, &time))
        remove_directory(s, moving);
    if (mkdirat(s->partial_fd, moving, 0700) < 0 && errno != EEXIST)
        return -errno;
    return 0;
}

/* As long as somebody writes the layer's list nothing is moved.  A list that is missing was moved
 * by a daemon that was killed then; or the worker finds that out. */
static int begin_keep(const Store *s, PartialMove *m, const PartialTar *l) {
    struct stat st;
    int r = partial_take_over(m, LIST_NAME(&l->blob), PARTIAL_MODE_PRIVATE, &st);

    return r < 0 && r != -ENOENT ? r : make_directory(s, l->moving);
}

/* Now it is whole. */
static int end_keep(Store *s, PartialMove *m, const PartialTar *l) {
    const char *path = FILE_PATH(l->moving, CHECKPOINT);
    int r = partial_move(m, PARTIAL_NAME(&l->blob, ".tar"), path, PARTIAL_MODE_PRIVATE);

    if (r < 0)
        return r;
    if (l->excused)
        partial_tries_excuse(m->to_fd, path);
    return publish(s, &l->key, l->moving);
}

static void leave(PartialTar *l, int why) {
    l->left = true;
    log_debug("what was unpacked of layer %s is not kept: %s", DIGEST_STR(&l->blob),
              strerror(-why));
}

typedef struct Keep {
    PartialMove *move;
    PartialTar *layers;
    size_t n;
} Keep;

/* A layer that lacks a file is worth nothing. */
static void keep_visit(void *arg, const char *name) {
    const Keep *k = arg;
    uint8_t tag[TAG_HEX / 2];
    PartialMode mode;

    if (!parse_file(name, tag, &mode))
        return;
    for (size_t i = 0; i < k->n; i++) {
        PartialTar *l = &k->layers[i];
        int r;

        if (l->left || !has_tag(l, tag))
            continue;
        r = l->n_files++ < PARTIAL_TAR_FILES
                ? partial_move(k->move, name, FILE_PATH(l->moving, name), mode)
                : -E2BIG;
        if (r < 0)
            leave(l, r);
        return;
    }
}

/* Nobody can tell whose the files are of layers whose names for them are the same. */
static void leave_ambiguous(PartialTar *layers, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (has_tag(&layers[i], layers[k].blob.bytes))
                layers[i].left = layers[k].left = true;
}

int partial_tar_keep(Store *s, PartialMove *m, PartialTar *layers, size_t n, Err *err) {
    Keep keep = { m, layers, n };
    int r;

    if (n == 0)
        return 0;
    leave_ambiguous(layers, n);
    for (size_t i = 0; i < n; i++)
        if (!layers[i].left && (r = begin_keep(s, m, &layers[i])) < 0)
            leave(&layers[i], r);
    r = partial_each(openat(m->from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), keep_visit, &keep,
                     err);
    for (size_t i = 0; i < n; i++) {
        int why = r;

        if (!layers[i].left && (r < 0 || (why = end_keep(s, m, &layers[i])) < 0))
            leave(&layers[i], why);
        if (layers[i].left)
            remove_directory(s, layers[i].moving);
    }
    return r;
}

typedef struct Claim {
    PartialMove *move;
    const PartialTar *layer;
    int r;
} Claim;

static void claim_visit(void *arg, const char *name) {
    Claim *c = arg;
    uint8_t tag[TAG_HEX / 2];
    PartialMode mode;

    if (c->r >= 0 && parse_file(name, tag, &mode) && has_tag(c->layer, tag))
        c->r = partial_move(c->move, name, name, mode);
}

/* The folder had none of that name before. */
static void take_back_visit(void *arg, const char *name) {
    const Claim *c = arg;
    uint8_t tag[TAG_HEX / 2];
    PartialMode mode;

    if (parse_file(name, tag, &mode) && has_tag(c->layer, tag))
        (void)unlinkat(c->move->to_fd, name, 0); /* else the pull's end does */
}

static int claim_files(PartialMove *m, const PartialTar *layer, Err *err) {
    const char *checkpoint = PARTIAL_NAME(&layer->blob, ".tar");
    Claim c = { m, layer, partial_move(m, CHECKPOINT, checkpoint, PARTIAL_MODE_PRIVATE) };
    int r = c.r;

    if (r >= 0)
        r = partial_each(openat(m->from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), claim_visit,
                         &c, err);
    if (r >= 0)
        r = c.r;
    if (r >= 0)
        return 1;
    (void)unlinkat(m->to_fd, checkpoint, 0); /* the worker believes nothing without it */
    (void)!partial_each(openat(m->to_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), take_back_visit,
                        &c, NULL);
    return err_errnum(err, r, "giving what was unpacked of layer %s to a pull failed",
                      DIGEST_STR(&layer->blob));
}

/* Files of another layer, whose names for them are the same? */
static bool is_in_the_way(int dir_fd, const PartialTar *layer) {
    return faccessat(dir_fd, LIST_NAME(&layer->blob), F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
           faccessat(dir_fd, PARTIAL_NAME(&layer->blob, ".tar"), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* From now on it is the pull's: 1, or 0 when there is none. */
static int take(Store *s, const PartialTar *l, Err *err) {
    _cleanup_(partial_gone_done) PartialGone gone = { .s = s };
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    struct timespec time;
    int r;

    if (!partial_tar_is_whole(s, &l->key, &time))
        return 0;
    r = partial_tries_begin(s->partial_fd, FILE_PATH(DIRECTORY(&l->key), CHECKPOINT), &l->blob,
                            err);
    if (r < 0) {
        partial_tar_drop(&gone, &l->key);
        return r;
    }
    if (renameat(s->partial_fd, DIRECTORY(&l->key), s->partial_fd, l->moving) < 0)
        return err_errno(err, "taking what was unpacked of layer %s failed", DIGEST_STR(&l->blob));
    forget_size(s, &l->key);
    return 1;
}

int partial_tar_claim(Store *s, PartialMove *m, const PartialTar *layer, Err *err) {
    _cleanup_close_ int fd = -EBADF;
    int r = is_in_the_way(m->to_fd, layer) ? 0 : take(s, layer, err);

    if (r <= 0)
        return r;
    fd = open_directory(s, layer->moving);
    m->from_fd = fd;
    m->flags = RENAME_NOREPLACE;
    r = fd < 0 ? err_errno(err, "opening what was unpacked of layer %s failed",
                           DIGEST_STR(&layer->blob))
               : claim_files(m, layer, err);
    remove_directory(s, layer->moving);
    return r;
}

static void recover_visit(void *arg, const char *name) {
    Store *s = arg;
    const char *suffix;
    struct timespec time;
    Digest key;

    if (!partial_tar_is_passing(name))
        return;
    if (!partial_name_parse(name, &key, &suffix) || !is_whole(s, name, &time) ||
        publish(s, &key, name) < 0)
        remove_directory(s, name);
}

int partial_tar_recover(Store *s, Err *err) {
    return partial_each(openat(s->partial_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                        recover_visit, s, err);
}
