/* SPDX-License-Identifier: Apache-2.0 */
/* lookup: what the store knows of a request, before a registry is asked. */
#include "agent/lookup.h"

void lookup_done(Lookup *l) {
    (void)reference_free(l->reference);
    free(l->reference_text);
    free(l->platform);
    (void)filter_free(l->filter);
    *l = (Lookup){ 0 };
}

static AccessName name_of(const Lookup *l) {
    return (AccessName){ l->reference, l->reference_text, l->platform, l->filter };
}

/* May it have what is stored, without asking the registry?  1 or 0. */
static int is_let_in(Store *s, const Lookup *l, Err *err) {
    _cleanup_free_ char *origin = NULL;
    Grant grant;

    if (l->check != ACCESS_CHECK_IF_NOT_GRANTED)
        return l->check == ACCESS_CHECK_NEVER;
    origin = reference_origin(l->reference);
    grant = (Grant){ origin, l->fingerprint, l->lifetime_usec };
    return store_grant_has(s, &grant, err);
}

int lookup_run(Store *s, Lookup *l, Err *err) {
    AccessName name = name_of(l);
    int in, r;

    if (l->policy == PULL_POLICY_ALWAYS && !l->reference->has_digest) {
        l->open = false;
        return ACCESS_ABSENT;
    }
    in = is_let_in(s, l, err);
    l->open &= in == 0;
    if (in < 0 || (in == 0 && !l->open))
        return in;
    r = access_find(s, &name, &l->found, err);
    if (in == 0) {
        l->open = r > 0;
        return MIN(r, (int)ACCESS_ABSENT);
    }
    if (r == ACCESS_ABSENT && l->policy == PULL_POLICY_NEVER)
        return access_absent(&name, err);
    if (r > 0) /* the time of use is not worth failing for */
        (void)!store_touch(s, &l->found, NULL);
    return r;
}

int lookup_make_subset(Store *s, Lookup *l, Err *err) {
    AccessName name = name_of(l);
    int r = access_make_subset(s, &name, &l->found, err);

    return r == ACCESS_ABSENT && l->policy == PULL_POLICY_NEVER ? access_absent(&name, err) : r;
}
