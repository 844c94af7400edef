/* SPDX-License-Identifier: Apache-2.0 */
/* outbox: what the daemon says to a worker, as it goes over the socket. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "proto/worker.pb-c.h"

/* Adds the message with its length before it.  Errors: -E2BIG longer than
 * LIMIT_WORKER_MESSAGE_BYTES; those of buf_reserve(). */
int outbox_add(Buf *out, const Modelcached__Worker__ToWorker *message, Err *err) _must_check_;
