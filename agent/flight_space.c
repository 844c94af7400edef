/* SPDX-License-Identifier: Apache-2.0 */
/* flight_space: what the layers of a pull take of the disk. */
#include "agent/flight_internal.h"

/* What of the layer is on disk, or has its space there: a raw one takes all of that before its
 * first byte comes.  What was claimed is received again, as it is read back. */
static uint64_t taken(const Flight *p, size_t layer) {
    const FlightLayer *l = &p->layers[layer];
    const Layer *what = &p->manifest->layers[layer];

    if (what->kind == LAYER_KIND_RAW && l->bytes > 0)
        return what->size;
    return MAX(l->bytes, l->claimed);
}

uint64_t flight_promised(const Flight *p) {
    uint64_t sum = 0;

    if (!p->planned || p->state == FLIGHT_DONE)
        return 0;
    for (size_t i = 0; i < p->manifest->n_layers; i++) {
        const FlightLayer *l = &p->layers[i];
        uint64_t size = p->manifest->layers[i].size;

        if (l->role == SHARE_FETCH && !l->left_out && !l->cached && !l->done)
            sum += size - MIN(size, taken(p, i));
    }
    return sum;
}

uint64_t flight_freed(const Flight *p) {
    return p->freed;
}
