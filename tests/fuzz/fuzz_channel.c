/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_channel: any bytes as what the daemon sends. */
#include "oci/channel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (size_t at = 0; at < size;) {
        Modelcached__Worker__ToWorker *message = NULL;
        Err err;
        ssize_t n = channel_parse(data + at, size - at, &message, &err);

        if (n <= 0)
            break;
        assert(message && (size_t)n <= size - at);
        modelcached__worker__to_worker__free_unpacked(message, NULL);
        at += (size_t)n;
    }
    return 0;
}
