/* SPDX-License-Identifier: Apache-2.0 */
/* backend: what a volume needs from the rest of the daemon: an artifact in the store.  agent/
 * provides it. */
#pragma once

#include "base/err.h"
#include "base/pool.h"
#include "cache/mount.h"
#include "cache/store.h"
#include "oci/credential.h"
#include "oci/ref.h"

typedef enum PullPolicy {
    PULL_POLICY_DEFAULT, /* as Kubernetes: Always for :latest, else IfNotPresent */
    PULL_POLICY_ALWAYS,
    PULL_POLICY_IF_NOT_PRESENT,
    PULL_POLICY_NEVER,
} PullPolicy;
/* "Always" "IfNotPresent" "Never"; NULL or "" is the default.  -EINVAL with the list. */
int pull_policy_parse(PullPolicy *ret, const char *text, Err *err) _must_check_;

/* Whose volume asks, for the log and the history; each may be NULL. */
typedef struct Asker {
    const char *volume_id, *pod_namespace, *pod_name;
} Asker;

typedef struct EnsureRequest {
    Asker asker;                /* copied */
    const Reference *reference; /* borrowed for the call; copied */
    const char *platform;       /* NULL: the node's */
    PullPolicy policy;
    const Filter *filter;              /* the subset that is wanted; NULL: all; copied */
    const CredentialList *credentials; /* of the asker; NULL or empty: the node's; copied */
    bool background;                   /* nobody waits */
    uint64_t deadline_usec; /* of now_usec(): until then a pull is waited for, and when it ends
                               nobody who asked for it waits longer, it ends; 0: for ever.
                               Past: nothing is fetched, but what is stored is given */
    bool trusted;           /* the node's administrator: may have what is stored */
} EnsureRequest;

/* Called once, on the loop: r >= 0 and the artifact (store.h), which is stored complete; or an
 * error of proto/status.h, of which -ETIMEDOUT also is the deadline's. */
typedef void (*EnsureDone)(void *arg, int r, const Err *err, const Digest *artifact);

/* One asker's ticket.  The pull outlives it: freeing a ticket only forgets the callback. */
typedef struct EnsureTicket EnsureTicket;

/* The daemon's side; every function is called on the loop. */
typedef struct Backend {
    sd_event *loop; /* borrowed */
    Store *store;
    Pool *pool; /* blocking work that somebody waits for goes here */
    MountMethod mount_method;
    const char *node;               /* node id */
    uint64_t warm_bytes_per_second; /* 0: no limit */
    void *arg;
    int (*ensure)(void *arg, EnsureTicket **ret, const EnsureRequest *request, EnsureDone done,
                  void *done_arg, Err *err);
    EnsureTicket *(*ticket_free)(
        EnsureTicket *t); /* NULL is fine; returns NULL; may be called from within the EnsureDone */
    /* A sentence on how far it is: "resolving", "3.2 of 14.0 GiB (23 %), 412 MiB/s, about 27 s
     * left". */
    void (*ticket_progress)(const EnsureTicket *t, char *buf, size_t n);
    /* Id of the pull that it waits for, or "" (the store knew it, or is still asked).  Borrowed;
     * also within the EnsureDone. */
    const char *(*ticket_pull)(const EnsureTicket *t);
    /* For the history and the log, said once at the end of an operation; `text` is a sentence. */
    void (*event)(void *arg, const StoreEvent *event);
    /* A volume was mounted; `usec` since the first call of those that were waited for. */
    void (*published)(void *arg, uint64_t usec, bool pulled);
} Backend;

#define PULL_ID_MAX 33 /* with its NUL */
