/* SPDX-License-Identifier: Apache-2.0 */
/* lookup: what the store knows of a request, before a registry is asked.  All of it blocks. */
#pragma once

#include "agent/access.h"
#include "agent/pull_options.h"
#include "csi/backend.h"

typedef struct Lookup {
    Reference *reference;
    char *reference_text, *platform;
    Filter *filter;                   /* NULL: all of it */
    uint8_t fingerprint[GRANT_BYTES]; /* of the credential for this reference */
    PullPolicy policy;                /* not the default */
    AccessCheck check;
    uint64_t lifetime_usec; /* of grants */
    bool open;              /* what is stored is given when the registry cannot be reached; out:
                               there is something */
    Digest found; /* out: the artifact; of ACCESS_WHOLE that which the subset is made of */
} Lookup;
void lookup_done(Lookup *l);

/* AccessFound, or ACCESS_ABSENT when a registry has to be asked.  Who is not let in is not even
 * looked for, but where what is stored is given anyway: whether it is must make no difference.
 * Errors: -ENOENT it is not stored, and the policy is Never; those of the store. */
int lookup_run(Store *s, Lookup *l, Err *err) _must_check_;
/* The second step of ACCESS_WHOLE; as access_make_subset(), and -ENOENT as above. */
int lookup_make_subset(Store *s, Lookup *l, Err *err) _must_check_;
