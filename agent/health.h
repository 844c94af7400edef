/* SPDX-License-Identifier: Apache-2.0 */
/* health: is the daemon ready, and if not, why: for probes, the status and the metrics. */
#pragma once

#include "csi/server.h"

/* Filled by the agent while it starts; of the loop's thread. */
typedef struct Health {
    const CsiServer *csi; /* NULL: it does not serve yet; the store is open and recovered before */
    bool stopping;
    const char *metrics_address; /* "" is off; never NULL */
    char *metrics_trouble;       /* why nothing is served there, or NULL; owned */
} Health;

#define HEALTH_REASON_MAX 512
/* Can the kubelet have volumes published?  Else `reason` says why not, for people.  Costs a look at
 * a socket's name; asks neither disk nor network. */
bool health_is_ready(const Health *h, char reason[static HEALTH_REASON_MAX]);
/* registration_state(). */
RegistrationState health_registration(const Health *h, const char **ret_detail);
