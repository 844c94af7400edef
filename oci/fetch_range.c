/* SPDX-License-Identifier: Apache-2.0 */
/* fetch_range: what a connection is to ask for next. */
#include "oci/fetch_internal.h"
#include "oci/share.h"

bool fetch_is_ranged(const Fetch *f) {
    return f->mode == FETCH_RANGES || f->mode == FETCH_PROBING;
}

uint64_t fetch_stream_idle_usec(const FetchStream *s, uint64_t now) {
    return s->idle_usec + (s->paused_usec ? now - s->paused_usec : 0);
}

uint64_t fetch_stream_usec(const FetchStream *s, uint64_t now) {
    uint64_t all = now - s->begun_usec;

    return MAX(all - MIN(fetch_stream_idle_usec(s, now), all), (uint64_t)1);
}

/* In one stream: all the rest, unless some of that is there. */
static void widen(const Fetch *f, Extent *want) {
    const Window *w = &f->window;
    const Extents *disk = &w->disk;

    if (want->end >= window_begin(w, w->head + w->span) &&
        (disk->n == 0 || disk->items[disk->n - 1].end <= want->begin))
        want->end = f->o.size;
    if (f->mode == FETCH_WHOLE)
        *want = (Extent){ 0, f->o.size };
}

bool fetch_has_first(const Fetch *f) {
    for (unsigned i = 0; i < f->n_streams; i++)
        if (!f->streams[i]->extra)
            return true;
    return false;
}

/* Connections that it has or could have now, at least 1. */
static unsigned count_possible(const Fetch *f) {
    unsigned more = traffic_free_for(f->c->traffic, !fetch_has_first(f));

    return MAX(f->n_streams + more, 1U);
}

/* Pieces of a range when several connections share the blob. */
static unsigned range_pieces(const Fetch *f) {
    unsigned most = MAX(traffic_connections(f->c->traffic), 1U);
    unsigned n = MIN(f->ramp.looks >= FETCH_RAMP_LOOKS ? f->ramp.wanted : most, count_possible(f));
    unsigned kept = MIN(f->c->reserve + n / 2, f->c->n_buffers - 1); /* half-filled ones */
    unsigned buffers = f->c->n_buffers - kept;

    return MAX(MIN(buffers * 2 / n, buffers), 1U);
}

/* The first ones of a blob that begins with several are shorter, each by a step: so they end one
 * after the other, and while the lowest ends the highest has just begun, which halves the buffers
 * that hold bytes out of order.  Where fewer connections do, ranges become longer. */
static unsigned next_pieces(const Fetch *f) {
    unsigned pieces = range_pieces(f);
    unsigned n = MIN(f->ramp.wanted, count_possible(f));

    return f->n_requests < n ? MAX(pieces * (f->n_requests + 1) / n, 1U) : pieces;
}

bool fetch_stream_is_long(const FetchStream *s) {
    const Fetch *f = s->fetch;

    return s->end - s->at > (uint64_t)range_pieces(f) * f->window.piece_bytes;
}

/* How many others will share the rest with the next connection. */
static unsigned count_others(const Fetch *f) {
    unsigned wanted = MIN(f->ramp.wanted, (unsigned)FETCH_STREAMS_MAX);

    return MAX(f->n_streams, MIN(wanted, count_possible(f)) - 1);
}

/* So many bytes come while one waits for an answer: a shorter range is not worth its request. */
static uint64_t least_bytes(const Fetch *f) {
    return (uint64_t)((double)f->rate * (double)traffic_answer_usec(f->c->traffic) / USEC_PER_SEC);
}

/* Pieces from `begin` on, after which nobody was asked for anything, such that all connections end
 * together. */
static uint64_t shared_pieces(const Fetch *f, uint64_t begin) {
    ShareOther others[FETCH_STREAMS_MAX] = { 0 };
    uint64_t now = now_usec(), take;

    for (unsigned i = 0; i < f->n_streams; i++) {
        const FetchStream *s = f->streams[i];

        others[i].left = s->end - s->at;
        if (s->fresh >= f->window.piece_bytes)
            others[i].rate = per_second(s->fresh, fetch_stream_usec(s, now));
    }
    take = share_take(f->o.size - begin, f->rate,
                      f->hash_usec > 0 ? per_second(f->hash_bytes, f->hash_usec) : 0, others,
                      count_others(f));
    take = MAX(take, least_bytes(f));
    return MAX((take + f->window.piece_bytes / 2) / f->window.piece_bytes, (uint64_t)1);
}

/* A second range would bring one connection nothing but the wait for its answer.  (When others can
 * help: share_long() in fetch_stream.c.) */
static bool is_in_one(const Fetch *f) {
    return f->mode == FETCH_PLAIN || f->mode == FETCH_WHOLE ||
           (f->mode == FETCH_RANGES && (f->ramp.wanted == 1 || count_possible(f) == 1));
}

bool fetch_choose_range(const Fetch *f, Extent *ret) {
    bool one = is_in_one(f);
    unsigned pieces = one ? f->window.span : next_pieces(f);
    Extent taken[FETCH_STREAMS_MAX];

    for (unsigned i = 0; i < f->n_streams; i++)
        taken[i] = (Extent){ f->streams[i]->at, f->streams[i]->end };
    if (!window_claim(&f->window, taken, f->n_streams, pieces, ret))
        return false;
    if (one)
        widen(f, ret);
    else
        ret->end = MIN(ret->end, window_begin(&f->window, ret->begin / f->window.piece_bytes +
                                                              shared_pieces(f, ret->begin)));
    return true;
}
