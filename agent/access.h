/* SPDX-License-Identifier: Apache-2.0 */
/* access: what the store has for a name, and what those hear who may not have it.
 *
 * Cached is not public: a pod gets what is stored of a repository only when the registry let the
 * credentials that count for it pull from there, or lets them now.  Who is not let in goes the way
 * of a pod on an empty node, so that nothing tells whether this one has the content. */
#pragma once

#include "cache/store.h"
#include "oci/ref.h"

/* What is asked for; all borrowed. */
typedef struct AccessName {
    const Reference *reference;
    const char *text, *platform; /* the reference's text */
    const Filter *filter;        /* the subset; NULL: all of it */
} AccessName;

typedef enum AccessFound {
    ACCESS_ABSENT,
    ACCESS_FOUND,
    ACCESS_WHOLE, /* the whole, of which access_make_subset() makes the subset */
} AccessFound;
/* What is stored under the reference, or, when it pins a digest, under another name of its
 * repository. */
int access_find(Store *s, const AccessName *name, Digest *ret, Err *err) _must_check_;
/* Is anything stored under it?  Changes nothing; true also when that cannot be found out. */
bool access_is_stored(Store *s, const AccessName *name);
/* Makes the subset of the whole `*artifact`, which becomes the subset, and points the reference at
 * it, unless it means another manifest by then; it may take long.  ACCESS_FOUND, or ACCESS_ABSENT
 * when the whole was removed meanwhile. Errors: those of store_make_subset(). */
int access_make_subset(Store *s, const AccessName *name, Digest *artifact, Err *err) _must_check_;
/* Both in one. */
int access_take(Store *s, const AccessName *name, Digest *ret, Err *err) _must_check_;
/* -ENOENT: nothing is stored, and nothing may be pulled. */
int access_absent(const AccessName *name, Err *err) _must_check_;

/* What a pull gives once the registry has answered. */
typedef enum AccessAim {
    ACCESS_AIM_FETCH, /* the manifest that the registry names */
    ACCESS_AIM_KEEP,  /* what is stored under the reference, and only else that */
    ACCESS_AIM_CHECK, /* what is stored under the reference, else -ENOENT */
} AccessAim;

/* Whose credentials a registry was asked with. */
typedef enum AccessGiver {
    ACCESS_GIVER_NOBODY,
    ACCESS_GIVER_VOLUME, /* its secret */
    ACCESS_GIVER_NODE,   /* credentials.docker_config */
    ACCESS_GIVER_ADMIN,  /* cache-ctl */
} AccessGiver;
/* Did the registry refuse the credentials? */
bool access_is_refusal(int r);
/* Adds to the sentence of a refusal what the author of a pod can do. */
void access_advise(Err *err, int r, AccessGiver giver);
