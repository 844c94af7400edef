/* SPDX-License-Identifier: Apache-2.0 */
/* channel: the worker's end of the socketpair to the daemon: messages of proto/worker.proto behind
 * 4-byte lengths. */
#pragma once

#include "base/loop.h"
#include "proto/worker.pb-c.h"

typedef struct Channel Channel;

/* A message came; borrowed.  It may free the channel. */
typedef void (*ChannelMessage)(void *arg, const Modelcached__Worker__ToWorker *message);
/* Once, last.  -ECANCELED: the daemon has closed its end, or is gone; -EPROTO, -E2BIG: it sent
 * nonsense; others: trouble with the socket. */
typedef void (*ChannelClosed)(void *arg, int r, const Err *err);

/* On the stream socket `fd`, which it owns from now on. */
void channel_new(Channel **ret, int fd);
Channel *channel_free(Channel *c);
DEFINE_CLEANUP(Channel, channel_free);

/* Waits for one message, before there is a loop; the caller frees it.  Errors: -ECANCELED, -EPROTO,
 * -E2BIG, -EIO. */
int channel_receive(Channel *c, Modelcached__Worker__ToWorker **ret, Err *err) _must_check_;
/* The descriptor that came with the messages so far, and is the caller's now; or -EBADF.  (Several
 * messages may have come at once: with which of them cannot be told.) */
int channel_take_fd(Channel *c) _must_check_;
/* Has more come than was received, or is the daemon gone? */
bool channel_has_more(const Channel *c);
/* From now on messages come by the loop. */
int channel_attach(Channel *c, sd_event *event, ChannelMessage on_message, ChannelClosed on_closed,
                   void *arg) _must_check_;

/* Queues a message; it goes out as the daemon reads. */
void channel_send(Channel *c, const Modelcached__Worker__FromWorker *message);
/* Queues `bytes` bytes from the start of `fd`, finished messages; owns `fd`. */
void channel_send_file(Channel *c, int fd, uint64_t bytes);
/* Has all that was sent left?  (What can be left out is, until then.) */
bool channel_is_idle(const Channel *c);
/* Waits until all has left.  Errors: -ECANCELED the daemon is gone; -EIO. */
int channel_flush(Channel *c, Err *err) _must_check_;

/* A message with its length before it, as it goes over the wire; the caller frees it. */
uint8_t *channel_frame(const Modelcached__Worker__FromWorker *message, size_t *ret_n) _must_check_;
/* The length that stands before it. */
#define CHANNEL_LENGTH_BYTES 4
size_t channel_length(const uint8_t data[static CHANNEL_LENGTH_BYTES]);
/* Parses the frame at the start of `n` bytes: returns its length with a message that the caller
 * frees, or 0 when more bytes are needed.  Errors: -E2BIG longer than LIMIT_WORKER_MESSAGE_BYTES;
 * -EPROTO malformed. */
ssize_t channel_parse(const uint8_t *data, size_t n, Modelcached__Worker__ToWorker **ret, Err *err)
    _must_check_;
