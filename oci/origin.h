/* SPDX-License-Identifier: Apache-2.0 */
/* origin: URLs as registries send them: where they lead, and whether credentials may go there. */
#pragma once

#include "base/err.h"

#include <sys/socket.h>

typedef struct Origin {
    char *url;   /* whole, without fragment; for libcurl only: its query may hold secrets */
    char *host;  /* lower case; IPv6 in brackets */
    char *shown; /* "https://host[:port]/path", for messages: without query, printable */
    unsigned port;
    bool is_https;
} Origin;

/* Parses an absolute http or https URL, or, with `base`, one relative to it (RFC 3986), with
 * libcurl's own parser, so that what is checked is what is connected to.  Errors: -EPROTO:
 * malformed, too long, control characters, user info in it, another scheme. */
int origin_parse(Origin **ret, const Origin *base, const char *text, Err *err) _must_check_;
Origin *origin_free(Origin *o);
DEFINE_CLEANUP(Origin, origin_free);

/* Scheme, host and port are equal (RFC 6454). */
bool origin_is_same(const Origin *a, const Origin *b);
/* May credentials for `registry` go to the token server `realm`?  The same host, or a name that
 * shares the last two labels (registry-1.docker.io, auth.docker.io); without TLS only the same
 * host, when the registry has no TLS either. */
bool origin_may_get_credentials(const Origin *registry, const Origin *realm);

/* Where an address leads; each needs more trust than the one before. */
typedef enum AddressKind {
    ADDRESS_PUBLIC,   /* the internet */
    ADDRESS_PRIVATE,  /* RFC 1918, ULA, and what else is not the internet */
    ADDRESS_LOOPBACK, /* this node */
    ADDRESS_SPECIAL,  /* link-local and metadata servers of clouds, unspecified, multicast, reserved
                       */
} AddressKind;
AddressKind address_kind(const struct sockaddr *address);
/* Of the host of the URL, when it is an address or a name for one ("localhost"); ADDRESS_PUBLIC
 * also for a name that only a lookup can tell about. */
AddressKind origin_literal_kind(const Origin *o);
/* Why an address of a kind above `may_reach` is refused: "a private … address, where … must not
 * lead". */
const char *address_refusal(AddressKind may_reach);
/* Not ADDRESS_PUBLIC? */
bool address_is_private(const struct sockaddr *address);
bool origin_is_private_literal(const Origin *o);
