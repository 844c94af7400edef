/* SPDX-License-Identifier: Apache-2.0 */
/* pull_setup: what a job needs from the host: made before the sandbox closes, or behind it. */
#include "oci/pull_setup.h"

#include "base/limits.h"
#include "base/log.h"
#include "oci/http.h"
#include "oci/ref.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>

#define BUFFER_BYTES     MiB(1)
#define FILL_BYTES       MiB(2) /* a huge page: 5 ms at most */
#define THREADS_DEPTH    16     /* with more, the hash would wait long for its threads */
#define HASH_THREADS_MAX 8
#define DECODERS_MAX     4
#define LISTS_BYTES      (2 * LIMIT_WORKER_ENTRY_BYTES)
#define CONNECTIONS_MAX  64

typedef Modelcached__Worker__Ahead Ahead;
typedef Modelcached__Worker__Job Job;
typedef Modelcached__Worker__RegistryConfig RegistryConfig;

void pull_setup_buffers(uint64_t memory_bytes, size_t *ret_buffer_bytes, unsigned *ret_n) {
    uint64_t bytes = BUFFER_BYTES;

    while (bytes > KiB(64) && memory_bytes / bytes < 8)
        bytes /= 2;
    *ret_buffer_bytes = (size_t)bytes;
    *ret_n = (unsigned)MAX(memory_bytes / bytes, (uint64_t)PULL_BUFFERS_MIN);
}

static unsigned n_cpus(void) {
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : (unsigned)CPU_COUNT(&set);
}

static const RegistryConfig *config_of(const Job *job) {
    for (size_t i = 0; i < job->n_registries; i++)
        if (streq(job->registries[i]->host, job->registry))
            return job->registries[i];
    return NULL;
}

/* Of this pull, whatever the daemon grants it later. */
static unsigned max_connections(const Job *job) {
    const RegistryConfig *config = config_of(job);
    unsigned n = MIN(job->connections, (unsigned)CONNECTIONS_MAX);

    if (config && config->connections > 0)
        n = MIN(n, config->connections);
    return MAX(n, 1U);
}

/* The CAs of the system and those of the registry. */
static Trust *trusted(PullSetup *s, const RegistryConfig *config) {
    Trust *t = TAKE_PTR(s->trust);

    if (t && !trust_is_current(t))
        t = trust_free(t);
    if (!t) {
        t = trust_new();
        trust_add_system(t);
    }
    if (config && config->ca_pem.len > 0)
        trust_add(t, (const char *)config->ca_pem.data,
                  MIN(config->ca_pem.len, (size_t)LIMIT_CA_BYTES));
    return t;
}

/* May it redirect to private addresses?  An operator who configures a registry trusts it with that;
 * one that has a private address or a name of the local network is in there anyway. */
static bool is_private(const Job *job, const RegistryConfig *config) {
    _cleanup_free_ char *host = xstrdup(job->registry);
    char *colon = strrchr(host, ':');
    struct in_addr a;
    uint32_t ip;

    if (config || host[0] == '[')
        return true;
    if (colon)
        *colon = '\0';
    if (!strchr(host, '.') || endswith(host, ".svc") || endswith(host, ".local") ||
        endswith(host, ".internal"))
        return true;
    if (inet_pton(AF_INET, host, &a) != 1)
        return false;
    ip = ntohl(a.s_addr);
    return ip >> 24 == 10 || ip >> 24 == 127 || ip >> 20 == 0xac1 || ip >> 16 == 0xc0a8 ||
           ip >> 16 == 0xa9fe;
}

static int open_registry(PullSetup *s, const Job *job, Err *err) {
    const RegistryConfig *config = config_of(job);
    Reference reference = { .registry = job->registry };
    CredentialList list = { .n = job->n_credentials };
    RegistryOptions options;

    list.items = s->credentials = xnew_n(Credential, job->n_credentials);
    for (size_t i = 0; i < list.n; i++) {
        const Modelcached__Worker__Credential *c = job->credentials[i];

        list.items[i] = (Credential){
            .origin = c->origin,
            .username = *c->username ? c->username : NULL,
            .password = *c->password ? c->password : NULL,
            .identity_token = *c->identity_token ? c->identity_token : NULL,
            .registry_token = *c->registry_token ? c->registry_token : NULL,
        };
    }
    options = (RegistryOptions){
        .event = s->event,
        .host = reference_api_host(&reference),
        .registry = job->registry,
        .repository = job->repository,
        .plain_http = config && config->plain_http,
        .skip_verify = config && config->skip_verify,
        .trust = trusted(s, config),
        .credential = credential_find(&list, job->registry, job->repository),
        .user_agent = *job->user_agent ? job->user_agent : NULL,
        .max_connections = s->connections,
        .stall_seconds = job->stall_seconds,
        .allow_private_redirects = is_private(job, config),
    };
    return registry_new(&s->registry, &options, err);
}

static int open_ring(PullSetup *s, const Job *job, RingMode mode, Err *err) {
    RingOptions options = {
        .event = s->event,
        .pool = s->pool,
        .mode = mode,
        .memory = &s->memory,
        .restrict_ops = true,
    };

    pull_setup_buffers(job->memory_bytes, &options.buffer_bytes, &options.n_buffers);
    options.n_first =
        (unsigned)MIN(job->first_bytes / options.buffer_bytes, (uint64_t)options.n_buffers);
    /* All at once, so that the disk has enough to do until we come to look again. */
    options.depth = mode == RING_URING ? options.n_buffers : THREADS_DEPTH;
    return ring_new(&s->ring, &options, err);
}

/* io_uring is set up before the sandbox, which refuses new rings; threads after it, so that they
 * are confined. */
static int try_uring(PullSetup *s, const Job *job, Err *err) {
    Err why;
    int r;

    if (job->io == MODELCACHED__WORKER__IO_MODE__IO_THREADS) {
        (void)snprintf(s->ring_detail, sizeof(s->ring_detail), "threads, as configured");
        return 0;
    }
    r = open_ring(s, job, RING_URING, &why);
    s->ring_active = r >= 0;
    if (r < 0 && job->io == MODELCACHED__WORKER__IO_MODE__IO_URING)
        return err_set(err, r, "%s", err_text(&why, r));
    if (r < 0)
        (void)snprintf(s->ring_detail, sizeof(s->ring_detail), "threads instead: %.120s",
                       err_text(&why, r));
    return 0;
}

static int start_threads(PullSetup *s, const Job *job, Err *err) {
    int r = pool_new(&s->pool, s->event,
                     MIN(MIN(n_cpus() + 1, s->transfers + 1), (unsigned)HASH_THREADS_MAX), err);

    if (r >= 0)
        r = pool_new(&s->decoders, s->event, s->n_decoders, err);
    if (r >= 0 && !s->ring)
        r = open_ring(s, job, RING_THREADS, err);
    return r;
}

/* Lists of entries may need more than all content. */
static uint64_t file_max(const Job *job) {
    return job->file_max_bytes > 0 ? MIN(job->file_max_bytes, LIMIT_BLOB_BYTES) + LISTS_BYTES : 0;
}

/* Plain http may redirect to TLS: so the file is read in any case, but seldom needs to be parsed.
 */
static int read_trust_ahead(PullSetup *s, bool tls, Err *err) {
    (void)trust_free(s->trust);
    s->trust = trust_new();
    trust_add_system(s->trust);
    return tls ? trust_load(s->trust, err) : 0;
}

static int fill_memory_ahead(PullSetup *s, const Ahead *ahead, const Channel *c, Err *err) {
    size_t each;
    unsigned n;
    int r;

    ring_memory_done(&s->memory);
    if (ahead->memory_bytes == 0)
        return 0;
    pull_setup_buffers(ahead->memory_bytes, &each, &n);
    r = ring_memory_map(&s->memory, n, each, err);
    for (uint64_t i = 0; r >= 0 && i < ahead->fill_bytes && !channel_has_more(c); i += FILL_BYTES)
        ring_memory_fill(&s->memory, (size_t)i, (size_t)MIN(ahead->fill_bytes - i, FILL_BYTES));
    return r;
}

/* The job meets what fails here once more, if it needs that. */
void pull_setup_ahead(PullSetup *s, const Ahead *ahead, const Channel *c) {
    Err err;
    int r = http_load(&err);

    if (r >= 0)
        r = read_trust_ahead(s, ahead->tls, &err);
    if (r < 0)
        log_debug("%s", err_text(&err, r));
    r = fill_memory_ahead(s, ahead, c, &err);
    if (r < 0)
        log_debug("%s", err_text(&err, r));
}

int pull_setup(PullSetup *s, const Job *job, int dir_fd, Err *err) {
    SandboxOptions sandbox = { .dir_fd = dir_fd, .file_max_bytes = file_max(job) };
    size_t buffer_bytes;
    int r;

    r = sd_event_new(&s->event);
    if (r < 0)
        return err_errnum(err, r, "the pull worker cannot make an event loop");
    pull_setup_buffers(job->memory_bytes, &buffer_bytes, &s->n_buffers);
    s->connections = max_connections(job);
    s->transfers = MAX(MIN(s->connections, s->n_buffers / 2), 1U);
    resume_boot_id(s->boot);
    s->n_decoders = MIN(MIN(s->transfers, n_cpus()), (unsigned)DECODERS_MAX);
    r = try_uring(s, job, err);
    if (r >= 0 && !job->probe)
        r = open_registry(s, job, err);
    if (r >= 0)
        r = sandbox_enter(&sandbox, s->features, err);
    if (r >= 0 && !job->probe)
        r = start_threads(s, job, err);
    ring_memory_done(&s->memory); /* what the ring could not use */
    return r;
}

void pull_setup_done(PullSetup *s) {
    s->registry = registry_free(s->registry);
    s->trust = trust_free(s->trust);
    free(TAKE_PTR(s->credentials));
    s->ring = ring_free(s->ring);
    s->decoders = pool_free(s->decoders);
    s->pool = pool_free(s->pool);
    s->event = sd_event_unref(s->event);
}
