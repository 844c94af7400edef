/* SPDX-License-Identifier: Apache-2.0 */
/* flight_space: what the layers of a pull take of the disk, and what they may take. */
#include "agent/flight_internal.h"

bool flight_fetches(const Flight *p, size_t layer) {
    const FlightLayer *l = &p->layers[layer];

    return l->role == SHARE_FETCH && !l->left_out && !l->cached && !l->done;
}

/* What of the blob is on disk, or has its space there.  Of what was claimed of a tar the worker
 * knows how much of the blob it is, and says so before it reads it back; until then it may be less.
 */
static uint64_t taken(const Flight *p, size_t layer) {
    const FlightLayer *l = &p->layers[layer];

    if (l->came)
        return p->manifest->layers[layer].size;
    return l->bytes + l->ahead > 0 ? l->bytes + l->ahead : l->claimed;
}

uint64_t flight_promised(const Flight *p) {
    uint64_t sum = p->passed_on;

    if (!p->planned || p->state == FLIGHT_DONE)
        return 0;
    for (size_t i = 0; i < p->manifest->n_layers; i++) {
        uint64_t size = p->manifest->layers[i].size;

        if (flight_fetches(p, i))
            sum += size - MIN(size, taken(p, i));
    }
    return sum;
}

uint64_t flight_room_left(const Flight *p) {
    uint64_t others = p->context->promised(p->context->arg, p);

    return p->room > others ? p->room - others : 0;
}

/* Of a tar that is on its way only the blob's bytes are known: it may have more, and so gets less
 * than there is. */
uint64_t flight_content_max(const Flight *p) {
    uint64_t sum = flight_room_left(p) + p->content;

    for (size_t i = 0; i < p->manifest->n_layers; i++)
        if (flight_fetches(p, i) && !p->layers[i].came)
            sum += MAX(taken(p, i), p->layers[i].claimed);
    return sum;
}

uint64_t flight_freed(const Flight *p) {
    return p->freed;
}
