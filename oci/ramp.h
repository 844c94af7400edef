/* SPDX-License-Identifier: Apache-2.0 */
/* ramp: how many connections a blob is worth: more while they bring more, and no more than its hash
 * can follow. */
#pragma once

#include "base/macro.h"

/* A connection has a price: its bytes come out of order and wait in buffers, and its packets
 * compete with the hash for the processors (on loopback and two cores 1 GiB takes 0.9 s with one
 * connection, 1.15 s with eight).  So a blob begins with one, or, from a registry that is far
 * away, with all; else twice as many while those that it has are not a third as fast as the hash,
 * and from there on one more at a time, as long as that makes it faster.  Where the hash has
 * enough to do every now and then, it is the processors that are busy, not the network.  And when
 * the connections wait for us, together as long as some of them last, so many fewer should bring as
 * much, which is tried. */
typedef struct Ramp {
    unsigned wanted; /* connections … */
    unsigned was;    /* … and before, when it has yet to be proved that now it is better; or 0 */
    bool begun;      /* bytes came */
    bool settled;    /* one more brought nothing: no other one is tried */
    bool needed;     /* fewer brought less: so many are kept */
    uint64_t enough; /* bytes a second that came with fewer just as well; 0: not known */
    unsigned times_enough; /* so often that was found */
    unsigned looks;        /* with so many connections … */
    unsigned hungry;       /* … and the last of them in a row in which nothing was ahead */
    uint64_t usec;         /* the last look: when … */
    uint64_t received;     /* … and what had been received */
    uint64_t best;         /* bytes a second between two looks, lately, with so many connections */
    uint64_t since_usec, since_received; /* the first look with so many */
    uint64_t rate_before;                /* bytes a second before that */
    uint64_t changed_usec;               /* when the number changed; 0: never */
    uint64_t waits_usec, waited_usec;    /* the last look or skip: when, and the waits until then */
    uint64_t waits, waits_of;            /* waits between looks, in so much time … */
    unsigned waits_looks;                /* … and so many looks */
} Ramp;

/* What is known of the blob at a look. */
typedef struct RampLook {
    uint64_t now_usec;
    uint64_t received;    /* bytes, so far */
    uint64_t hashed;      /* bytes, so far … */
    uint64_t hash_usec;   /* … in so much time of a processor */
    uint64_t waited_usec; /* of all its connections, so far, for a buffer, the hash or a decoder */
    bool ahead;           /* bytes wait for the hash or for a decoder: more are of no use */
    unsigned running;     /* connections, at least 1 … */
    bool asking;          /* … of which some wait for their first byte … */
    bool can_take;        /* … and another one is to be had */
    unsigned most;        /* connections that are allowed */
} RampLook;

/* One connection. */
void ramp_begin(Ramp *r);
/* Answers of the registry take so long: does one connection have a chance to be fast?  Not once it
 * has begun. */
void ramp_answered(Ramp *r, uint64_t usec, unsigned most);
/* Looks again and sets `wanted`; to be called every few round trips or milliseconds while there are
 * connections.  Time and bytes never fall. */
void ramp_look(Ramp *r, const RampLook *look);
/* Something else decides just now how much comes: nothing can be told from this look, nor from
 * those before, but for what they say of waits. */
void ramp_skip(Ramp *r, const RampLook *look);
