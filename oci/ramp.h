/* SPDX-License-Identifier: Apache-2.0 */
/* ramp: how many connections a blob is worth: more while they bring more, and no more than its hash
 * can follow. */
#pragma once

#include "base/macro.h"

/* A connection has a price: its bytes come out of order and wait in buffers, and its packets
 * compete with the hash for the processors (on loopback and two cores 1 GiB takes 0.9 s with one
 * connection, 1.15 s with eight).  So a blob begins with one, or, from a registry that is far
 * away, with all; else twice as many while those that it has are not half as fast as the hash,
 * and from there on one more at a time, as long as that makes it faster.  Where the hash has
 * enough to do every now and then, it is the processors that are busy, not the network. */
typedef struct Ramp {
    unsigned wanted;   /* connections */
    bool begun;        /* bytes came */
    bool trying;       /* the last connection has to prove that it is worth it */
    bool settled;      /* it was not: no other one is tried */
    unsigned looks;    /* with so many connections … */
    unsigned hungry;   /* … and the last of them in a row in which nothing was ahead */
    uint64_t usec;     /* the last look: when … */
    uint64_t received; /* … and what had been received */
    uint64_t best;     /* bytes a second between two looks, lately, with so many connections */
    uint64_t since_usec, since_received; /* the first look with so many */
    uint64_t rate_before;                /* bytes a second with one less */
} Ramp;

/* What is known of the blob at a look. */
typedef struct RampLook {
    uint64_t now_usec;
    uint64_t received;  /* bytes, so far */
    uint64_t hashed;    /* bytes, so far … */
    uint64_t hash_usec; /* … in so much time of a processor */
    bool ahead;         /* bytes wait for the hash or for a decoder: more are of no use */
    unsigned most;      /* connections that are allowed, at least 1 */
} RampLook;

/* One connection. */
void ramp_begin(Ramp *r);
/* Answers of the registry take so long: does one connection have a chance to be fast?  Not once
 * there are looks. */
void ramp_answered(Ramp *r, uint64_t usec, unsigned most);
/* Looks again and sets `wanted`; to be called every few round trips or milliseconds while there are
 * connections.  Time and bytes never fall. */
void ramp_look(Ramp *r, const RampLook *look);
