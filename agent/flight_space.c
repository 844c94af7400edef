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

    return p->room.bytes > others ? p->room.bytes - others : 0;
}

typedef struct RoomWork {
    Flight *pull;
    bool make; /* else it is looked only */
    void (*next)(Flight *p);
    FlightFreed freed;
    FlightRoom room;
} RoomWork;

static int run_room(void *arg, Err *err) {
    RoomWork *w = arg;

    (void)err;
    if (w->make)
        w->freed = flight_make_room(w->pull->context->store);
    w->room = flight_room(w->pull->context->store);
    return 0;
}

static void on_room(void *arg, int r, const Err *err) {
    RoomWork w = *(RoomWork *)arg;
    Flight *p = w.pull;

    free(arg);
    metrics_add(p->context->metrics, METRIC_REMOVED_BYTES, METRIC_LABEL(METRIC_FOR_SPACE),
                w.freed.bytes);
    if (!flight_step_ended(p, r, err))
        return;
    p->room = w.room;
    if (w.make)
        w.next(p);
    else
        flight_with_room(p, w.next);
}

static void submit_room(Flight *p, bool make, void (*next)(Flight *p)) {
    RoomWork *w = xnew(RoomWork);

    *w = (RoomWork){ .pull = p, .make = make, .next = next };
    flight_submit(p, run_room, on_room, w);
}

void flight_look_for_room(Flight *p, void (*next)(Flight *p)) {
    submit_room(p, false, next);
}

void flight_with_room(Flight *p, void (*next)(Flight *p)) {
    uint64_t left = flight_room_left(p);

    if (flight_promised(p) > left - MIN(left, p->room.partial))
        submit_room(p, true, next);
    else
        next(p);
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

FlightFreed flight_freed(const Flight *p) {
    return p->freed;
}
