/* SPDX-License-Identifier: Apache-2.0 */
/* copy: copies of what oci/ parses, for requests that outlive their caller. */
#pragma once

#include "oci/credential.h"
#include "oci/ref.h"

Reference *reference_copy(const Reference *from) _must_check_;
/* An empty list that becomes the one credential, or stays empty for NULL.  credential_list_done()
 * wipes it. */
void credential_list_copy(CredentialList *to, const Credential *c);
