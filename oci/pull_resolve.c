/* SPDX-License-Identifier: Apache-2.0 */
/* pull_resolve: from a tag or digest to the manifest, through indexes, and what the daemon hears
 * about it. */
#include "oci/pull_internal.h"
#include "oci/retry.h"

static int ask(Pull *p);
static void take_document(Pull *p, const RegistryDoc *doc);

static int on_again(sd_event_source *source, uint64_t usec, void *arg) {
    Pull *p = arg;
    Err err;
    int r = ask(p);

    (void)source;
    (void)usec;
    if (r < 0)
        pull_finish(p, err_errnum(&err, r, "cannot ask for the manifest"), &err);
    return 0;
}

/* Waits and asks again, while the trouble may pass and it is not time to give up. */
static bool ask_again_later(Pull *p, int r, const Err *why, uint64_t after_usec) {
    uint64_t usec;
    Err text;

    if (!retry_is_transient(r) || !traffic_wait(p->traffic, ++p->tries, after_usec, &usec))
        return false;
    (void)err_set(&text, r, "%.400s; trying again in %.1f s", err_text(why, r),
                  (double)usec / (double)USEC_PER_SEC);
    pull_say_waiting(p, text.text);
    return loop_timer_after(p->o.event, &p->timer, usec, on_again, p) >= 0;
}

static void on_document(void *arg, int r, const Err *err, const RegistryDoc *doc) {
    Pull *p = arg;

    uint64_t after_usec = registry_request_retry_usec(p->request);

    p->answered = r < 0 && p->depth == 0 && registry_request_was_answered(p->request);
    p->request = NULL; /* gone after this callback */
    if (r >= 0) {
        traffic_answered(p->traffic, doc->answer_usec, false);
        take_document(p, doc);
    } else if (!ask_again_later(p, r, err, after_usec))
        pull_finish(p, r, err);
}

static int ask(Pull *p) {
    return registry_get_manifest(p->o.registry, &p->request, p->asked, on_document, p);
}

int pull_enter_resolve(Pull *p, Err *err) {
    int r = ask(p);

    return r < 0 ? err_errnum(err, r, "cannot ask for the manifest") : 0;
}

/* Notes the manifest that an index leads to.  It is asked for by its digest, or embedded. */
static int descend(Pull *p, const ManifestDoc *index, Descriptor *ret, Err *err) {
    const Modelcached__Worker__Job *job = p->o.job;
    const Descriptor *chosen;
    Platform want = { 0 };
    int r;

    if (p->depth >= LIMIT_INDEX_DEPTH)
        return err_set(err, -E2BIG, "indexes are nested deeper than %d", LIMIT_INDEX_DEPTH);
    if (p->n_bytes > LIMIT_INDEXES_BYTES - p->indexes_bytes)
        return err_set(err, -E2BIG, "the indexes on the way have more than %llu bytes",
                       (unsigned long long)LIMIT_INDEXES_BYTES);
    p->indexes_bytes += p->n_bytes;
    p->indexes[p->depth] = (ProtobufCBinaryData){ p->n_bytes, TAKE_PTR(p->bytes) };
    p->asked_digest[p->depth++] = p->digest;
    (void)snprintf(want.os, sizeof(want.os), "%s", job->os);
    (void)snprintf(want.architecture, sizeof(want.architecture), "%s", job->architecture);
    (void)snprintf(want.variant, sizeof(want.variant), "%s", job->variant);
    r = manifest_choose(index, &want, &chosen, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < p->depth; i++)
        if (digest_equal(&p->asked_digest[i], &chosen->digest))
            return err_set(err, -EPROTO, "an index leads to itself: %s",
                           DIGEST_STR(&chosen->digest));
    if (chosen->platform)
        xfree_and_strdup(&p->platform, chosen->platform);
    *ret = *chosen; /* borrowed from `index` */
    return 0;
}

/* Keeps the bytes and their digest, and compares what is known of them. */
static int keep(Pull *p, const RegistryDoc *doc, Err *err) {
    const ProtobufCBinaryData *want = &p->o.job->digest;
    Digest digest;

    if (p->asked_size != UINT64_MAX && p->asked_size != doc->n)
        return err_set(err, -EBADMSG,
                       "the manifest %s has %zu bytes instead of the %llu that its index says",
                       p->asked, doc->n, (unsigned long long)p->asked_size);
    digest_of(&digest, doc->data, doc->n);
    if (p->depth == 0 && want->len == DIGEST_BYTES &&
        memcmp(digest.bytes, want->data, DIGEST_BYTES) != 0)
        return err_set(err, -EBADMSG,
                       "the registry sent another manifest than was asked for: expected %s, got %s",
                       p->asked, DIGEST_STR(&digest));
    p->digest = digest;
    free(p->bytes);
    p->bytes = xcalloc(1, doc->n + 1);
    memcpy(p->bytes, doc->data, doc->n);
    p->n_bytes = doc->n;
    return 0;
}

static int read_document(Pull *p, const RegistryDoc *doc, Err *err) {
    _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
    Descriptor next;
    int r = keep(p, doc, err);

    if (r < 0)
        return r;
    r = manifest_parse(&m, p->bytes, p->n_bytes, doc->content_type, err);
    if (r < 0)
        return r;
    if (!m->is_index) {
        p->manifest = TAKE_PTR(m);
        pull_goto(p, PULL_PLAN);
        return 0;
    }
    r = descend(p, m, &next, err);
    if (r < 0)
        return r;
    free(p->asked);
    p->asked = xstrdup(DIGEST_STR(&next.digest));
    p->asked_size = next.size;
    p->tries = 0;
    if (next.data)
        return read_document(p,
                             &(RegistryDoc){ .data = next.data,
                                             .n = (size_t)next.size,
                                             .content_type = next.media_type },
                             err);
    r = ask(p);
    return r < 0 ? err_errnum(err, r, "cannot ask for the manifest") : 0;
}

static void take_document(Pull *p, const RegistryDoc *doc) {
    Err err;
    int r = read_document(p, doc, &err);

    if (r < 0)
        pull_finish(p, r, &err);
}

/* All strings and bytes are borrowed. */
static void describe_layer(const Layer *layer, Modelcached__Worker__LayerInfo *ret) {
    modelcached__worker__layer_info__init(ret);
    ret->digest = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)(uintptr_t)layer->digest.bytes };
    ret->size = layer->size;
    if (layer->media_type)
        ret->media_type = layer->media_type;
    if (layer->path)
        ret->path = layer->path;
    ret->kind = layer->kind == LAYER_KIND_TAR ? MODELCACHED__WORKER__LAYER_KIND__LAYER_TAR
                                              : MODELCACHED__WORKER__LAYER_KIND__LAYER_RAW;
    ret->executable = layer->executable;
}

static void describe_manifest(const Pull *p, Modelcached__Worker__Resolved *ret) {
    const ManifestDoc *m = p->manifest;

    ret->digest = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)(uintptr_t)p->digest.bytes };
    ret->manifest = (ProtobufCBinaryData){ p->n_bytes, p->bytes };
    if (p->depth > 0) {
        ret->index_digest =
            (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)(uintptr_t)p->asked_digest[0].bytes };
        ret->index = (ProtobufCBinaryData *)(uintptr_t)p->indexes;
        ret->n_index = p->depth;
    }
    if (m->media_type)
        ret->media_type = m->media_type;
    if (m->artifact_type)
        ret->artifact_type = m->artifact_type;
    if (m->family)
        ret->family = m->family;
    if (p->platform)
        ret->platform = p->platform;
}

/* Says what the reference is; the daemon's plan answers. */
int pull_enter_plan(Pull *p, Err *err) {
    const ManifestDoc *m = p->manifest;
    _cleanup_free_ Modelcached__Worker__LayerInfo *infos =
        xnew_n(Modelcached__Worker__LayerInfo, m->n_layers + 1);
    _cleanup_free_ Modelcached__Worker__LayerInfo **pointers =
        xnew_n(Modelcached__Worker__LayerInfo *, m->n_layers + 1);
    Modelcached__Worker__Resolved resolved = MODELCACHED__WORKER__RESOLVED__INIT;
    Modelcached__Worker__FromWorker message = MODELCACHED__WORKER__FROM_WORKER__INIT;

    (void)err;
    describe_manifest(p, &resolved);
    for (size_t i = 0; i < m->n_layers; i++) {
        describe_layer(&m->layers[i].layer, &infos[i]);
        pointers[i] = &infos[i];
    }
    resolved.layers = pointers;
    resolved.n_layers = m->n_layers;
    message.message_case = MODELCACHED__WORKER__FROM_WORKER__MESSAGE_RESOLVED;
    message.resolved = &resolved;
    channel_send(p->o.channel, &message);
    return 0;
}
