/* SPDX-License-Identifier: Apache-2.0 */
/* pull_options: what the configuration says about pulls, with the files it names read. */
#pragma once

#include "agent/config.h"
#include "oci/credential.h"
#include "oci/ref.h"
#include "proto/worker.pb-c.h"

/* When a registry is asked whether a pod may have what is stored. */
typedef enum AccessCheck {
    ACCESS_CHECK_IF_NOT_GRANTED, /* unless it said so before */
    ACCESS_CHECK_ALWAYS,         /* at each publish */
    ACCESS_CHECK_NEVER,
} AccessCheck;

/* One registry's settings. */
typedef struct PullRegistry {
    char *host;
    bool plain_http, skip_verify;
    char *ca_pem; /* NULL: none */
    size_t ca_bytes;
    unsigned connections;     /* of all pulls together; 0: no limit */
    uint64_t range_min_bytes; /* 0: never */
    AccessCheck access_check;
} PullRegistry;

/* Never changed once it is made; a reload makes another.  Pulls that run hold a reference: owners
 * are the puller and each pull. */
typedef struct PullOptions {
    unsigned refs;
    unsigned concurrent, connections; /* of the node */
    unsigned stall_seconds, give_up_seconds;
    uint64_t memory_bytes;         /* buffers of one pull … */
    uint64_t memory_total_bytes;   /* … and of all together */
    uint64_t range_min_bytes;      /* of registries that are not listed; 0: never */
    uint64_t background_bandwidth; /* bytes per second of all background pulls; 0: no limit */
    uint64_t standby_usec;         /* a worker stays ready for so long after a pull; 0: none does */
    bool page_cache;
    AccessCheck access_check;      /* of registries that are not listed */
    bool access_open;              /* what is stored is given when a registry cannot be asked */
    uint64_t access_lifetime_usec; /* of what a registry said */
    Modelcached__Worker__IoMode io;
    PullRegistry *registries;
    size_t n_registries;
    CredentialList credentials; /* the node's */
} PullOptions;

/* Reads the CA files and the docker config.json.  Errors: -EPROTO not a config.json; -E2BIG; as
 * open(2). */
int pull_options_new(PullOptions **ret, const Config *config, Err *err) _must_check_;
/* What is set for the registry of `reference`; NULL: nothing.  Borrowed. */
const PullRegistry *pull_options_registry(const PullOptions *o, const Reference *reference);
/* What holds for the reference's registry. */
uint64_t pull_options_range_min(const PullOptions *o, const Reference *reference);
AccessCheck pull_options_access_check(const PullOptions *o, const Reference *reference);
/* Is there a registry whose certificate is to be verified among those that are listed, or are there
 * none? */
bool pull_options_tls_is_likely(const PullOptions *o);
/* Pulls that run at once, at most: as many in the background as such that somebody waits for. */
unsigned pull_options_max_running(const PullOptions *o);
/* Bytes of buffers that a pull has at first. */
uint64_t pull_options_first_memory(const PullOptions *o);
PullOptions *pull_options_ref(PullOptions *o);
PullOptions *pull_options_unref(PullOptions *o);
DEFINE_CLEANUP(PullOptions, pull_options_unref);
