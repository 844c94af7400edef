/* SPDX-License-Identifier: Apache-2.0 */
/* registration: tells the kubelet of the driver (plugin registration API v1,
 * k8s.io/kubelet/pkg/apis/pluginregistration).
 *
 * The kubelet watches its registry folder, calls GetInfo on every socket that appears there, again
 * every 10 s in newer releases, and talks to the CSI socket at once: begin only when that one
 * answers, and stay. */
#pragma once

#include "csi/endpoint.h"

typedef struct Registration Registration;

typedef struct RegistrationOptions {
    sd_event *event;       /* a reference is kept */
    const char *directory; /* /var/lib/kubelet/plugins_registry */
    const char *driver;
    const char *endpoint; /* path of the CSI socket as the kubelet sees it */
    const Endpoint *csi;  /* the CSI socket, which has to answer first; borrowed */
} RegistrationOptions;

/* Listens on <directory>/<driver>-reg.sock, or waits for the directory.  Errors: as endpoint_new().
 */
int registration_new(Registration **ret, const RegistrationOptions *options, Err *err) _must_check_;
/* Removes the socket, by which older kubelets unregister the driver.  NULL is fine; returns NULL.
 */
Registration *registration_free(Registration *r);
DEFINE_CLEANUP(Registration, registration_free);

typedef enum RegistrationState {
    REGISTRATION_OFF,     /* is not configured */
    REGISTRATION_WAITING, /* the kubelet has not found the socket, or not decided */
    REGISTRATION_DONE,    /* the kubelet registered the driver */
    REGISTRATION_REFUSED, /* it did not, and said why */
} RegistrationState;
const char *
registration_state_name(RegistrationState s); /* "off" "waiting" "registered" "refused" */
/* What the kubelet said last; `*ret_detail` is a sentence, or its complaint, or "".  Borrowed. */
RegistrationState registration_state(const Registration *r, const char **ret_detail);
