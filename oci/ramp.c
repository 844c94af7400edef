/* SPDX-License-Identifier: Apache-2.0 */
/* ramp: how many connections a blob is worth: more while they bring more, and no more than its hash
 * can follow. */
#include "oci/ramp.h"

#define FAR_USEC     (15 * USEC_PER_MSEC) /* of an answer */
#define LOOK_USEC    USEC_PER_MSEC        /* so little says nothing */
#define LOOKS_DOUBLE 3 /* in a row, before the number is doubled: some may have been unlucky */
#define LOOKS_TRY    5 /* in a row, before one more is tried, and before it is judged */
#define FORGET       8 /* this part of the best with each look */
#define WORTH        8 /* it has to make the blob faster by this part */

void ramp_begin(Ramp *r) {
    *r = (Ramp){ .wanted = 1 };
}

static uint64_t rate(const Ramp *r) {
    return per_second(r->received - r->since_received, r->usec - r->since_usec);
}

static void go_to(Ramp *r, uint64_t n, bool trying) {
    r->trying = trying;
    r->rate_before = rate(r);
    r->since_usec = r->usec;
    r->since_received = r->received;
    r->best = 0;
    r->looks = r->hungry = 0;
    r->wanted = (unsigned)n;
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
    }
    r->begun = r->begun || look->received > 0;
}

/* Bytes a second; 0: nothing was hashed yet, so little has come. */
static uint64_t hash_speed(const RampLook *look) {
    return per_second(look->hashed, look->hash_usec);
}

/* False: it was not worth it, and is given up. */
static bool judge(Ramp *r) {
    r->trying = false;
    if (rate(r) >= r->rate_before + r->rate_before / WORTH)
        return true;
    go_to(r, r->wanted - 1, false);
    r->settled = true;
    return false;
}

void ramp_answered(Ramp *r, uint64_t usec, unsigned most) {
    r->wanted = usec >= FAR_USEC ? most : 1;
}

void ramp_look(Ramp *r, const RampLook *look) {
    uint64_t speed = hash_speed(look);

    if (r->begun && look->now_usec < r->usec + LOOK_USEC)
        return;
    note(r, look);
    if (r->trying && (r->looks < LOOKS_TRY || !judge(r)))
        return;
    if (r->hungry < LOOKS_DOUBLE || r->wanted >= look->most)
        return;
    if (r->best <= speed / 2 || speed == 0)
        go_to(r, MIN((uint64_t)r->wanted * 2, (uint64_t)look->most), false);
    else if (!r->settled && r->hungry >= LOOKS_TRY && r->best <= speed / 4 * 3)
        go_to(r, r->wanted + 1U, true);
}
