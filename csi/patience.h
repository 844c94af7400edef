/* SPDX-License-Identifier: Apache-2.0 */
/* patience: how long volumes wait for their artifact that say so (the attribute timeout): counted
 * over all tries, since the kubelet gives up a try after two minutes and makes another. */
#pragma once

#include "csi/volume.h"

typedef struct Patience Patience;

Patience *patience_new(void);
Patience *patience_free(Patience *p);
DEFINE_CLEANUP(Patience, patience_free);

/* Until when (now_usec()) the volume waits: `timeout_usec` after its first try.  A volume that was
 * not heard of for PATIENCE_FORGET_USEC begins anew. */
uint64_t patience_until(Patience *p, const VolumeKey *key, uint64_t timeout_usec, uint64_t now);
/* It has its artifact, or is gone. */
void patience_forget(Patience *p, const VolumeKey *key);

#define PATIENCE_FORGET_USEC (3600 * USEC_PER_SEC) /* the kubelet tries every 2 min at least */
