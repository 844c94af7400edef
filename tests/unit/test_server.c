/* SPDX-License-Identifier: Apache-2.0 */
/* test_server: Identity, Node and registration over real sockets, with a fake backend and real
 * mounts. */
#include "csi/server.h"

#include "tests/helpers/grpc_wait.h"
#include "tests/unit/csi_env.h"

#include "proto/csi.pb-c.h"
#include "proto/registration.pb-c.h"

#define DRIVER "csi.modelcached.dev"

typedef struct Served {
    Env *env;
    CsiServer *server;
    GrpcClient *client;
    char *socket, *registration;
    unsigned n_calls, method; /* the last call, as it was counted */
    GrpcCode code;
} Served;

static Served *served_free(Served *s) {
    s->client = grpc_client_free(s->client);
    s->server = csi_server_free(s->server);
    s->env = env_free(s->env);
    free(s->socket);
    free(s->registration);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(Served, served_free);

static void count_call(void *arg, unsigned method, GrpcCode code) {
    Served *s = arg;

    s->n_calls++;
    s->method = method;
    s->code = code;
}

static int serve(Served *s, const char *driver, const char *registration_dir, Err *err) {
    Env *env = s->env;

    return csi_server_new(&s->server,
                          &(CsiServerOptions){
                              .event = env->event,
                              .backend = &env->backend,
                              .volumes = env->volumes,
                              .driver = driver,
                              .version = "1.2.3",
                              .socket = s->socket,
                              .kubelet_dirs = (const char *[]){ env->kubelet, NULL },
                              .registration_dir = registration_dir,
                              .on_call = count_call,
                              .arg = s,
                          },
                          err);
}

static Served *served_new(void) {
    Served *s = xnew(Served);
    Err err = { "" };

    s->env = env_new();
    s->socket = xasprintf("%s/plugin/csi.sock", tmpdir_path(s->env->dir));
    s->registration = xasprintf("%s/" DRIVER "-reg.sock", tmpdir_path(s->env->dir));
    if (serve(s, DRIVER, tmpdir_path(s->env->dir), &err) < 0)
        test_fail(__FILE__, __LINE__, "%s", err.text);
    ASSERT_OK(grpc_client_new(&s->client, s->env->event, s->socket, &err));
    return s;
}

/* Calls, and returns the status as an errno. */
static int call(const Served *s, GrpcClient *client, const char *path, const ProtobufCMessage *m,
                Buf *answer, Err *err) {
    size_t n = m ? protobuf_c_message_get_packed_size(m) : 0;
    _cleanup_free_ uint8_t *bytes = xnew_n(uint8_t, n);

    if (m)
        (void)protobuf_c_message_pack(m, bytes);
    *answer = BUF_INIT(MiB(1));
    return grpc_wait(
        client, s->env->event,
        &(GrpcClientRequest){
            .path = path, .message = bytes, .n = n, .timeout_usec = 20 * USEC_PER_SEC },
        answer, err);
}

TEST(identity) {
    _cleanup_(served_freep) Served *s = served_new();
    _cleanup_(buf_done) Buf a = BUF_INIT(0), b = BUF_INIT(0), c = BUF_INIT(0);
    Csi__V1__GetPluginInfoResponse *info;
    Csi__V1__GetPluginCapabilitiesResponse *capabilities;
    Csi__V1__ProbeResponse *probe;
    Err err;

    ASSERT_OK(call(s, s->client, "/csi.v1.Identity/GetPluginInfo", NULL, &a, &err));
    info = csi__v1__get_plugin_info_response__unpack(NULL, a.len, a.data);
    ASSERT_STREQ(info->name, DRIVER);
    ASSERT_STREQ(info->vendor_version, "1.2.3");
    csi__v1__get_plugin_info_response__free_unpacked(info, NULL);

    ASSERT_OK(call(s, s->client, "/csi.v1.Identity/GetPluginCapabilities", NULL, &b, &err));
    capabilities = csi__v1__get_plugin_capabilities_response__unpack(NULL, b.len, b.data);
    ASSERT_EQ(capabilities->n_capabilities, 0);
    csi__v1__get_plugin_capabilities_response__free_unpacked(capabilities, NULL);

    ASSERT_OK(call(s, s->client, "/csi.v1.Identity/Probe", NULL, &c, &err));
    probe = csi__v1__probe_response__unpack(NULL, c.len, c.data);
    ASSERT_TRUE(probe->ready && probe->ready->value);
    csi__v1__probe_response__free_unpacked(probe, NULL);
}

TEST(node_info_and_capabilities) {
    _cleanup_(served_freep) Served *s = served_new();
    _cleanup_(buf_done) Buf a = BUF_INIT(0), b = BUF_INIT(0);
    Csi__V1__NodeGetInfoResponse *info;
    Csi__V1__NodeGetCapabilitiesResponse *capabilities;
    Err err;

    ASSERT_OK(call(s, s->client, "/csi.v1.Node/NodeGetInfo", NULL, &a, &err));
    info = csi__v1__node_get_info_response__unpack(NULL, a.len, a.data);
    ASSERT_STREQ(info->node_id, "node-1");
    ASSERT_TRUE(!info->accessible_topology);
    csi__v1__node_get_info_response__free_unpacked(info, NULL);

    ASSERT_OK(call(s, s->client, "/csi.v1.Node/NodeGetCapabilities", NULL, &b, &err));
    capabilities = csi__v1__node_get_capabilities_response__unpack(NULL, b.len, b.data);
    ASSERT_EQ(capabilities->n_capabilities, 2);
    ASSERT_EQ(capabilities->capabilities[0]->rpc->type, 2);
    ASSERT_EQ(capabilities->capabilities[1]->rpc->type, 4);
    csi__v1__node_get_capabilities_response__free_unpacked(capabilities, NULL);
}

TEST(unknown_methods_are_unimplemented) {
    static const char *const paths[] = {
        "/csi.v1.Node/NodeStageVolume",
        "/csi.v1.Node/NodeUnstageVolume",
        "/csi.v1.Node/NodeExpandVolume",
        "/csi.v1.Controller/CreateVolume",
    };
    _cleanup_(served_freep) Served *s = served_new();

    for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
        _cleanup_(buf_done) Buf answer = BUF_INIT(0);
        Err err;

        ASSERT_ERR(call(s, s->client, paths[i], NULL, &answer, &err), -ENOSYS);
    }
}

/* What a publish carries; NULL: leave it out. */
typedef struct Ask {
    const char *id, *target, *reference, *attribute, *secret;
    int mode; /* 0: SINGLE_NODE_WRITER; -1: no capability */
} Ask;

static int publish(const Served *s, const Ask *ask, Err *err) {
    Csi__V1__NodePublishVolumeRequest q = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__INIT;
    Csi__V1__VolumeCapability c = CSI__V1__VOLUME_CAPABILITY__INIT;
    Csi__V1__VolumeCapability__MountVolume mount = CSI__V1__VOLUME_CAPABILITY__MOUNT_VOLUME__INIT;
    Csi__V1__VolumeCapability__AccessMode mode = CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__INIT;
    Csi__V1__NodePublishVolumeRequest__VolumeContextEntry
        e1 = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__VOLUME_CONTEXT_ENTRY__INIT,
        e2 = e1, *context[] = { &e1, &e2 };
    Csi__V1__NodePublishVolumeRequest__SecretsEntry
        s1 = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__SECRETS_ENTRY__INIT,
        *secrets[] = { &s1 };
    _cleanup_(buf_done) Buf answer = BUF_INIT(0);
    _cleanup_free_ char *target =
        ask->target ? xasprintf("%s%s", ask->target[0] == '@' ? s->env->kubelet : "",
                                ask->target + (ask->target[0] == '@'))
                    : NULL;

    mode.mode = (Csi__V1__VolumeCapability__AccessMode__Mode)(ask->mode ? ask->mode : 1);
    c.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT;
    c.mount = &mount;
    c.access_mode = &mode;
    q.volume_capability = ask->mode < 0 ? NULL : &c;
    q.volume_id = (char *)(uintptr_t)(ask->id ? ask->id : "");
    q.target_path = target ? target : (char[]){ "" };
    e1.key = (char[]){ "reference" };
    e1.value = (char *)(uintptr_t)(ask->reference ? ask->reference : REFERENCE);
    e2.key = (char *)(uintptr_t)ask->attribute;
    e2.value = (char[]){ "x" };
    q.volume_context = context;
    q.n_volume_context = ask->attribute ? 2 : 1;
    s1.key = (char *)(uintptr_t)ask->secret;
    s1.value = (char[]){ "hunter2" };
    q.secrets = secrets;
    q.n_secrets = ask->secret ? 1 : 0;
    return call(s, s->client, "/csi.v1.Node/NodePublishVolume", &q.base, &answer, err);
}

static int unpublish(const Served *s, const char *id, const char *target, Err *err) {
    Csi__V1__NodeUnpublishVolumeRequest q = CSI__V1__NODE_UNPUBLISH_VOLUME_REQUEST__INIT;
    _cleanup_(buf_done) Buf answer = BUF_INIT(0);
    _cleanup_free_ char *path =
        xasprintf("%s%s", target[0] == '@' ? s->env->kubelet : "", target + (target[0] == '@'));

    q.volume_id = (char *)(uintptr_t)id;
    q.target_path = path;
    return call(s, s->client, "/csi.v1.Node/NodeUnpublishVolume", &q.base, &answer, err);
}

static int stats(const Served *s, const char *id, const char *path, bool *ret_abnormal, Err *err) {
    Csi__V1__NodeGetVolumeStatsRequest q = CSI__V1__NODE_GET_VOLUME_STATS_REQUEST__INIT;
    Csi__V1__NodeGetVolumeStatsResponse *m;
    _cleanup_(buf_done) Buf answer = BUF_INIT(0);
    int r;

    q.volume_id = (char *)(uintptr_t)id;
    q.volume_path = (char *)(uintptr_t)path;
    r = call(s, s->client, "/csi.v1.Node/NodeGetVolumeStats", &q.base, &answer, err);
    if (r < 0)
        return r;
    m = csi__v1__node_get_volume_stats_response__unpack(NULL, answer.len, answer.data);
    ASSERT_EQ(m->n_usage, 2);
    ASSERT_EQ(m->usage[0]->unit, CSI__V1__VOLUME_USAGE__UNIT__BYTES);
    ASSERT_EQ(m->usage[0]->used, 11);
    *ret_abnormal = m->volume_condition->abnormal;
    csi__v1__node_get_volume_stats_response__free_unpacked(m, NULL);
    return 0;
}

TEST(publish_refuses) {
    static char long_id[2000];
    static const struct {
        Ask ask;
        const char *error;
    } cases[] = {
        { { .target = "@/m" }, "no volume_id" },
        { { .id = "v" }, "no target_path" },
        { { .id = "v", .target = "@/m", .mode = -1 }, "capability is missing" },
        { { .id = "v", .target = "@/m", .mode = 5 }, "MULTI_NODE_MULTI_WRITER" },
        { { .id = "v", .target = "/etc/m" }, "not beneath" },
        { { .id = "v", .target = "@/../m" }, "must be absolute" },
        { { .id = "v", .target = "@" }, "not beneath" },
        { { .id = "v", .target = "some/path" }, "must be absolute" },
        { { .id = "ctl:/x", .target = "@/m" }, "cache-ctl" },
        { { .id = "v\x01", .target = "@/m" }, "control character" },
        { { .id = "v\xff", .target = "@/m" }, "not UTF-8" },
        { { .id = long_id, .target = "@/m" }, "at most" },
        { { .id = "v", .target = "@/m", .reference = "UPPER/../x" }, "reference" },
        { { .id = "v", .target = "@/m", .attribute = "timeOut" }, "known are reference" },
        { { .id = "v", .target = "@/m", .secret = "token" }, "known are .dockerconfigjson" },
        { { .id = "v", .target = "@/m", .secret = "password" }, "no username" },
    };
    _cleanup_(served_freep) Served *s = served_new();

    memset(long_id, 'x', sizeof(long_id) - 1);
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        Err err;

        ASSERT_ERR(publish(s, &cases[i].ask, &err), -EINVAL);
        ASSERT_STRSTR(err.text, cases[i].error);
        ASSERT_TRUE(!strstr(err.text, "hunter2"));
    }
    ASSERT_EQ(s->env->n_ensures, 0);
    ASSERT_OK(rmdir(s->env->kubelet)); /* nothing was made */
}

TEST(publish_stats_unpublish) {
    _cleanup_(served_freep) Served *s = served_new();
    _cleanup_free_ char *target = xasprintf("%s/mount", s->env->kubelet);
    bool abnormal = true;
    Err err;

    if (geteuid() != 0)
        SKIP("needs root to mount");
    ASSERT_ERR(stats(s, "v", "some/path", &abnormal, &err), -ENOENT);
    ASSERT_ERR(stats(s, "", target, &abnormal, &err), -EINVAL);
    ASSERT_ERR(stats(s, "v", "", &abnormal, &err), -EINVAL);
    ASSERT_ERR(stats(s, "v", target, &abnormal, &err), -ENOENT);
    ASSERT_OK(publish(s, &(Ask){ .id = "v", .target = "@/mount" }, &err));
    ASSERT_OK(publish(s, &(Ask){ .id = "v", .target = "@/mount" }, &err));
    ASSERT_TRUE(is_mounted(target));
    ASSERT_ERR(stats(s, "v", "some/path", &abnormal, &err), -ENOENT);
    ASSERT_OK(stats(s, "v", target, &abnormal, &err));
    ASSERT_TRUE(!abnormal);
    ASSERT_ERR(publish(s, &(Ask){ .id = "v", .target = "@/mount", .mode = 3 }, &err), -EEXIST);
    ASSERT_ERR(publish(s, &(Ask){ .id = "v", .target = "@/other" }, &err), -EBUSY);
    ASSERT_OK(unpublish(s, "v", "@/mount", &err));
    ASSERT_OK(unpublish(s, "v", "@/mount", &err));
    ASSERT_ERR(unpublish(s, "", "@/mount", &err), -EINVAL);
    ASSERT_ERR(unpublish(s, "v", "", &err), -EINVAL);
    ASSERT_ERR(unpublish(s, "v", "/etc", &err), -EINVAL);
    ASSERT_TRUE(access(target, F_OK) < 0 && errno == ENOENT);
}

typedef struct Ended {
    bool done;
    GrpcCode code;
    char text[600];
} Ended;

static void on_end(void *arg, GrpcCode code, const char *text) {
    Ended *e = arg;

    e->done = true;
    e->code = code;
    (void)snprintf(e->text, sizeof(e->text), "%s", text);
}

/* A publish that is not waited for here. */
static GrpcClientCall *begin_publish(const Served *s, uint64_t timeout_usec, Ended *e) {
    Csi__V1__NodePublishVolumeRequest q = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__INIT;
    Csi__V1__VolumeCapability c = CSI__V1__VOLUME_CAPABILITY__INIT;
    Csi__V1__VolumeCapability__MountVolume mount = CSI__V1__VOLUME_CAPABILITY__MOUNT_VOLUME__INIT;
    Csi__V1__VolumeCapability__AccessMode mode = CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__INIT;
    Csi__V1__NodePublishVolumeRequest__VolumeContextEntry
        entry = CSI__V1__NODE_PUBLISH_VOLUME_REQUEST__VOLUME_CONTEXT_ENTRY__INIT,
        *context[] = { &entry };
    _cleanup_free_ char *target = xasprintf("%s/mount", s->env->kubelet);
    uint8_t bytes[1000];
    GrpcClientCall *ret = NULL;

    mode.mode = CSI__V1__VOLUME_CAPABILITY__ACCESS_MODE__MODE__SINGLE_NODE_WRITER;
    c.access_type_case = CSI__V1__VOLUME_CAPABILITY__ACCESS_TYPE_MOUNT;
    c.mount = &mount;
    c.access_mode = &mode;
    entry.key = (char[]){ "reference" };
    entry.value = (char[]){ REFERENCE };
    q.volume_id = (char[]){ "v" };
    q.target_path = target;
    q.volume_capability = &c;
    q.volume_context = context;
    q.n_volume_context = 1;
    ASSERT_OK(grpc_client_call(s->client, &ret,
                               &(GrpcClientRequest){
                                   .path = "/csi.v1.Node/NodePublishVolume",
                                   .message = bytes,
                                   .n = csi__v1__node_publish_volume_request__pack(&q, bytes),
                                   .timeout_usec = timeout_usec,
                               },
                               &(GrpcClientHandlers){ .on_end = on_end, .arg = e }));
    return ret;
}

TEST(deadline_answers_aborted_with_progress_and_the_retry_joins) {
    _cleanup_(served_freep) Served *s = served_new();
    Ended first = { 0 }, second = { 0 };
    Err err;

    if (geteuid() != 0)
        SKIP("needs root to mount");
    s->env->answer = ANSWER_LATER;
    (void)begin_publish(s, 2 * USEC_PER_SEC, &first);
    env_run_until(s->env, &first.done);
    ASSERT_EQ(first.code, GRPC_ABORTED);
    ASSERT_STRSTR(first.text,
                  REFERENCE ": 3.2 of 14.0 GiB (23 %), 412 MiB/s, about 27 s left; the pull "
                            "goes on, the next try joins it (pull 0123456789abcdef)");
    (void)begin_publish(s, 20 * USEC_PER_SEC, &second);
    env_wait_ticket(s->env);
    env_answer(s->env);
    env_run_until(s->env, &second.done);
    ASSERT_EQ(second.code, GRPC_OK);
    ASSERT_OK(unpublish(s, "v", "@/mount", &err));
}

TEST(cancel_only_forgets) {
    _cleanup_(served_freep) Served *s = served_new();
    Ended e = { 0 };

    if (geteuid() != 0)
        SKIP("needs root to mount");
    s->env->answer = ANSWER_LATER;
    (void)grpc_client_call_cancel(begin_publish(s, 0, &e));
    env_settle(s->env);
    (void)begin_publish(s, 0, &e);
    env_settle(s->env);
    ASSERT_TRUE(!e.done);
    /* The server goes while the call waits. */
}

TEST(registration_names_the_driver_and_takes_the_verdict) {
    _cleanup_(served_freep) Served *s = served_new();
    _cleanup_(grpc_client_freep) GrpcClient *kubelet = NULL;
    _cleanup_(buf_done) Buf a = BUF_INIT(0), b = BUF_INIT(0), c = BUF_INIT(0);
    Pluginregistration__PluginInfo *info;
    Pluginregistration__RegistrationStatus status = PLUGINREGISTRATION__REGISTRATION_STATUS__INIT;
    const char *detail;
    Err err;

    ASSERT_OK(grpc_client_new(&kubelet, s->env->event, s->registration, &err));
    ASSERT_EQ(csi_server_registration(s->server, &detail), REGISTRATION_WAITING);
    ASSERT_STREQ(detail, "the kubelet has not asked yet");
    ASSERT_OK(call(s, kubelet, "/pluginregistration.Registration/GetInfo", NULL, &a, &err));
    info = pluginregistration__plugin_info__unpack(NULL, a.len, a.data);
    ASSERT_STREQ(info->type, "CSIPlugin");
    ASSERT_STREQ(info->name, DRIVER);
    ASSERT_STREQ(info->endpoint, s->socket);
    ASSERT_EQ(info->n_supported_versions, 1);
    ASSERT_STREQ(info->supported_versions[0], "1.0.0");
    pluginregistration__plugin_info__free_unpacked(info, NULL);
    ASSERT_EQ(csi_server_registration(s->server, &detail), REGISTRATION_WAITING);
    ASSERT_STREQ(detail, "the kubelet has asked and not decided yet");

    status.error = (char[]){ "no such endpoint" };
    ASSERT_OK(call(s, kubelet, "/pluginregistration.Registration/NotifyRegistrationStatus",
                   &status.base, &b, &err));
    ASSERT_EQ(csi_server_registration(s->server, &detail), REGISTRATION_REFUSED);
    ASSERT_STREQ(detail, "no such endpoint");
    status.plugin_registered = true;
    ASSERT_OK(call(s, kubelet, "/pluginregistration.Registration/NotifyRegistrationStatus",
                   &status.base, &c, &err));
    ASSERT_EQ(csi_server_registration(s->server, &detail), REGISTRATION_DONE);
    ASSERT_STREQ(detail, "");
    ASSERT_EQ(s->n_calls, 0); /* those of registration are not CSI's */
}

static const struct {
    const char *path, *name;
    GrpcCode code;
} counted[] = {
    { "/csi.v1.Identity/Probe", "Probe", GRPC_OK },
    { "/csi.v1.Node/NodePublishVolume", "NodePublishVolume", GRPC_INVALID_ARGUMENT },
    { "/csi.v1.Node/NodeStageVolume", "other", GRPC_UNIMPLEMENTED },
    { "/nothing", "other", GRPC_UNIMPLEMENTED },
};

TEST(calls_are_counted_by_method_and_code) {
    _cleanup_(served_freep) Served *s = served_new();

    for (size_t i = 0; i < ELEMENTSOF(counted); i++) {
        _cleanup_(buf_done) Buf a = BUF_INIT(0);
        Err err;

        ASSERT_ERR(MIN(call(s, s->client, counted[i].path, NULL, &a, &err), 0),
                   status_to_errno(counted[i].code));
        ASSERT_EQ(s->n_calls, i + 1);
        ASSERT_STREQ(csi_method_name(s->method), counted[i].name);
        ASSERT_EQ(s->code, counted[i].code);
    }
    for (unsigned i = 0; csi_method_name(i); i++)
        ASSERT_TRUE(!strchr(csi_method_name(i), '/'));
}

TEST(a_call_that_the_kubelet_gives_up_is_counted) {
    _cleanup_(served_freep) Served *s = served_new();
    Ended e = { 0 };

    s->env->answer = ANSWER_LATER;
    (void)begin_publish(s, 0, &e);
    env_wait_ticket(s->env);
    ASSERT_EQ(s->n_calls, 0);
    s->client = grpc_client_free(s->client);
    env_settle(s->env);
    ASSERT_EQ(s->n_calls, 1);
    ASSERT_STREQ(csi_method_name(s->method), "NodePublishVolume");
    ASSERT_EQ(s->code, GRPC_CANCELLED);
}

TEST(a_socket_that_is_gone_is_noticed) {
    _cleanup_(served_freep) Served *s = served_new();

    ASSERT_TRUE(csi_server_is_reachable(s->server));
    ASSERT_OK(unlink(s->socket));
    ASSERT_TRUE(!csi_server_is_reachable(s->server));
    ASSERT_OK(mkdir(s->socket, 0700)); /* something else in its place */
    ASSERT_TRUE(!csi_server_is_reachable(s->server));
}

static void on_stopped(void *arg) {
    *(bool *)arg = true;
}

TEST(stop_unregisters_and_ends) {
    _cleanup_(served_freep) Served *s = served_new();
    bool stopped = false;

    ASSERT_OK(access(s->registration, F_OK));
    csi_server_stop(s->server, USEC_PER_SEC, on_stopped, &stopped);
    ASSERT_TRUE(access(s->registration, F_OK) < 0);
    env_run_until(s->env, &stopped);
    s->server = csi_server_free(s->server);
    ASSERT_TRUE(access(s->socket, F_OK) < 0);
}

TEST(options_are_checked) {
    _cleanup_(served_freep) Served *s = served_new();
    const char *detail;
    static const char *const names[] = { "", "x", "1csi.x", "csi.x1", "csi x", "csi/x", "csi.x-" };
    Err err;

    s->server = csi_server_free(s->server);
    for (size_t i = 0; i < ELEMENTSOF(names); i++)
        ASSERT_ERR(serve(s, names[i], NULL, &err), -EINVAL);
    ASSERT_OK(serve(s, DRIVER, "/nowhere/at/all", &err)); /* it waits */
    ASSERT_EQ(csi_server_registration(s->server, &detail), REGISTRATION_WAITING);
    ASSERT_STRSTR(detail, "the kubelet cannot ask");
    s->server = csi_server_free(s->server);
    ASSERT_OK(serve(s, DRIVER, "", &err));
    ASSERT_EQ(csi_server_registration(s->server, &detail), REGISTRATION_OFF);
    s->server = csi_server_free(s->server);
    free(s->socket);
    s->socket = xstrdup("csi.sock");
    ASSERT_ERR(serve(s, DRIVER, "", &err), -EINVAL);
}
