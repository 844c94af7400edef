/* SPDX-License-Identifier: Apache-2.0 */
/* flight_view: how far a pull is, as numbers and as a sentence. */
#include "agent/flight_internal.h"

/* No connection is left for it. */
static bool is_parked(const Flight *p) {
    return flight_is_fetching(p) && p->limits.connections == 0;
}

/* What is waited for: a connection, what the worker says, or nothing is left to do but to wait for
 * another pull, of which nothing is told: it may be another tenant's. */
static void say_waiting(const Flight *p, char buf[static FLIGHT_WAITING_MAX]) {
    buf[0] = 0;
    if (p->state == FLIGHT_QUEUED)
        (void)snprintf(buf, FLIGHT_WAITING_MAX, "waits for a turn");
    else if (is_parked(p) && p->lack == DIVIDE_LACKS_MEMORY)
        (void)snprintf(buf, FLIGHT_WAITING_MAX,
                       "waits for memory: other pulls have all that pull.memory_total allows");
    else if (is_parked(p) && p->lack == DIVIDE_LACKS_REGISTRY)
        (void)snprintf(buf, FLIGHT_WAITING_MAX,
                       "waits for a connection: other pulls have all that registries[].connections "
                       "allows for %.255s",
                       p->reference->registry);
    else if (is_parked(p))
        (void)snprintf(buf, FLIGHT_WAITING_MAX,
                       "waits for a connection: other pulls have all that pull.connections allows");
    else if (p->state < FLIGHT_COMMITTING && *p->waiting)
        (void)snprintf(buf, FLIGHT_WAITING_MAX, "%s", p->waiting);
    for (size_t i = 0;
         !*buf && p->state == FLIGHT_FETCHING && p->n_own == 0 && i < p->manifest->n_layers; i++) {
        const Flight *owner = p->layers[i].role == SHARE_WAIT ? sharer_owner(p->sharer, i) : NULL;

        if (owner && owner != p)
            (void)snprintf(buf, FLIGHT_WAITING_MAX, "waits for layer %s that another pull fetches",
                           DIGEST_STR(&p->manifest->layers[i].digest));
    }
}

void flight_view(const Flight *p, FlightView *ret) {
    uint64_t now = now_usec();

    *ret = (FlightView){
        .state = p->state,
        .id = p->id,
        .reference = p->reference_text,
        .manifest = p->manifest,
        .artifact = !digest_is_zero(&p->given) ? &p->given : NULL,
        .digest = p->manifest && p->manifest->filter ? &p->manifest->digest
                  : !digest_is_zero(&p->given)       ? &p->given
                  : p->manifest                      ? &p->manifest->digest
                                                     : NULL,
        .bytes_done = p->bytes_done,
        .bytes_total = p->bytes_total,
        .bytes_cached = p->bytes_cached,
        .bytes_resumed = p->bytes_resumed,
        .rate = p->state == FLIGHT_FETCHING
                    ? rate_get(&p->rate, now, p->bytes_done - p->bytes_resumed)
                    : 0,
        .elapsed_usec = now - p->started_usec,
        .layers_total = p->planned ? (unsigned)(p->manifest->n_layers - p->n_left_out) : 0,
        .background = p->state == FLIGHT_QUEUED ? !flight_is_wanted(p) : p->limits.background,
    };
    for (size_t i = 0; p->planned && i < p->manifest->n_layers; i++)
        ret->layers_done += flight_view_layer(p, i).done;
    if (p->state == FLIGHT_COMMITTING || p->state == FLIGHT_DONE) {
        /* While they came they were progress; in the end they were not fetched here. */
        ret->bytes_done -= p->bytes_shared;
        ret->bytes_total -= p->bytes_shared;
        ret->bytes_cached += p->bytes_shared;
        ret->bytes_shared = p->bytes_shared;
    }
    say_waiting(p, ret->waiting);
}

bool flight_is_refused(const Flight *p) {
    return p->refused && access_is_refusal(p->worker_r);
}

FlightLayerView flight_view_layer(const Flight *p, size_t i) {
    const FlightLayer *own = &p->layers[i], *source = &p->layers[own->same_as];
    bool cached = own->cached || own->same_as != i;

    if (own->left_out)
        return (FlightLayerView){ .layer = &p->manifest->layers[i], .left_out = true };
    return (FlightLayerView){
        .layer = &p->manifest->layers[i],
        .bytes =
            cached && (own->cached || source->done) ? p->manifest->layers[i].size : source->bytes,
        .cached = cached,
        .done = own->cached || source->done,
    };
}

void flight_text(const Flight *p, char *buf, size_t n) {
    FlightView v;
    size_t used;

    flight_view(p, &v);
    switch (v.state) {
    case FLIGHT_QUEUED:
        (void)snprintf(buf, n, "queued");
        break;
    case FLIGHT_FETCHING:
        rate_text(buf, n, v.bytes_done, v.bytes_total, v.rate);
        used = strlen(buf);
        if (v.bytes_resumed > 0 && used + 1 < n)
            (void)snprintf(buf + used, n - used, "; %s of it left by an earlier try",
                           FORMAT_BYTES(v.bytes_resumed));
        break;
    case FLIGHT_COMMITTING:
        (void)snprintf(buf, n, "all %s are here, making them durable", FORMAT_BYTES(v.bytes_total));
        break;
    case FLIGHT_DONE:
        (void)snprintf(buf, n, p->r < 0 ? "failed" : "done");
        break;
    default:
        (void)snprintf(buf, n, "%s", flight_state_name(v.state));
        break;
    }
    used = strlen(buf);
    if (*v.waiting && v.state != FLIGHT_DONE && used + 1 < n)
        (void)snprintf(buf + used, n - used, "; %s", v.waiting);
}
