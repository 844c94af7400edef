/* SPDX-License-Identifier: Apache-2.0 */
/* writers: threads that hash and write the files of a tar while the next bytes are decoded. */
#include "oci/writers.h"

#include <pthread.h>
#include <signal.h>

#define THREADS     2
#define MEMORY      MiB(4)            /* content between the feeder and the threads */
#define CHUNK_BYTES UNPACK_FILE_WHOLE /* a larger file comes in pieces */
#define ITEMS_MAX   256               /* entries that are not told yet */
#define CHUNKS_MAX  ITEMS_MAX

/* An entry. */
typedef struct Item {
    LayerEntry e; /* strings are owned; but `ingest` is borrowed from `name` */
    char name[WRITERS_NAME_MAX];
    UnpackFile *file; /* kept for the next entry in this place */
    bool busy;        /* a thread has a chunk of it */
    bool done;
} Item;

typedef enum ChunkState { CHUNK_WAITING, CHUNK_TAKEN, CHUNK_DONE } ChunkState;

/* Bytes of one file. */
typedef struct Chunk {
    Item *item;
    uint8_t *data;
    size_t n;
    size_t room; /* what it takes of the memory, with what was skipped before it */
    bool last;   /* of its file */
    ChunkState state;
} Chunk;

struct Writers {
    const UnpackOptions *o;
    uint8_t *memory; /* a circle; chunks are given back in order */
    pthread_t threads[THREADS];
    unsigned n_threads;

    /* The feeder's. */
    Item items[ITEMS_MAX]; /* a circle; a thread has those of its chunk */
    size_t first_item, n_items;
    Item *open;    /* the file that is being fed */
    uint64_t left; /* bytes of it to come */
    Chunk chunk;   /* of it, being filled; `data` NULL: there is none */
    size_t size;   /* bytes that `chunk` is to have */
    size_t end;    /* of `memory` in use: here the next chunk begins */

    pthread_mutex_t mutex;            /* guards what follows, and what flags of items say */
    pthread_cond_t pushed, processed; /* the feeder has pushed or stops; a chunk is done */
    Chunk chunks[CHUNKS_MAX];         /* a circle */
    size_t first_chunk, n_chunks;
    size_t used; /* bytes of `memory` */
    bool stop;
    int r; /* the first failure */
    Err err;
};

const char *writers_name(char buf[static WRITERS_NAME_MAX], const char *name, uint64_t sequence) {
    (void)snprintf(buf, WRITERS_NAME_MAX, "%s-%llu", name, (unsigned long long)sequence);
    return buf;
}

/* --- the threads --- */

/* Contents that fit one chunk are known before they are on disk, so equal ones are never written.
 */
static int process(const Writers *w, const Chunk *c, Err *err) {
    Item *item = c->item;
    bool known = false;
    int r = 0;

    unpack_file_hash(item->file, c->data, c->n);
    if (c->last) {
        unpack_file_digest(item->file, &item->e.digest);
        known = seen_test_and_add(w->o->seen, &item->e.digest, item->e.executable);
    }
    if (!known)
        r = unpack_file_write(item->file, c->data, c->n, err);
    if (r >= 0 && c->last)
        r = unpack_file_end(item->file, !known, err);
    if (r >= 0 && c->last)
        item->e.ingest = known ? NULL : item->name;
    return r;
}

/* The first chunk whose file no other thread is at. */
static Chunk *next_chunk(Writers *w) {
    for (size_t i = 0; i < w->n_chunks; i++) {
        Chunk *c = &w->chunks[(w->first_chunk + i) % CHUNKS_MAX];

        if (c->state == CHUNK_WAITING && !c->item->busy)
            return c;
    }
    return NULL;
}

/* With the mutex held. */
static void chunk_ended(Writers *w, Chunk *c, int r, const Err *err) {
    c->state = CHUNK_DONE;
    c->item->busy = false;
    c->item->done = c->last;
    if (r < 0 && w->r == 0) {
        w->r = r;
        w->err = *err;
    }
    while (w->n_chunks > 0 && w->chunks[w->first_chunk].state == CHUNK_DONE) {
        w->used -= w->chunks[w->first_chunk].room;
        w->first_chunk = (w->first_chunk + 1) % CHUNKS_MAX;
        w->n_chunks--;
    }
    (void)pthread_cond_signal(&w->processed);
}

static void *thread(void *arg) {
    Writers *w = arg;
    Err err;

    (void)pthread_mutex_lock(&w->mutex);
    for (;;) {
        Chunk *c = w->r < 0 ? NULL : next_chunk(w);
        int r;

        if (w->stop)
            break;
        if (!c) {
            (void)pthread_cond_wait(&w->pushed, &w->mutex);
            continue;
        }
        c->state = CHUNK_TAKEN;
        c->item->busy = true;
        (void)pthread_mutex_unlock(&w->mutex);
        r = process(w, c, &err);
        (void)pthread_mutex_lock(&w->mutex);
        chunk_ended(w, c, r, &err);
    }
    (void)pthread_mutex_unlock(&w->mutex);
    return NULL;
}

/* --- the feeder --- */

static int start_threads(Writers *w, Err *err) {
    sigset_t all, old;
    int r = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the loop's */
    while (w->n_threads < THREADS && r == 0) {
        r = pthread_create(&w->threads[w->n_threads], NULL, thread, w);
        w->n_threads += r == 0;
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r == 0 ? 0
                  : err_errnum(err, -r,
                               "cannot start a thread that writes the files of a tar; "
                               "check the limit of tasks");
}

int writers_new(Writers **ret, const UnpackOptions *o, Err *err) {
    _cleanup_(writers_freep) Writers *w = xnew(Writers);
    int r;

    w->o = o;
    (void)pthread_mutex_init(&w->mutex, NULL);
    (void)pthread_cond_init(&w->pushed, NULL);
    (void)pthread_cond_init(&w->processed, NULL);
    w->memory = aligned_alloc(UNPACK_FILE_BLOCK, MEMORY);
    if (!w->memory)
        return err_set(err, -ENOMEM, "no memory to unpack a tar");
    r = start_threads(w, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(w);
    return 0;
}

static void item_clear(Item *item) {
    free(TAKE_PTR(item->e.path));
    free(TAKE_PTR(item->e.target));
}

Writers *writers_free(Writers *w) {
    if (!w)
        return NULL;
    (void)pthread_mutex_lock(&w->mutex);
    w->stop = true;
    (void)pthread_cond_broadcast(&w->pushed);
    (void)pthread_mutex_unlock(&w->mutex);
    for (unsigned i = 0; i < w->n_threads; i++)
        (void)pthread_join(w->threads[i], NULL);
    for (size_t i = 0; i < ITEMS_MAX; i++) {
        item_clear(&w->items[i]);
        (void)unpack_file_free(w->items[i].file);
    }
    (void)pthread_cond_destroy(&w->pushed);
    (void)pthread_cond_destroy(&w->processed);
    (void)pthread_mutex_destroy(&w->mutex);
    free(w->memory);
    free(w);
    return NULL;
}

/* With the mutex held. */
static int failure(const Writers *w, Err *err) {
    if (w->r < 0 && err)
        *err = w->err;
    return w->r;
}

/* Tells those of the first entries that are done.  The mutex is not held: on_entry() may write. */
static int tell(Writers *w, Err *err) {
    while (w->n_items > 0) {
        Item *item = &w->items[w->first_item];
        bool done;
        int r;

        (void)pthread_mutex_lock(&w->mutex);
        r = failure(w, err);
        done = item->done;
        (void)pthread_mutex_unlock(&w->mutex);
        if (r < 0)
            return r;
        if (!done)
            return 0;
        r = w->o->on_entry(w->o->arg, &item->e, err);
        if (r < 0)
            return r;
        item_clear(item);
        w->first_item = (w->first_item + 1) % ITEMS_MAX;
        w->n_items--;
    }
    return 0;
}

/* Tells until at most `max` entries are left. */
static int tell_until(Writers *w, size_t max, Err *err) {
    for (;;) {
        int r = tell(w, err);

        if (r < 0 || w->n_items <= max)
            return r;
        (void)pthread_mutex_lock(&w->mutex);
        while (w->r == 0 && !w->items[w->first_item].done)
            (void)pthread_cond_wait(&w->processed, &w->mutex);
        (void)pthread_mutex_unlock(&w->mutex);
    }
}

static Item *add_item(Writers *w, const LayerEntry *e) {
    Item *item = &w->items[(w->first_item + w->n_items++) % ITEMS_MAX];

    assert(!w->open);
    item->e = *e;
    item->e.path = xstrdup(e->path);
    item->e.target = xstrdup(e->target);
    item->done = e->type != ENTRY_TYPE_FILE;
    return item;
}

static void open_item(Writers *w, Item *item, uint64_t sequence) {
    (void)writers_name(item->name, w->o->name, sequence);
    if (!item->file)
        unpack_file_new(&item->file, w->o->dir_fd);
    unpack_file_begin(item->file, item->name, item->e.size, item->e.executable);
    w->open = item;
    w->left = item->e.size;
}

int writers_add(Writers *w, const LayerEntry *e, uint64_t sequence, Err *err) {
    Item *item;
    int r = tell_until(w, ITEMS_MAX - 1, err);

    if (r < 0)
        return r;
    item = add_item(w, e);
    if (item->done)
        return tell(w, err);
    open_item(w, item, sequence);
    return e->size == 0 ? writers_write(w, "", 0, err) : 0;
}

/* Room for the next chunk, in one piece: what is left at the end of the memory is skipped. */
static int reserve(Writers *w, size_t bytes, Err *err) {
    bool wraps = w->end + bytes > MEMORY;
    size_t skip = wraps ? MEMORY - w->end : 0;
    int r;

    (void)pthread_mutex_lock(&w->mutex);
    while (w->r == 0 && (w->used + skip + bytes > MEMORY || w->n_chunks == CHUNKS_MAX))
        (void)pthread_cond_wait(&w->processed, &w->mutex);
    w->used += skip + bytes;
    r = failure(w, err);
    (void)pthread_mutex_unlock(&w->mutex);
    if (wraps)
        w->end = 0;
    w->chunk = (Chunk){ .item = w->open, .data = w->memory + w->end, .room = skip + bytes };
    w->end += bytes;
    return r;
}

static int begin_chunk(Writers *w, Err *err) {
    w->size = MIN(w->left, CHUNK_BYTES);
    return reserve(w, (w->size + UNPACK_FILE_BLOCK - 1) / UNPACK_FILE_BLOCK * UNPACK_FILE_BLOCK,
                   err);
}

static void push_chunk(Writers *w) {
    w->chunk.last = w->left == 0;
    (void)pthread_mutex_lock(&w->mutex);
    w->chunks[(w->first_chunk + w->n_chunks++) % CHUNKS_MAX] = w->chunk;
    (void)pthread_cond_signal(&w->pushed);
    (void)pthread_mutex_unlock(&w->mutex);
    if (w->chunk.last)
        w->open = NULL;
    w->chunk = (Chunk){ 0 };
}

int writers_write(Writers *w, const void *data, size_t n, Err *err) {
    const uint8_t *p = data;
    int r;

    assert(w->open && n <= w->left);
    do {
        size_t k;

        if (!w->chunk.data) {
            r = begin_chunk(w, err);
            if (r < 0)
                return r;
        }
        k = MIN(n, w->size - w->chunk.n);
        if (k > 0)
            memcpy(w->chunk.data + w->chunk.n, p, k);
        w->chunk.n += k;
        w->left -= k;
        p += k;
        n -= k;
        if (w->chunk.n == w->size)
            push_chunk(w);
    } while (n > 0);
    return 0;
}

int writers_pause(Writers *w, UnpackOpen *ret, Err *err) {
    int r;

    assert(w->open);
    r = tell_until(w, 1, err);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&w->mutex);
    while (w->r == 0 && w->n_chunks > 0)
        (void)pthread_cond_wait(&w->processed, &w->mutex);
    r = failure(w, err);
    (void)pthread_mutex_unlock(&w->mutex);
    if (r < 0)
        return r;
    unpack_file_written(w->open->file, &ret->written);
    ret->pending = w->chunk.data;
    ret->n_pending = w->chunk.n;
    return 0;
}

int writers_resume(Writers *w, const LayerEntry *e, uint64_t sequence, const UnpackOpen *open,
                   Err *err) {
    int r;

    open_item(w, add_item(w, e), sequence);
    r = unpack_file_reopen(w->open->file, &open->written, err);
    if (r < 0)
        return r;
    w->left -= open->written.bytes;
    return writers_write(w, open->pending, open->n_pending, err);
}

int writers_finish(Writers *w, Err *err) {
    assert(!w->open);
    return tell_until(w, 0, err);
}
