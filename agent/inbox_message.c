/* SPDX-License-Identifier: Apache-2.0 */
/* inbox_message: single messages of a worker: parsed with a cap on memory, checked, copied into our
 * own types. */
#include "agent/inbox_message.h"
#include "agent/clean.h"
#include "base/fs.h"
#include "base/limits.h"

#define FEATURES_MAX 32
#define NAME_MAX_BYTES \
    256 /* media types, families, platforms: RFC 6838 allows 255 for a media type */
#define INGEST_NAME_MAX 80 /* a digest and a word: partial_name() */

/* An empty entry takes 2 bytes on the wire and about 100 in memory; a small one that is honest
 * takes 15 times its wire size.  The floor lets small messages through. */
#define UNPACK_FACTOR 32
#define UNPACK_FLOOR  KiB(64)
#define UNPACK_MAX    MiB(256)

typedef struct Budget {
    uint64_t left;
} Budget;

static void *budget_alloc(void *arg, size_t n) {
    Budget *b = arg;

    if (n > b->left)
        return NULL;
    b->left -= n;
    return malloc(n);
}

static void budget_release(void *arg, void *p) {
    (void)arg;
    free(p);
}

int inbox_unpack(const uint8_t *data, size_t n, Modelcached__Worker__FromWorker **ret, Err *err) {
    Budget budget = { MIN(n * UNPACK_FACTOR + UNPACK_FLOOR, UNPACK_MAX) };
    ProtobufCAllocator allocator = { budget_alloc, budget_release, &budget };
    Modelcached__Worker__FromWorker *m =
        modelcached__worker__from_worker__unpack(&allocator, n, data);

    if (!m)
        return err_set(err, -EPROTO, "%zu bytes that are not a message", n);
    *ret = m;
    return 0;
}

void inbox_release(Modelcached__Worker__FromWorker *m) {
    modelcached__worker__from_worker__free_unpacked(m, NULL);
}

void feature_list_done(FeatureList *l) {
    for (size_t i = 0; i < l->n; i++) {
        free(l->items[i].name);
        free(l->items[i].detail);
    }
    free(l->items);
    *l = (FeatureList){ 0 };
}

int inbox_take_hello(const Modelcached__Worker__Hello *m, FeatureList *ret, Err *err) {
    FeatureList list = { 0 };

    if (m->n_features > FEATURES_MAX)
        return err_set(err, -EPROTO, "%zu features", m->n_features);
    list.items = xnew_n(Feature, MAX(m->n_features, (size_t)1));
    for (; list.n < m->n_features; list.n++)
        list.items[list.n] =
            (Feature){ text_clean(m->features[list.n]->name, 40), m->features[list.n]->active,
                       text_clean(m->features[list.n]->detail, 200) };
    *ret = list;
    return 0;
}

/* A short name without control characters; empty becomes NULL when that is allowed. */
static int take_name(const char *what, const char *text, bool may_be_empty, char **ret, Err *err) {
    if (!*text && !may_be_empty)
        return err_set(err, -EPROTO, "no %s", what);
    if (strlen(text) > NAME_MAX_BYTES || !text_is_clean(text))
        return err_set(err, -EPROTO, "a %s that is too long or not text", what);
    *ret = *text ? xstrdup(text) : NULL;
    return 0;
}

static int take_digest(const char *what, const ProtobufCBinaryData *b, Digest *ret, Err *err) {
    if (digest_from_bytes(ret, b->data, b->len) < 0)
        return err_set(err, -EPROTO, "a digest of %zu bytes for %s", b->len, what);
    return 0;
}

static int take_layer(const Modelcached__Worker__LayerInfo *m, Layer *ret, Err *err) {
    bool raw = m->kind == MODELCACHED__WORKER__LAYER_KIND__LAYER_RAW;
    int r;

    if (!raw && m->kind != MODELCACHED__WORKER__LAYER_KIND__LAYER_TAR)
        return err_set(err, -EPROTO, "layer of kind %d", (int)m->kind);
    if (m->size > LIMIT_BLOB_BYTES)
        return err_set(err, -EPROTO, "layer of %llu bytes", (unsigned long long)m->size);
    if ((raw || *m->path) && (!path_is_safe_relative(m->path) || !utf8_is_valid(m->path)))
        return err_set(err, -EPROTO, "layer with an unsafe path");
    r = take_digest("a layer", &m->digest, &ret->digest, err);
    if (r < 0)
        return r;
    r = take_name("media type of a layer", m->media_type, true, &ret->media_type, err);
    if (r < 0)
        return r;
    if (!ret->media_type)
        ret->media_type = xstrdup("");
    ret->size = m->size;
    ret->kind = raw ? LAYER_KIND_RAW : LAYER_KIND_TAR;
    ret->executable = raw && m->executable;
    ret->path = *m->path ? xstrdup(m->path) : NULL;
    return 0;
}

static int take_layers(const Modelcached__Worker__Resolved *m, Manifest *manifest, Err *err) {
    uint64_t total = 0;

    if (m->n_layers > LIMIT_LAYERS)
        return err_set(err, -EPROTO, "%zu layers", m->n_layers);
    manifest->layers = xnew_n(Layer, MAX(m->n_layers, (size_t)1));
    for (size_t i = 0; i < m->n_layers; i++) {
        int r;
        manifest->n_layers = i + 1; /* a layer that is half taken is freed, too */
        r = take_layer(m->layers[i], &manifest->layers[i], err);
        if (r < 0)
            return r;
        total += manifest->layers[i].size; /* 8192 * 64 TiB fit */
    }
    if (total > LIMIT_BLOB_BYTES)
        return err_set(err, -EPROTO, "layers of %llu bytes", (unsigned long long)total);
    return 0;
}

static int take_names(const Modelcached__Worker__Resolved *m, Manifest *manifest, Err *err) {
    const struct {
        const char *what, *text;
        bool may_be_empty;
        char **field;
    } names[] = {
        { "media type", m->media_type, false, &manifest->media_type },
        { "artifact type", m->artifact_type, true, &manifest->artifact_type },
        { "family", m->family, false, &manifest->family },
        { "platform", m->platform, true, &manifest->platform },
    };

    for (size_t i = 0; i < ELEMENTSOF(names); i++) {
        int r = take_name(names[i].what, names[i].text, names[i].may_be_empty, names[i].field, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int take_index(const Modelcached__Worker__Resolved *m, IndexChain **ret, Err *err) {
    _cleanup_(index_chain_freep) IndexChain *c = xnew(IndexChain);
    uint64_t bytes = 0;
    int r = take_digest("the index", &m->index_digest, &c->digest, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < m->n_index; i++)
        bytes += m->index[i].len; /* no more than the message has */
    if (m->n_index > LIMIT_INDEX_DEPTH || bytes > LIMIT_INDEXES_BYTES)
        return err_set(err, -EPROTO, "%zu indexes of %llu bytes", m->n_index,
                       (unsigned long long)bytes);
    c->documents = xnew_n(IndexDocument, m->n_index + 1);
    for (; c->n < m->n_index; c->n++) {
        const ProtobufCBinaryData *from = &m->index[c->n];

        c->documents[c->n] = (IndexDocument){ xnew_n(uint8_t, from->len + 1), from->len };
        if (from->len > 0)
            memcpy(c->documents[c->n].bytes, from->data, from->len);
    }
    *ret = TAKE_PTR(c);
    return 0;
}

int inbox_take_resolved(const Modelcached__Worker__Resolved *m, Manifest **ret,
                        IndexChain **ret_index, Err *err) {
    _cleanup_(manifest_freep) Manifest *manifest = xnew(Manifest);
    _cleanup_(index_chain_freep) IndexChain *index = NULL;
    int r = take_digest("the manifest", &m->digest, &manifest->digest, err);

    if (r >= 0 && m->index_digest.len > 0)
        r = take_index(m, &index, err);
    if (r >= 0)
        r = take_names(m, manifest, err);
    if (r >= 0)
        r = take_layers(m, manifest, err);
    if (r < 0)
        return r;
    if (m->manifest.len == 0 || m->manifest.len > LIMIT_MANIFEST_BYTES)
        return err_set(err, -EPROTO, "a manifest of %zu bytes", m->manifest.len);
    manifest->bytes = xnew_n(uint8_t, m->manifest.len);
    memcpy(manifest->bytes, m->manifest.data, m->manifest.len);
    manifest->n_bytes = m->manifest.len;
    *ret = TAKE_PTR(manifest);
    *ret_index = TAKE_PTR(index);
    return 0;
}

static bool target_is_good(const Modelcached__Worker__Entry *m) {
    switch (m->type) {
    case MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_SYMLINK:
        return *m->target && strlen(m->target) <= LIMIT_SYMLINK_BYTES && utf8_is_valid(m->target);
    case MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_HARDLINK:
        return path_is_safe_relative(m->target) && utf8_is_valid(m->target);
    default:
        return !*m->target;
    }
}

/* The root itself ("") may only be said to be opaque. */
static bool path_is_good(const Modelcached__Worker__Entry *m) {
    if (!*m->path)
        return m->type == MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_OPAQUE;
    return path_is_safe_relative(m->path) && utf8_is_valid(m->path);
}

/* A name that the worker gives to a file of its own: plain, as it is shown in errors. */
static bool ingest_is_good(const char *name) {
    size_t n = strlen(name);

    return n <= INGEST_NAME_MAX && name_is_safe(name, n) &&
           strspn(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-") == n;
}

int inbox_take_entry(const Modelcached__Worker__Entry *m, LayerEntry *ret, uint64_t *bytes,
                     Err *err) {
    bool file = m->type == MODELCACHED__WORKER__ENTRY_TYPE__ENTRY_FILE;
    LayerEntry e = { .type = (EntryType)m->type };

    if ((unsigned)m->type >= ENTRY_TYPE_COUNT)
        return err_set(err, -EPROTO, "entry of type %d", (int)m->type);
    if (!path_is_good(m) || !target_is_good(m))
        return err_set(err, -EPROTO, "entry with an unsafe name");
    if (file ? *m->ingest && !ingest_is_good(m->ingest) : *m->ingest != 0)
        return err_set(err, -EPROTO, "entry with an unsafe file");
    if (file && m->size > LIMIT_BLOB_BYTES)
        return err_set(err, -EPROTO, "entry of %llu bytes", (unsigned long long)m->size);
    if (file) {
        int r = take_digest("a file", &m->digest, &e.digest, err);
        if (r < 0)
            return r;
        e.size = m->size;
        e.executable = m->executable;
        e.ingest = *m->ingest ? xstrdup(m->ingest) : NULL;
    }
    e.path = xstrdup(m->path);
    e.target = *m->target ? xstrdup(m->target) : NULL;
    *bytes += strlen(m->path) + strlen(m->target) + strlen(m->ingest);
    *ret = e;
    return 0;
}
