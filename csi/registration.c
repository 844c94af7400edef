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
    RegistrationState state;
    char detail[300];
};

static const char *const state_names[] = {
    [REGISTRATION_OFF] = "off",
    [REGISTRATION_WAITING] = "waiting",
    [REGISTRATION_DONE] = "registered",
    [REGISTRATION_REFUSED] = "refused",
};

const char *registration_state_name(RegistrationState s) {
    return state_names[s];
}

static void set_state(Registration *reg, RegistrationState state, const char *detail) {
    reg->state = state;
    (void)snprintf(reg->detail, sizeof(reg->detail), "%s", detail);
}

static void on_get_info(GrpcCall *call, _unused_ const uint8_t *request, _unused_ size_t n,
                        void *arg) {
    Registration *reg = arg;
    char version[] = "1.0.0", type[] = "CSIPlugin";
    char *versions[] = { version };
    Pluginregistration__PluginInfo m = PLUGINREGISTRATION__PLUGIN_INFO__INIT;

    if (reg->state == REGISTRATION_WAITING)
        set_state(reg, REGISTRATION_WAITING, "the kubelet has asked and not decided yet");
    m.type = type;
    m.name = reg->driver;
    m.endpoint = reg->endpoint;
    m.supported_versions = versions;
    m.n_supported_versions = ELEMENTSOF(versions);
    service_answer(call, &m.base);
}

/* Says a change once: newer kubelets repeat theirs. */
static void registration_note(Registration *reg, bool registered, const char *error) {
    RegistrationState state = registered ? REGISTRATION_DONE : REGISTRATION_REFUSED;
    char before[sizeof(reg->detail)];
    bool same = state == reg->state;

    memcpy(before, reg->detail, sizeof(before));
    set_state(reg, state,
              registered                ? ""
              : isempty(error)          ? "refused without a reason"
              : !params_is_plain(error) ? "refused for a reason that cannot be shown"
                                        : error);
    if (same && streq(before, reg->detail))
        return;
    if (registered)
        log_info("the kubelet registered the driver %s", reg->driver);
    else
        log_error("the kubelet did not register the driver %s: %s; it tries again by itself",
                  reg->driver, reg->detail);
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
    set_state(reg, REGISTRATION_WAITING, "the kubelet has not asked yet");
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

RegistrationState registration_state(const Registration *r, const char **ret_detail) {
    bool there = endpoint_is_there(r->socket);

    *ret_detail = there ? r->detail : "the kubelet cannot ask: csi.registration_dir is not there";
    return there ? r->state : REGISTRATION_WAITING;
}
