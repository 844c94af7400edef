/* SPDX-License-Identifier: Apache-2.0 */
/* access: what the store has for a name, and what those hear who may not have it. */
#include "agent/access.h"

int access_find(Store *s, const Reference *reference, const char *text, const char *platform,
                Digest *ret, Err *err) {
    _cleanup_free_ char *origin = NULL;
    int r = store_resolve(s, text, platform, ret, err);

    if (r != -ENOENT)
        return r < 0 ? r : 1;
    if (!reference->has_digest)
        return 0;
    origin = reference_origin(reference);
    r = store_has_manifest(s, &reference->digest, origin, err);
    if (r <= 0)
        return r;
    *ret = reference->digest; /* it came under another name of this repository */
    r = store_set_reference(s, text, NULL, ret, err);
    return r < 0 ? r : 1;
}

int access_absent(const char *text, const char *platform, Err *err) {
    return err_set(err, -ENOENT,
                   "%s is not stored here for %s, and the pull policy is Never; "
                   "pull it with cache-ctl pull, or use IfNotPresent",
                   text, platform);
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
