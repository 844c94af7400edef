/* SPDX-License-Identifier: Apache-2.0 */
/* access: what the store has for a name, and what those hear who may not have it. */
#include "agent/access.h"

/* What came under another name of this repository; as store_resolve(). */
static int find_by_digest(Store *s, const AccessName *name, Digest *ret, Err *err) {
    _cleanup_free_ char *origin = reference_origin(name->reference);
    const Digest *whole = &name->reference->digest;
    int r;

    filter_key(name->filter, whole, ret);
    r = store_has_manifest(s, ret, origin, err);
    if (r > 0)
        return store_set_reference(s, name->text, NULL, ret, err);
    if (r < 0 || !name->filter)
        return r < 0 ? r : -ENOENT;
    *ret = *whole;
    r = store_has_manifest(s, ret, origin, err);
    return r != 0 ? r : -ENOENT;
}

bool access_is_stored(Store *s, const AccessName *name) {
    _cleanup_free_ char *origin = NULL;
    Digest digest;
    Err err = { "" };

    if (store_resolve(s, name->text, name->platform, name->filter, &digest, &err) != -ENOENT)
        return true;
    if (!name->reference->has_digest)
        return false;
    origin = reference_origin(name->reference);
    return store_has_manifest(s, &name->reference->digest, origin, &err) != 0;
}

int access_find(Store *s, const AccessName *name, Digest *ret, Err *err) {
    int r = store_resolve(s, name->text, name->platform, name->filter, ret, err);

    if (r == -ENOENT && name->reference->has_digest)
        r = find_by_digest(s, name, ret, err);
    if (r == -ENOENT)
        return ACCESS_ABSENT;
    return r < 0 ? r : r > 0 ? ACCESS_WHOLE : ACCESS_FOUND;
}

/* A tag that moved or was removed meanwhile stays so; a digest means the same for ever. */
static int name_subset(Store *s, const AccessName *name, const char *platform, const Digest *subset,
                       Err *err) {
    return name->reference->has_digest
               ? store_set_reference(s, name->text, platform, subset, err)
               : store_widen_reference(s, name->text, platform, subset, err);
}

int access_make_subset(Store *s, const AccessName *name, Digest *artifact, Err *err) {
    _cleanup_(manifest_freep) Manifest *m = NULL;
    int r = store_make_subset(s, artifact, name->filter, artifact, err);

    if (r >= 0)
        r = store_manifest(s, artifact, &m, err);
    if (r >= 0)
        r = name_subset(s, name, m->platform ? name->platform : NULL, artifact, err);
    if (r == -ENOENT)
        return ACCESS_ABSENT;
    return r < 0 ? r : ACCESS_FOUND;
}

int access_take(Store *s, const AccessName *name, Digest *ret, Err *err) {
    int r = access_find(s, name, ret, err);

    return r == ACCESS_WHOLE ? access_make_subset(s, name, ret, err) : r;
}

int access_absent(const AccessName *name, Err *err) {
    return err_set(err, -ENOENT,
                   "%s is not stored here for %s%s, and the pull policy is Never; "
                   "pull it with cache-ctl pull, or use IfNotPresent",
                   name->text, name->platform, name->filter ? ", nor this subset of it" : "");
}

bool access_is_refusal(int r) {
    return r == -EKEYREJECTED || r == -EACCES;
}

void access_advise(Err *err, int r, AccessGiver giver) {
    static const char *const advice[] = {
        [ACCESS_GIVER_NOBODY] = "; no credentials were given: name a secret for this registry in "
                                "the volume's nodePublishSecretRef",
        [ACCESS_GIVER_VOLUME] = "; these are those of the volume's secret",
        [ACCESS_GIVER_NODE] = "; these are the node's: a secret in the volume's "
                              "nodePublishSecretRef goes before them",
        [ACCESS_GIVER_ADMIN] = "",
    };
    Err old = *err;

    (void)err_set(err, r, "%s%s", err_text(&old, r), advice[giver]);
}
