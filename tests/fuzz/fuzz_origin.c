/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_origin: any bytes as a Location or a realm: what is accepted is http(s), printable and stays
 * the same. */
#include "oci/origin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xcalloc(size + 1, 1);
    _cleanup_(origin_freep) Origin *base = NULL, *o = NULL, *again = NULL;
    Err err = { "" };

    if (size > 0)
        memcpy(text, data, size);
    if (origin_parse(&base, NULL, "https://registry.example/v2/a/blobs/b?c", &err) < 0)
        abort();
    if (origin_parse(&o, base, text, &err) < 0)
        return 0;
    if (origin_parse(&again, NULL, o->url, &err) < 0 || !origin_is_same(o, again))
        abort();
    for (const char *s = o->shown; *s; s++)
        if (*s <= ' ' || *s > '~' || *s == '?')
            abort();
    (void)origin_is_private_literal(o);
    (void)origin_may_get_credentials(base, o);
    return 0;
}
