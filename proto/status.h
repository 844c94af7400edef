/* SPDX-License-Identifier: Apache-2.0 */
/* status: errno <-> gRPC status code, the only table. */
#pragma once

#include "base/macro.h"

/* grpc/doc/statuscodes.md */
typedef enum GrpcCode {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
} GrpcCode;

/* The errors this product uses, and what each means everywhere in it:
 *   -EINVAL       INVALID_ARGUMENT     the caller asked for something that cannot be (bad
 * reference, bad path) -ENOENT       NOT_FOUND            no such artifact, tag, volume (404)
 *   -EEXIST       ALREADY_EXISTS       the same id with other arguments
 *   -EKEYREJECTED UNAUTHENTICATED      the credentials are bad or missing (401)
 *   -EACCES       PERMISSION_DENIED    known, but not allowed (403)
 *   -EPERM        PERMISSION_DENIED    a proxy (407) or the system does not let us
 *   -ENOSPC       RESOURCE_EXHAUSTED   no room in the store (also -EDQUOT)
 *   -EBUSY        FAILED_PRECONDITION  in use
 *   -ENOTSUP      FAILED_PRECONDITION  content or set-up of a kind that is not supported
 *   -E2BIG        FAILED_PRECONDITION  content passes a limit of base/limits.h
 *   -EPROTO       FAILED_PRECONDITION  the registry, or what it gave, breaks its specification
 * (malformed manifest, hostile tar) -EINPROGRESS  ABORTED              goes on; ask again (also
 * -EAGAIN) -ENOSYS       UNIMPLEMENTED        no such method -ECONNREFUSED UNAVAILABLE          a
 * registry or daemon cannot be reached or fails (also -ECONNRESET, -EHOSTUNREACH, -ENETUNREACH,
 *                                      -EPIPE; 408, 429, 5xx)
 *   -ETIMEDOUT    DEADLINE_EXCEEDED
 *   -EBADMSG      DATA_LOSS            content is not what its digest says
 *   -ECANCELED    CANCELLED
 *   all others    INTERNAL             a fault of ours or of the machine (-EIO) */
GrpcCode status_from_errno(int r);
/* The first errno of the table for a code; GRPC_OK gives 0; INTERNAL, UNKNOWN and others -EIO. */
int status_to_errno(GrpcCode code);
const char *status_name(GrpcCode code); /* "NOT_FOUND"; "UNKNOWN" for numbers out of the list */
