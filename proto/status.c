/* SPDX-License-Identifier: Apache-2.0 */
/* status: errno <-> gRPC status code, the only table. */
#include "proto/status.h"

/* The first row of a code is what status_to_errno() gives for it. */
static const struct {
    int error;
    GrpcCode code;
} errors[] = {
    { 0, GRPC_OK },
    { EINVAL, GRPC_INVALID_ARGUMENT },
    { ENOENT, GRPC_NOT_FOUND },
    { EEXIST, GRPC_ALREADY_EXISTS },
    { EKEYREJECTED, GRPC_UNAUTHENTICATED },
    { EACCES, GRPC_PERMISSION_DENIED },
    { EPERM, GRPC_PERMISSION_DENIED },
    { ENOSPC, GRPC_RESOURCE_EXHAUSTED },
    { EDQUOT, GRPC_RESOURCE_EXHAUSTED },
    { EBUSY, GRPC_FAILED_PRECONDITION },
    { ENOTSUP, GRPC_FAILED_PRECONDITION },
    { E2BIG, GRPC_FAILED_PRECONDITION },
    { EPROTO, GRPC_FAILED_PRECONDITION },
    { EINPROGRESS, GRPC_ABORTED },
    { EAGAIN, GRPC_ABORTED },
    { ENOSYS, GRPC_UNIMPLEMENTED },
    { ECONNREFUSED, GRPC_UNAVAILABLE },
    { ECONNRESET, GRPC_UNAVAILABLE },
    { EHOSTUNREACH, GRPC_UNAVAILABLE },
    { ENETUNREACH, GRPC_UNAVAILABLE },
    { EPIPE, GRPC_UNAVAILABLE },
    { ETIMEDOUT, GRPC_DEADLINE_EXCEEDED },
    { EBADMSG, GRPC_DATA_LOSS },
    { ECANCELED, GRPC_CANCELLED },
};

static const char *const names[] = {
    [GRPC_OK] = "OK",
    [GRPC_CANCELLED] = "CANCELLED",
    [GRPC_UNKNOWN] = "UNKNOWN",
    [GRPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [GRPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [GRPC_NOT_FOUND] = "NOT_FOUND",
    [GRPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
    [GRPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [GRPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [GRPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
    [GRPC_ABORTED] = "ABORTED",
    [GRPC_OUT_OF_RANGE] = "OUT_OF_RANGE",
    [GRPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [GRPC_INTERNAL] = "INTERNAL",
    [GRPC_UNAVAILABLE] = "UNAVAILABLE",
    [GRPC_DATA_LOSS] = "DATA_LOSS",
    [GRPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
};

GrpcCode status_from_errno(int r) {
    int error = r < 0 ? -r : r;

    for (size_t i = 0; i < ELEMENTSOF(errors); i++)
        if (errors[i].error == error)
            return errors[i].code;
    return GRPC_INTERNAL;
}

int status_to_errno(GrpcCode code) {
    for (size_t i = 0; i < ELEMENTSOF(errors); i++)
        if (errors[i].code == code)
            return -errors[i].error;
    return -EIO;
}

const char *status_name(GrpcCode code) {
    return (unsigned)code < ELEMENTSOF(names) ? names[code] : "UNKNOWN";
}
