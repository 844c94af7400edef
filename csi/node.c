/* SPDX-License-Identifier: Apache-2.0 */
/* node: NodePublishVolume and NodeUnpublishVolume of CSI v1: unpack, check, hand to volume.h,
 * answer. */
#include "base/log.h"
#include "csi/capability.h"
#include "csi/service.h"

/* Without a deadline of the client: the kubelet's own is 2 min. */
#define ANSWER_WITHIN_USEC (100 * USEC_PER_SEC)

/* A call that waits for a volume. */
typedef struct NodeCall {
    GrpcCall *call;
    VolumeTicket *ticket;
    sd_event_source *timer;
    char *reference;                            /* publish */
    char *volume_id, *pod_namespace, *pod_name; /* the same, for the log; the pod's may be NULL */
} NodeCall;

static NodeCall *node_call_free(NodeCall *c) {
    c->ticket = volume_ticket_free(c->ticket);
    c->timer = sd_event_source_disable_unref(c->timer);
    free(c->reference);
    free(c->volume_id);
    free(c->pod_namespace);
    free(c->pod_name);
    free(c);
    return NULL;
}

static void node_call_on_cancel(_unused_ GrpcCall *call, void *arg) {
    (void)node_call_free(arg);
}

/* Hands the RPC over: whoever answers it does so after this. */
static GrpcCall *node_call_end(NodeCall *c) {
    GrpcCall *call = c->call;

    (void)node_call_free(c);
    return call;
}

static NodeCall *node_call_new(GrpcCall *call) {
    NodeCall *c = xnew(NodeCall);

    c->call = call;
    grpc_call_set_on_cancel(call, node_call_on_cancel, c);
    return c;
}

/* A request that cannot be: said here, because no operation begins that would say it. */
static void node_call_refuse(NodeCall *c, const char *method, const char *volume_id, int r,
                             const Err *err) {
    char id[128] = ""; /* an id that is too long is one of the reasons */

    if (volume_id)
        (void)snprintf(id, sizeof(id), "%s", volume_id);
    log_write(
        LOG_WARN,
        LOG_FIELDS({ "volume", id }, { "pod", c->pod_name }, { "namespace", c->pod_namespace }),
        "%s refused: %s", method, err_text(err, r));
    service_fail(node_call_end(c), r, err);
}

static void published(void *arg, int r, const Err *err) {
    GrpcCall *call = node_call_end(arg);
    Csi__V1__NodePublishVolumeResponse m = CSI__V1__NODE_PUBLISH_VOLUME_RESPONSE__INIT;

    if (r < 0)
        service_fail(call, r, err);
    else
        service_answer(call, &m.base);
}

/* Of a text that is too long the middle is left out: it ends with when it goes on. */
static void shorten(char *text, size_t max) {
    static const char gap[] = "…";
    size_t n = strlen(text), end = max / 2;

    if (n <= max)
        return;
    memmove(text + max - end, text + n - end, end + 1);
    memcpy(text + max - end - strlen(gap), gap, strlen(gap));
}

/* The deadline is near.  ABORTED makes the kubelet ask again (other codes of a failure would make
 * it give up the directory), and the retry joins what goes on here. */
static int on_deadline(_unused_ sd_event_source *source, _unused_ uint64_t usec, void *arg) {
    NodeCall *c = arg;
    const char *pull = volume_ticket_pull(c->ticket);
    char progress[1024], end[96];
    Err err = { "" };
    int r;

    volume_ticket_progress(c->ticket, progress, sizeof(progress));
    (void)snprintf(end, sizeof(end), "; the pull goes on, the next try joins it%s%s%s",
                   *pull ? " (pull " : "", pull, *pull ? ")" : "");
    shorten(progress, sizeof(err.text) - MIN(strlen(c->reference), (size_t)180) - strlen(": ") -
                          strlen(end) - 1);
    r = err_set(&err, -EINPROGRESS, "%.180s: %s%s", c->reference, progress, end);
    log_write(LOG_DEBUG,
              LOG_FIELDS({ "pull", *pull ? pull : NULL }, { "volume", c->volume_id },
                         { "pod", c->pod_name }, { "namespace", c->pod_namespace }),
              "NodePublishVolume: %s", err.text);
    service_fail(node_call_end(c), r, &err);
    return 0;
}

/* Time to wait before the answer has to be on its way. */
static uint64_t answer_within(const GrpcCall *call) {
    uint64_t deadline = grpc_call_deadline_usec(call), now = now_usec(), left;

    if (deadline == UINT64_MAX)
        return ANSWER_WITHIN_USEC;
    left = deadline > now ? deadline - now : 0;
    left -= MIN(MAX(USEC_PER_SEC, left / 10), left / 2);
    return MIN(left, ANSWER_WITHIN_USEC);
}

/* Fills `ret` with borrowed pairs of a map field, whose entries have a type of their own each. */
#define KEY_VALUES(ret, entries, n)                  \
    for (size_t i_ = 0; i_ < (n); i_++)              \
        (ret)[i_] = (KeyValue) {                     \
            (entries)[i_]->key, (entries)[i_]->value \
        }

/* What a publish is made of, owned while its request is checked. */
typedef struct PublishArgs {
    char *target;
    Params params;
    CredentialList credentials;
    Capability capability;
} PublishArgs;

static void publish_args_done(PublishArgs *a) {
    free(a->target);
    params_done(&a->params);
    credential_list_done(&a->credentials);
    free(a->capability.text);
}

static int publish_args_maps(PublishArgs *a, const Csi__V1__NodePublishVolumeRequest *q, Err *err) {
    _cleanup_free_ KeyValue *context = xnew_n(KeyValue, q->n_volume_context);
    _cleanup_free_ KeyValue *secrets = xnew_n(KeyValue, q->n_secrets);
    int r;

    KEY_VALUES(context, q->volume_context, q->n_volume_context);
    KEY_VALUES(secrets, q->secrets, q->n_secrets);
    r = params_parse(&a->params, context, q->n_volume_context, err);
    if (r >= 0)
        r = params_parse_secrets(&a->credentials, a->params.reference, secrets, q->n_secrets, err);
    return r == -E2BIG ? -EINVAL : r;
}

static int publish_args_parse(PublishArgs *a, const CsiService *s,
                              const Csi__V1__NodePublishVolumeRequest *q, Err *err) {
    int r = service_check_volume_id(q->volume_id, err);

    if (r >= 0 && isempty(q->target_path))
        r = err_set(err, -EINVAL, "the request has no target_path");
    if (r >= 0)
        r = capability_check(q->volume_capability, q->readonly, &a->capability, err);
    if (r >= 0)
        r = target_resolve(s->roots, q->target_path, &a->target, err);
    return r < 0 ? r : publish_args_maps(a, q, err);
}

static int publish(NodeCall *c, const CsiService *s, const Csi__V1__NodePublishVolumeRequest *q,
                   Err *err) {
    _cleanup_(publish_args_done) PublishArgs a = { 0 };
    VolumePublishRequest request;
    int r = publish_args_parse(&a, s, q, err);

    if (r < 0)
        return r;
    c->reference = reference_text(a.params.reference);
    c->volume_id = xstrdup(q->volume_id);
    c->pod_namespace = xstrdup(a.params.pod_namespace);
    c->pod_name = xstrdup(a.params.pod_name);
    r = loop_timer_after(s->event, &c->timer, answer_within(c->call), on_deadline, c);
    if (r < 0)
        return err_errnum(err, -EIO, "cannot set a timer");
    request = (VolumePublishRequest){
        .key = { q->volume_id, a.target },
        .params = &a.params,
        .credentials = &a.credentials,
        .capability = a.capability.text,
        .noexec = a.capability.noexec,
        .multi_node = a.capability.multi_node,
    };
    return volume_publish(s->volumes, &c->ticket, &request, published, c, err);
}

static void request_wipe(Csi__V1__NodePublishVolumeRequest *q) {
    for (size_t i = 0; i < q->n_secrets; i++)
        explicit_bzero(q->secrets[i]->value, strlen(q->secrets[i]->value));
    csi__v1__node_publish_volume_request__free_unpacked(q, NULL);
}

void node_publish_volume(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    Csi__V1__NodePublishVolumeRequest *q =
        csi__v1__node_publish_volume_request__unpack(NULL, n, request);
    NodeCall *c = node_call_new(call);
    Err err = { "" };
    int r;

    if (!q) {
        r = err_set(&err, -EINVAL, "the request is no NodePublishVolumeRequest");
        node_call_refuse(c, "NodePublishVolume", NULL, r, &err);
        return;
    }
    r = publish(c, arg, q, &err);
    if (r < 0)
        node_call_refuse(c, "NodePublishVolume", q->volume_id, r, &err);
    request_wipe(q);
}

static void unpublished(void *arg, int r, const Err *err) {
    GrpcCall *call = node_call_end(arg);
    Csi__V1__NodeUnpublishVolumeResponse m = CSI__V1__NODE_UNPUBLISH_VOLUME_RESPONSE__INIT;

    if (r < 0)
        service_fail(call, r, err);
    else
        service_answer(call, &m.base);
}

static int unpublish(NodeCall *c, const CsiService *s, const Csi__V1__NodeUnpublishVolumeRequest *q,
                     Err *err) {
    _cleanup_free_ char *target = NULL;
    int r = service_check_volume_id(q->volume_id, err);

    if (r >= 0 && isempty(q->target_path))
        r = err_set(err, -EINVAL, "the request has no target_path");
    if (r >= 0)
        r = target_resolve(s->roots, q->target_path, &target, err);
    if (r < 0)
        return r;
    return volume_unpublish(s->volumes, &c->ticket, &(VolumeKey){ q->volume_id, target },
                            unpublished, c, err);
}

void node_unpublish_volume(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    Csi__V1__NodeUnpublishVolumeRequest *q =
        csi__v1__node_unpublish_volume_request__unpack(NULL, n, request);
    NodeCall *c = node_call_new(call);
    Err err = { "" };
    int r = q ? unpublish(c, arg, q, &err)
              : err_set(&err, -EINVAL, "the request is no NodeUnpublishVolumeRequest");

    if (r < 0)
        node_call_refuse(c, "NodeUnpublishVolume", q ? q->volume_id : NULL, r, &err);
    if (q)
        csi__v1__node_unpublish_volume_request__free_unpacked(q, NULL);
}
