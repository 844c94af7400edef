/* SPDX-License-Identifier: Apache-2.0 */
/* flight_limits: what each pull that runs may use: connections, bandwidth, memory. */
#include "agent/flight_limits.h"

static DivideClaim claim_of(const Flight *p, const PullOptions *o) {
    const PullRegistry *registry = pull_options_registry(o, flight_reference(p));

    return (DivideClaim){ .registry = flight_reference(p)->registry,
                          .registry_max = registry ? registry->connections : 0,
                          .wanted = flight_is_wanted(p),
                          .has_some = flight_connections(p) > 0,
                          .memory_max = flight_memory_max(p),
                          .memory = flight_memory(p) };
}

static DivideNode node_of(Flight *const running[], size_t n, const PullOptions *o,
                          const FlightWorkers *workers) {
    DivideNode node = { .connections = o->connections,
                        .pulls = pull_options_max_running(o),
                        .first = pull_options_first_memory(o),
                        .memory = o->memory_total_bytes,
                        .taken = workers->memory,
                        .takers = workers->n };

    for (size_t i = 0; i < n; i++)
        node.idle += flight_is_idle(running[i]) ? flight_memory(running[i]) : 0;
    return node;
}

/* Of each pull that has blobs to fetch, in their order; the caller frees them. */
static DivideClaim *divide(Flight *const running[], size_t n, const PullOptions *o,
                           const FlightWorkers *workers, size_t *ret_n) {
    DivideClaim *claims = xnew_n(DivideClaim, MAX(n, (size_t)1));
    const DivideNode node = node_of(running, n, o, workers);

    *ret_n = 0;
    for (size_t i = 0; i < n; i++)
        if (flight_is_fetching(running[i]))
            claims[(*ret_n)++] = claim_of(running[i], o);
    divide_among(&node, claims, *ret_n);
    return claims;
}

/* Bytes a second of each background pull; 0: no limit. */
static uint64_t background_share(const PullOptions *o, const DivideClaim *claims, size_t n) {
    uint64_t bandwidth = o->background_bandwidth;
    unsigned among = 0;

    for (size_t i = 0; i < n; i++)
        among += !claims[i].wanted && claims[i].given > 0;
    return bandwidth > 0 ? MAX(bandwidth / MAX(among, 1U), (uint64_t)1) : 0;
}

void flight_limits_set(Flight *const running[], size_t n, const PullOptions *o,
                       const FlightWorkers *workers) {
    size_t n_claims, used = 0;
    _cleanup_free_ DivideClaim *claims = divide(running, n, o, workers, &n_claims);
    uint64_t share = background_share(o, claims, n_claims);

    for (size_t i = 0; i < n; i++) {
        Flight *p = running[i];
        DivideClaim claim = flight_is_fetching(p) ? claims[used++]
                                                  : (DivideClaim){ .wanted = flight_is_wanted(p),
                                                                   .memory = flight_memory(p) };

        flight_set_limits(p,
                          &(WorkerLimits){ .connections = claim.given,
                                           .bytes_per_second = claim.wanted ? 0 : share,
                                           .memory_bytes = claim.memory,
                                           .background = !claim.wanted },
                          claim.lack);
    }
}
