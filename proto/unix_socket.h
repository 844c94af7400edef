/* SPDX-License-Identifier: Apache-2.0 */
/* unix_socket: stream sockets in the file system: listen without a race, connect without blocking.
 */
#pragma once

#include "base/err.h"

#include <sys/types.h>

typedef struct UnixListener UnixListener;

/* Listens on `path`.  The socket is never more open than `mode`, which it has when this returns.
 * What is there already is replaced only if it is a socket that refuses connections. Errors:
 * -EADDRINUSE; -ENAMETOOLONG longer than sun_path holds (107 bytes); others as bind(2). */
int unix_listener_new(UnixListener **ret, const char *path, mode_t mode, Err *err) _must_check_;
/* Closes, and removes the socket from the file system unless another one took its place.  NULL is
 * fine; returns NULL. */
UnixListener *unix_listener_free(UnixListener *l);
/* Is the socket still where it was made? */
bool unix_listener_is_there(const UnixListener *l);
DEFINE_CLEANUP(UnixListener, unix_listener_free);
/* Is the socket still in the file system, where it was made? */
bool unix_listener_is_there(const UnixListener *l);
/* Non-blocking; borrowed. */
int unix_listener_fd(const UnixListener *l);

/* Returns a connected, non-blocking socket.
 * Errors: -ENOENT; -ECONNREFUSED nobody listens, or its queue is full; -EACCES; -ENAMETOOLONG;
 * others as connect(2). */
int unix_connect(const char *path, Err *err) _must_check_;
