/* SPDX-License-Identifier: Apache-2.0 */
/* identity: the Identity service of CSI v1 (spec.md, "Identity Service RPC"). */
#include "csi/service.h"

#include "base/limits.h"

void service_answer(GrpcCall *call, const ProtobufCMessage *message) {
    size_t n = protobuf_c_message_get_packed_size(message);
    _cleanup_free_ uint8_t *bytes = xnew_n(uint8_t, n);

    grpc_call_finish(call, bytes, protobuf_c_message_pack(message, bytes));
}

void service_fail(GrpcCall *call, int r, const Err *err) {
    grpc_call_fail(call, status_from_errno(r), err_text(err, r));
}

int service_check_volume_id(const char *volume_id, Err *err) {
    if (isempty(volume_id))
        return err_set(err, -EINVAL, "the request has no volume_id");
    if (strlen(volume_id) > LIMIT_VOLUME_ID_BYTES)
        return err_set(err, -EINVAL, "volume_id has %zu bytes; at most %d are taken",
                       strlen(volume_id), LIMIT_VOLUME_ID_BYTES);
    if (!params_is_plain(volume_id))
        return err_set(err, -EINVAL, "volume_id has a control character or is not UTF-8");
    if (startswith(volume_id, VOLUME_ID_CONTROL))
        return err_set(err, -EINVAL,
                       "volume_id begins with \"%s\", which is kept for cache-ctl mount",
                       VOLUME_ID_CONTROL);
    return 0;
}

void identity_get_plugin_info(GrpcCall *call, _unused_ const uint8_t *request, _unused_ size_t n,
                              void *arg) {
    const CsiService *s = arg;
    Csi__V1__GetPluginInfoResponse m = CSI__V1__GET_PLUGIN_INFO_RESPONSE__INIT;

    m.name = s->driver;
    m.vendor_version = s->version;
    service_answer(call, &m.base);
}

/* None: there is no controller, and every node shows the same content. */
void identity_get_plugin_capabilities(GrpcCall *call, _unused_ const uint8_t *request,
                                      _unused_ size_t n, _unused_ void *arg) {
    Csi__V1__GetPluginCapabilitiesResponse m = CSI__V1__GET_PLUGIN_CAPABILITIES_RESPONSE__INIT;

    service_answer(call, &m.base);
}

/* The socket is served only once the store is open and volumes are recovered: who asks finds it
 * ready. */
void identity_probe(GrpcCall *call, _unused_ const uint8_t *request, _unused_ size_t n,
                    _unused_ void *arg) {
    Csi__V1__ProbeResponse m = CSI__V1__PROBE_RESPONSE__INIT;
    Csi__V1__BoolValue ready = CSI__V1__BOOL_VALUE__INIT;

    ready.value = true;
    m.ready = &ready;
    service_answer(call, &m.base);
}
