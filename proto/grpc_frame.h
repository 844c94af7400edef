/* SPDX-License-Identifier: Apache-2.0 */
/* grpc_frame: the small formats of gRPC over HTTP/2: message framing, grpc-timeout, grpc-message.
 */
#pragma once

#include "base/buf.h"

/* A message is prefixed by a compression flag (1 byte) and its length (4 bytes, big endian); rules
 * here and below are from grpc/doc/PROTOCOL-HTTP2.md. */
enum { GRPC_PREFIX_BYTES = 5 };

void grpc_prefix_write(uint8_t prefix[static GRPC_PREFIX_BYTES], size_t n);

/* Puts one message after the other together from pieces of any size. */
typedef struct GrpcReader {
    uint8_t prefix[GRPC_PREFIX_BYTES];
    size_t n_prefix; /* bytes of the prefix that are here */
    size_t want;     /* length of the message, once the prefix is complete */
    Buf body;        /* grows with what arrives, not with what the prefix promises */
} GrpcReader;

#define GRPC_READER_INIT(max_bytes) ((GrpcReader){ .body = BUF_INIT(max_bytes) })

/* Takes bytes from `*data`, `*n` bytes, up to the end of a message.  Returns 1 when `body` holds a
 * whole message (then call grpc_reader_next()), 0 when more bytes are needed. Errors: -E2BIG it is
 * longer than the reader's cap; -ENOTSUP it is compressed; -EPROTO the flag is bad; -ENOMEM. */
int grpc_reader_push(GrpcReader *r, const uint8_t **data, size_t *n) _must_check_;
/* Starts the next message. */
void grpc_reader_next(GrpcReader *r);
/* Is it between two messages? */
bool grpc_reader_is_empty(const GrpcReader *r);
void grpc_reader_done(GrpcReader *r);

/* "<1 to 8 digits><H|M|S|m|u|n>"; rounded up to microseconds.  Errors: -EINVAL. */
int grpc_timeout_parse(const char *s, size_t n, uint64_t *ret_usec) _must_check_;
#define GRPC_TIMEOUT_MAX 10
/* In the finest unit in which 8 digits are enough, rounded up. */
const char *grpc_timeout_format(char buf[static GRPC_TIMEOUT_MAX], uint64_t usec);

/* Percent-encodes what is not printable ASCII, and '%'.  A very long text is cut between two
 * characters, because peers refuse headers beyond 8 KiB.  Never NULL; the caller frees. */
char *grpc_message_encode(const char *text) _must_check_;
/* The way back; a bad escape, and an escaped NUL, stay as they are.  Never NULL; the caller frees.
 */
char *grpc_message_decode(const char *s, size_t n) _must_check_;
