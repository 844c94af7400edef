/* SPDX-License-Identifier: Apache-2.0 */
/* registration: tells the kubelet of the driver. */
#include "csi/registration.h"

#include "base/log.h"
#include "csi/params.h"
#include "csi/service.h"

#include "proto/registration.pb-c.h"

struct Registration {
    GrpcServer *server;
    GrpcMethod methods[3];
    Endpoint *socket;
    char *driver, *endpoint;
    char state[300];
};

static void on_get_info(GrpcCall *call, _unused_ const uint8_t *request, _unused_ size_t n,
                        void *arg) {
    Registration *reg = arg;
    char version[] = "1.0.0", type[] = "CSIPlugin";
    char *versions[] = { version };
    Pluginregistration__PluginInfo m = PLUGINREGISTRATION__PLUGIN_INFO__INIT;

    if (streq(reg->state, "not asked yet"))
        (void)snprintf(reg->state, sizeof(reg->state), "asked");
    m.type = type;
    m.name = reg->driver;
    m.endpoint = reg->endpoint;
    m.supported_versions = versions;
    m.n_supported_versions = ELEMENTSOF(versions);
    service_answer(call, &m.base);
}

/* Says a change once: newer kubelets repeat theirs. */
static void registration_note(Registration *reg, bool registered, const char *error) {
    char state[sizeof(reg->state)];

    (void)snprintf(state, sizeof(state), "%s",
                   registered                ? "registered"
                   : isempty(error)          ? "refused without a reason"
                   : !params_is_plain(error) ? "refused for a reason that cannot be shown"
                                             : error);
    if (streq(state, reg->state))
        return;
    memcpy(reg->state, state, sizeof(state));
    if (registered)
        log_info("the kubelet registered the driver %s", reg->driver);
    else
        log_error("the kubelet did not register the driver %s: %s; it tries again by itself",
                  reg->driver, reg->state);
}

static void on_status(GrpcCall *call, const uint8_t *request, size_t n, void *arg) {
    Pluginregistration__RegistrationStatus *q =
        pluginregistration__registration_status__unpack(NULL, n, request);
    Pluginregistration__RegistrationStatusResponse m =
        PLUGINREGISTRATION__REGISTRATION_STATUS_RESPONSE__INIT;

    if (!q) {
        grpc_call_fail(call, GRPC_INVALID_ARGUMENT, "the request is no RegistrationStatus");
        return;
    }
    registration_note(arg, q->plugin_registered, q->error);
    pluginregistration__registration_status__free_unpacked(q, NULL);
    service_answer(call, &m.base);
}

int registration_new(Registration **ret, const RegistrationOptions *options, Err *err) {
    _cleanup_(registration_freep) Registration *reg = xnew(Registration);
    _cleanup_free_ char *path = xasprintf("%s/%s-reg.sock", options->directory, options->driver);
    int r;

    reg->driver = xstrdup(options->driver);
    reg->endpoint = xstrdup(options->endpoint);
    (void)snprintf(reg->state, sizeof(reg->state), "not asked yet");
    reg->methods[0] =
        (GrpcMethod){ "/pluginregistration.Registration/GetInfo", false, on_get_info, reg };
    reg->methods[1] = (GrpcMethod){ "/pluginregistration.Registration/NotifyRegistrationStatus",
                                    false, on_status, reg };
    r = grpc_server_new(&reg->server,
                        &(GrpcServerOptions){ .event = options->event,
                                              .name = "registration",
                                              .methods = reg->methods },
                        err);
    if (r >= 0)
        r = endpoint_new(
            &reg->socket,
            &(EndpointOptions){
                .event = options->event,
                .server = reg->server,
                .path = path,
                .what = "the registration socket (csi.registration_dir; empty turns it off)",
                .after = options->csi },
            err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(reg);
    return 0;
}

Registration *registration_free(Registration *r) {
    if (!r)
        return NULL;
    r->socket = endpoint_free(r->socket);
    r->server = grpc_server_free(r->server);
    free(r->driver);
    free(r->endpoint);
    free(r);
    return NULL;
}

const char *registration_state(const Registration *r) {
    return endpoint_is_there(r->socket) ? r->state : "cannot be asked";
}
