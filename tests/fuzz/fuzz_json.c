/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_json: documents from any bytes; what is accepted keeps to the limits, and members are read.
 */
#include "base/json.h"

#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_depth(const json_t *value, unsigned depth) {
    const char *name;
    size_t i;
    json_t *child;

    if (json_is_object(value) || json_is_array(value))
        assert(depth < LIMIT_JSON_DEPTH);
    json_object_foreach ((json_t *)value, name, child)
        check_depth(child, depth + 1);
    json_array_foreach (value, i, child)
        check_depth(child, depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_json_ json_t *value = NULL;
    const char *s;
    json_t *child;
    uint64_t n;
    Err err = { 0 };

    if (json_parse(data, size, "the document", &value, &err) < 0) {
        assert(err.text[0]);
        return 0;
    }
    check_depth(value, 0);
    (void)!json_get_string(value, "s", &s, &err);
    (void)!json_get_u64(value, "n", 7, &n, &err);
    (void)!json_get_object(value, "o", &child, &err);
    (void)!json_get_array(value, "a", &child, &err);
    return 0;
}
