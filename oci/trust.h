/* SPDX-License-Identifier: Apache-2.0 */
/* trust: the CAs that are believed, read once for all connections: OpenSSL 3 takes 16 ms for the
 * 140 of a distribution, and libcurl has it read CAs that are given as text for each connection. */
#pragma once

#include "base/err.h"

#include <openssl/types.h>

typedef struct Trust Trust;

/* `pem`: certificates (RFC 7468), among them anything else; borrowed for the call.  Errors: -EINVAL
 * it has none, or one that is damaged. */
int trust_new(Trust **ret, const char *pem, Err *err) _must_check_;
Trust *trust_free(Trust *t);
DEFINE_CLEANUP(Trust, trust_free);

/* Connections of `ctx` believe them, and nobody else. */
void trust_use(const Trust *t, SSL_CTX *ctx);
