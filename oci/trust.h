/* SPDX-License-Identifier: Apache-2.0 */
/* trust: the CAs that are believed, read once for all connections: OpenSSL 3 takes 16 ms for the
 * 140 of a distribution, and libcurl has it read CAs that are given as text for each connection. */
#pragma once

#include "base/err.h"

#include <openssl/types.h>

typedef struct Trust Trust;

/* Of nobody yet. */
Trust *trust_new(void) _must_check_;
Trust *trust_free(Trust *t);
DEFINE_CLEANUP(Trust, trust_free);

/* Adds certificates: `n` bytes of PEM (RFC 7468; what is between them does not count), copied. */
void trust_add(Trust *t, const char *pem, size_t n);
/* Adds those of the system, whose file is opened now; once.  A machine without one can still use
 * registries with a CA of their own, or http. */
void trust_add_system(Trust *t);
/* Is the system's file still the one that was opened? */
bool trust_is_current(const Trust *t);
/* Reads what was not read yet.  Errors: -EINVAL there is no certificate in it, or one that is
 * damaged. */
int trust_load(Trust *t, Err *err) _must_check_;
/* Connections of `ctx` believe what was read, and nobody else. */
void trust_use(const Trust *t, SSL_CTX *ctx);
