/* SPDX-License-Identifier: Apache-2.0 */
/* node_stats: NodeGetVolumeStats, NodeGetCapabilities and NodeGetInfo of CSI v1. */
#include "csi/service.h"

/* A question that a pool work answers. */
typedef struct StatsCall {
    GrpcCall *call; /* NULL: cancelled */
    Store *store;
    char *volume_id, *target;
    VolumeStats stats;
} StatsCall;

static void stats_call_on_cancel(_unused_ GrpcCall *call, void *arg) {
    StatsCall *c = arg;

    c->call = NULL;
}

static int stats_run(void *arg, Err *err) {
    StatsCall *c = arg;

    return volume_stats(c->store, &(VolumeKey){ c->volume_id, c->target }, &c->stats, err);
}

/* Nothing can be written, so all is used. */
static void stats_answer(GrpcCall *call, const VolumeStats *stats) {
    Csi__V1__NodeGetVolumeStatsResponse m = CSI__V1__NODE_GET_VOLUME_STATS_RESPONSE__INIT;
    Csi__V1__VolumeCondition condition = CSI__V1__VOLUME_CONDITION__INIT;
    Csi__V1__VolumeUsage bytes = CSI__V1__VOLUME_USAGE__INIT, inodes = bytes;
    Csi__V1__VolumeUsage *usage[] = { &bytes, &inodes };

    bytes.unit = CSI__V1__VOLUME_USAGE__UNIT__BYTES;
    bytes.total = bytes.used = (int64_t)stats->bytes;
    inodes.unit = CSI__V1__VOLUME_USAGE__UNIT__INODES;
    inodes.total = inodes.used = (int64_t)stats->files;
    condition.abnormal = !stats->mounted;
    condition.message = stats->condition;
    m.usage = usage;
    m.n_usage = ELEMENTSOF(usage);
    m.volume_condition = &condition;
    service_answer(call, &m.base);
}

static void stats_done(void *arg, int r, const Err *err) {
    StatsCall *c = arg;

    if (c->call && r < 0)
        service_fail(c->call, r, err);
    else if (c->call)
        stats_answer(c->call, &c->stats);
    free(c->stats.condition);
    free(c->volume_id);
    free(c->target);
    free(c);
}

/* A path that no target of ours can be is a volume that is not found (csi-sanity asks for
 * some/path), no bad argument. */
static int stats_check(const CsiService *s, const Csi__V1__NodeGetVolumeStatsRequest *q,
                       char **ret_target, Err *err) {
    Err ignored = { "" };
    int r;

    if (isempty(q->volume_id) || isempty(q->volume_path))
        return err_set(err, -EINVAL, "the request has no %s",
                       isempty(q->volume_id) ? "volume_id" : "volume_path");
    r = service_check_volume_id(q->volume_id, &ignored);
    if (r >= 0)
        r = target_resolve(s->roots, q->volume_path, ret_target, &ignored);
    return r < 0 ? err_set(err, -ENOENT, "no volume of that id is published at that path: %s",
                           ignored.text)
                 : 0;
}

void node_get_volume_stats(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    const CsiService *s = arg;
    Csi__V1__NodeGetVolumeStatsRequest *q =
        csi__v1__node_get_volume_stats_request__unpack(NULL, n, request);
    char *target = NULL;
    Err err = { "" };
    int r = q ? stats_check(s, q, &target, &err)
              : err_set(&err, -EINVAL, "the request is no NodeGetVolumeStatsRequest");

    if (r < 0) {
        service_fail(call, r, &err);
    } else {
        StatsCall *c = xnew(StatsCall);

        *c = (StatsCall){ .call = call, .store = s->backend->store, .target = target };
        c->volume_id = xstrdup(q->volume_id);
        grpc_call_set_on_cancel(call, stats_call_on_cancel, c);
        pool_submit(s->backend->pool, stats_run, stats_done, c);
    }
    if (q)
        csi__v1__node_get_volume_stats_request__free_unpacked(q, NULL);
}

void node_get_capabilities(GrpcCall *call, _unused_ const uint8_t *request, _unused_ size_t n,
                           _unused_ void *arg) {
    static const Csi__V1__NodeServiceCapability__RPC__Type types[] = {
        CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__GET_VOLUME_STATS,
        CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__VOLUME_CONDITION,
    };
    Csi__V1__NodeServiceCapability__RPC rpcs[ELEMENTSOF(types)];
    Csi__V1__NodeServiceCapability capabilities[ELEMENTSOF(types)], *list[ELEMENTSOF(types)];
    Csi__V1__NodeGetCapabilitiesResponse m = CSI__V1__NODE_GET_CAPABILITIES_RESPONSE__INIT;

    for (size_t i = 0; i < ELEMENTSOF(types); i++) {
        csi__v1__node_service_capability__rpc__init(&rpcs[i]);
        csi__v1__node_service_capability__init(&capabilities[i]);
        rpcs[i].type = types[i];
        capabilities[i].type_case = CSI__V1__NODE_SERVICE_CAPABILITY__TYPE_RPC;
        capabilities[i].rpc = &rpcs[i];
        list[i] = &capabilities[i];
    }
    m.capabilities = list;
    m.n_capabilities = ELEMENTSOF(types);
    service_answer(call, &m.base);
}

void node_get_info(GrpcCall *call, _unused_ const uint8_t *request, _unused_ size_t n, void *arg) {
    const CsiService *s = arg;
    Csi__V1__NodeGetInfoResponse m = CSI__V1__NODE_GET_INFO_RESPONSE__INIT;

    m.node_id = (char *)s->backend->node;
    service_answer(call, &m.base);
}
