/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_parse: sizes, durations, numbers, hex and base64 from any bytes; what was read is written
 * back. */
#include "base/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_base64(const char *s, size_t n) {
    _cleanup_free_ char *bytes = NULL, *again = NULL;
    size_t n_bytes;

    if (parse_base64(s, n, &bytes, &n_bytes) < 0)
        return;
    again = format_base64(bytes, n_bytes); /* strict: one text only for each value */
    assert(strlen(again) == n && memcmp(again, s, n) == 0);
}

static void check_hex(const char *s, size_t n) {
    _cleanup_free_ uint8_t *bytes = xcalloc(n + 1, 1);
    _cleanup_free_ char *again = xcalloc(n + 2, 1);

    if (parse_hex(s, n, bytes) < 0)
        return;
    format_hex(bytes, n / 2, again);
    assert(strlen(again) == n && memcmp(again, s, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *s = xcalloc(size + 1, 1);
    uint64_t n;
    bool b;

    if (size > 0)
        memcpy(s, data, size);
    if (parse_u64(s, &n) == 0) {
        _cleanup_free_ char *again = xasprintf("%llu", (unsigned long long)n);
        assert(endswith(s, again)); /* zeros may lead */
    }
    if (parse_size(s, &n) == 0)
        (void)FORMAT_BYTES(n);
    if (parse_duration(s, &n) == 0)
        (void)FORMAT_DURATION(n);
    (void)!parse_bool(s, &b);
    check_base64(s, size);
    check_hex(s, size);
    return 0;
}
