/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_ref: a reference that is accepted has a normal form that is accepted and stays the same. */
#include "oci/ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xcalloc(size + 1, 1), *normal = NULL, *again = NULL;
    _cleanup_(reference_freep) Reference *r = NULL, *second = NULL;
    Platform p;
    Err err = { "" };

    if (size > 0)
        memcpy(text, data, size);
    if (platform_parse(&p, text, &err) >= 0 &&
        platform_parse(&p, platform_text((char[PLATFORM_TEXT_MAX]){ "" }, &p), &err) < 0)
        abort();
    if (reference_parse(&r, text, &err) < 0)
        return 0;
    normal = reference_text(r);
    if (reference_parse(&second, normal, &err) < 0)
        abort();
    again = reference_text(second);
    if (!streq(normal, again) || strstr(r->repository, "..") || strchr(r->registry, '/'))
        abort();
    return 0;
}
