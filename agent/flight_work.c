/* SPDX-License-Identifier: Apache-2.0 */
/* flight_work: the blocking steps of a pull, each for a thread of the pool: they know the store and
 * no Flight. */
#include "agent/flight_work.h"
#include "base/limits.h"
#include "base/parse.h"

#include <sys/statvfs.h>

#define NOBODY              65534 /* owns the folder when we are root, so that the worker needs no privilege */
#define RESERVE_PERCENT     3
#define RESERVE_MIN_BYTES   GiB(1)
#define RESERVE_MAX_PERCENT 10 /* of a small file system the minimum would be too much */

/* What stays free for others: the node dies of a full disk. */
static uint64_t reserve_of(uint64_t fs_bytes) {
    return MIN(MAX(fs_bytes / 100 * RESERVE_PERCENT, RESERVE_MIN_BYTES),
               fs_bytes / 100 * RESERVE_MAX_PERCENT);
}

uint64_t flight_room(Store *s) {
    struct statvfs st;
    uint64_t free_bytes, reserve;

    if (fstatvfs(store_trees_fd(s), &st) < 0)
        return LIMIT_BLOB_BYTES; /* writing will tell */
    free_bytes = (uint64_t)st.f_bavail * st.f_frsize;
    reserve = reserve_of((uint64_t)st.f_blocks * st.f_frsize);
    return free_bytes > reserve ? MIN(free_bytes - reserve, LIMIT_BLOB_BYTES) : 0;
}

int flight_check_room(Store *s, uint64_t need, uint64_t room, Err *err) {
    if (need <= room)
        return 0;
    return err_set(err, -ENOSPC,
                   "needs %s, %s free in %s; remove artifacts with cache-ctl rm, or enlarge it",
                   FORMAT_BYTES(need), FORMAT_BYTES(room), store_path(s));
}

int flight_make_folder(Store *s, const char *name, int *ret_fd, Err *err) {
    bool root = geteuid() == 0;

    return store_ingest_begin(s, name, root ? NOBODY : geteuid(), root ? NOBODY : getegid(), ret_fd,
                              err);
}

static int check_digest(const FlightPlan *plan, Err *err) {
    const Manifest *m = plan->manifest;
    Digest digest;

    digest_of(&digest, m->bytes, m->n_bytes);
    if (!digest_equal(&digest, &m->digest))
        return err_set(err, -EBADMSG, "the manifest is not what its digest %s says",
                       DIGEST_STR(&m->digest));
    if (plan->want && !digest_equal(plan->want, &m->digest) &&
        !(plan->index && digest_equal(plan->want, plan->index)))
        return err_set(err, -EBADMSG, "the registry gave the manifest %s, not the one asked for",
                       DIGEST_STR(&m->digest));
    return 0;
}

/* Content is the same when the blob is, and what is made of it. */
static bool same_content(const Layer *a, const Layer *b) {
    return digest_equal(&a->digest, &b->digest) && a->kind == b->kind &&
           a->executable == b->executable;
}

/* Manifests have few layers as a rule; a hostile one with 8192 costs 30 million comparisons, once,
 * in a thread. */
static size_t first_of(const Manifest *m, size_t i) {
    for (size_t k = 0; k < i; k++)
        if (same_content(&m->layers[k], &m->layers[i]))
            return k;
    return i;
}

/* Only a reference that led to an index depends on the platform; others are good for every one. */
static int set_reference(Store *s, const Manifest *m, const char *reference, const char *platform,
                         Err *err) {
    return store_set_reference(s, reference, m->platform ? platform : NULL, &m->digest, err);
}

int flight_make_plan(Store *s, FlightPlan *plan, Err *err) {
    const Manifest *m = plan->manifest;
    int r = check_digest(plan, err);

    if (r < 0)
        return r;
    r = store_has_manifest(s, &m->digest, err);
    if (r > 0) {
        r = set_reference(s, m, plan->reference, plan->platform, err);
        return r < 0 ? r : 1;
    }
    for (size_t i = 0; r >= 0 && i < m->n_layers; i++) {
        plan->same_as[i] = first_of(m, i);
        r = plan->same_as[i] < i ? plan->cached[plan->same_as[i]]
                                 : store_lease_layer(s, plan->ingest, &m->layers[i], err);
        plan->cached[i] = r > 0;
    }
    plan->room = flight_room(s);
    return r < 0 ? r : 0;
}

int flight_commit(Store *s, const Manifest *m, const char *reference, const char *platform,
                  Err *err) {
    int r = store_commit_manifest(s, m, NULL, err);

    if (r < 0)
        return r;
    return set_reference(s, m, reference, platform, err);
}
