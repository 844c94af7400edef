/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of proto/status.h: the table, both ways. */
#include "proto/status.h"
#include "tests/unit/test.h"

TEST(status_from_errno_follows_the_table) {
    static const struct {
        int r;
        GrpcCode code;
    } cases[] = {
        { 0, GRPC_OK },
        { -EINVAL, GRPC_INVALID_ARGUMENT },
        { -ENOENT, GRPC_NOT_FOUND },
        { -EEXIST, GRPC_ALREADY_EXISTS },
        { -EKEYREJECTED, GRPC_UNAUTHENTICATED },
        { -EACCES, GRPC_PERMISSION_DENIED },
        { -EPERM, GRPC_PERMISSION_DENIED },
        { -ENOSPC, GRPC_RESOURCE_EXHAUSTED },
        { -EDQUOT, GRPC_RESOURCE_EXHAUSTED },
        { -EBUSY, GRPC_FAILED_PRECONDITION },
        { -ENOTSUP, GRPC_FAILED_PRECONDITION },
        { -E2BIG, GRPC_FAILED_PRECONDITION },
        { -EPROTO, GRPC_FAILED_PRECONDITION },
        { -EINPROGRESS, GRPC_ABORTED },
        { -EAGAIN, GRPC_ABORTED },
        { -ENOSYS, GRPC_UNIMPLEMENTED },
        { -ECONNREFUSED, GRPC_UNAVAILABLE },
        { -ECONNRESET, GRPC_UNAVAILABLE },
        { -EHOSTUNREACH, GRPC_UNAVAILABLE },
        { -ENETUNREACH, GRPC_UNAVAILABLE },
        { -EPIPE, GRPC_UNAVAILABLE },
        { -ETIMEDOUT, GRPC_DEADLINE_EXCEEDED },
        { -EBADMSG, GRPC_DATA_LOSS },
        { -ECANCELED, GRPC_CANCELLED },
        { -EIO, GRPC_INTERNAL },
        { -ENOMEM, GRPC_INTERNAL },
        { -EBADF, GRPC_INTERNAL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        ASSERT_EQ(status_from_errno(cases[i].r), cases[i].code);
}

TEST(status_to_errno_gives_the_first_of_the_table) {
    static const int errors[] = {
        [GRPC_OK] = 0,
        [GRPC_CANCELLED] = -ECANCELED,
        [GRPC_UNKNOWN] = -EIO,
        [GRPC_INVALID_ARGUMENT] = -EINVAL,
        [GRPC_DEADLINE_EXCEEDED] = -ETIMEDOUT,
        [GRPC_NOT_FOUND] = -ENOENT,
        [GRPC_ALREADY_EXISTS] = -EEXIST,
        [GRPC_PERMISSION_DENIED] = -EACCES,
        [GRPC_RESOURCE_EXHAUSTED] = -ENOSPC,
        [GRPC_FAILED_PRECONDITION] = -EBUSY,
        [GRPC_ABORTED] = -EINPROGRESS,
        [GRPC_OUT_OF_RANGE] = -EIO,
        [GRPC_UNIMPLEMENTED] = -ENOSYS,
        [GRPC_INTERNAL] = -EIO,
        [GRPC_UNAVAILABLE] = -ECONNREFUSED,
        [GRPC_DATA_LOSS] = -EBADMSG,
        [GRPC_UNAUTHENTICATED] = -EKEYREJECTED,
    };

    for (size_t i = 0; i < ELEMENTSOF(errors); i++)
        ASSERT_EQ(status_to_errno((GrpcCode)i), errors[i]);
    ASSERT_EQ(status_to_errno((GrpcCode)99), -EIO);
}

TEST(status_name_knows_every_code) {
    ASSERT_STREQ(status_name(GRPC_OK), "OK");
    ASSERT_STREQ(status_name(GRPC_NOT_FOUND), "NOT_FOUND");
    ASSERT_STREQ(status_name(GRPC_UNAUTHENTICATED), "UNAUTHENTICATED");
    ASSERT_STREQ(status_name((GrpcCode)17), "UNKNOWN");
    ASSERT_STREQ(status_name((GrpcCode)-1), "UNKNOWN");
    for (int i = 0; i <= GRPC_UNAUTHENTICATED; i++)
        ASSERT_TRUE(status_name((GrpcCode)i)[0] != '\0');
}
