/* SPDX-License-Identifier: Apache-2.0 */
/* control_inspect: Inspect: all about one artifact, its files in as many messages as it takes. */
#include "agent/clean.h"
#include "agent/control_internal.h"
#include "base/limits.h"

#define INTERVAL_USEC    (5 * USEC_PER_MSEC)
#define MESSAGE_BYTES    KiB(64) /* of paths and targets in one message */
#define MESSAGE_FILES    500
#define QUEUED_MAX_BYTES MiB(1)

typedef struct Inspection {
    Control *control;
    Store *store;
    GrpcCall *call; /* NULL: cancelled while the store is asked */
    ProtobufCMessage *request;
    Modelcached__Control__InspectResponse *head; /* the first message, without files */
    LayerEntry *files;
    size_t n_files, next;
    sd_event_source *timer;
} Inspection;

static void inspection_free(Inspection *i) {
    if (i->head)
        message_free(&i->head->base);
    layer_entries_free(i->files, i->n_files);
    (void)sd_event_source_disable_unref(i->timer);
    message_free(i->request);
    free(i);
}

/* A document of a registry as a string of a message: NUL-terminated UTF-8. */
static char *document_text(const Manifest *manifest) {
    char *text = xstrndup((const char *)manifest->bytes, manifest->n_bytes);
    char *clean;

    if (utf8_is_valid(text))
        return text;
    clean = text_clean(text, manifest->n_bytes);
    free(text);
    return clean;
}

static int add_layers(Modelcached__Control__InspectResponse *m, Store *s, const Digest *digest,
                      Err *err) {
    _cleanup_(manifest_freep) Manifest *manifest = NULL;
    uint64_t steps = LIMIT_FILTER_LAYER_STEPS;
    int r = store_manifest(s, digest, &manifest, err);

    if (r < 0)
        return r;
    m->manifest = document_text(manifest);
    m->layers = xnew_n(Modelcached__Control__LayerDetail *, MAX(manifest->n_layers, (size_t)1));
    for (size_t i = 0; i < manifest->n_layers; i++) {
        const Layer *from = &manifest->layers[i];
        Modelcached__Control__LayerDetail *to = CONTROL_NEW(LayerDetail, layer_detail);

        to->digest = xstrdup(DIGEST_STR(&from->digest));
        to->media_type = xstrdup(from->media_type);
        to->kind = xstrdup(from->kind == LAYER_KIND_RAW ? "raw" : "tar");
        to->bytes = from->size;
        to->path = xstrdup(from->path);
        to->left_out = !manifest_wants_layer(manifest, i, &steps);
        m->layers[m->n_layers++] = to;
    }
    return 0;
}

static Modelcached__Control__FileDetail *make_file(const LayerEntry *e) {
    static const char *const types[ENTRY_TYPE_COUNT] = {
        [ENTRY_TYPE_FILE] = "file",         [ENTRY_TYPE_DIRECTORY] = "directory",
        [ENTRY_TYPE_SYMLINK] = "symlink",   [ENTRY_TYPE_HARDLINK] = "file",
        [ENTRY_TYPE_WHITEOUT] = "whiteout", [ENTRY_TYPE_OPAQUE] = "opaque",
    };
    Modelcached__Control__FileDetail *m = CONTROL_NEW(FileDetail, file_detail);

    m->path = xstrdup(e->path);
    m->type = xstrdup(types[e->type]);
    if (e->type == ENTRY_TYPE_FILE)
        m->digest = xstrdup(DIGEST_STR(&e->digest));
    m->bytes = e->size;
    m->executable = e->executable;
    m->target = xstrdup(e->target);
    return m;
}

static int run_inspect(void *arg, Err *err) {
    Inspection *i = arg;
    const Modelcached__Control__InspectRequest *q = (void *)i->request;
    _cleanup_free_ char *reference = NULL;
    char platform[PLATFORM_TEXT_MAX];
    ArtifactInfo info;
    Digest digest;
    bool complete;
    int r = control_platform(platform, q->platform, err);

    if (r >= 0)
        r = control_find(i->store, q->reference, platform, &digest, &reference, err);
    if (r > 0)
        r = control_several(q->reference, err);
    if (r >= 0)
        r = store_inspect(i->store, &digest, &info, err);
    if (r < 0)
        return r;
    i->head = CONTROL_NEW(InspectResponse, inspect_response);
    i->head->artifact = control_artifact(&info);
    complete = info.complete;
    artifact_info_clear(&info);
    /* Of one that is incomplete there is no tree to show. */
    r = complete ? add_layers(i->head, i->store, &digest, err) : 0;
    if (r >= 0 && complete)
        r = store_files(i->store, &digest, &i->files, &i->n_files, err);
    if (r >= 0)
        r = control_volumes(i->store, &digest, &i->head->volumes, &i->head->n_volumes, err);
    return r;
}

/* Adds the next files, as many as fit. */
static void add_files(Inspection *i, Modelcached__Control__InspectResponse *m) {
    size_t bytes = 0;

    m->files = xnew_n(Modelcached__Control__FileDetail *, MESSAGE_FILES);
    for (; i->next < i->n_files && m->n_files < MESSAGE_FILES && bytes < MESSAGE_BYTES; i->next++) {
        const LayerEntry *e = &i->files[i->next];

        bytes += strlen(e->path) + (e->target ? strlen(e->target) : 0);
        m->files[m->n_files++] = make_file(e);
    }
}

static int on_turn(sd_event_source *source, uint64_t usec, void *arg);

/* Sends what the client reads fast enough; the rest later, so that it does not pile up here. */
static void send_more(Inspection *i, Modelcached__Control__InspectResponse *first) {
    Modelcached__Control__InspectResponse *m = first;
    size_t queued = 0;

    while ((m || i->next < i->n_files) && queued <= QUEUED_MAX_BYTES) {
        m = m ? m : CONTROL_NEW(InspectResponse, inspect_response);
        add_files(i, m);
        queued = control_send(i->call, &m->base);
        message_free(&m->base);
        m = NULL;
    }
    if (i->next < i->n_files) {
        Err err = { "" };
        int r = loop_timer_after(i->control->o.event, &i->timer, INTERVAL_USEC, on_turn, i);

        if (r >= 0)
            return;
        control_fail(i->call, err_errnum(&err, r, "sending the files failed"), &err);
    } else {
        grpc_call_finish(i->call, NULL, 0);
    }
    inspection_free(i);
}

static int on_turn(sd_event_source *source, uint64_t usec, void *arg) {
    Inspection *i = arg;

    (void)source;
    (void)usec;
    if (grpc_call_queued(i->call) > QUEUED_MAX_BYTES)
        return loop_timer_after(i->control->o.event, &i->timer, INTERVAL_USEC, on_turn, i);
    send_more(i, NULL);
    return 0;
}

static void on_cancel(GrpcCall *call, void *arg) {
    (void)call;
    ((Inspection *)arg)->call = NULL; /* on_inspected frees it */
}

static void on_cancel_late(GrpcCall *call, void *arg) {
    (void)call;
    inspection_free(arg);
}

static void on_inspected(void *arg, int r, const Err *err) {
    Inspection *i = arg;

    if (i->call && r >= 0) {
        grpc_call_set_on_cancel(i->call, on_cancel_late, i);
        send_more(i, TAKE_PTR(i->head));
        return;
    }
    if (i->call)
        control_fail(i->call, r, err);
    inspection_free(i);
}

void control_inspect(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    Inspection *i = xnew(Inspection);

    *i = (Inspection){
        .control = c, .store = c->o.backend->store, .call = call, .request = request
    };
    grpc_call_set_on_cancel(call, on_cancel, i);
    pool_submit(c->o.backend->pool, run_inspect, on_inspected, i);
}
