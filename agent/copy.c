/* SPDX-License-Identifier: Apache-2.0 */
/* copy: copies of what oci/ parses, for requests that outlive their caller. */
#include "agent/copy.h"

Reference *reference_copy(const Reference *from) {
    Reference *to = xnew(Reference);

    *to = (Reference){ .registry = xstrdup(from->registry),
                       .repository = xstrdup(from->repository),
                       .tag = xstrdup(from->tag),
                       .has_digest = from->has_digest,
                       .digest = from->digest };
    return to;
}

void credential_list_copy(CredentialList *to, const Credential *c) {
    if (!c)
        return;
    to->items = xnew(Credential);
    to->n = 1;
    *to->items = (Credential){ .origin = xstrdup(c->origin),
                               .path = xstrdup(c->path),
                               .username = xstrdup(c->username),
                               .password = xstrdup(c->password),
                               .identity_token = xstrdup(c->identity_token),
                               .registry_token = xstrdup(c->registry_token) };
}
