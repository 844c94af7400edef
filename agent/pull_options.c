/* SPDX-License-Identifier: Apache-2.0 */
/* pull_options: what the configuration says about pulls, with the files it names read. */
#include "agent/pull_options.h"
#include "agent/divide.h"
#include "base/fs.h"
#include "base/limits.h"

#include <fcntl.h>

#define MEMORY_USEFUL_BYTES MiB(108) /* more do not make a pull faster */

unsigned pull_options_max_running(const PullOptions *o) {
    return 2 * o->concurrent;
}

uint64_t pull_options_first_memory(const PullOptions *o) {
    return divide_first(o->memory_total_bytes, pull_options_max_running(o), o->memory_bytes);
}

PullOptions *pull_options_ref(PullOptions *o) {
    o->refs++;
    return o;
}

PullOptions *pull_options_unref(PullOptions *o) {
    if (!o || --o->refs > 0)
        return NULL;
    for (size_t i = 0; i < o->n_registries; i++) {
        free(o->registries[i].host);
        free(o->registries[i].ca_pem);
    }
    free(o->registries);
    credential_list_done(&o->credentials);
    free(o);
    return NULL;
}

/* "default", of a registry alone, is what `fallback` says. */
static AccessCheck access_check(const char *word, AccessCheck fallback) {
    return streq(word, "always")         ? ACCESS_CHECK_ALWAYS
           : streq(word, "never")        ? ACCESS_CHECK_NEVER
           : streq(word, "ifNotGranted") ? ACCESS_CHECK_IF_NOT_GRANTED
                                         : fallback;
}

const PullRegistry *pull_options_registry(const PullOptions *o, const Reference *reference) {
    for (size_t i = 0; i < o->n_registries; i++)
        if (streq(o->registries[i].host, reference->registry) ||
            streq(o->registries[i].host, reference_api_host(reference)))
            return &o->registries[i];
    return NULL;
}

uint64_t pull_options_range_min(const PullOptions *o, const Reference *reference) {
    const PullRegistry *registry = pull_options_registry(o, reference);

    return registry ? registry->range_min_bytes : o->range_min_bytes;
}

AccessCheck pull_options_access_check(const PullOptions *o, const Reference *reference) {
    const PullRegistry *registry = pull_options_registry(o, reference);

    return registry ? registry->access_check : o->access_check;
}

bool pull_options_tls_is_likely(const PullOptions *o) {
    bool likely = o->n_registries == 0;

    for (size_t i = 0; i < o->n_registries; i++)
        likely = likely || !(o->registries[i].plain_http || o->registries[i].skip_verify);
    return likely;
}

static int read_registries(PullOptions *o, const Config *config, Err *err) {
    o->registries = xnew_n(PullRegistry, MAX(config->n_registries, (size_t)1));
    for (size_t i = 0; i < config->n_registries; i++) {
        const ConfigRegistry *from = &config->registries[i];
        PullRegistry *to = &o->registries[o->n_registries++];

        *to = (PullRegistry){
            .host = xstrdup(from->host),
            .plain_http = from->plain_http,
            .skip_verify = from->skip_verify,
            .connections = (unsigned)from->connections,
            .range_min_bytes =
                from->range_min == CONFIG_SIZE_WORD ? o->range_min_bytes : from->range_min,
            .access_check = access_check(from->access_check, o->access_check),
        };
        if (*from->ca_file) {
            int r = fs_read_file(AT_FDCWD, from->ca_file, LIMIT_CA_BYTES, &to->ca_pem,
                                 &to->ca_bytes, err);
            if (r < 0)
                return err_prefix(err, r, "ca_file of registry %s", from->host);
        }
    }
    return 0;
}

static int read_credentials(PullOptions *o, const char *path, Err *err) {
    char *text = NULL;
    size_t n;
    int r;

    if (!*path)
        return 0;
    r = fs_read_file(AT_FDCWD, path, LIMIT_CREDENTIALS_BYTES, &text, &n, err);
    if (r >= 0) {
        r = credential_parse_docker(&o->credentials, text, n, err);
        r = r < 0 ? err_prefix(err, r, "%s", path) : r;
    }
    if (text)
        explicit_bzero(text, n);
    free(text);
    return r < 0 ? err_prefix(err, r, "credentials.docker_config") : 0;
}

/* Rounded up: 0 would mean something else. */
static unsigned seconds_of(uint64_t usec) {
    return (unsigned)((usec + USEC_PER_SEC - 1) / USEC_PER_SEC);
}

int pull_options_new(PullOptions **ret, const Config *config, Err *err) {
    _cleanup_(pull_options_unrefp) PullOptions *o = xnew(PullOptions);
    int r;

    o->refs = 1;
    o->concurrent = (unsigned)config->pull_concurrent;
    o->connections = (unsigned)config->pull_connections;
    o->memory_bytes = MIN(config->pull_memory, MEMORY_USEFUL_BYTES);
    o->memory_total_bytes = config->pull_memory_total;
    o->range_min_bytes = config->pull_range_min;
    o->stall_seconds = seconds_of(config->pull_stall_timeout);
    o->give_up_seconds = seconds_of(config->pull_give_up);
    o->background_bandwidth = config->pull_background_bandwidth;
    o->standby_usec = config->pull_standby;
    o->page_cache = config->pull_page_cache;
    o->access_check = access_check(config->access_check, ACCESS_CHECK_IF_NOT_GRANTED);
    o->access_open = streq(config->access_unreachable, "allow");
    o->access_lifetime_usec = config->access_lifetime;
    o->io = streq(config->pull_io, "uring")     ? MODELCACHED__WORKER__IO_MODE__IO_URING
            : streq(config->pull_io, "threads") ? MODELCACHED__WORKER__IO_MODE__IO_THREADS
                                                : MODELCACHED__WORKER__IO_MODE__IO_AUTO;
    r = read_registries(o, config, err);
    if (r >= 0)
        r = read_credentials(o, config->credentials_docker_config, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(o);
    return 0;
}
