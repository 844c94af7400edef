/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_digest: what digest_parse() accepts, it prints again; an object's name likewise. */
#include "cache/digest.h"
#include "cache/object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xcalloc(1, size + 1);
    Digest d;
    bool exec;
    Err err;

    if (size > 0)
        memcpy(text, data, size);
    if (digest_parse(&d, text, &err) == 0 && !streq(DIGEST_STR(&d), text))
        abort();
    if (size > 0 && object_name_parse(data[0], text + 1, &d, &exec) == 0 &&
        !streq(OBJECT_NAME(&d, exec) + 3, text + 1))
        abort();
    return 0;
}
