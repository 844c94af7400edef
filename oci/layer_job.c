/* SPDX-License-Identifier: Apache-2.0 */
/* layer_job: one attempt at one layer: a raw blob becomes a file, a tar becomes files and a list of
 * entries. */
#include "oci/layer_job.h"

#include "oci/entry_log.h"

struct LayerJob {
    LayerJobOptions o;
    Fetch *fetch;            /* NULL: has ended */
    uint64_t bytes, resumed; /* of a fetch that has ended */
    bool composed;           /* the same */
    bool closed;             /* layer_job_free() was called: nobody listens any more */

    /* A tar layer.  The thread has `decoder` to `used` from start to `decoding` == false. */
    bool decoding;
    Feed *feed;
    Decoder *decoder;
    EntryLog *log;
    UnpackOptions unpack;
    UnpackUsed used;
    atomic_bool cancelled;
    int entries_fd;
    uint64_t entries_bytes;
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
    (void)safe_close(j->entries_fd);
    free(j);
    return NULL;
}

static int on_entry(void *arg, const LayerEntry *entry, Err *err) {
    LayerJob *j = arg;

    return entry_log_add(j->log, entry, err);
}

/* In a decoder's thread.  The feed ends well only when the blob's digest is proved; when the tar is
 * malformed, what the digest says about it comes first. */
static int run_decoder(void *arg, Err *err) {
    LayerJob *j = arg;
    Err why;
    int r = unpack_run(&j->unpack, j->decoder, &j->used, err), k;

    if (r >= 0)
        r = entry_log_finish(j->log, &j->entries_fd, &j->entries_bytes, err);
    if (r >= 0 || r == -EPROTO) {
        k = feed_drain(j->feed, &why);
        if (k < 0) {
            r = k;
            *err = why;
        }
    }
    if (r < 0)
        unpack_discard(&j->unpack, &j->used);
    return r;
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

static void on_decoded(void *arg, int r, const Err *err) {
    LayerJob *j = arg;
    Err why = *err;

    j->decoding = false;
    if (j->closed) {
        if (r >= 0)
            unpack_discard(&j->unpack, &j->used);
        (void)destroy(j);
        return;
    }
    take_fetch(j);
    if (r >= 0)
        seen_commit(j->o.seen, j->o.index);
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

static int open_tar(LayerJob *j, Err *err) {
    int r = feed_new(&j->feed, j->o.context->event, j->o.queue, err);

    if (r < 0)
        return r;
    r = entry_log_new(&j->log, j->o.dir_fd, j->o.index, err);
    if (r < 0)
        return r;
    decoder_new(&j->decoder, j->o.layer->codec, feed_next, j->feed);
    j->unpack = (UnpackOptions){
        .dir_fd = j->o.dir_fd,
        .layer = j->o.index,
        .image = j->o.image,
        .seen = j->o.seen,
        .budget = j->o.budget,
        .cancelled = &j->cancelled,
        .on_entry = on_entry,
        .arg = j,
    };
    return 0;
}

int layer_job_new(LayerJob **ret, const LayerJobOptions *options, Err *err) {
    const Layer *layer = &options->layer->layer;
    LayerJob *j = xnew(LayerJob);
    char name[LAYER_JOB_NAME_MAX], map[LAYER_JOB_NAME_MAX];
    FetchOptions fetch;
    int r = 0;

    j->o = *options;
    j->entries_fd = -EBADF;
    if (layer->kind == LAYER_KIND_TAR)
        r = open_tar(j, err);
    fetch = (FetchOptions){
        .context = options->context,
        .digest = layer->digest,
        .size = layer->size,
        .data = options->layer->data,
        .feed = j->feed,
        .dir_fd = options->dir_fd,
        .name = layer_job_file(name, &layer->digest, ".part"),
        .map = layer_job_file(map, &layer->digest, ".map"),
        .anew = options->anew,
        .on_trouble = on_trouble,
        .done = on_fetched,
        .arg = j,
    };
    if (r >= 0)
        r = fetch_new(&j->fetch, &fetch, err);
    if (r < 0) {
        (void)destroy(j);
        return r;
    }
    if (j->feed) {
        j->decoding = true;
        pool_submit(options->decoders, run_decoder, on_decoded, j);
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
    if (!j->decoding)
        (void)destroy(j);
    return NULL;
}

void layer_job_wake(LayerJob *j) {
    if (j->fetch)
        fetch_wake(j->fetch);
}

uint64_t layer_job_bytes(const LayerJob *j) {
    return j->fetch ? fetch_bytes(j->fetch) : j->bytes;
}

uint64_t layer_job_resumed(const LayerJob *j) {
    return j->fetch ? fetch_resumed(j->fetch) : j->resumed;
}

bool layer_job_is_composed(const LayerJob *j) {
    return j->composed;
}

int layer_job_take_entries(LayerJob *j, uint64_t *ret_bytes) {
    *ret_bytes = j->entries_bytes;
    return TAKE_FD(j->entries_fd);
}
