/* SPDX-License-Identifier: Apache-2.0 */
/* credential: who we are at which registry; from a volume's secret or a docker config.json. */
#pragma once

#include "base/err.h"

/* Bound to the host[:port] it was given for.  Memory is wiped when it is freed. */
typedef struct Credential {
    char *origin; /* "registry.example:5000"; docker.io's many spellings become "docker.io" */
    char *path;   /* repository prefix of a key like "host/team"; NULL: all of the host */
    char *username, *password;
    char *identity_token; /* OAuth2 refresh token */
    char *registry_token; /* bearer token, sent as it is */
} Credential;

typedef struct CredentialList {
    Credential *items;
    size_t n;
} CredentialList;
void credential_list_done(CredentialList *l);

/* A docker config.json or .dockerconfigjson ("auths"), or the older .dockercfg (the map itself):
 * appended to `l`. Keys may be "https://index.docker.io/v1/", "host", "host:port",
 * "https://host/path".  credsStore and credHelpers are not run (a sentence says so at debug level).
 * Errors: -EPROTO malformed (the sentence never quotes the content). */
int credential_parse_docker(CredentialList *l, const void *data, size_t n, Err *err) _must_check_;
/* One pair for a registry.  Errors: -EINVAL control characters or ':' in the user name. */
int credential_add(CredentialList *l, const char *origin, const char *username,
                   const char *password, Err *err) _must_check_;
/* The best one for a repository on a registry (longest path prefix wins), or NULL.  Borrowed. */
const Credential *credential_find(const CredentialList *l, const char *registry,
                                  const char *repository);
/* Stable 32-byte fingerprint of the credential (or of NULL), for joining pulls; not reversible in
 * practice. */
void credential_fingerprint(const Credential *c, uint8_t ret[static 32]);
