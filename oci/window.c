/* SPDX-License-Identifier: Apache-2.0 */
/* window: which pieces of a blob are there, come, or are to be asked for, from the first that was
 * not handed on. */
#include "oci/window.h"

Piece *window_piece(const Window *w, uint64_t i) {
    if (i < w->head || i - w->head >= w->span || i >= w->n_pieces)
        return NULL;
    return &w->pieces[i % w->span];
}

uint64_t window_begin(const Window *w, uint64_t i) {
    return i * w->piece_bytes;
}

size_t window_length(const Window *w, uint64_t i) {
    return (size_t)MIN((uint64_t)w->piece_bytes, w->size - window_begin(w, i));
}

/* Piece `i` has come into the window. */
static void enter(Window *w, uint64_t i) {
    Piece *p = window_piece(w, i);
    uint64_t begin = window_begin(w, i);
    size_t kept, length;

    if (!p)
        return;
    length = window_length(w, i);
    kept = (size_t)extents_run(&w->disk, begin, begin + length);
    if (kept < length)
        kept -= kept % WINDOW_BLOCK_BYTES;
    *p = (Piece){ .state = kept > 0 ? PIECE_DISK : PIECE_MISSING, .kept = kept };
}

void window_init(Window *w, uint64_t size, size_t piece_bytes, unsigned span, Extents *disk) {
    *w = (Window){ .size = size,
                   .piece_bytes = piece_bytes,
                   .n_pieces = (size + piece_bytes - 1) / piece_bytes };
    w->span = (unsigned)MAX(MIN((uint64_t)span, w->n_pieces), (uint64_t)1);
    w->pieces = xnew_n(Piece, w->span);
    if (disk) {
        w->disk = *disk;
        *disk = (Extents){ 0 };
    }
    for (unsigned i = 0; i < w->span; i++)
        enter(w, i);
}

void window_widen(Window *w, unsigned span) {
    uint64_t past = w->head + w->span;
    Piece *pieces;

    span = (unsigned)MIN((uint64_t)span, w->n_pieces);
    if (span <= w->span)
        return;
    pieces = xnew_n(Piece, span);
    for (uint64_t i = w->head; i < past && i < w->n_pieces; i++)
        pieces[i % span] = *window_piece(w, i);
    free(w->pieces);
    w->pieces = pieces;
    w->span = span;
    for (uint64_t i = past; i < w->head + span; i++)
        enter(w, i);
}

void window_skip(Window *w, uint64_t n) {
    assert(n <= w->n_pieces);
    w->head = n;
    for (unsigned i = 0; i < w->span; i++)
        enter(w, n + i);
}

void window_done(Window *w) {
    for (unsigned i = 0; w->pieces && i < w->span; i++)
        w->pieces[i].buffer = ring_buffer_unref(w->pieces[i].buffer);
    free(w->pieces);
    extents_done(&w->disk);
    *w = (Window){ 0 };
}

void window_advance(Window *w) {
    assert(w->head < w->n_pieces && !window_piece(w, w->head)->buffer);
    w->head++;
    enter(w, w->head + w->span - 1);
}

static bool is_taken(const Extent *taken, size_t n, uint64_t at) {
    for (size_t i = 0; i < n; i++)
        if (taken[i].begin <= at && at < taken[i].end)
            return true;
    return false;
}

/* Is there something of piece `i` to be asked for, and from which byte on? */
static bool wants(const Window *w, uint64_t i, const Extent *taken, size_t n, uint64_t *ret_at) {
    const Piece *p = window_piece(w, i);

    if (!p || p->state != PIECE_MISSING)
        return false;
    *ret_at = window_begin(w, i) + (p->buffer ? p->buffer->len : 0);
    return !is_taken(taken, n, *ret_at);
}

bool window_claim(const Window *w, const Extent *taken, size_t n, unsigned max_pieces,
                  Extent *ret) {
    uint64_t i = w->head, last = w->head + w->span, at, next;

    while (i < last && !wants(w, i, taken, n, &at))
        i++;
    if (i == last)
        return false;
    ret->begin = at;
    last = MIN(last, i + max_pieces);
    do
        i++;
    while (i < last && wants(w, i, taken, n, &next) && next == window_begin(w, i));
    ret->end = MIN(window_begin(w, i), w->size);
    return true;
}
