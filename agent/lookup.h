/* SPDX-License-Identifier: Apache-2.0 */
/* lookup: what the store knows of a request, before a registry is asked.  All of it blocks. */
#pragma once

#include "csi/backend.h"

typedef struct Lookup {
    Reference *reference;
    char *reference_text, *platform;
    Filter *filter;    /* NULL: all of it */
    PullPolicy policy; /* not the default */
    Digest found;      /* out: the artifact; of LOOKUP_WHOLE that which the subset is made of */
} Lookup;
void lookup_done(Lookup *l);

typedef enum LookupResult {
    LOOKUP_ASK,   /* a registry has to be asked */
    LOOKUP_FOUND, /* `found` is it */
    LOOKUP_WHOLE, /* lookup_make_subset() makes it, which may take long */
} LookupResult;
/* Errors: -ENOENT it is not stored, and the policy is Never; those of the store. */
int lookup_run(Store *s, Lookup *l, Err *err) _must_check_;
/* LOOKUP_FOUND, or LOOKUP_ASK when the whole was removed meanwhile.  Errors: those of
 * store_make_subset(). */
int lookup_make_subset(Store *s, Lookup *l, Err *err) _must_check_;
