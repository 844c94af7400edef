/* SPDX-License-Identifier: Apache-2.0 */
/* partial: layers that came in part: kept for the next pull that wants them, handed to it, and
 * dropped.  Nothing here reads them: the worker does, and hashes them again. */
#include "cache/partial.h"

#include "base/fs.h"
#include "base/log.h"
#include "cache/partial_tar.h"
#include "cache/partial_tries.h"

#include <fcntl.h>
#include <time.h>

#define PARTIAL_AGE_SEC (7 * 24 * 3600)

static const char *const suffixes[] = { ".part", ".map" };

/* One layer of partial/.  It is whole, or it is dropped. */
typedef struct Partial {
    Digest key;
    bool tar;
    bool part, map;       /* a raw one has both; a tar that is whole, too */
    struct timespec time; /* when it was kept */
    uint64_t bytes;       /* on disk, of a raw one */
} Partial;

typedef struct PartialList {
    Partial *items;
    size_t n, cap;
} PartialList;

static void partial_list_done(PartialList *l) {
    free(l->items);
}

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

typedef struct Keep {
    Store *s;
    const char *ingest;
    bool died; /* see store_partial_keep() */
    PartialMove move;
    size_t n_raw;                  /* of which there are maps; more would not be kept */
    PartialTar tars[PARTIAL_TARS]; /* of which there are checkpoints; the same */
    size_t n_tars;
} Keep;

static void drop_raw(const Store *s, const Digest *key) {
    for (size_t i = 0; i < ELEMENTSOF(suffixes); i++) /* what fails here is tried again */
        (void)!fs_remove_recursive(s->partial_fd, PARTIAL_NAME(key, suffixes[i]), NULL);
}

static void drop(PartialGone *g, const Digest *key, bool tar) {
    if (tar)
        partial_tar_drop(g, key);
    else
        drop_raw(g->s, key);
}

/* The map comes last, and is the first to be given to a pull: so the folder has it when a daemon is
 * killed in between, and bytes that are missing there were moved before. */
static void keep_raw(Keep *k, const Digest *blob) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&k->s->partial);
    const Digest key = partial_key(k->ingest, blob);

    for (size_t i = 0; i < ELEMENTSOF(suffixes); i++) {
        int r = partial_move(&k->move, PARTIAL_NAME(blob, suffixes[i]),
                             PARTIAL_NAME(&key, suffixes[i]), PARTIAL_MODE_PRIVATE);

        if (r >= 0 || (i == 0 && r == -ENOENT))
            continue;
        log_debug("what came of blob %s is not kept: %s", DIGEST_STR(blob), strerror(-r));
        if (i > 0) /* bytes alone are of no use */
            drop_raw(k->s, &key);
        return;
    }
    /* The time only says which is the oldest. */
    (void)utimensat(k->move.to_fd, PARTIAL_NAME(&key, suffixes[0]), NULL, AT_SYMLINK_NOFOLLOW);
    if (!k->died)
        partial_tries_excuse(k->move.to_fd, PARTIAL_NAME(&key, suffixes[1]));
}

static void keep_visit(void *arg, const char *name) {
    Keep *k = arg;
    const char *suffix;
    Digest d;

    if (!partial_name_parse(name, &d, &suffix))
        return;
    if (streq(suffix, suffixes[1]) && k->n_raw < PARTIAL_MAX) {
        k->n_raw++;
        keep_raw(k, &d);
    } else if (streq(suffix, ".tar") && k->n_tars < PARTIAL_TARS) {
        const Digest key = partial_key(k->ingest, &d);

        partial_tar_init(&k->tars[k->n_tars], k->ingest, &d, &key);
        k->tars[k->n_tars++].excused = !k->died;
    }
}

static int keep_folder(Store *s, const char *ingest, bool died, Err *err) {
    _cleanup_close_ int fd = fs_open_beneath(s->ingest_fd, ingest, O_RDONLY | O_DIRECTORY, 0, err);
    Keep keep = { .s = s,
                  .ingest = ingest,
                  .died = died,
                  .move = { .from_fd = fd, .to_fd = s->partial_fd, .waits = PARTIAL_WAITS } };
    int r;

    if (fd < 0) /* something else than a folder holds nothing of use */
        return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV ? 0 : fd;
    r = partial_each(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), keep_visit, &keep, err);
    return r < 0 ? r : partial_tar_keep(s, &keep.move, keep.tars, keep.n_tars, err);
}

typedef struct List {
    const Store *s;
    PartialList *list;
} List;

static Partial *list_item(PartialList *list, const Digest *key, bool tar) {
    size_t i = 0;

    while (i < list->n && (list->items[i].tar != tar || !digest_equal(&list->items[i].key, key)))
        i++;
    if (i == list->n) {
        ARRAY_GROW(list->items, list->n, list->cap);
        list->items[list->n++] = (Partial){ .key = *key, .tar = tar };
    }
    return &list->items[i];
}

static void list_raw(PartialList *list, const Digest *key, bool part, const struct stat *st) {
    Partial *p = list_item(list, key, false);

    p->bytes += (uint64_t)st->st_blocks * 512;
    if (part) {
        p->part = true;
        p->time = st->st_mtim;
    } else
        p->map = true;
}

static void list_tar(const Store *s, PartialList *list, const Digest *key) {
    Partial *p = list_item(list, key, true);

    p->part = p->map = partial_tar_is_whole(s, key, &p->time);
}

static void list_visit(void *arg, const char *name) {
    const List *l = arg;
    const char *suffix;
    struct stat st;
    Digest key;

    if (partial_tar_is_passing(name))
        return;
    if (partial_name_parse(name, &key, &suffix)) {
        const bool part = streq(suffix, suffixes[0]);

        if (streq(suffix, ".tar")) {
            list_tar(l->s, l->list, &key);
            return;
        }
        if ((part || streq(suffix, suffixes[1])) &&
            fstatat(l->s->partial_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) {
            list_raw(l->list, &key, part, &st);
            return;
        }
    }
    (void)!fs_remove_recursive(l->s->partial_fd, name, NULL); /* the next start tries again */
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
    int r = partial_each(openat(s->partial_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), list_visit,
                         &l, err);

    if (r >= 0 && ret->n > 1)
        qsort(ret->items, ret->n, sizeof(*ret->items), newest_first);
    return r;
}

/* Drops halves, those that are too old, and the oldest beyond the caps. */
static int trim(Store *s, Err *err) {
    _cleanup_(partial_gone_done) PartialGone gone = { .s = s };
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    _cleanup_(partial_list_done) PartialList list = { 0 };
    int r = list_partials(s, &list, err);
    size_t kept = 0, tars = 0;

    for (size_t i = 0; i < list.n; i++) {
        const Partial *p = &list.items[i];

        if (p->part && p->map && kept < PARTIAL_MAX && (!p->tar || tars < PARTIAL_TARS) &&
            p->time.tv_sec > time(NULL) - PARTIAL_AGE_SEC) {
            kept++;
            tars += p->tar;
        } else
            drop(&gone, &p->key, p->tar);
    }
    return r;
}

static uint64_t bytes_of(Store *s, const Partial *p) {
    return p->tar ? partial_tar_bytes(s, &p->key) : p->bytes;
}

int partial_recover(Store *s, const char *ingest, Err *err) {
    return keep_folder(s, ingest, true, err); /* with its daemon */
}

int partial_trim(Store *s, Err *err) {
    int r = partial_tar_recover(s, err);

    return r < 0 ? r : trim(s, err);
}

void partial_forget(Store *s, const StorePull *pull, int dir_fd, const Layer *layer) {
    _cleanup_(partial_gone_done) PartialGone gone = { .s = s };
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    const Digest key = partial_key(pull->ingest, &layer->digest);

    partial_forget_notes(dir_fd, layer);
    drop(&gone, &key, layer->kind == LAYER_KIND_TAR);
}

void partial_forget_notes(int dir_fd, const Layer *layer) {
    const char *suffix = layer->kind == LAYER_KIND_TAR ? ".tar" : suffixes[1];

    (void)unlinkat(dir_fd, PARTIAL_NAME(&layer->digest, suffix), 0); /* a small one has none */
}

int partial_clear(Store *s, uint64_t *bytes, Err *err) {
    _cleanup_(partial_gone_done) PartialGone gone = { .s = s };
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    _cleanup_(partial_list_done) PartialList list = { 0 };
    int r = list_partials(s, &list, err);

    for (size_t i = list.n; i-- > 0;) {
        *bytes += bytes_of(s, &list.items[i]);
        drop(&gone, &list.items[i].key, list.items[i].tar);
    }
    return r < 0 ? r : list.n > 0;
}

int store_partial_keep(Store *s, const char *ingest, bool died, Err *err) {
    int r;

    if (!name_is_safe(ingest, strlen(ingest)))
        return err_set(err, -EINVAL, "'%.200s' can't be the name of a pull's folder", ingest);
    r = keep_folder(s, ingest, died, err);
    return r < 0 ? r : trim(s, err);
}

static int move_raw(const Store *s, PartialMove *m, const PartialTar *layer, Err *err) {
    const Digest *blob = &layer->blob, *key = &layer->key;

    for (size_t i = ELEMENTSOF(suffixes); i-- > 0;) {
        const char *name = PARTIAL_NAME(blob, suffixes[i]);
        int r = partial_move(m, PARTIAL_NAME(key, suffixes[i]), name, PARTIAL_MODE_PRIVATE);

        if (r < 0) { /* half of it is of no use */
            drop_raw(s, key);
            (void)unlinkat(m->to_fd, PARTIAL_NAME(blob, suffixes[1]), 0); /* else the pull's end */
            return err_errnum(err, r, "giving the partial blob %s to a pull failed", name);
        }
    }
    return 1;
}

static bool has_raw(const Store *s, const Digest *key) {
    for (size_t i = 0; i < ELEMENTSOF(suffixes); i++)
        if (faccessat(s->partial_fd, PARTIAL_NAME(key, suffixes[i]), F_OK, AT_SYMLINK_NOFOLLOW) < 0)
            return false;
    return true;
}

static int claim_raw(Store *s, PartialMove *m, const PartialTar *layer, Err *err) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    int r;

    if (!has_raw(s, &layer->key))
        return 0;
    r = partial_tries_begin(s->partial_fd, PARTIAL_NAME(&layer->key, suffixes[1]), &layer->blob,
                            err);
    if (r < 0) {
        drop_raw(s, &layer->key);
        return r;
    }
    return move_raw(s, m, layer, err);
}

int store_partial_claim(Store *s, const char *ingest, const Layer *layer, uint64_t *ret_bytes,
                        Err *err) {
    _cleanup_close_ int fd = -EBADF;
    const Digest key = partial_key(ingest, &layer->digest);
    PartialMove move = { .from_fd = s->partial_fd, .waits = PARTIAL_WAITS };
    PartialTar wanted;
    struct stat folder;
    int r;

    if (!name_is_safe(ingest, strlen(ingest)))
        return err_set(err, -EINVAL, "'%.200s' can't be the name of a pull's folder", ingest);
    fd = fs_open_beneath(s->ingest_fd, ingest, O_RDONLY | O_DIRECTORY, 0, err);
    if (fd < 0)
        return fd;
    if (fstat(fd, &folder) < 0)
        return err_errno(err, "looking at the pull's folder ingest/%s failed", ingest);
    move.to_fd = fd;
    move.uid = folder.st_uid;
    move.gid = folder.st_gid;
    partial_tar_init(&wanted, ingest, &layer->digest, &key);
    r = layer->kind == LAYER_KIND_TAR ? partial_tar_claim(s, &move, &wanted, err)
                                      : claim_raw(s, &move, &wanted, err);
    if (r > 0)
        *ret_bytes = move.bytes;
    return r;
}

int partial_count(Store *s, unsigned *ret_n, uint64_t *ret_bytes, Err *err) {
    _cleanup_(mutex_unlockp) _unused_ pthread_mutex_t *lock = mutex_lock(&s->partial);
    _cleanup_(partial_list_done) PartialList list = { 0 };
    int r = list_partials(s, &list, err);

    *ret_n = (unsigned)list.n;
    *ret_bytes = 0;
    for (size_t i = 0; i < list.n; i++)
        *ret_bytes += bytes_of(s, &list.items[i]);
    return r;
}

int store_partial_bytes(Store *s, uint64_t *ret_bytes, Err *err) {
    unsigned n;

    return partial_count(s, &n, ret_bytes, err);
}
