/* SPDX-License-Identifier: Apache-2.0 */
/* server: the CSI plugin on its socket, and its registration with the kubelet. */
#include "csi/server.h"

#include "base/fs.h"
#include "csi/service.h"

/* All that is served; anything else is UNIMPLEMENTED (staging, expansion, the Controller). */
static const struct {
    const char *path;
    void (*handle)(GrpcCall *call, const uint8_t *request, size_t n, void *arg);
} csi_methods[] = {
    { "/csi.v1.Identity/GetPluginInfo", identity_get_plugin_info },
    { "/csi.v1.Identity/GetPluginCapabilities", identity_get_plugin_capabilities },
    { "/csi.v1.Identity/Probe", identity_probe },
    { "/csi.v1.Node/NodePublishVolume", node_publish_volume },
    { "/csi.v1.Node/NodeUnpublishVolume", node_unpublish_volume },
    { "/csi.v1.Node/NodeGetVolumeStats", node_get_volume_stats },
    { "/csi.v1.Node/NodeGetCapabilities", node_get_capabilities },
    { "/csi.v1.Node/NodeGetInfo", node_get_info },
};

struct CsiServer {
    CsiService service;
    GrpcMethod methods[ELEMENTSOF(csi_methods) + 1];
    GrpcServer *grpc;
    Endpoint *socket;
    Registration *registration; /* NULL: off */
    void (*on_call)(void *arg, unsigned method, GrpcCode code);
    void *arg;
};

const char *csi_method_name(unsigned method) {
    if (method < ELEMENTSOF(csi_methods))
        return strrchr(csi_methods[method].path, '/') + 1;
    return method == ELEMENTSOF(csi_methods) ? "other" : NULL;
}

static void on_call(void *arg, const char *path, GrpcCode code) {
    CsiServer *s = arg;
    unsigned method = 0;

    while (method < ELEMENTSOF(csi_methods) && (!path || !streq(csi_methods[method].path, path)))
        method++;
    if (s->on_call)
        s->on_call(s->arg, method, code);
}

/* spec.md, GetPluginInfo: a domain name; csi-sanity wants letters at both ends. */
static bool driver_name_is_valid(const char *name) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char all[] = "-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t n = strlen(name);

    return n >= 2 && n <= 63 && strspn(name, all) == n && strchr(letters, name[0]) &&
           strchr(letters, name[n - 1]);
}

static int csi_server_check(const CsiServerOptions *o, Err *err) {
    if (!driver_name_is_valid(o->driver))
        return err_set(
            err, -EINVAL,
            "csi.driver \"%.100s\" has to be 2 to 63 letters, digits, '-', '.', '_', with "
            "letters at both ends",
            o->driver);
    if (isempty(o->backend->node) || strlen(o->backend->node) > 256)
        return err_set(err, -EINVAL,
                       "the node's name (node, $NODE_NAME) has to have 1 to 256 bytes");
    if (!path_is_clean_absolute(o->socket))
        return err_set(err, -EINVAL,
                       "csi.endpoint \"%.200s\" has to be unix:// and an absolute path without "
                       "\".\" and \"..\"",
                       o->socket);
    return 0;
}

static int csi_server_listen(CsiServer *s, const CsiServerOptions *o, Err *err) {
    int r;

    for (size_t i = 0; i < ELEMENTSOF(csi_methods); i++)
        s->methods[i] =
            (GrpcMethod){ csi_methods[i].path, false, csi_methods[i].handle, &s->service };
    r = grpc_server_new(
        &s->grpc,
        &(GrpcServerOptions){
            .event = o->event, .name = "csi", .methods = s->methods, .on_call = on_call, .arg = s },
        err);
    /* plugins/ is the kubelet's, plugins/<driver>/ ours. */
    if (r >= 0)
        r = endpoint_new(&s->socket,
                         &(EndpointOptions){ .event = o->event,
                                             .server = s->grpc,
                                             .path = o->socket,
                                             .what = "the CSI socket (csi.endpoint)",
                                             .make_directory = true },
                         err);
    if (r < 0 || isempty(o->registration_dir))
        return r;
    return registration_new(
        &s->registration,
        &(RegistrationOptions){
            .event = o->event,
            .directory = o->registration_dir,
            .driver = o->driver,
            .endpoint = isempty(o->registration_endpoint) ? o->socket : o->registration_endpoint,
            .csi = s->socket,
        },
        err);
}

int csi_server_new(CsiServer **ret, const CsiServerOptions *options, Err *err) {
    _cleanup_(csi_server_freep) CsiServer *s = xnew(CsiServer);
    int r = csi_server_check(options, err);

    s->on_call = options->on_call;
    s->arg = options->arg;
    s->service = (CsiService){
        .event = sd_event_ref(options->event),
        .backend = options->backend,
        .volumes = options->volumes,
        .driver = xstrdup(options->driver),
        .version = xstrdup(options->version),
    };
    if (r >= 0)
        r = target_roots_new(&s->service.roots, options->kubelet_dirs, err);
    if (r >= 0)
        r = csi_server_listen(s, options, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

void csi_server_stop(CsiServer *s, uint64_t usec, void (*done)(void *arg), void *arg) {
    s->registration = registration_free(s->registration);
    s->socket = endpoint_free(s->socket);
    grpc_server_shutdown(s->grpc, usec, done, arg);
}

CsiServer *csi_server_free(CsiServer *s) {
    if (!s)
        return NULL;
    s->registration = registration_free(s->registration);
    s->socket = endpoint_free(s->socket);
    s->grpc = grpc_server_free(s->grpc);
    s->service.roots = target_roots_free(s->service.roots);
    s->service.event = sd_event_unref(s->service.event);
    free(s->service.driver);
    free(s->service.version);
    free(s);
    return NULL;
}

RegistrationState csi_server_registration(const CsiServer *s, const char **ret_detail) {
    *ret_detail = "";
    return s->registration ? registration_state(s->registration, ret_detail) : REGISTRATION_OFF;
}

bool csi_server_is_reachable(const CsiServer *s) {
    return grpc_server_is_reachable(s->grpc);
}
