/* SPDX-License-Identifier: Apache-2.0 */
/* trust: the CAs that are believed, read once for all connections: OpenSSL 3 takes 16 ms for the
 * 140 of a distribution, and libcurl has it read CAs that are given as text for each connection. */
#pragma once

#include "base/err.h"

#include <openssl/types.h>

typedef struct Trust Trust;

/* Certificates (PEM, RFC 7468; what is between them does not count) as text, which is copied. */
Trust *trust_new(const char *pem) _must_check_;
/* Those of the system, whose file is opened now.  A machine without one can still use registries
 * with a CA of their own, or http. */
Trust *trust_new_of_system(void) _must_check_;
Trust *trust_free(Trust *t);
DEFINE_CLEANUP(Trust, trust_free);

/* Is the system's file still the one that was opened? */
bool trust_is_current(const Trust *t);
/* More of them: `n` bytes, copied. */
void trust_add(Trust *t, const char *pem, size_t n);
/* Reads what was not read yet.  Errors: -EINVAL there is no certificate in it, or one that is
 * damaged. */
int trust_load(Trust *t, Err *err) _must_check_;
/* Connections of `ctx` believe what was read, and nobody else. */
void trust_use(const Trust *t, SSL_CTX *ctx);
