/* SPDX-License-Identifier: Apache-2.0 */
/* inbox: the order of a worker's messages, and what each may say. */
#include "agent/inbox.h"
#include "agent/clean.h"
#include "agent/inbox_message.h"
#include "base/limits.h"
#include "base/parse.h"
#include "proto/status.h"

#define LENGTH_BYTES 4
#define TEXT_MAX     400

typedef enum InboxState {
    INBOX_HELLO,     /* nothing came */
    INBOX_RESOLVING, /* Hello came */
    INBOX_PLANNING,  /* Resolved came; the daemon is to answer */
    INBOX_FETCHING,  /* the plan is out */
    INBOX_ENDED,     /* Done or Failed came, or the Hello of a probe: nothing more may */
    INBOX_STATE_COUNT,
} InboxState;

typedef struct InboxLayer {
    uint64_t size;
    bool planned, done;
    LayerEntry *entries;
    size_t n, cap;
} InboxLayer;

struct Inbox {
    InboxHandlers handlers;
    bool probe;
    InboxState state;
    Buf buf; /* what is not parsed yet */
    InboxLayer *layers;
    size_t n_layers, n_open;  /* n_open: planned and not done */
    bool more;                /* another plan follows */
    size_t n_entries;         /* of the whole pull */
    uint64_t entry_bytes;     /* their strings */
    uint64_t room, announced; /* bytes that files may have, and have */
    int outcome;
    Err why;
    bool answered;
};

/* Which messages a state takes: bits of FromWorker's oneof. */
#define ACCEPT(name) (1U << MODELCACHED__WORKER__FROM_WORKER__MESSAGE_##name)
static const struct {
    const char *name;
    unsigned accepts;
} states[INBOX_STATE_COUNT] = {
    [INBOX_HELLO] = { "hello", ACCEPT(HELLO) | ACCEPT(FAILED) },
    [INBOX_RESOLVING] = { "resolving", ACCEPT(RESOLVED) | ACCEPT(PROGRESS) | ACCEPT(FAILED) },
    [INBOX_PLANNING] = { "planning", ACCEPT(PROGRESS) | ACCEPT(FAILED) },
    [INBOX_FETCHING] = { "fetching", ACCEPT(PROGRESS) | ACCEPT(ENTRIES) | ACCEPT(LAYER_DONE) |
                                         ACCEPT(FAILED) | ACCEPT(DONE) },
    [INBOX_ENDED] = { "ended", 0 },
};

Inbox *inbox_new(const InboxHandlers *handlers, bool probe) {
    Inbox *in = xnew(Inbox);

    in->handlers = *handlers;
    in->probe = probe;
    in->buf = BUF_INIT(LIMIT_WORKER_MESSAGE_BYTES + LENGTH_BYTES);
    return in;
}

void inbox_raise_room(Inbox *in, uint64_t bytes) {
    in->room = MAX(in->room, bytes);
}

Inbox *inbox_free(Inbox *in) {
    if (!in)
        return NULL;
    for (size_t i = 0; i < in->n_layers; i++)
        layer_entries_free(in->layers[i].entries, in->layers[i].n);
    free(in->layers);
    buf_done(&in->buf);
    free(in);
    return NULL;
}

void inbox_plan(Inbox *in, const uint32_t *fetch, size_t n, bool more) {
    if (in->state == INBOX_ENDED) /* it failed while the plan was made */
        return;
    assert(in->state == INBOX_PLANNING || (in->state == INBOX_FETCHING && in->more));
    for (size_t i = 0; i < n; i++) {
        assert(fetch[i] < in->n_layers && !in->layers[fetch[i]].planned);
        in->layers[fetch[i]].planned = true;
    }
    in->n_open += n;
    in->more = more;
    in->state = INBOX_FETCHING;
}

static int on_hello(Inbox *in, const Modelcached__Worker__Hello *m, Err *err) {
    FeatureList list = { 0 };
    int r = inbox_take_hello(m, &list, err);

    if (r < 0)
        return r;
    in->state = in->probe ? INBOX_ENDED : INBOX_RESOLVING;
    in->outcome = in->probe;
    if (in->handlers.on_hello)
        in->handlers.on_hello(in->handlers.arg, &list);
    else
        feature_list_done(&list);
    return 0;
}

static int on_resolved(Inbox *in, const Modelcached__Worker__Resolved *m, Err *err) {
    _cleanup_(manifest_freep) Manifest *manifest = NULL;
    _cleanup_(index_chain_freep) IndexChain *index = NULL;
    int r = inbox_take_resolved(m, &manifest, &index, err);

    if (r < 0)
        return r;
    in->layers = xnew_n(InboxLayer, manifest->n_layers);
    in->n_layers = manifest->n_layers;
    for (size_t i = 0; i < manifest->n_layers; i++)
        in->layers[i].size = manifest->layers[i].size;
    in->state = INBOX_PLANNING;
    if (in->handlers.on_resolved)
        in->handlers.on_resolved(in->handlers.arg, TAKE_PTR(manifest), TAKE_PTR(index));
    return 0;
}

static int open_layer(Inbox *in, uint32_t index, InboxLayer **ret, Err *err) {
    if (index >= in->n_layers || !in->layers[index].planned)
        return err_set(err, -EPROTO, "layer %u was not asked for", index);
    if (in->layers[index].done)
        return err_set(err, -EPROTO, "layer %u was done already", index);
    *ret = &in->layers[index];
    return 0;
}

static int on_progress(Inbox *in, const Modelcached__Worker__Progress *m, Err *err) {
    for (size_t i = 0; i < m->n_layers; i++) {
        uint32_t index = m->layers[i]->index;
        if (index >= in->n_layers || !in->layers[index].planned)
            return err_set(err, -EPROTO, "layer %u was not asked for", index);
        /* A body that is longer than its descriptor says is the worker's to refuse; here it only is
         * no progress. */
        if (in->handlers.on_progress) {
            uint64_t size = in->layers[index].size, bytes = MIN(m->layers[i]->bytes, size);
            in->handlers.on_progress(in->handlers.arg, index, bytes,
                                     MIN(m->layers[i]->resumed, bytes),
                                     MIN(m->layers[i]->ahead, size - bytes));
        }
    }
    if (in->handlers.on_waiting) {
        _cleanup_free_ char *text = text_clean(m->waiting, TEXT_MAX);
        in->handlers.on_waiting(in->handlers.arg, text);
    }
    return 0;
}

/* An honest worker has counted and stopped before (UnpackBudget); this one may have lied, or left
 * holes in its files. */
static int count_file(Inbox *in, const LayerEntry *e, Err *err) {
    if (!e->ingest)
        return 0;
    if (e->size > in->room - in->announced)
        return err_set(err, -ENOSPC, "its files pass the %s that are left for them",
                       FORMAT_BYTES(in->room));
    in->announced += e->size;
    return 0;
}

static int on_entries(Inbox *in, const Modelcached__Worker__Entries *m, Err *err) {
    InboxLayer *layer;
    int r = open_layer(in, m->layer, &layer, err);

    if (r < 0)
        return r;
    if (m->n_entries > LIMIT_TREE_ENTRIES - in->n_entries)
        return err_set(err, -EPROTO, "more than %d entries", LIMIT_TREE_ENTRIES);
    in->n_entries += m->n_entries;
    for (size_t i = 0; i < m->n_entries; i++) {
        ARRAY_GROW(layer->entries, layer->n, layer->cap);
        r = inbox_take_entry(m->entries[i], &layer->entries[layer->n], &in->entry_bytes, err);
        if (r < 0)
            return r;
        r = count_file(in, &layer->entries[layer->n++], err);
        if (r < 0)
            return r;
    }
    if (in->entry_bytes > LIMIT_WORKER_ENTRY_BYTES)
        return err_set(err, -EPROTO, "names of entries pass %llu MiB",
                       (unsigned long long)LIMIT_WORKER_ENTRY_BYTES >> 20);
    return 0;
}

static int on_layer_done(Inbox *in, const Modelcached__Worker__LayerDone *m, Err *err) {
    InboxLayer *layer;
    LayerEntry *entries;
    size_t n;
    int r = open_layer(in, m->layer, &layer, err);

    if (r < 0)
        return r;
    layer->done = true;
    in->n_open--;
    entries = TAKE_PTR(layer->entries);
    n = layer->n;
    layer->n = layer->cap = 0;
    if (in->handlers.on_layer)
        in->handlers.on_layer(in->handlers.arg, m->layer, entries, n);
    else
        layer_entries_free(entries, n);
    return 0;
}

static int on_failed(Inbox *in, const Modelcached__Worker__Failed *m, Err *err) {
    _cleanup_free_ char *text = text_clean(m->text, TEXT_MAX);

    if (m->error <= 0)
        return err_set(err, -EPROTO, "it failed with error %d", m->error);
    /* Only numbers of the table have a meaning here. */
    in->outcome = status_from_errno(-m->error) == GRPC_INTERNAL ? -EIO : -m->error;
    in->outcome = err_set(&in->why, in->outcome, "%s",
                          *text ? text : "the pull worker failed without saying why");
    in->answered = m->answered;
    in->state = INBOX_ENDED;
    return 0;
}

static int on_done(Inbox *in, Err *err) {
    if (in->n_open > 0)
        return err_set(err, -EPROTO, "it is done, but %zu layers are missing", in->n_open);
    if (in->more)
        return err_set(err, -EPROTO, "it is done, but another plan was to come");
    in->outcome = 1;
    in->state = INBOX_ENDED;
    if (in->handlers.on_done)
        in->handlers.on_done(in->handlers.arg);
    return 0;
}

static int on_message(Inbox *in, const Modelcached__Worker__FromWorker *m, Err *err) {
    if ((unsigned)m->message_case >= 32 || !(states[in->state].accepts & 1U << m->message_case))
        return err_set(err, -EPROTO, "message %u while %s", (unsigned)m->message_case,
                       states[in->state].name);
    switch (m->message_case) {
    case MODELCACHED__WORKER__FROM_WORKER__MESSAGE_HELLO:
        return on_hello(in, m->hello, err);
    case MODELCACHED__WORKER__FROM_WORKER__MESSAGE_RESOLVED:
        return on_resolved(in, m->resolved, err);
    case MODELCACHED__WORKER__FROM_WORKER__MESSAGE_PROGRESS:
        return on_progress(in, m->progress, err);
    case MODELCACHED__WORKER__FROM_WORKER__MESSAGE_ENTRIES:
        return on_entries(in, m->entries, err);
    case MODELCACHED__WORKER__FROM_WORKER__MESSAGE_LAYER_DONE:
        return on_layer_done(in, m->layer_done, err);
    case MODELCACHED__WORKER__FROM_WORKER__MESSAGE_FAILED:
        return on_failed(in, m->failed, err);
    case MODELCACHED__WORKER__FROM_WORKER__MESSAGE_DONE:
        return on_done(in, err);
    default:
        return err_set(err, -EPROTO, "an unknown message");
    }
}

/* Parses the message at the start of the buffer: its length, or 0 when it is not all there. */
static int take_message(Inbox *in, size_t *ret_n, Err *err) {
    const uint8_t *b = in->buf.data;
    Modelcached__Worker__FromWorker *m;
    size_t n;
    int r;

    *ret_n = 0;
    if (in->buf.len < LENGTH_BYTES)
        return 0;
    n = (size_t)b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
    if (n > LIMIT_WORKER_MESSAGE_BYTES)
        return err_set(err, -EPROTO, "a message of %zu bytes", n);
    if (in->buf.len - LENGTH_BYTES < n)
        return 0;
    r = inbox_unpack(b + LENGTH_BYTES, n, &m, err);
    if (r < 0)
        return r;
    r = on_message(in, m, err);
    inbox_release(m);
    *ret_n = LENGTH_BYTES + n;
    return r;
}

int inbox_feed(Inbox *in, const uint8_t *data, size_t n, Err *err) {
    while (n > 0) {
        size_t room = in->buf.max - in->buf.len, part = MIN(room, n);
        size_t taken;
        int r = buf_append(&in->buf, data, part);
        if (r < 0)
            return err_set(err, -EPROTO, "a message that does not fit into memory");
        data += part;
        n -= part;
        do {
            r = take_message(in, &taken, err);
            if (r < 0)
                return r;
            buf_consume(&in->buf, taken);
        } while (taken > 0);
    }
    return 0;
}

int inbox_outcome(const Inbox *in, Err *err) {
    if (in->outcome < 0 && err)
        *err = in->why;
    return in->outcome;
}

bool inbox_was_answered(const Inbox *in) {
    return in->answered;
}
