/* SPDX-License-Identifier: Apache-2.0 */
/* fetch: one blob: from its pieces to the hash, in order, and its end. */
#include "oci/fetch_internal.h"

/* The window is longer than the buffers: ranges end at different times, so that most of them are
 * filled only in part (fetch_range.c). */
#define SPAN_FACTOR 2

/* So small a blob becomes a file at once when it is there: one work for a thread, no O_DIRECT. */
#define SMALL_BYTES KiB(128)

/* A buffer on its way through the hash. */
typedef struct FetchHash {
    Fetch *fetch;
    RingBuffer *buffer;
    size_t n;
    uint64_t usec; /* of a processor */
    HasherState state;
} FetchHash;

static Fetch *destroy(Fetch *f) {
    bool worth = f->r != -EBADMSG && f->r != -ENOSPC;

    fetch_streams_stop(f);
    fetch_file_close(f, worth);
    window_done(&f->window);
    (void)pool_strand_free(f->strand);
    (void)hasher_free(f->hasher);
    (void)sd_event_source_disable_unref(f->rest);
    (void)sd_event_source_disable_unref(f->tick);
    free(f->etag);
    free(f->name);
    free(f->map);
    free(f);
    return NULL;
}

/* Ends when nothing is in flight and there is a verdict. */
static void try_end(Fetch *f) {
    Err err;
    int r;

    if (f->pending > 0 || f->ended || f->busy)
        return;
    if (f->closed) {
        (void)destroy(f);
        return;
    }
    if (f->r >= 0 && !f->finished)
        return;
    f->ended = true;
    fetch_file_close(f, f->r != -EBADMSG && f->r != -ENOSPC);
    if (f->o.feed)
        feed_end(f->o.feed, f->r, &f->err);
    r = f->r;
    err = f->err;
    f->o.done(f->o.arg, r, &err);
}

void fetch_fail(Fetch *f, int r, const Err *err) {
    if (f->r < 0)
        return;
    f->r = r;
    f->err = *err;
    fetch_streams_stop(f);
    window_done(&f->window);
}

static void hash_ended(FetchHash *h, uint64_t begin) {
    h->usec = now_thread_usec() - begin;
    if (h->n % HASHER_BLOCK_BYTES == 0)
        hasher_save(h->fetch->hasher, &h->state);
}

static int run_hash(void *arg, Err *err) {
    FetchHash *h = arg;
    uint64_t begin = now_thread_usec();

    (void)err;
    hasher_update(h->fetch->hasher, h->buffer->data, h->n);
    hash_ended(h, begin);
    return 0;
}

static void run_hash_pair(void *const args[2]) {
    FetchHash *a = args[0], *b = args[1];
    uint64_t begin = now_thread_usec();

    hasher_update_pair((Hasher *[]){ a->fetch->hasher, b->fetch->hasher },
                       (const uint8_t *[]){ a->buffer->data, b->buffer->data },
                       (size_t[]){ a->n, b->n });
    hash_ended(a, begin);
    hash_ended(b, begin);
}

static void on_hashed(void *arg, int r, const Err *err) {
    _cleanup_free_ FetchHash *h = arg;
    Fetch *f = h->fetch;

    (void)r; /* hashing cannot fail */
    (void)err;
    f->pending--;
    f->hashing--;
    f->hash_bytes += h->n;
    f->hash_usec += h->usec;
    if (f->o.feed && !f->closed)
        feed_hashed(f->o.feed, &h->state);
    (void)ring_buffer_unref(h->buffer);
    fetch_pump(f);
}

static int run_final(void *arg, Err *err) {
    Fetch *f = arg;

    (void)err;
    hasher_final(f->hasher, &f->got);
    return 0;
}

/* The digest is known: the verdict. */
static void judge(Fetch *f) {
    Err why;

    f->hashed = true;
    if (f->r >= 0 && !digest_equal(&f->got, &f->o.digest))
        fetch_fail(f,
                   err_set(&why, -EBADMSG,
                           "the registry sent other content than the digest says: expected %s, got "
                           "%s; push the artifact again",
                           DIGEST_STR(&f->o.digest), DIGEST_STR(&f->got)),
                   &why);
}

static void on_final(void *arg, int r, const Err *err) {
    Fetch *f = arg;

    (void)r;
    (void)err;
    f->pending--;
    judge(f);
    fetch_pump(f);
}

/* All that is to be done with a small blob. */
static int run_small(void *arg, Err *err) {
    FetchHash *h = arg;
    Fetch *f = h->fetch;

    hasher_update(f->hasher, h->buffer->data, h->n);
    hasher_final(f->hasher, &f->got);
    return digest_equal(&f->got, &f->o.digest) ? fetch_file_store(f, h->buffer->data, h->n, err)
                                               : 0; /* judge() tells */
}

static void on_small(void *arg, int r, const Err *err) {
    _cleanup_free_ FetchHash *h = arg;
    Fetch *f = h->fetch;

    f->pending--;
    f->hashing--;
    (void)ring_buffer_unref(h->buffer);
    judge(f);
    f->finished = true;
    if (r < 0)
        fetch_fail(f, r, err);
    fetch_pump(f);
}

static int run_finish(void *arg, Err *err) {
    return fetch_file_finish(arg, err);
}

static void on_finished(void *arg, int r, const Err *err) {
    Fetch *f = arg;

    f->pending--;
    f->finished = true;
    if (r < 0)
        fetch_fail(f, r, err);
    fetch_pump(f);
}

RingBuffer *fetch_get_buffer(Fetch *f, uint64_t i) {
    if (i != f->window.head && ring_buffers_free(f->c->ring) <= f->c->reserve)
        return NULL;
    return ring_buffer_get(f->c->ring);
}

void fetch_piece_full(Fetch *f, uint64_t i) {
    Piece *p = window_piece(&f->window, i);

    p->state = PIECE_FULL;
    if (!f->o.feed && !f->small)
        fetch_file_write(f, i);
}

void fetch_hand_on(Fetch *f) {
    Piece *p;

    while (f->r >= 0 && (p = window_piece(&f->window, f->window.head)) && p->state == PIECE_FULL &&
           (!f->o.feed || feed_has_room(f->o.feed))) {
        FetchHash *h = xnew(FetchHash);

        *h = (FetchHash){ .fetch = f, .buffer = TAKE_PTR(p->buffer) };
        h->n = h->buffer->len;
        f->pending++;
        f->hashing++;
        if (f->o.feed)
            feed_push(f->o.feed, h->buffer);
        if (f->small) {
            f->finishing = true;
            pool_submit(f->c->pool, run_small, on_small, h);
        } else {
            pool_strand_submit_pairable(f->strand, run_hash, f->run_pair, on_hashed, h);
        }
        window_advance(&f->window);
    }
}

static void submit_end(Fetch *f) {
    if (!f->finishing && f->window.head == f->window.n_pieces) {
        f->finishing = true;
        f->pending++;
        pool_strand_submit(f->strand, run_final, on_final, f);
    } else if (f->hashed && f->o.feed) {
        f->finished = true;
    } else if (f->hashed && f->pending == 0 && !f->finished) {
        f->pending++;
        pool_submit(f->c->pool, run_finish, on_finished, f);
    }
}

/* Embedded content: as much as there is room for. */
static void fill_embedded(Fetch *f) {
    Window *w = &f->window;

    for (uint64_t i = w->head; f->r >= 0 && i < w->n_pieces; i++) {
        Piece *p = window_piece(w, i);

        if (!p || (p->state == PIECE_MISSING && !(p->buffer = fetch_get_buffer(f, i))))
            return;
        if (p->state != PIECE_MISSING)
            continue;
        p->buffer->len = window_length(w, i);
        memcpy(p->buffer->data, f->o.data + window_begin(w, i), p->buffer->len);
        f->received += p->buffer->len;
        fetch_piece_full(f, i);
    }
}

void fetch_pump(Fetch *f) {
    if (f->busy)
        return;
    f->busy = true;
    if (f->r >= 0 && !f->closed && f->open && !f->ended) {
        window_widen(&f->window, f->c->n_buffers * SPAN_FACTOR);
        fetch_hand_on(f);
        fetch_file_read(f);
        if (f->o.data)
            fill_embedded(f);
        else
            fetch_streams_pump(f);
        fetch_hand_on(f);
        if (f->r >= 0)
            submit_end(f);
    }
    f->busy = false;
    try_end(f);
}

static int on_rest_over(sd_event_source *source, uint64_t usec, void *arg) {
    Fetch *f = arg;

    (void)source;
    (void)usec;
    f->resting = false;
    fetch_pump(f);
    return 0;
}

int fetch_rest(Fetch *f, uint64_t usec) {
    f->resting = true;
    return loop_timer_after(f->c->event, &f->rest, usec, on_rest_over, f);
}

void fetch_opened(Fetch *f, Extents *disk) {
    window_init(&f->window, f->o.size, ring_buffer_bytes(f->c->ring), f->c->n_buffers * SPAN_FACTOR,
                disk);
    f->open = true;
}

/* What comes before was unpacked by another worker. */
static void begin_feed(Fetch *f) {
    FeedMark *from = &f->o.from;

    if (from->offset > 0)
        hasher_restore(f->hasher, &from->hash, from->offset);
    hasher_save(f->hasher, &from->hash);
    feed_begin(f->o.feed, from);
    window_skip(&f->window, from->offset / f->window.piece_bytes);
    f->resumed = from->offset;
}

int fetch_new(Fetch **ret, const FetchOptions *options, Err *err) {
    const FetchContext *c = options->context;
    Fetch *f = xnew(Fetch);
    int r = 0;

    f->o = *options;
    f->c = c;
    f->name = xstrdup(options->name);
    f->map = xstrdup(options->map);
    f->o.name = f->o.map = NULL;
    f->file.fd = f->file.map_fd = -EBADF;
    f->hasher = hasher_new();
    f->strand = pool_strand_new(c->pool);
    f->run_pair = hasher_pairs() ? run_hash_pair : NULL;
    ramp_begin(&f->ramp);
    ramp_answered(&f->ramp, traffic_nearest_usec(c->traffic), traffic_connections(c->traffic));
    if (options->anew)
        f->mode = FETCH_WHOLE;
    else if (c->range_min_bytes > 0 && options->size >= c->range_min_bytes &&
             !traffic_ranges_are_bad(c->traffic))
        f->mode = FETCH_PROBING;
    f->small = !options->feed && options->size > 0 &&
               options->size <= MIN((uint64_t)SMALL_BYTES, (uint64_t)ring_buffer_bytes(c->ring));
    if (options->feed || f->small) {
        /* From the loop: nothing is called back before the caller has its Fetch. */
        fetch_opened(f, NULL);
        if (f->o.feed)
            begin_feed(f);
        r = fetch_rest(f, 0);
    } else {
        fetch_file_open(f);
    }
    if (r < 0) {
        (void)destroy(f);
        return err_errnum(err, r, "cannot begin a transfer");
    }
    *ret = f;
    return 0;
}

Fetch *fetch_free(Fetch *f) {
    if (!f)
        return NULL;
    f->closed = true;
    fetch_streams_stop(f);
    window_done(&f->window);
    if (f->o.feed && !f->ended)
        feed_end(f->o.feed, -ECANCELED, &(Err){ "the transfer was cancelled" });
    if (f->pending == 0 && !f->busy)
        (void)destroy(f);
    return NULL;
}

void fetch_wake(Fetch *f) {
    fetch_pump(f);
}

uint64_t fetch_bytes(const Fetch *f) {
    return f->received + f->resumed;
}

uint64_t fetch_resumed(const Fetch *f) {
    return f->resumed;
}

bool fetch_has_space(const Fetch *f) {
    return f->open && !f->o.feed && !f->small;
}

bool fetch_is_resting(const Fetch *f) {
    return f->resting || traffic_is_held(f->c->traffic);
}

bool fetch_is_composed(const Fetch *f) {
    return f->resumed > 0 || f->n_requests > 1;
}
