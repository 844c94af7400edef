/* SPDX-License-Identifier: Apache-2.0 */
/* control_status: Status, Health: the daemon, its store, its confinement, what runs. */
#include "agent/control_internal.h"
#include "base/version.h"

#include <sys/utsname.h>

static int run_status(ControlWork *w, Err *err) {
    Modelcached__Control__StatusResponse *m = CONTROL_NEW(StatusResponse, status_response);
    StoreStats stats;
    int r = store_stats(w->store, &stats, err);

    w->answer = &m->base;
    if (r < 0)
        return r;
    m->store_path = xstrdup(store_path(w->store));
    m->store_filesystem = xstrdup(store_filesystem(w->store));
    m->store_bytes = stats.bytes;
    m->filesystem_bytes = stats.fs_bytes;
    m->filesystem_free_bytes = stats.fs_free_bytes;
    m->artifacts = stats.artifacts + stats.incomplete;
    m->artifacts_incomplete = stats.incomplete;
    m->objects = stats.objects;
    m->volumes = stats.volumes;
    m->partial_layers = stats.partial_layers;
    m->partial_bytes = stats.partial_bytes;
    return control_volumes(w->store, NULL, &m->volume_list, &m->n_volume_list, err);
}

static void add_features(Modelcached__Control__StatusResponse *m, const FeatureList *list) {
    m->features = xnew_n(Modelcached__Control__Feature *, MAX(list->n, (size_t)1));
    for (; m->n_features < list->n; m->n_features++) {
        const Feature *from = &list->items[m->n_features];
        Modelcached__Control__Feature *to = CONTROL_NEW(Feature, feature);
        to->name = xstrdup(from->name);
        to->active = from->active;
        to->detail = xstrdup(from->detail);
        m->features[m->n_features] = to;
    }
}

static void add_pulls(Modelcached__Control__StatusResponse *m, const Puller *puller) {
    size_t n = puller_count(puller);

    m->pulls = xnew_n(Modelcached__Control__PullProgress *, MAX(n, (size_t)1));
    for (size_t i = 0; i < n; i++) {
        FlightView v;
        flight_view(puller_get(puller, i), &v);
        if (v.state != FLIGHT_DONE) /* those are only being cleaned up */
            m->pulls[m->n_pulls++] = control_progress(puller_get(puller, i));
    }
}

static void add_health(Modelcached__Control__StatusResponse *m, const Health *health) {
    char reason[HEALTH_REASON_MAX];
    const char *detail;
    RegistrationState state = health_registration(health, &detail);

    m->ready = health_is_ready(health, reason);
    m->not_ready = xstrdup(m->ready ? "" : reason);
    m->registration = xstrdup(registration_state_name(state));
    m->registration_detail = xstrdup(detail);
    m->metrics_address = xstrdup(health->metrics_address);
    m->metrics_trouble = xstrdup(health->metrics_trouble);
}

/* What only the loop knows. */
static void finish_status(ControlWork *w) {
    Modelcached__Control__StatusResponse *m = (void *)w->answer;
    const ControlOptions *o = &w->control->o;
    const char *method = mount_method_name(o->backend->mount_method);
    struct utsname kernel;

    m->version = xstrdup(MC_VERSION);
    m->node = xstrdup(o->config->node);
    m->started_usec = w->control->started_usec;
    m->driver = xstrdup(o->config->csi_driver);
    m->csi_endpoint = xasprintf("unix://%s", o->config->csi_endpoint);
    m->mount_shape = xstrdup("tree");
    m->mount_detail =
        o->mount_detail ? xasprintf("%s: %s", method, o->mount_detail) : xstrdup(method);
    if (uname(&kernel) == 0)
        m->kernel = xstrdup(kernel.release);
    add_health(m, o->health);
    add_features(m, o->features);
    add_pulls(m, o->puller);
}

/* For probes: at once, and without a look at the store. */
void control_health(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    Modelcached__Control__HealthResponse m = MODELCACHED__CONTROL__HEALTH_RESPONSE__INIT;
    char reason[HEALTH_REASON_MAX];

    message_free(request);
    m.ready = health_is_ready(c->o.health, reason);
    m.not_ready = m.ready ? (char *)"" : reason;
    control_answer(call, &m.base);
}

void control_status(Control *c, GrpcCall *call, ProtobufCMessage *request) {
    control_work_start(c, call, request, run_status, finish_status);
}
