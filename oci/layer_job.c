/* SPDX-License-Identifier: Apache-2.0 */
/* layer_job: one attempt at one layer: a raw blob becomes a file, a tar becomes files and a list of
 * entries. */
#include "oci/layer_job.h"

#include "base/log.h"
#include "oci/restore.h"

#define PLACE_USEC  (250 * USEC_PER_MSEC) /* between two checkpoints … */
#define SETTLE_USEC (10 * USEC_PER_SEC)   /* … and two that are made durable */

struct LayerJob {
    LayerJobOptions o;
    Fetch *fetch;            /* NULL: has ended */
    uint64_t bytes, resumed; /* of a fetch that has ended */
    bool composed;           /* the same */
    bool closed;             /* layer_job_free() was called: nobody listens any more */

    /* A tar layer.  A thread has what follows while `decoding`: first it looks for what is there,
     * then it unpacks. */
    bool decoding;
    char name[UNPACK_NAME_MAX];
    size_t buffer_bytes; /* of the ring, which may be gone before the thread is */
    Feed *feed;
    Decoder *decoder;
    Checkpoint *checkpoint;
    Restored restored;
    Seen *seen;
    EntryLog *log;
    EntryLogMark list; /* when it is complete */
    UnpackOptions unpack;
    UnpackUsed used;
    UnpackNow now;
    bool refused;  /* it needs `large`, which another one has */
    uint64_t kept; /* bytes of the blob up to the last checkpoint, about */
    atomic_bool cancelled;
    atomic_uint_fast64_t proved; /* see restore.h */
    sd_event_source *timer;
    bool settling;    /* another thread makes a checkpoint durable */
    uint64_t settled; /* bytes of the blob, at the last time for that */
};

const char *layer_job_file(char buf[static LAYER_JOB_NAME_MAX], const Digest *digest,
                           const char *suffix) {
    (void)snprintf(buf, LAYER_JOB_NAME_MAX, "%s%s", DIGEST_HEX(digest), suffix);
    return buf;
}

static LayerJob *destroy(LayerJob *j) {
    (void)fetch_free(j->fetch);
    (void)decoder_free(j->decoder);
    (void)feed_free(j->feed);
    (void)entry_log_free(j->log);
    restored_done(&j->restored);
    (void)seen_free(j->seen);
    (void)checkpoint_free(j->checkpoint);
    (void)sd_event_source_disable_unref(j->timer);
    free(j);
    return NULL;
}

/* Nobody listens any more: frees it, unless a thread still has it.  The buffers do not wait for a
 * disk that is slow to make a checkpoint durable. */
static void destroy_idle(LayerJob *j) {
    if (j->decoding)
        return;
    j->feed = feed_free(j->feed);
    if (!j->settling)
        (void)destroy(j);
}

/* Keeps what is to be known of the fetch, and frees it. */
static void take_fetch(LayerJob *j) {
    if (!j->fetch)
        return;
    j->bytes = fetch_bytes(j->fetch);
    j->resumed = fetch_resumed(j->fetch);
    j->composed = fetch_is_composed(j->fetch);
    j->fetch = fetch_free(j->fetch);
}

/* --- unpacking, in a decoder's thread --- */

static int on_entry(void *arg, const LayerEntry *entry, Err *err) {
    LayerJob *j = arg;

    return entry_log_add(j->log, entry, err);
}

/* That it cannot be noted is no reason to fail: then the layer is fetched from the start the next
 * time. */
static int on_place(void *arg, const UnpackPlace *unpack, Err *err) {
    LayerJob *j = arg;
    RestorePlace place = { .unpack = unpack };
    Err why;
    int r = feed_mark(j->feed, unpack->decoder.left, &place.mark, &place.skip, err);

    if (r >= 0)
        r = entry_log_mark(j->log, &place.list, err);
    if (r < 0)
        return r == -EAGAIN ? 0 : r;
    r = restore_note(j->checkpoint, &place, &why);
    if (r < 0)
        log_debug("%s", err_text(&why, r));
    else
        j->kept = unpack_there(unpack);
    return 0;
}

/* Who may not ends its try, and gives back its thread and its buffers: others need them. */
static bool may_be_large(void *arg) {
    LayerJob *j = arg;

    j->refused = !turn_take(j->o.large, j->o.index);
    return !j->refused;
}

/* May another worker go on with it?  Not when the same would happen again. */
static bool is_worth(const LayerJob *j, int r) {
    static const int lasting[] = { -EBADMSG, -EPROTO, -ENOTSUP, -E2BIG, -ENOSPC };

    for (size_t i = 0; i < ELEMENTSOF(lasting); i++)
        if (r == lasting[i])
            return false;
    return checkpoint_exists(j->checkpoint);
}

static void discard(LayerJob *j) {
    unpack_discard(&j->unpack, &j->used);
    checkpoint_remove(j->checkpoint);
    entry_log_remove(j->log);
    j->kept = 0;
}

static int finish_list(LayerJob *j, Err *err) {
    Err why;
    int r = entry_log_mark(j->log, &j->list, err);

    if (r < 0 || !checkpoint_exists(j->checkpoint))
        return r;
    /* Small ones are fetched again, should the daemon die before it has them. */
    if (restore_note_complete(j->checkpoint, &j->list, &why) < 0)
        checkpoint_remove(j->checkpoint);
    return 0;
}

/* The feed ends well only when the blob's digest is proved; when the tar is malformed, what the
 * digest says about it comes first. */
static int run_decoder(void *arg, Err *err) {
    LayerJob *j = arg;
    Err why;
    int r = unpack_run(&j->unpack, j->decoder, &j->used, err), k;

    j->decoder = decoder_free(j->decoder); /* its window is the next one's */
    if (r >= 0 || r == -EPROTO) {
        k = feed_drain(j->feed, &why);
        if (k < 0) {
            r = k;
            *err = why;
        }
    }
    if (r >= 0)
        r = finish_list(j, err);
    if (r < 0 && !is_worth(j, r))
        discard(j);
    return r;
}

static void on_decoded(void *arg, int r, const Err *err) {
    LayerJob *j = arg;
    Err why = *err;

    j->decoding = false;
    if (j->closed) {
        if (r >= 0 && !is_worth(j, r))
            discard(j);
        destroy_idle(j);
        return;
    }
    take_fetch(j);
    j->o.done(j->o.arg, r, &why);
}

static void on_fetched(void *arg, int r, const Err *err) {
    LayerJob *j = arg;
    Err why = *err;

    take_fetch(j);
    if (!j->feed) /* else the decoder ends, which knows the result by the feed */
        j->o.done(j->o.arg, r, &why);
}

static void on_trouble(void *arg, const char *text) {
    LayerJob *j = arg;

    j->o.on_trouble(j->o.arg, text);
}

/* --- checkpoints become durable --- */

static int set_timer(LayerJob *j);

static int run_settle(void *arg, Err *err) {
    LayerJob *j = arg;

    return checkpoint_settle(j->checkpoint, err);
}

static void on_settled(void *arg, int r, const Err *err) {
    LayerJob *j = arg;

    j->settling = false;
    if (r < 0)
        log_debug("%s", err_text(err, r));
    if (j->closed)
        destroy_idle(j);
    else if (j->decoding)
        (void)!set_timer(j); /* it exists: setting cannot fail */
}

/* Not for one that will have ended before the next time: the end of the pull would wait for it. */
static int on_settle_time(sd_event_source *source, uint64_t usec, void *arg) {
    LayerJob *j = arg;
    uint64_t bytes = layer_job_bytes(j), came = bytes - j->settled;

    (void)source;
    (void)usec;
    j->settled = bytes;
    if (came == 0 || j->o.layer->layer.size - bytes <= came)
        return set_timer(j);
    j->settling = true;
    pool_submit(j->o.context->pool, run_settle, on_settled, j);
    return 0;
}

static int set_timer(LayerJob *j) {
    return loop_timer_after(j->o.context->event, &j->timer, SETTLE_USEC, on_settle_time, j);
}

/* --- the start --- */

static int start_fetch(LayerJob *j, Err *err) {
    const Layer *layer = &j->o.layer->layer;
    char name[LAYER_JOB_NAME_MAX], map[LAYER_JOB_NAME_MAX];
    FetchOptions fetch = {
        .context = j->o.context,
        .digest = layer->digest,
        .size = layer->size,
        .data = j->o.layer->data,
        .feed = j->feed,
        .from = j->restored.mark,
        .dir_fd = j->o.dir_fd,
        .name = layer_job_file(name, &layer->digest, ".part"),
        .map = layer_job_file(map, &layer->digest, ".map"),
        .anew = j->o.anew,
        .on_trouble = on_trouble,
        .done = on_fetched,
        .arg = j,
    };

    return fetch_new(&j->fetch, &fetch, err);
}

static int open_decoder(LayerJob *j, Err *err) {
    DecoderResume from = {
        .state = j->restored.place.decoder,
        .skip = j->restored.skip,
        .source = feed_next,
        .arg = j->feed,
    };
    int r = 0;

    if (j->restored.message)
        r = decoder_resume(&j->decoder, &from, err);
    else
        decoder_new(&j->decoder, j->o.layer->codec, feed_next, j->feed);
    if (r >= 0)
        decoder_ask(j->decoder, may_be_large, j);
    return r;
}

static int start_decoder(LayerJob *j, Err *err) {
    int r = open_decoder(j, err);

    j->settled = j->restored.mark.offset;
    if (r >= 0)
        r = set_timer(j) < 0 ? err_set(err, -ENOMEM, "cannot start a timer") : 0;
    if (r >= 0)
        r = start_fetch(j, err);
    if (r < 0)
        return r;
    j->unpack.from = j->restored.message ? &j->restored.place : NULL;
    j->decoding = true;
    pool_submit(j->o.decoders, run_decoder, on_decoded, j);
    return 0;
}

/* In a decoder's thread. */
static int run_restore(void *arg, Err *err) {
    LayerJob *j = arg;
    RestoreOptions o = {
        .checkpoint = j->checkpoint,
        .dir_fd = j->o.dir_fd,
        .name = j->name,
        .layer = j->o.index,
        .buffer_bytes = j->buffer_bytes,
        .seen = j->seen,
        .cancelled = &j->cancelled,
        .proved = &j->proved,
        .now = &j->now,
    };
    int r = 0;

    if (!j->o.anew)
        r = restore_layer(&j->restored, &o, err);
    if (r == 0) {
        checkpoint_remove(j->checkpoint);
        return entry_log_new(&j->log, j->o.dir_fd, j->name, j->o.index, err);
    }
    j->log = TAKE_PTR(j->restored.log);
    j->list = j->restored.list;
    j->kept = atomic_load(&j->now.there);
    if (r > 0 && j->restored.complete) /* else unpacking takes it */
        r = unpack_take(j->o.budget, j->restored.used.bytes, j->restored.used.entries, err);
    return r;
}

static void on_restored(void *arg, int r, const Err *err) {
    LayerJob *j = arg;
    Err why = *err;

    j->decoding = false;
    if (j->closed) {
        destroy_idle(j);
        return;
    }
    atomic_store(&j->proved, 0);
    if (r >= 0 && j->restored.complete) {
        j->bytes = j->resumed = j->o.layer->layer.size;
    } else if (r >= 0) {
        r = start_decoder(j, &why);
    }
    if (r < 0 || j->restored.complete)
        j->o.done(j->o.arg, r, &why);
}

static int open_tar(LayerJob *j, Err *err) {
    CheckpointOptions checkpoint = {
        .dir_fd = j->o.dir_fd,
        .digest = j->o.layer->layer.digest,
        .size = j->o.layer->layer.size,
        .layer = j->o.index,
        .boot = j->o.context->boot,
    };
    int r = feed_new(&j->feed, j->o.context->event, j->o.queue, err);

    if (r < 0)
        return r;
    checkpoint_new(&j->checkpoint, &checkpoint);
    j->buffer_bytes = ring_buffer_bytes(j->o.context->ring);
    j->seen = seen_new();
    j->unpack = (UnpackOptions){
        .dir_fd = j->o.dir_fd,
        .name = unpack_name(j->name, &j->o.layer->layer.digest),
        .image = j->o.image,
        .seen = j->seen,
        .budget = j->o.budget,
        .now = &j->now,
        .cancelled = &j->cancelled,
        .on_entry = on_entry,
        .on_place = on_place,
        .place_usec = PLACE_USEC,
        .arg = j,
    };
    return 0;
}

int layer_job_new(LayerJob **ret, const LayerJobOptions *options, Err *err) {
    LayerJob *j = xnew(LayerJob);
    bool tar = options->layer->layer.kind == LAYER_KIND_TAR;
    int r;

    j->o = *options;
    r = tar ? open_tar(j, err) : start_fetch(j, err);
    if (r < 0) {
        (void)destroy(j);
        return r;
    }
    if (tar) {
        j->decoding = true;
        pool_submit(options->decoders, run_restore, on_restored, j);
    }
    *ret = j;
    return 0;
}

LayerJob *layer_job_free(LayerJob *j) {
    if (!j)
        return NULL;
    j->closed = true;
    atomic_store(&j->cancelled, true);
    j->fetch = fetch_free(j->fetch);
    j->timer = sd_event_source_disable_unref(j->timer);
    destroy_idle(j);
    return NULL;
}

void layer_job_wake(LayerJob *j) {
    if (j->fetch)
        fetch_wake(j->fetch);
}

uint64_t layer_job_bytes(const LayerJob *j) {
    return j->fetch ? fetch_bytes(j->fetch) : MAX(j->bytes, (uint64_t)atomic_load(&j->proved));
}

uint64_t layer_job_resumed(const LayerJob *j) {
    return j->fetch ? fetch_resumed(j->fetch) : MAX(j->resumed, (uint64_t)atomic_load(&j->proved));
}

uint64_t layer_job_ahead(const LayerJob *j) {
    uint64_t there = atomic_load(&j->now.there);

    if (j->fetch && fetch_has_space(j->fetch))
        there = j->o.layer->layer.size;
    return there - MIN(there, layer_job_bytes(j));
}

bool layer_job_is_resting(const LayerJob *j) {
    return j->fetch && fetch_is_resting(j->fetch);
}

bool layer_job_is_composed(const LayerJob *j) {
    return j->composed;
}

bool layer_job_is_restored(const LayerJob *j) {
    return j->restored.message != NULL;
}

bool layer_job_is_refused(const LayerJob *j) {
    return j->refused;
}

uint64_t layer_job_kept(const LayerJob *j) {
    return j->kept;
}

UnpackUsed layer_job_used(const LayerJob *j) {
    return j->used;
}

int layer_job_take_entries(LayerJob *j, uint64_t *ret_bytes) {
    *ret_bytes = j->list.bytes;
    return entry_log_take(j->log);
}
