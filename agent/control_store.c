/* SPDX-License-Identifier: Apache-2.0 */
/* control_store: List, Remove, Prune: what is stored. */
#include "agent/control_internal.h"
#include "base/parse.h"

Modelcached__Control__Artifact *control_artifact(const ArtifactInfo *a) {
    Modelcached__Control__Artifact *m = CONTROL_NEW(Artifact, artifact);

    m->references = xnew_n(char *, MAX(a->n_references, (size_t)1));
    for (; m->n_references < a->n_references; m->n_references++)
        m->references[m->n_references] = xstrdup(a->references[m->n_references]);
    m->digest = xstrdup(DIGEST_STR(&a->manifest));
    if (a->filter) {
        m->subset_id = xstrdup(DIGEST_STR(&a->digest));
        m->include = xstrdup(filter_include(a->filter));
        m->exclude = xstrdup(filter_exclude(a->filter));
    }
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
        m->artifacts[m->n_artifacts] = control_artifact(&list[m->n_artifacts]);
    artifact_info_array_free(list, n);
    return 0;
}

void control_list(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    control_work_start(c, call, request, run_list, NULL);
}

static int run_remove(ControlWork *w, Err *err) {
    const Modelcached__Control__RemoveRequest *request = (void *)w->request;
    Modelcached__Control__RemoveResponse *m;
    _cleanup_free_ char *reference = NULL;
    char platform[PLATFORM_TEXT_MAX];
    uint64_t freed = 0;
    Digest digest;
    int r = control_platform(platform, request->platform, err);

    if (r >= 0)
        r = control_find(w->store, request->reference, platform, &digest, &reference, err);
    if (r > 0 && !reference)
        r = control_several(request->reference, err);
    if (r >= 0)
        r = store_remove(w->store, reference, *platform ? platform : NULL,
                         reference ? NULL : &digest, &freed, err);
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
    metrics_add(w->control->o.metrics, METRIC_REMOVED_BYTES, METRIC_LABEL(METRIC_BY_REQUEST),
                m->bytes_freed);
}

void control_remove(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    control_work_start(c, call, request, run_remove, say_removed);
}

static int run_prune(ControlWork *w, Err *err) {
    Modelcached__Control__PruneResponse *m;
    uint64_t freed;
    int r = store_prune(w->store, &freed, err);

    if (r < 0)
        return r;
    m = CONTROL_NEW(PruneResponse, prune_response);
    w->answer = &m->base;
    m->bytes_freed = freed;
    return 0;
}

static void say_pruned(ControlWork *w) {
    const Modelcached__Control__PruneResponse *m = (void *)w->answer;
    _cleanup_free_ char *text = xasprintf("dropped what interrupted pulls had left, %s freed",
                                          FORMAT_BYTES(m->bytes_freed));
    StoreEvent e = { .type = (char *)"store.pruned", .text = text };

    event_log_add(w->control->o.events, &e);
    metrics_add(w->control->o.metrics, METRIC_REMOVED_BYTES, METRIC_LABEL(METRIC_BY_REQUEST),
                m->bytes_freed);
}

void control_prune(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    control_work_start(c, call, request, run_prune, say_pruned);
}
