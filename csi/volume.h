/* SPDX-License-Identifier: Apache-2.0 */
/* volume: the life of volumes: publish (ensure the artifact, record, mount), unpublish, stats,
 * recovery.
 *
 * It knows no gRPC: csi/node.c calls it for the kubelet, agent/ for `cache-ctl mount`, with ids
 * that begin with VOLUME_ID_CONTROL.  Operations on one target run one after the other.  Order on
 * disk: the record is written before the mount is made and goes after the mount and its directory
 * went, so that a crash leaves only what volumes_recover() or the next publish or unpublish puts
 * right.  (A power cut may take the record back; the mount is gone then, too.) */
#pragma once

#include "csi/params.h"

#define VOLUME_ID_CONTROL "ctl:"

/* All volumes that are being worked on. */
typedef struct Volumes Volumes;

/* `backend` is borrowed; its store must outlive its pool, and its pool's works may outlive the
 * Volumes. */
int volumes_new(Volumes **ret, const Backend *backend, Err *err) _must_check_;
/* Forgets all operations: no callback comes after it; works that run are ended by pool_free(). NULL
 * is fine. */
Volumes *volumes_free(Volumes *v);
DEFINE_CLEANUP(Volumes, volumes_free);

typedef struct VolumeKey {
    const char *volume_id; /* not empty, at most LIMIT_VOLUME_ID_BYTES, no control characters */
    const char *target;    /* clean absolute, without symlinks: see target_resolve() */
} VolumeKey;

typedef struct VolumePublishRequest {
    VolumeKey key;
    Params *params; /* taken, unless the call fails or joins: free with params_done() in any case */
    CredentialList *credentials; /* the same; NULL: the node's */
    const char
        *capability; /* more text that must be equal when it is published again; NULL: none */
    bool trusted;    /* the node's administrator, as in EnsureRequest */
    bool noexec;     /* also when the parameters allow execution */
    bool multi_node; /* other targets may show the volume at the same time */
} VolumePublishRequest;

/* Called once, on the loop, never from within the call that asked for it. */
typedef void (*VolumeDone)(void *arg, int r, const Err *err);
/* One asker's interest. */
typedef struct VolumeTicket VolumeTicket;

/* Publishes.  A publish of the same volume, target and attributes that runs already is
 * joined.  Errors, here or through `done`:
 *   -EINVAL target or subPath cannot be (nothing is mounted in the store); -ENOENT no such artifact
 * or subPath; -EEXIST published with other attributes; -EBUSY published at another target, or the
 * target is in use; -EINPROGRESS another operation works on the target; -ECANCELED unpublished
 * meanwhile; -ETIMEDOUT its timeout is over; those of EnsureDone; -EPERM, -EIO of mounting. */
int volume_publish(Volumes *v, VolumeTicket **ret, const VolumePublishRequest *request,
                   VolumeDone done, void *arg, Err *err) _must_check_;
/* Unmounts, removes the empty directory, forgets; ends a publish that still waits for its artifact.
 * What is not there is fine.  Errors: -EINPROGRESS another volume is being published at the target;
 * through `done`: -EBUSY the directory is not empty, or a
 * foreign mount is there; -EIO. */
int volume_unpublish(Volumes *v, VolumeTicket **ret, const VolumeKey *key, VolumeDone done,
                     void *arg, Err *err) _must_check_;
/* A sentence on what is being waited for. */
void volume_ticket_progress(const VolumeTicket *t, char *buf, size_t n);
/* Id of the pull that is waited for, or "".  Borrowed until the loop goes on. */
const char *volume_ticket_pull(const VolumeTicket *t);
/* Loses interest, before or after `done`: a publish that still waits for its artifact and that
 * nobody else waits for ends (the pull goes on), everything else is completed.  NULL is fine;
 * returns NULL. */
VolumeTicket *volume_ticket_free(VolumeTicket *t);
DEFINE_CLEANUP(VolumeTicket, volume_ticket_free);

typedef struct VolumeStats {
    uint64_t bytes, files;
    bool mounted;
    char *condition; /* a sentence; the caller frees it */
} VolumeStats;
/* Blocks: for a pool work.  Errors: -ENOENT no such volume at this target. */
int volume_stats(Store *s, const VolumeKey *key, VolumeStats *ret, Err *err) _must_check_;

/* What a start found. */
typedef struct VolumesFound {
    unsigned mounted;   /* recorded and there */
    unsigned unmounted; /* recorded, its directory is there without the mount: the next publish
                           mounts it */
    unsigned
        dropped; /* its directory is gone, or it was mounted by cache-ctl and is not any more */
    unsigned foreign; /* mounts of the store's trees that no record knows; they stay */
} VolumesFound;
/* Matches records with mounts; blocks; called once at start, before anybody can publish.  Errors:
 * -EIO of the store. */
int volumes_recover(Volumes *v, VolumesFound *ret, Err *err) _must_check_;
