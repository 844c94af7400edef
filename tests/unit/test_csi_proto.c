/* SPDX-License-Identifier: Apache-2.0 */
/* Tests that csi.proto and registration.proto are the wire formats of others: bytes made by protoc.
 */
#include "proto/csi.pb-c.h"
#include "proto/registration.pb-c.h"
#include "tests/unit/test.h"

/* Packs `message` and compares it with the hex of protoc 3.21.12 --encode. */
static void assert_packed(const ProtobufCMessage *message, const char *hex) {
    uint8_t packed[512];
    char text[1025] = "";
    size_t n = protobuf_c_message_get_packed_size(message);

    ASSERT_TRUE(n <= sizeof(packed));
    (void)protobuf_c_message_pack(message, packed);
    for (size_t i = 0; i < n; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", packed[i]);
    ASSERT_STREQ(text, hex);
}

TEST(registration_messages_are_the_kubelets) {
    Pluginregistration__PluginInfo info = PLUGINREGISTRATION__PLUGIN_INFO__INIT;
    Pluginregistration__RegistrationStatus status = PLUGINREGISTRATION__REGISTRATION_STATUS__INIT;
    char *versions[] = { (char[]){ "1.0.0" } };

    info.type = (char[]){ "CSIPlugin" };
    info.name = (char[]){ "modelcache.csi.example" };
    info.endpoint = (char[]){ "/var/lib/kubelet/plugins/x/csi.sock" };
    info.supported_versions = versions;
    info.n_supported_versions = 1;
    assert_packed(&info.base, "0a09435349506c7567696e12166d6f64656c63616368652e6373692e6578616d706c"
                              "651a232f7661722f6c69622f6b7562656c65742f706c7567696e732f782f6373692e"
                              "736f636b2205312e302e30");
    status.plugin_registered = true;
    assert_packed(&status.base, "0801");
    status.plugin_registered = false;
    status.error = (char[]){ "boom" };
    assert_packed(&status.base, "1204626f6f6d");
}

TEST(csi_answers_of_the_identity_service) {
    Csi__V1__BoolValue yes = CSI__V1__BOOL_VALUE__INIT;
    Csi__V1__ProbeResponse probe = CSI__V1__PROBE_RESPONSE__INIT;
    Csi__V1__GetPluginInfoResponse info = CSI__V1__GET_PLUGIN_INFO_RESPONSE__INIT;

    yes.value = true;
    probe.ready = &yes;
    assert_packed(&probe.base, "0a020801");
    info.name = (char[]){ "modelcache.csi.example" };
    info.vendor_version = (char[]){ "0.1.0" };
    assert_packed(&info.base, "0a166d6f64656c63616368652e6373692e6578616d706c651205302e312e30");
}

TEST(csi_answers_of_the_node_service) {
    static const Csi__V1__NodeServiceCapability__RPC__Type types[] = {
        CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__STAGE_UNSTAGE_VOLUME,
        CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__GET_VOLUME_STATS,
        CSI__V1__NODE_SERVICE_CAPABILITY__RPC__TYPE__VOLUME_CONDITION,
    };
    Csi__V1__NodeServiceCapability__RPC rpcs[3];
    Csi__V1__NodeServiceCapability capabilities[3], *list[3];
    Csi__V1__NodeGetCapabilitiesResponse response = CSI__V1__NODE_GET_CAPABILITIES_RESPONSE__INIT;
    Csi__V1__NodeGetInfoResponse info = CSI__V1__NODE_GET_INFO_RESPONSE__INIT;

    for (size_t i = 0; i < 3; i++) {
        csi__v1__node_service_capability__rpc__init(&rpcs[i]);
        rpcs[i].type = types[i];
        csi__v1__node_service_capability__init(&capabilities[i]);
        capabilities[i].type_case = CSI__V1__NODE_SERVICE_CAPABILITY__TYPE_RPC;
        capabilities[i].rpc = &rpcs[i];
        list[i] = &capabilities[i];
    }
    response.capabilities = list;
    response.n_capabilities = 3;
    assert_packed(&response.base, "0a040a0208010a040a0208020a040a020804");
    info.node_id = (char[]){ "node-1" };
    assert_packed(&info.base, "0a066e6f64652d31");
}

TEST(csi_volume_stats) {
    Csi__V1__VolumeUsage bytes = CSI__V1__VOLUME_USAGE__INIT, inodes = CSI__V1__VOLUME_USAGE__INIT;
    Csi__V1__VolumeUsage *usage[] = { &bytes, &inodes };
    Csi__V1__NodeGetVolumeStatsResponse response = CSI__V1__NODE_GET_VOLUME_STATS_RESPONSE__INIT;

    bytes.available = 10;
    bytes.total = 100;
    bytes.used = 90;
    bytes.unit = CSI__V1__VOLUME_USAGE__UNIT__BYTES;
    inodes.available = 1;
    inodes.total = 3;
    inodes.used = 2;
    inodes.unit = CSI__V1__VOLUME_USAGE__UNIT__INODES;
    response.usage = usage;
    response.n_usage = 2;
    assert_packed(&response.base, "0a08080a1064185a20010a080801100318022002");
}

TEST(csi_publish_request_is_read) {
    static const char hex[] =
        "0a076373692d61626322022f742a0a12041202726f1a020801300142240a1c6373692e73746f726167652e6b38"
        "732e696f2f657068656d6572616c120474727565420e0a05696d6167651205722f6d3a76";
    uint8_t bytes[sizeof(hex) / 2];
    Csi__V1__NodePublishVolumeRequest *request;

    for (size_t i = 0; i < sizeof(bytes); i++)
        ASSERT_EQ(sscanf(hex + 2 * i, "%2hhx", &bytes[i]), 1);
    request = csi__v1__node_publish_volume_request__unpack(NULL, sizeof(bytes), bytes);
    ASSERT_TRUE(request != NULL);
    ASSERT_STREQ(request->volume_id, "csi-abc");
    ASSERT_STREQ(request->target_path, "/t");
    ASSERT_TRUE(request->readonly);
    ASSERT_EQ(request->volume_capability->access_type_case,
              CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT);
    ASSERT_EQ(request->volume_capability->mount->n_mount_flags, 1);
    ASSERT_STREQ(request->volume_capability->mount->mount_flags[0], "ro");
    ASSERT_EQ(request->volume_capability->access_mode->mode,
              CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_WRITER);
    ASSERT_EQ(request->n_volume_context, 2);
    ASSERT_STREQ(request->volume_context[0]->value, "true");
    ASSERT_STREQ(request->volume_context[1]->key, "image");
    ASSERT_STREQ(request->volume_context[1]->value, "r/m:v");
    assert_packed(&request->base, hex);
    csi__v1__node_publish_volume_request__free_unpacked(request, NULL);
}
