/* SPDX-License-Identifier: Apache-2.0 */
/* health: is the daemon ready, and if not, why. */
#include "agent/health.h"

RegistrationState health_registration(const Health *h, const char **ret_detail) {
    *ret_detail = "the daemon is starting";
    return h->csi ? csi_server_registration(h->csi, ret_detail) : REGISTRATION_WAITING;
}

bool health_is_ready(const Health *h, char reason[static HEALTH_REASON_MAX]) {
    const char *detail;
    RegistrationState state = health_registration(h, &detail);

    reason[0] = 0;
    if (h->stopping)
        (void)snprintf(reason, HEALTH_REASON_MAX, "the daemon is ending");
    else if (!h->csi)
        (void)snprintf(reason, HEALTH_REASON_MAX, "the daemon is starting");
    else if (!csi_server_is_reachable(h->csi))
        (void)snprintf(
            reason, HEALTH_REASON_MAX,
            "the CSI socket is not there; it is made as soon as the kubelet's folder is");
    else if (state == REGISTRATION_WAITING)
        (void)snprintf(reason, HEALTH_REASON_MAX,
                       "waiting for the kubelet to register the driver: %s", detail);
    else if (state == REGISTRATION_REFUSED)
        (void)snprintf(reason, HEALTH_REASON_MAX, "the kubelet did not register the driver: %s",
                       detail);
    return !*reason;
}
