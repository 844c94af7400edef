/* SPDX-License-Identifier: Apache-2.0 */
/* capability: which access types, access modes and mount flags of CSI a read-only volume can have.
 */
#pragma once

#include "base/err.h"

#include "proto/csi.pb-c.h"

typedef struct Capability {
    bool multi_node; /* MULTI_NODE_*: several targets at the same time */
    bool noexec;     /* the flag noexec */
    char *text;      /* canonical, for comparing two publishes; the caller frees it */
} Capability;

/* Takes mount volumes whose mode lets readers in, also the single-node writers that the kubelet
 * asks for by default (the mount is read-only all the same).  Errors: -EINVAL no capability, block,
 * a mode of writers on several nodes (whose writes would have to meet), mount flags other than the
 * harmless ones. */
int capability_check(const Csi__V1__VolumeCapability *c, bool readonly, Capability *ret, Err *err)
    _must_check_;
