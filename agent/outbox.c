/* SPDX-License-Identifier: Apache-2.0 */
/* outbox: what the daemon says to a worker, as it goes over the socket. */
#include "agent/outbox.h"
#include "base/limits.h"

int outbox_add(Buf *out, const Modelcached__Worker__ToWorker *message, Err *err) {
    size_t n = modelcached__worker__to_worker__get_packed_size(message);
    uint8_t *p;
    int r;

    if (n > LIMIT_WORKER_MESSAGE_BYTES)
        return err_set(err, -E2BIG,
                       "the message for the pull worker has %zu bytes; are the CA files right?", n);
    r = buf_reserve(out, n + 4, &p);
    if (r < 0)
        return err_set(err, r, "no room for the message to the pull worker");
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(n >> 8 * i);
    (void)modelcached__worker__to_worker__pack(message, p + 4);
    out->len += n + 4;
    return 0;
}
