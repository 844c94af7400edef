/* SPDX-License-Identifier: Apache-2.0 */
/* flight_job: the order that a worker gets, from the configuration and the reference. */
#pragma once

#include "agent/pull_options.h"
#include "agent/worker.h"
#include "oci/ref.h"

typedef struct FlightJob {
    Modelcached__Worker__Job
        message; /* what worker_new() takes; points into what is below and into the sources */
    Modelcached__Worker__Limits limits;
    Modelcached__Worker__RegistryConfig *registries, **registry_list;
    Modelcached__Worker__Credential credential, *credential_list[1];
} FlightJob;

typedef struct FlightJobSources {
    const PullOptions *options;
    const Reference *reference;
    const Platform *platform;
    const Credential *credential; /* NULL: none */
    uint64_t file_max_bytes;      /* 0: no limit */
    WorkerLimits limits;          /* to begin with */
    unsigned patience_seconds; /* with a registry that cannot be reached; 0: as the options say */
} FlightJobSources;

/* All sources are borrowed for as long as the job is used. */
void flight_job_init(FlightJob *job, const FlightJobSources *sources);
void flight_job_done(FlightJob *job);
