/* SPDX-License-Identifier: Apache-2.0 */
/* control_store: List, Inspect, Remove: what is stored. */
#include "agent/clean.h"
#include "agent/control_internal.h"
#include "base/parse.h"

static Modelcached__Control__Artifact *make_artifact(const ArtifactInfo *a) {
    Modelcached__Control__Artifact *m = CONTROL_NEW(Artifact, artifact);

    m->references = xnew_n(char *, MAX(a->n_references, (size_t)1));
    for (; m->n_references < a->n_references; m->n_references++)
        m->references[m->n_references] = xstrdup(a->references[m->n_references]);
    m->digest = xstrdup(DIGEST_STR(&a->digest));
    m->family = xstrdup(a->family);
    m->media_type = xstrdup(a->media_type);
    m->artifact_type = xstrdup(a->artifact_type);
    m->platform = xstrdup(a->platform);
    m->bytes = a->bytes;
    m->unique_bytes = a->unique_bytes;
    m->files = a->files;
    m->created_usec = a->created_usec;
    m->used_usec = a->used_usec;
    m->volumes = a->volumes;
    m->incomplete = !a->complete;
    return m;
}

static int run_list(ControlWork *w, Err *err) {
    Modelcached__Control__ListResponse *m;
    ArtifactInfo *list;
    size_t n;
    int r = store_list(w->store, &list, &n, err);

    if (r < 0)
        return r;
    m = CONTROL_NEW(ListResponse, list_response);
    w->answer = &m->base;
    m->artifacts = xnew_n(Modelcached__Control__Artifact *, MAX(n, (size_t)1));
    for (; m->n_artifacts < n; m->n_artifacts++)
        m->artifacts[m->n_artifacts] = make_artifact(&list[m->n_artifacts]);
    artifact_info_array_free(list, n);
    return 0;
}

void control_list(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    control_work_start(c, call, request, run_list, NULL);
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

static int add_files(Modelcached__Control__InspectResponse *m, Store *s, const Digest *digest,
                     Err *err) {
    LayerEntry *entries;
    size_t n;
    int r = store_files(s, digest, &entries, &n, err);

    if (r < 0)
        return r;
    m->files = xnew_n(Modelcached__Control__FileDetail *, MAX(n, (size_t)1));
    for (; m->n_files < n; m->n_files++)
        m->files[m->n_files] = make_file(&entries[m->n_files]);
    layer_entries_free(entries, n);
    return 0;
}

static int run_inspect(ControlWork *w, Err *err) {
    const Modelcached__Control__InspectRequest *request = (void *)w->request;
    Modelcached__Control__InspectResponse *m;
    _cleanup_free_ char *reference = NULL;
    ArtifactInfo info;
    Digest digest;
    bool complete;
    int r = control_find(w->store, request->reference, &digest, &reference, err);

    if (r >= 0)
        r = store_inspect(w->store, &digest, &info, err);
    if (r < 0)
        return r;
    m = CONTROL_NEW(InspectResponse, inspect_response);
    w->answer = &m->base;
    m->artifact = make_artifact(&info);
    complete = info.complete;
    artifact_info_clear(&info);
    /* Of one that is incomplete there is no tree to show. */
    r = complete ? add_layers(m, w->store, &digest, err) : 0;
    if (r >= 0 && complete)
        r = add_files(m, w->store, &digest, err);
    if (r >= 0)
        r = control_volumes(w->store, &digest, &m->volumes, &m->n_volumes, err);
    return r;
}

void control_inspect(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    control_work_start(c, call, request, run_inspect, NULL);
}

static int run_remove(ControlWork *w, Err *err) {
    const Modelcached__Control__RemoveRequest *request = (void *)w->request;
    Modelcached__Control__RemoveResponse *m;
    _cleanup_free_ char *reference = NULL;
    uint64_t freed = 0;
    Digest digest;
    int r = control_find(w->store, request->reference, &digest, &reference, err);

    if (r >= 0)
        r = store_remove(w->store, reference, reference ? NULL : &digest, &freed, err);
    if (r < 0)
        return r;
    m = CONTROL_NEW(RemoveResponse, remove_response);
    w->answer = &m->base;
    m->digest = xstrdup(DIGEST_STR(&digest));
    m->bytes_freed = freed;
    return 0;
}

static void say_removed(ControlWork *w) {
    const Modelcached__Control__RemoveRequest *request = (void *)w->request;
    const Modelcached__Control__RemoveResponse *m = (void *)w->answer;
    _cleanup_free_ char *text =
        xasprintf("removed %s, %s freed", request->reference, FORMAT_BYTES(m->bytes_freed));
    StoreEvent e = { .type = (char *)"artifact.removed",
                     .reference = request->reference,
                     .digest = m->digest,
                     .text = text };

    event_log_add(w->control->o.events, &e);
}

void control_remove(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    control_work_start(c, call, request, run_remove, say_removed);
}
