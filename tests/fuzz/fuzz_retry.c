/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_retry: any Retry-After (and Date, behind a line feed) gives a bounded wait or is refused. */
#include "oci/retry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xcalloc(size + 1, 1);
    uint64_t usec = UINT64_MAX;
    char *date;

    if (size > 0)
        memcpy(text, data, size);
    date = strchr(text, '\n');
    if (date)
        *date++ = 0;
    if (retry_after_parse(text, date, 1700000000 * USEC_PER_SEC, &usec) >= 0 &&
        usec > RETRY_AFTER_MAX_USEC)
        abort();
    return 0;
}
