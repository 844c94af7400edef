/* SPDX-License-Identifier: Apache-2.0 */
/* flight_job: the order that a worker gets, from the configuration and the reference. */
#include "agent/flight_job.h"
#include "base/log.h"
#include "base/version.h"

/* protobuf-c has no const strings; nothing writes through these. */
static char *text(const char *s) {
    return (char *)(s ? s : "");
}

/* The worker knows a registry by the host that it asks. */
static void add_registries(FlightJob *job, const PullOptions *o, const Reference *reference) {
    job->registries = xnew_n(Modelcached__Worker__RegistryConfig, MAX(o->n_registries, (size_t)1));
    job->registry_list =
        xnew_n(Modelcached__Worker__RegistryConfig *, MAX(o->n_registries, (size_t)1));
    for (size_t i = 0; i < o->n_registries; i++) {
        const PullRegistry *from = &o->registries[i];
        Modelcached__Worker__RegistryConfig *to = &job->registries[i];

        modelcached__worker__registry_config__init(to);
        to->host = streq(from->host, reference->registry) ? text(reference_api_host(reference))
                                                          : from->host;
        to->plain_http = from->plain_http;
        to->skip_verify = from->skip_verify;
        to->ca_pem.data = (uint8_t *)from->ca_pem;
        to->ca_pem.len = from->ca_bytes;
        to->connections = from->connections;
        job->registry_list[i] = to;
    }
    job->message.registries = job->registry_list;
    job->message.n_registries = o->n_registries;
}

static void add_credential(FlightJob *job, const Credential *c) {
    modelcached__worker__credential__init(&job->credential);
    job->credential.origin = text(c->origin);
    job->credential.username = text(c->username);
    job->credential.password = text(c->password);
    job->credential.identity_token = text(c->identity_token);
    job->credential.registry_token = text(c->registry_token);
    job->credential_list[0] = &job->credential;
    job->message.credentials = job->credential_list;
    job->message.n_credentials = 1;
}

static unsigned patient(const FlightJobSources *s, unsigned seconds) {
    return s->patience_seconds > 0 ? MIN(seconds, s->patience_seconds) : seconds;
}

void flight_job_init(FlightJob *job, const FlightJobSources *s) {
    Modelcached__Worker__Job *m = &job->message;

    *job = (FlightJob){ 0 };
    modelcached__worker__job__init(m);
    m->registry = text(reference_api_host(s->reference));
    m->repository = s->reference->repository;
    m->tag = text(s->reference->tag);
    if (s->reference->has_digest) {
        m->digest.data = (uint8_t *)s->reference->digest.bytes;
        m->digest.len = DIGEST_BYTES;
    }
    m->os = text(s->platform->os);
    m->architecture = text(s->platform->architecture);
    m->variant = text(s->platform->variant);
    m->memory_bytes = s->options->memory_bytes;
    m->first_bytes = pull_options_first_memory(s->options);
    m->connections = s->options->connections;
    m->io = s->options->io;
    m->range_min_bytes = pull_options_range_min(s->options, s->reference);
    m->stall_seconds = patient(s, s->options->stall_seconds);
    m->give_up_seconds = patient(s, s->options->give_up_seconds);
    m->page_cache = s->options->page_cache;
    m->debug = log_enabled(LOG_DEBUG);
    worker_limits_message(&job->limits, &s->limits);
    m->limits = &job->limits;
    m->file_max_bytes = s->file_max_bytes;
    m->user_agent = text("modelcached/" MC_VERSION);
    add_registries(job, s->options, s->reference);
    if (s->credential)
        add_credential(job, s->credential);
}

void flight_job_done(FlightJob *job) {
    free(job->registries);
    free(job->registry_list);
    *job = (FlightJob){ 0 };
}
