/* SPDX-License-Identifier: Apache-2.0 */
/* flight_work: the blocking steps of a pull, each for a thread of the pool: they know the store and
 * no Flight. */
#include "agent/flight_work.h"
#include "base/fs.h"
#include "base/limits.h"
#include "base/log.h"
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

FlightRoom flight_room(Store *s) {
    FlightRoom room = { .bytes = LIMIT_BLOB_BYTES };
    struct statvfs st;
    uint64_t free_bytes, reserve;

    if (fstatvfs(store_trees_fd(s), &st) < 0)
        return room; /* writing will tell */
    if (store_partial_bytes(s, &room.partial, NULL) < 0)
        room.partial = 0;
    free_bytes = (uint64_t)st.f_bavail * st.f_frsize + room.partial;
    reserve = reserve_of((uint64_t)st.f_blocks * st.f_frsize);
    room.bytes = free_bytes > reserve ? MIN(free_bytes - reserve, LIMIT_BLOB_BYTES) : 0;
    return room;
}

uint64_t flight_file_max(Store *s) {
    struct statvfs st;
    uint64_t bytes;

    if (fstatvfs(store_trees_fd(s), &st) < 0)
        return LIMIT_BLOB_BYTES;
    bytes = (uint64_t)st.f_blocks * st.f_frsize;
    return MIN(bytes - reserve_of(bytes), LIMIT_BLOB_BYTES);
}

int flight_check_room(Store *s, uint64_t need, uint64_t room, Err *err) {
    if (need <= room)
        return 0;
    return err_set(err, -ENOSPC,
                   "needs %s, %s free in %s; remove artifacts with cache-ctl rm, or enlarge it",
                   FORMAT_BYTES(need), FORMAT_BYTES(room), store_path(s));
}

int flight_explain_space(Store *s, int r, Err *err) {
    Err old = *err;

    if (r != -ENOSPC || !fs_lacks_inodes(store_trees_fd(s)))
        return r;
    return err_set(err, r, "%s: %s", old.text, fs_space_advice(store_trees_fd(s)));
}

static int begin_ingest(Store *s, const char *name, int *ret_fd, Err *err) {
    bool root = geteuid() == 0;
    int r = store_ingest_begin(s, name, root ? NOBODY : geteuid(), root ? NOBODY : getegid(),
                               ret_fd, err);

    return flight_explain_space(s, r, err);
}

int flight_make_folder(Store *s, const char *name, int *ret_fd, Err *err) {
    int r = begin_ingest(s, name, ret_fd, err);

    if (r == -ENOSPC && flight_make_room(s).some)
        r = begin_ingest(s, name, ret_fd, err);
    return r;
}

static int check_digest(const FlightPlan *plan, Err *err) {
    const Manifest *m = plan->manifest;
    const Digest *want = plan->reference->has_digest ? &plan->reference->digest : NULL;
    Digest digest;
    int r;

    digest_of(&digest, m->bytes, m->n_bytes);
    if (!digest_equal(&digest, &m->digest))
        return err_set(err, -EBADMSG, "the manifest is not what its digest %s says",
                       DIGEST_STR(&m->digest));
    if (want && !digest_equal(want, &m->digest) &&
        !(plan->index && digest_equal(want, &plan->index->digest)))
        return err_set(err, -EBADMSG, "the registry gave the manifest %s, not the one asked for",
                       DIGEST_STR(&m->digest));
    r = plan->index ? chain_check_index(plan->index, &m->digest, err) : 0;
    return r < 0 ? r : chain_check_layers(m, err);
}

/* Only a reference that led to an index depends on the platform; others are good for every one. */
static int set_reference(Store *s, const Grant *grant, const Manifest *m, const char *reference,
                         const char *platform, Err *err) {
    GrantReference r = { reference, m->platform ? platform : NULL, NULL };
    Digest artifact;

    manifest_key(m, &artifact);
    r.manifest = &artifact;
    return store_grant_add(s, grant, &r, err);
}

/* What is stored under the reference is given, whatever the registry has there now. */
static int find_kept(Store *s, FlightPlan *plan, Err *err) {
    const AccessName name = { plan->reference, plan->text, plan->platform, plan->manifest->filter };
    int r = access_take(s, &name, &plan->given, err);

    if (r == ACCESS_ABSENT && plan->aim == ACCESS_AIM_CHECK)
        return access_absent(&name, err);
    if (r <= 0)
        return r;
    r = store_grant_add(s, &plan->grant, NULL, err);
    return r < 0 ? r : 1;
}

int flight_look_up(Store *s, const StorePull *pull, const char *id, const Layer *layer,
                   uint64_t *ret_claimed, Err *err) {
    Err why = { "" };
    int r;

    if (ret_claimed)
        *ret_claimed = 0;
    r = store_lease_layer(s, pull, layer, err);
    if (r != 0 || !ret_claimed)
        return r;
    r = store_partial_claim(s, pull->ingest, layer, ret_claimed, &why);
    if (r < 0) /* it comes as a whole then */
        log_write(r == -ESTALE ? LOG_WARN : LOG_DEBUG, LOG_FIELDS({ "pull", id }), "%s",
                  err_text(&why, r));
    return 0;
}

/* Nothing is fetched any more, but the whole has its subsets.  1 and the artifact; -ETIMEDOUT. */
static int make_late(Store *s, const FlightPlan *plan, Digest *ret, Err *err) {
    const Manifest *m = plan->manifest;
    int r = m->filter ? store_has_manifest(s, &m->digest, plan->pull.origin, err) : 0;

    if (r > 0)
        r = store_make_subset(s, &m->digest, m->filter, ret, err);
    else if (r == 0)
        r = -ENOENT;
    if (r == -ENOENT)
        return err_set(err, -ETIMEDOUT,
                       "%.300s is not stored here, and is not pulled any more; cache-ctl pull "
                       "brings it, and the next try mounts it then",
                       plan->text);
    return r < 0 ? r : 1;
}

int flight_make_plan(Store *s, FlightPlan *plan, Err *err) {
    const Manifest *m = plan->manifest;
    Digest artifact;
    int r = check_digest(plan, err);

    if (r >= 0 && plan->aim != ACCESS_AIM_FETCH)
        r = find_kept(s, plan, err);
    if (r != 0)
        return r;
    manifest_key(m, &artifact);
    r = store_has_manifest(s, &artifact, plan->pull.origin, err);
    if (r == 0 && plan->late)
        r = make_late(s, plan, &artifact, err);
    if (r > 0) {
        plan->given = artifact;
        r = set_reference(s, &plan->grant, m, plan->text, plan->platform, err);
        return r < 0 ? r : 1;
    }
    for (size_t i = 0; r >= 0 && i < m->n_layers; i++) {
        r = plan->ask[i]
                ? flight_look_up(s, &plan->pull, plan->id, &m->layers[i], &plan->claimed[i], err)
                : 0;
        plan->cached[i] = r > 0;
    }
    plan->room = flight_room(s); /* without what was claimed, which need not be written again */
    return r < 0 ? r : 0;
}

FlightFreed flight_make_room(Store *s) {
    FlightFreed freed = { 0 };
    Err err = { "" };
    int r = store_prune(s, &freed.bytes, &err);

    if (r < 0) /* the one who wants the room fails */
        log_debug("%s", err_text(&err, r));
    freed.some = r > 0 || freed.bytes > 0;
    return freed;
}

/* What was complete, or came in part, when the network failed, or the worker, or when we stop,
 * serves the next try. */
static bool is_worth_another_try(int r) {
    static const int passing[] = { -ECONNREFUSED, -ECONNRESET, -EHOSTUNREACH, -ENETUNREACH, -EPIPE,
                                   -ETIMEDOUT,    -ECANCELED,  -EAGAIN,       -EIO };

    for (size_t i = 0; i < ELEMENTSOF(passing); i++)
        if (passing[i] == r)
            return true;
    return false;
}

int flight_failed(Store *s, const char *ingest, int result, bool died, FlightFreed *ret_freed,
                  Err *err) {
    /* What this pull leases and holds in its folder stays here. */
    FlightFreed freed = result == -ENOSPC ? flight_make_room(s) : (FlightFreed){ 0 };
    bool again = is_worth_another_try(result) || freed.some;
    Err why = { "" };
    int r = 0;

    *ret_freed = freed;
    if (result != -EPROTO && (result != -ENOSPC || again))
        r = store_partial_keep(s, ingest, died, err);
    if (!again && r >= 0)
        r = store_ingest_discard(s, ingest, err);
    if (r < 0) { /* the first failure is told */
        (void)!store_ingest_end(s, ingest, &why);
        return r;
    }
    return store_ingest_end(s, ingest, err);
}

void flight_refused(Store *s, const Grant *grant, const AccessName *name, int r, bool answered) {
    bool nobody = answered && r != -EKEYREJECTED;
    Err err = { "" };

    if (r == -ENOENT && !access_is_stored(s, name))
        return;
    r = store_grant_remove(s, grant, nobody, &err);
    if (r < 0)
        log_warn("what is remembered of credentials for %s stays, though the registry refused "
                 "them now: %s",
                 name->text, err_text(&err, r));
}

int flight_commit(Store *s, const Manifest *m, const Grant *grant, const char *reference,
                  const char *platform, Err *err) {
    int r = store_commit_manifest(s, m, grant->origin, NULL, err);

    if (r == -ENOSPC && flight_make_room(s).some)
        r = store_commit_manifest(s, m, grant->origin, NULL, err);
    if (r < 0)
        return flight_explain_space(s, r, err);
    return set_reference(s, grant, m, reference, platform, err);
}
