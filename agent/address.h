/* SPDX-License-Identifier: Apache-2.0 */
/* address: where a TCP socket listens, as the configuration says it. */
#pragma once

#include "base/err.h"

#include <netinet/in.h>

typedef union Address {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
} Address;

/* "127.0.0.1:19753", "[::1]:19753", ":19753" (all addresses of the node; with IPv6 where the kernel
 * has it).  No names: nothing is asked of DNS.  -EINVAL. */
int address_parse(Address *ret, const char *text) _must_check_;
socklen_t address_size(const Address *a);
/* Who shares with whom: an IPv4 address (mapped into IPv6), or the network of 64 bits of an IPv6
 * address, in which a host has as many as it likes. */
void address_owner(struct in6_addr *ret, const struct sockaddr *a);
/* A socket that listens there: non-blocking, close-on-exec; the caller closes it.  Errors:
 * -EADDRINUSE, -EADDRNOTAVAIL and others, as bind(2). */
int address_listen(const Address *a, int backlog) _must_check_;
