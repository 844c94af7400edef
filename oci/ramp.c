/* SPDX-License-Identifier: Apache-2.0 */
/* ramp: how many connections a blob is worth: more while they bring more, and no more than its hash
 * can follow. */
#include "oci/ramp.h"

#define FAR_USEC     (15 * USEC_PER_MSEC) /* of an answer */
#define LOOK_USEC    USEC_PER_MSEC        /* so little says nothing */
#define LOOKS_DOUBLE 3  /* in a row, before the number is doubled: some may have been unlucky */
#define LOOKS_TRY    10 /* in a row, before one more is tried */
#define LOOKS_JUDGE  5  /* before it is judged, and before fewer are taken to be enough */
#define LOOKS_ENOUGH 32 /* in a row, before it is doubted that so many are enough … */
#define TIMES_ENOUGH 8  /* … and twice as many each time, so often */
#define FIRST_USEC   (100 * USEC_PER_MSEC) /* connections have so long for their first byte */
#define FORGET       8                     /* this part of the best with each look */
#define WORTH        8                     /* it has to make the blob faster by this part */

void ramp_begin(Ramp *r) {
    *r = (Ramp){ .wanted = 1 };
}

static uint64_t rate(const Ramp *r) {
    return per_second(r->received - r->since_received, r->usec - r->since_usec);
}

/* From here on; `all`: what is known so far does not count. */
static void mark_waits(Ramp *r, const RampLook *look, bool all) {
    r->waits_usec = look->now_usec;
    r->waited_usec = look->waited_usec;
    if (all)
        r->waits_looks = 0;
    if (r->waits_looks == 0)
        r->waits = r->waits_of = 0;
}

static void go_to(Ramp *r, const RampLook *look, uint64_t n) {
    mark_waits(r, look, true);
    r->rate_before = rate(r);
    r->since_usec = r->changed_usec = r->usec;
    r->since_received = r->received;
    r->best = 0;
    r->looks = r->hungry = 0;
    r->needed = r->needed && n <= r->wanted;
    r->wanted = (unsigned)n;
}

/* It has to prove that it is right. */
static void try(Ramp *r, const RampLook *look, unsigned n) {
    unsigned was = r->wanted;

    go_to(r, look, n);
    r->was = was;
}

/* One look may have been unlucky, so the best counts; but a burst is forgotten. */
static void note(Ramp *r, const RampLook *look) {
    if (r->begun) {
        r->best = MAX(r->best - r->best / FORGET,
                      per_second(look->received - r->received, look->now_usec - r->usec));
        r->looks++;
        r->hungry = look->ahead ? 0 : r->hungry + 1;
    }
    r->usec = look->now_usec;
    r->received = look->received;
    if (!r->begun) {
        r->since_usec = r->usec;
        r->since_received = r->received;
        mark_waits(r, look, true);
    }
    r->begun = r->begun || look->received > 0;
}

/* Bytes a second; 0: nothing was hashed yet, so little has come. */
static uint64_t hash_speed(const RampLook *look) {
    return per_second(look->hashed, look->hash_usec);
}

/* Was the last change one for the better?  If not, it is taken back, and not tried again. */
static void judge(Ramp *r, const RampLook *look) {
    uint64_t before = r->rate_before,
             least = r->was < r->wanted ? before + before / WORTH : before - before / WORTH;
    unsigned was = r->was;
    bool needed;

    r->was = 0;
    if (rate(r) >= least) {
        if (was > r->wanted) {
            r->enough = rate(r);
            r->times_enough += r->times_enough < TIMES_ENOUGH;
        }
        return;
    }
    r->settled = r->settled || was < r->wanted;
    needed = r->needed || was > r->wanted;
    go_to(r, look, was);
    r->needed = needed;
}

/* So many of those that run could go: all together waited as long as so many of them last. */
static unsigned count_spare(Ramp *r, const RampLook *look) {
    uint64_t n;

    r->waits += look->waited_usec - r->waited_usec;
    r->waits_of += look->now_usec - r->waits_usec;
    r->waits_looks += look->now_usec > r->waits_usec;
    n = r->waits_looks < LOOKS_JUDGE || r->waits_of == 0 ? 0 : r->waits / r->waits_of;
    mark_waits(r, look, r->waits_looks == LOOKS_JUDGE);
    return (unsigned)MIN(n, (uint64_t)look->running - 1);
}

/* More did not bring more, as long as the network, and what takes the bytes, are the same. */
static bool is_enough(Ramp *r) {
    if ((r->looks >= LOOKS_JUDGE && (r->best < r->enough / 2 || r->best / 2 > r->enough)) ||
        r->hungry >= (unsigned)LOOKS_ENOUGH << r->times_enough)
        r->enough = 0;
    return r->enough > 0;
}

/* Have those that were added lately not yet begun? */
static bool is_beginning(const Ramp *r, const RampLook *look) {
    return look->asking && r->looks == 0 && look->now_usec < r->changed_usec + FIRST_USEC;
}

void ramp_answered(Ramp *r, uint64_t usec, unsigned most) {
    assert(!r->begun);
    r->wanted = usec >= FAR_USEC ? MAX(most, 1U) : 1;
}

void ramp_look(Ramp *r, const RampLook *look) {
    uint64_t speed = hash_speed(look);
    unsigned spare;

    if (r->begun && look->now_usec < r->usec + LOOK_USEC)
        return;
    if (is_beginning(r, look)) {
        ramp_skip(r, look);
        return;
    }
    note(r, look);
    spare = count_spare(r, look);
    if (r->was > 0) {
        if (r->looks >= LOOKS_JUDGE)
            judge(r, look);
    } else if (spare > 0 && !r->needed) {
        try(r, look, look->running - spare);
    } else if (is_enough(r) || r->hungry < LOOKS_DOUBLE || r->wanted >= look->most) {
        return;
    } else if (r->best <= speed / 3 || speed == 0) {
        go_to(r, look, MIN((uint64_t)r->wanted * 2, (uint64_t)look->most));
    } else if (!r->settled && look->running == r->wanted && look->can_take &&
               r->hungry >= LOOKS_TRY && r->best <= speed / 4 * 3) {
        try(r, look, r->wanted + 1U);
    }
}

void ramp_skip(Ramp *r, const RampLook *look) {
    mark_waits(r, look, false);
    r->usec = r->since_usec = look->now_usec;
    r->received = r->since_received = look->received;
    r->best = 0;
    r->looks = r->hungry = 0;
}
