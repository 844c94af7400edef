/* SPDX-License-Identifier: Apache-2.0 */
/* server: the CSI plugin on its socket, and its registration with the kubelet. */
#pragma once

#include "csi/registration.h"
#include "csi/volume.h"
#include "proto/status.h"

typedef struct CsiServer CsiServer;

typedef struct CsiServerOptions {
    sd_event *event;        /* a reference is kept */
    const Backend *backend; /* borrowed */
    Volumes *volumes;       /* borrowed; free it after the server; recovered already */
    const char *driver;     /* csi.modelcached.dev */
    const char *version;
    const char *socket; /* absolute path; its last directory is made (0750) when it is absent */
    const char *const *kubelet_dirs; /* target paths lie beneath one of these; ends with NULL */
    const char *registration_dir;    /* NULL or "": no registration */
    const char
        *registration_endpoint; /* path of the socket as the kubelet sees it; NULL: `socket` */
    /* A call has ended, for counting: `method` is a number of csi_method_name().  May be NULL. */
    void (*on_call)(void *arg, unsigned method, GrpcCode code);
    void *arg;
} CsiServerOptions;

/* "NodePublishVolume" and so on; the last one is "other", for all that is not served.  NULL: there
 * is no such number. */
const char *csi_method_name(unsigned method);

/* Serves; then, as the order must be, registers; both as soon as the kubelet's folders are there,
 * and again when somebody removed the sockets.  Errors: -EINVAL a name or path that cannot be
 * (driver: at most 63 letters, digits, '-', '.', '_', letters at both ends); as endpoint_new(). */
int csi_server_new(CsiServer **ret, const CsiServerOptions *options, Err *err) _must_check_;
/* Unregisters, then lets running calls end for at most `usec`; `done` is called once. */
void csi_server_stop(CsiServer *s, uint64_t usec, void (*done)(void *arg), void *arg);
/* Ends everything.  NULL is fine; returns NULL. */
CsiServer *csi_server_free(CsiServer *s);
DEFINE_CLEANUP(CsiServer, csi_server_free);

/* registration_state(). */
RegistrationState csi_server_registration(const CsiServer *s, const char **ret_detail);
/* Is the socket where it was made?  Else the kubelet cannot reach us. */
bool csi_server_is_reachable(const CsiServer *s);
