/* SPDX-License-Identifier: Apache-2.0 */
/* lookup: what the store knows of a request, before a registry is asked. */
#include "agent/lookup.h"

#include "agent/flight_work.h"

void lookup_done(Lookup *l) {
    (void)reference_free(l->reference);
    free(l->reference_text);
    free(l->platform);
    (void)filter_free(l->filter);
    *l = (Lookup){ 0 };
}

/* What came under another name of this repository; as store_resolve(). */
static int look_by_digest(Store *s, Lookup *l, Err *err) {
    _cleanup_free_ char *origin = reference_origin(l->reference);
    int r;

    filter_key(l->filter, &l->reference->digest, &l->found);
    r = store_has_manifest(s, &l->found, origin, err);
    if (r > 0)
        return store_set_reference(s, l->reference_text, NULL, &l->found, err);
    if (r < 0 || !l->filter)
        return r < 0 ? r : -ENOENT;
    l->found = l->reference->digest;
    r = store_has_manifest(s, &l->found, origin, err);
    return r != 0 ? r : -ENOENT;
}

static int refuse_never(const Lookup *l, Err *err) {
    return err_set(err, -ENOENT,
                   "%s is not stored here for %s%s, and the pull policy is Never; "
                   "pull it with cache-ctl pull, or use IfNotPresent",
                   l->reference_text, l->platform, l->filter ? ", nor this subset of it" : "");
}

int lookup_run(Store *s, Lookup *l, Err *err) {
    int r;

    if (l->policy == PULL_POLICY_ALWAYS && !l->reference->has_digest)
        return LOOKUP_ASK;
    r = store_resolve(s, l->reference_text, l->platform, l->filter, &l->found, err);
    if (r == -ENOENT && l->reference->has_digest)
        r = look_by_digest(s, l, err);
    if (r == -ENOENT)
        return l->policy == PULL_POLICY_NEVER ? refuse_never(l, err) : LOOKUP_ASK;
    if (r >= 0) /* the time of use is not worth failing for */
        (void)!store_touch(s, &l->found, NULL);
    return r < 0 ? r : r > 0 ? LOOKUP_WHOLE : LOOKUP_FOUND;
}

int lookup_make_subset(Store *s, Lookup *l, Err *err) {
    const FlightSubset want = { l->found, l->filter, l->reference_text, l->platform };
    int r = flight_make_subset(s, &want, &l->found, err);

    if (r == -ENOENT)
        return l->policy == PULL_POLICY_NEVER ? refuse_never(l, err) : LOOKUP_ASK;
    return r < 0 ? r : LOOKUP_FOUND;
}
