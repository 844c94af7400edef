/* SPDX-License-Identifier: Apache-2.0 */
/* fetch: one attempt at one blob: body -> ring buffers -> SHA-256 in order, and a file or a
 * decoder.
 *
 * A Fetch holds at most one buffer that it fills; all others are in the hands of the hash, the
 * writer or the decoder, which give them back whatever other transfers do.  So transfers never wait
 * for each other as long as there are more buffers than transfers. */
#include "oci/fetch.h"

#include <fcntl.h>

#define BLOCK_BYTES 4096

struct Fetch {
    FetchOptions o;
    char *name;
    RegistryRequest *request;
    PoolStrand *strand;
    Hasher *hasher; /* the strand's */
    Digest got;     /* the strand's last work sets it */
    int fd;
    bool made, direct;   /* the file exists; it is open with O_DIRECT */
    RingBuffer *current; /* being filled */
    uint64_t received;   /* bytes taken from the body … */
    uint64_t confirmed;  /* … those the request need not give again */
    uint64_t submitted;  /* … those on their way through the hash */
    unsigned pending;    /* works and writes in flight */
    bool paused;         /* the body waits for a buffer or for room */
    bool body_done, hashed;
    bool busy;   /* in on_data() or pump_embedded(): the end comes behind it */
    bool closed; /* fetch_free() was called: nobody listens any more */
    bool ended;
    int r;
    Err err;
};

/* A buffer on its way through the hash. */
typedef struct FetchHash {
    Fetch *fetch;
    RingBuffer *buffer;
    size_t n;
} FetchHash;

static Fetch *destroy(Fetch *f) {
    if (f->made && (f->r < 0 || !f->ended))
        (void)unlinkat(f->o.dir_fd, f->name, 0); /* the pull's folder is removed anyway */
    (void)safe_close(f->fd);
    (void)registry_request_free(f->request);
    if (f->current)
        (void)ring_buffer_unref(f->current);
    (void)pool_strand_free(f->strand);
    (void)hasher_free(f->hasher);
    free(f->name);
    free(f);
    return NULL;
}

/* The digest is known and all is written: the verdict. */
static int conclude(Fetch *f, Err *err) {
    if (f->received != f->o.size)
        return err_set(err, -EBADMSG, "the registry sent %llu bytes of a blob instead of %llu",
                       (unsigned long long)f->received, (unsigned long long)f->o.size);
    if (!digest_equal(&f->got, &f->o.digest))
        return err_set(err, -EBADMSG,
                       "the registry sent other content than the digest says: expected %s, got %s; "
                       "push the artifact again",
                       DIGEST_STR(&f->o.digest), DIGEST_STR(&f->got));
    if (f->fd >= 0 && f->direct && f->o.size % BLOCK_BYTES != 0 &&
        ftruncate(f->fd, (off_t)f->o.size) < 0)
        return err_errno(err, "cannot cut the file of a blob to its size");
    return 0;
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
    if (f->r >= 0 && !f->hashed)
        return;
    if (f->r >= 0)
        f->r = conclude(f, &f->err);
    f->ended = true;
    f->fd = safe_close(f->fd);
    if (f->r < 0 && f->made && unlinkat(f->o.dir_fd, f->name, 0) >= 0)
        f->made = false;
    if (f->o.feed)
        feed_end(f->o.feed, f->r, &f->err);
    r = f->r;
    err = f->err;
    f->o.done(f->o.arg, r, &err);
}

/* The first failure counts; what is in flight is waited for. */
static void fail(Fetch *f, int r, const Err *err) {
    if (f->r < 0)
        return;
    f->r = r;
    f->err = *err;
    if (!f->busy) /* else on_data() says so itself */
        f->request = registry_request_free(f->request);
    if (f->current)
        f->current = ring_buffer_unref(f->current);
}

static int run_hash(void *arg, Err *err) {
    FetchHash *h = arg;

    (void)err;
    hasher_update(h->fetch->hasher, h->buffer->data, h->n);
    return 0;
}

static void on_hashed(void *arg, int r, const Err *err) {
    _cleanup_free_ FetchHash *h = arg;
    Fetch *f = h->fetch;

    (void)r; /* hashing cannot fail */
    (void)err;
    f->pending--;
    (void)ring_buffer_unref(h->buffer);
    try_end(f);
}

static int run_final(void *arg, Err *err) {
    Fetch *f = arg;

    (void)err;
    hasher_final(f->hasher, &f->got);
    return 0;
}

static void on_final(void *arg, int r, const Err *err) {
    Fetch *f = arg;

    (void)r;
    (void)err;
    f->pending--;
    f->hashed = true;
    try_end(f);
}

static void on_written(void *arg, int r) {
    Fetch *f = arg;
    Err err;

    f->pending--;
    if (r == -ENOSPC || r == -EDQUOT)
        fail(f,
             err_set(&err, -ENOSPC,
                     "no space left in the store for a blob of %llu bytes: free space on its file "
                     "system",
                     (unsigned long long)f->o.size),
             &err);
    else if (r < 0)
        fail(f, err_errnum(&err, r, "cannot write a blob to the store"), &err);
    try_end(f);
}

/* Sends the buffer that is full, or the last, to the hash and to where it belongs. */
static void submit(Fetch *f) {
    RingBuffer *b = TAKE_PTR(f->current);
    FetchHash *h = xnew(FetchHash);
    size_t n = b->len;

    *h = (FetchHash){ .fetch = f, .buffer = b, .n = n }; /* has our reference from now on */
    f->pending++;
    if (f->o.feed) {
        feed_push(f->o.feed, b);
    } else {
        size_t padded = f->direct ? (n + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES : n;

        memset(b->data + n, 0, padded - n);
        f->pending++;
        ring_write(f->fd, b, padded, f->submitted, on_written, f);
    }
    f->submitted += n;
    pool_strand_submit(f->strand, run_hash, on_hashed, h);
}

/* Gets a buffer to fill, unless it has to wait for one. */
static bool have_buffer(Fetch *f) {
    if (!f->current && (!f->o.feed || feed_has_room(f->o.feed))) {
        f->current = ring_buffer_get(f->o.ring);
        if (f->current)
            f->current->len = 0;
    }
    return f->current;
}

/* Takes what fits without waiting; returns how much that was. */
static size_t take(Fetch *f, const uint8_t *data, size_t n) {
    size_t room = ring_buffer_bytes(f->o.ring), at = 0;

    while (at < n && f->r >= 0 && have_buffer(f)) {
        size_t k = MIN(n - at, room - f->current->len);

        memcpy(f->current->data + f->current->len, data + at, k);
        f->current->len += k;
        at += k;
        if (f->current->len == room)
            submit(f);
    }
    f->received += at;
    return at;
}

static void body_ended(Fetch *f) {
    f->body_done = true;
    if (f->current)
        submit(f);
    f->pending++;
    pool_strand_submit(f->strand, run_final, on_final, f);
}

/* The request gives all of a piece or none of it.  Of a piece that was taken in part, and comes
 * again, the first bytes are known: all that was received beyond what was `confirmed` to the
 * request. */
static int on_data(void *arg, const uint8_t *data, size_t n) {
    Fetch *f = arg;
    size_t known = (size_t)MIN(f->received - f->confirmed, (uint64_t)n), taken;

    f->busy = true;
    taken = take(f, data + known, n - known);
    f->busy = false;
    if (f->r < 0)
        return f->r;
    if (known + taken < n) {
        f->paused = true;
        return 1;
    }
    f->confirmed += n;
    return 0;
}

static void on_done(void *arg, int r, const Err *err) {
    Fetch *f = arg;

    f->request = NULL; /* gone after this callback */
    if (r < 0) {
        fail(f, r, err);
        try_end(f);
    } else {
        body_ended(f);
    }
}

/* Embedded content: as much as there is room for. */
static void pump_embedded(Fetch *f) {
    f->busy = true;
    if (f->o.size > 0)
        (void)take(f, f->o.data + f->received, (size_t)(f->o.size - f->received));
    f->busy = false;
    f->paused = f->r >= 0 && f->received < f->o.size;
    if (f->r < 0)
        try_end(f);
    else if (!f->paused)
        body_ended(f);
}

static int begin_body(Fetch *f) {
    RegistryBlobHandlers handlers = { .on_data = on_data, .on_done = on_done, .arg = f };

    if (f->o.data || f->o.size == 0) {
        pump_embedded(f);
        return 0;
    }
    return registry_get_blob(f->o.registry, &f->request, &f->o.digest, f->o.size, &handlers);
}

static int open_file(Fetch *f, Err *err) {
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;

    f->fd = openat(f->o.dir_fd, f->name, flags | O_DIRECT, 0600);
    f->direct = f->fd >= 0;
    if (f->fd < 0 &&
        errno == EINVAL) { /* no O_DIRECT here; open(2) may have made it all the same */
        (void)unlinkat(f->o.dir_fd, f->name, 0);
        f->fd = openat(f->o.dir_fd, f->name, flags, 0600);
    }
    if (f->fd < 0)
        return err_errno(err, "cannot create the file of a blob in the store");
    f->made = true;
    return 0;
}

/* In the pool: takes the space before the first byte comes, as one extent.  Not every file system
 * can. */
static int run_open(void *arg, Err *err) {
    Fetch *f = arg;
    int r = open_file(f, err);

    if (r < 0)
        return r;
    if (fallocate(f->fd, 0, 0, (off_t)f->o.size) < 0 && (errno == ENOSPC || errno == EDQUOT))
        return err_set(
            err, -ENOSPC,
            "no space left in the store for a blob of %llu bytes: free space on its file "
            "system",
            (unsigned long long)f->o.size);
    return 0;
}

static void on_opened(void *arg, int r, const Err *err) {
    Fetch *f = arg;
    Err why;

    f->pending--;
    if (r < 0) {
        fail(f, r, err);
    } else if (!f->closed) {
        r = begin_body(f);
        if (r < 0)
            fail(f, err_errnum(&why, r, "cannot ask for a blob"), &why);
    }
    try_end(f);
}

int fetch_new(Fetch **ret, const FetchOptions *options, Err *err) {
    Fetch *f = xnew(Fetch);

    f->o = *options;
    f->name = xstrdup(options->name);
    f->fd = -EBADF;
    f->hasher = hasher_new();
    f->strand = pool_strand_new(options->pool);
    *ret = f;
    if (options->feed) {
        int r = begin_body(f);
        if (r < 0) {
            *ret = destroy(f);
            return err_errnum(err, r, "cannot ask for a blob");
        }
    } else if (options->size > 0) {
        f->pending++;
        pool_submit(options->pool, run_open, on_opened, f);
    } else {
        int r = open_file(f, err);
        if (r < 0) {
            *ret = destroy(f);
            return r;
        }
        pump_embedded(f);
    }
    return 0;
}

Fetch *fetch_free(Fetch *f) {
    if (!f)
        return NULL;
    f->closed = true;
    f->request = registry_request_free(f->request);
    if (f->current)
        f->current = ring_buffer_unref(f->current);
    if (f->o.feed && !f->ended)
        feed_end(f->o.feed, -ECANCELED, &(Err){ "the transfer was cancelled" });
    if (f->pending == 0)
        (void)destroy(f);
    return NULL;
}

void fetch_wake(Fetch *f) {
    if (!f->paused || f->r < 0 || f->body_done)
        return;
    f->paused = false;
    if (f->request)
        registry_request_resume(f->request);
    else
        pump_embedded(f);
}

uint64_t fetch_bytes(const Fetch *f) {
    return f->received;
}
