/* SPDX-License-Identifier: Apache-2.0 */
/* params: what a volume is to show, from volume_context (volumeAttributes) and secrets. */
#pragma once

#include "csi/backend.h"

/* An entry of a map of a request; borrowed strings. */
typedef struct KeyValue {
    const char *key, *value;
} KeyValue;

#define PARAMS_TIMEOUT_MAX_USEC (24 * 3600 * USEC_PER_SEC)

typedef struct Params {
    Reference *reference;
    char *platform; /* "linux/arm64"; NULL: the node's */
    PullPolicy policy;
    Filter *filter;                           /* include, exclude; NULL: all */
    char *sub_path;                           /* safe relative; NULL: the root of the tree */
    bool exec;                                /* noexec="false" */
    bool warm;                                /* read into the page cache after the mount */
    uint64_t timeout_usec;                    /* for the artifact, over all tries; 0: none */
    char *pod_namespace, *pod_name, *pod_uid; /* of the kubelet's podInfoOnMount; NULL: not said */
} Params;

/* Reads the `n` attributes.  Known: reference (alias image), pullPolicy, platform, subPath,
 * include, exclude, timeout, warm, noexec; those of the kubelet (csi.storage.k8s.io/…) are ignored
 * but for the pod's names.  Free with params_done(). Errors: -EINVAL unknown or contradicting
 * attributes, bad values, no reference. */
int params_parse(Params *ret, const KeyValue *context, size_t n, Err *err) _must_check_;
void params_done(Params *p);

/* What must be equal when a volume is published again, one line each: the caller frees it.  What
 * changes nothing of the mount is not in it. */
char *params_text(const Params *p) _must_check_;

/* Credentials of a volume's secrets: .dockerconfigjson, .dockercfg, or username with password,
 * which are for the registry of `reference` alone.  The sentences never quote a value.  Errors:
 * -EINVAL unknown keys, half a pair, malformed; -E2BIG more than LIMIT_CREDENTIALS_BYTES. */
int params_parse_secrets(CredentialList *ret, const Reference *reference, const KeyValue *secrets,
                         size_t n, Err *err) _must_check_;

/* Is the text UTF-8 without control characters (which would break log lines, tables and messages)?
 */
bool params_is_plain(const char *text);
