/* SPDX-License-Identifier: Apache-2.0 */
/* window: which pieces of a blob are there, come, or are to be asked for, from the first that was
 * not handed on.
 *
 * A piece is as long as a ring buffer.  Pieces are handed on (to the hash, to a decoder) in order;
 * `span` pieces from the first of them on may be on their way. */
#pragma once

#include "base/ring.h"
#include "oci/extents.h"

#define WINDOW_BLOCK_BYTES 4096 /* of a disk */

typedef enum PieceState {
    PIECE_MISSING, /* to be received; it may have a buffer with its first bytes */
    PIECE_DISK,    /* its first `kept` bytes are on disk from an earlier pull; to be read */
    PIECE_READING,
    PIECE_FULL, /* in its buffer */
} PieceState;

typedef struct Piece {
    PieceState state;
    RingBuffer *buffer; /* ours, or NULL; its len counts the bytes that are there … */
    size_t kept;        /* … and so many of them are on disk, or on their way */
    bool old;           /* it was there at the last look, see fetch_file_keep() */
} Piece;

typedef struct Window {
    uint64_t size;
    size_t piece_bytes;
    unsigned span;
    uint64_t n_pieces;
    uint64_t head; /* the first piece that was not handed on */
    Piece *pieces; /* circle of `span` */
    Extents disk;  /* what of the blob was on disk */
} Window;

/* Takes the content of `disk`, which may be NULL. */
void window_init(Window *w, uint64_t size, size_t piece_bytes, unsigned span, Extents *disk);
/* From now on it has `span` pieces, unless it has more. */
void window_widen(Window *w, unsigned span);
/* At the start: the first `n` pieces are not needed. */
void window_skip(Window *w, uint64_t n);
/* Gives all buffers back. */
void window_done(Window *w);
/* Piece `i`, or NULL when it is not in the window. */
Piece *window_piece(const Window *w, uint64_t i);
uint64_t window_begin(const Window *w, uint64_t i);
size_t window_length(const Window *w, uint64_t i);
/* The first piece was handed on (its buffer given away): the window moves. */
void window_advance(Window *w);

/* The lowest bytes that are missing and in none of the `n` ranges `taken` (which come already), up
 * to `max_pieces` pieces in one run.  False: there are none in the window. */
bool window_claim(const Window *w, const Extent *taken, size_t n, unsigned max_pieces, Extent *ret);
