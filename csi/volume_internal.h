/* SPDX-License-Identifier: Apache-2.0 */
/* volume_internal: what the files volume*.c share. */
#pragma once

#include "csi/patience.h"
#include "csi/volume_work.h"
#include "csi/warm.h"

typedef struct VolumeOp VolumeOp;

struct Volumes {
    const Backend *backend; /* borrowed */
    Patience *patience;
    Warmer *warmer;
    VolumeOp *ops; /* running and waiting, oldest first */
};

/* What an event is about; all may be NULL. */
typedef struct VolumeSubject {
    const Volume *volume;
    const char *pull; /* id */
} VolumeSubject;

/* Tells the backend what became of it. */
void volumes_event(const Volumes *v, const VolumeSubject *subject, const char *type,
                   const char *format, ...) _printf_(4, 5);
