/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_content_range: what is accepted makes sense, and is accepted again when it is written anew.
 */
#include "oci/content_range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xcalloc(size + 1, 1), *again = NULL;
    ContentRange c, d;

    if (size > 0)
        memcpy(text, data, size);
    if (content_range_parse(text, &c) < 0)
        return 0;
    if (c.begin >= c.end || (c.total != CONTENT_RANGE_UNKNOWN && c.end > c.total))
        abort();
    again =
        xasprintf("bytes %llu-%llu/*", (unsigned long long)c.begin, (unsigned long long)c.end - 1);
    if (content_range_parse(again, &d) < 0 || d.begin != c.begin || d.end != c.end)
        abort();
    return 0;
}
