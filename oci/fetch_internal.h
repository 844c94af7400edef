/* SPDX-License-Identifier: Apache-2.0 */
/* fetch_internal: what the parts of fetch share: the blob (fetch.c), its connections
 * (fetch_stream.c), what these ask for (fetch_range.c), its file (fetch_file.c).
 *
 * Memory is bounded and nothing waits for ever, because:
 * - All bytes lie in the ring's buffers.  Pieces are handed on in order; the piece whose turn it is
 *   (the head) may take any buffer, all others only those above `reserve`.  So at least `reserve`
 *   buffers circulate among heads, and there are no more fetches than that; it never
 *   rises.
 * - A buffer that a head holds comes free whatever other fetches do: it fills, or its connection
 *   fails, or is taken away, and is replaced; then hash, disk and decoder give it back.
 * - A fetch asks for its lowest missing bytes first, and takes the connection of its highest range
 *   for them when none is free.  So a fetch that holds connections uses one for its head, unless it
 *   waits after a failure, which is for a time. */
#pragma once

#include "oci/fetch.h"
#include "oci/ramp.h"
#include "oci/window.h"

#define FETCH_STREAMS_MAX 64
#define FETCH_RAMP_LOOKS  10 /* after so many the number of connections is likely to stay */

typedef enum FetchMode {
    FETCH_PLAIN,   /* one stream; ranges only to go on (where it broke, or past what is there) */
    FETCH_PROBING, /* the first answer tells whether the registry knows ranges; from one that is
                      near only that is asked for */
    FETCH_RANGES,
    FETCH_WHOLE, /* nor does that work: all of the blob each time */
} FetchMode;

/* One request. */
typedef struct FetchStream {
    Fetch *fetch;
    RegistryRequest *request;
    uint64_t begin, end; /* what was asked for */
    uint64_t at;         /* the next byte to come */
    uint64_t fresh;      /* bytes that were not there */
    size_t known;        /* bytes of the piece of body that comes again which were taken already */
    uint64_t begun_usec;
    uint64_t paused_usec; /* since when; 0: it runs */
    uint64_t idle_usec;   /* all pauses that are over */
    bool extra;           /* of its connection */
} FetchStream;

/* The blob's file and its map. */
typedef struct FetchFile {
    int fd, map_fd;
    bool made;      /* it is there, and ours */
    bool direct;    /* O_DIRECT */
    ResumeMap map;  /* what is written; `written` grows */
    bool mapped;    /* the blob is worth a map */
    bool dirty;     /* the map on disk is older */
    bool saving;    /* it is being written */
    bool sync_map;  /* … and made durable */
    bool syncing;   /* fdatasync of the blob runs */
    Extents synced; /* what that makes durable */
    uint64_t saved_usec, synced_usec;
    sd_event_source *timer;
    uint8_t slot[RESUME_SLOT_BYTES];
} FetchFile;

struct Fetch {
    FetchOptions o;
    const FetchContext *c;
    char *name, *map;
    PoolStrand *strand;
    PoolRunPair run_pair; /* of the strand's works; NULL: the processor cannot */
    Hasher *hasher;       /* the strand's */
    Digest got;           /* the strand's last work sets it */
    FetchFile file;
    Window window;
    FetchMode mode;
    FetchStream *streams[FETCH_STREAMS_MAX]; /* in no order */
    unsigned n_streams, n_requests;
    Ramp ramp;           /* streams at once */
    char *etag;          /* of the first answer */
    uint64_t rate;       /* bytes a second of one connection, lately */
    uint64_t slow_usec;  /* when a slow one was dropped, and none was fast since; 0: no such */
    unsigned tries;      /* failures since the last new byte */
    unsigned doubts;     /* how often the registry has mishandled a range … */
    uint64_t doubted_at; /* … since so many bytes had been received */
    bool resting;        /* `rest` runs: nothing is asked for */
    sd_event_source *rest, *tick;
    uint64_t received, resumed;
    unsigned pending; /* works, writes and reads in flight */
    unsigned hashing, reading;
    uint64_t hash_bytes, hash_usec; /* hashed, and the processor's time for that */
    uint64_t waited_usec;           /* pauses of connections that are gone */
    bool was_full;                  /* a connection had to wait for us since the last look … */
    bool throttled;                 /* … or for the bandwidth limit */
    bool small;                     /* one buffer is all of it */
    bool open;                      /* the file is, or none is needed yet */
    bool finishing, hashed, finished;
    bool busy;   /* in a callback of a request: the end comes behind it */
    bool closed; /* fetch_free() was called: nobody listens any more */
    bool ended;
    int r;
    Err err;
};

/* The first failure counts; what is in flight is waited for. */
void fetch_fail(Fetch *f, int r, const Err *err);
/* Goes on with whatever can go on; ends the fetch when there is nothing left. */
void fetch_pump(Fetch *f);
/* A buffer for piece `i`, if it may have one now. */
RingBuffer *fetch_get_buffer(Fetch *f, uint64_t i);
/* Piece `i` is complete in its buffer. */
void fetch_piece_full(Fetch *f, uint64_t i);
/* Hands on what has its turn. */
void fetch_hand_on(Fetch *f);
/* Nothing stands between the fetch and its first byte but those that are on `disk` (taken; or
 * NULL). */
void fetch_opened(Fetch *f, Extents *disk);
/* Asks for nothing until `usec` from now. */
int fetch_rest(Fetch *f, uint64_t usec) _must_check_;

/* Does it ask for several ranges at once, or hopes to? */
bool fetch_is_ranged(const Fetch *f);
/* How long the request has run, pauses left out; never 0. */
uint64_t fetch_stream_usec(const FetchStream *s, uint64_t now);
/* How long it has waited for us, all pauses together. */
uint64_t fetch_stream_idle_usec(const FetchStream *s, uint64_t now);
/* Does it have so much to bring that others should take a part of that? */
bool fetch_stream_is_long(const FetchStream *s);
/* Does one of its connections count as the first, and so the next as an extra one? */
bool fetch_has_first(const Fetch *f);
/* What to ask for next; false: nothing of the window is left. */
bool fetch_choose_range(const Fetch *f, Extent *ret);

void fetch_streams_pump(Fetch *f);
void fetch_streams_stop(Fetch *f);

/* Opens or makes the file in the pool, calls fetch_pump(). */
void fetch_file_open(Fetch *f);
/* Writes a piece; the map follows. */
void fetch_file_write(Fetch *f, uint64_t i);
/* Writes what there is of pieces that fill slowly. */
void fetch_file_keep(Fetch *f);
/* Reads what is on disk and has its turn. */
void fetch_file_read(Fetch *f);
/* In the pool: makes the file of a small blob. */
int fetch_file_store(Fetch *f, const uint8_t *data, size_t n, Err *err);
/* In the pool: cuts and closes the file, completes the map. */
int fetch_file_finish(Fetch *f, Err *err);
/* Closes it; removes it with its map unless it is `worth` something. */
void fetch_file_close(Fetch *f, bool worth);
