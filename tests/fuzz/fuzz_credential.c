/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_credential: any bytes as a docker config: credentials without control characters, or a
 * sentence. */
#include "oci/credential.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *s) {
    for (; s && *s; s++)
        if ((unsigned char)*s < 0x20)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_(credential_list_done) CredentialList l = { 0 };
    Err err = { "" };

    if (credential_parse_docker(&l, data, size, &err) < 0 && !err.text[0])
        abort();
    for (size_t i = 0; i < l.n; i++) {
        check(l.items[i].origin);
        check(l.items[i].username);
        check(l.items[i].password);
        check(l.items[i].identity_token);
        check(l.items[i].registry_token);
        (void)credential_find(&l, l.items[i].origin, "a/b");
    }
    return 0;
}
