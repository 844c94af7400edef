/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_auth: any bytes as WWW-Authenticate and as a token server's answer. */
#include "oci/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *s) {
    for (; s && *s; s++)
        if ((unsigned char)*s < 0x20)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xcalloc(size + 1, 1);
    _cleanup_(auth_challenge_done) AuthChallenge c = { 0 };
    _cleanup_(auth_token_done) AuthToken token = { 0 };
    Err err = { "" };

    if (size > 0)
        memcpy(text, data, size);
    auth_challenge_parse(&c, text);
    check(c.realm);
    check(c.service);
    check(c.scope);
    if (c.scheme == AUTH_BEARER && !c.realm)
        abort();
    auth_challenge_parse(&c, "Basic");
    if (c.scheme == AUTH_NONE)
        abort();
    if (auth_token_parse(&token, data, size, &err) >= 0)
        check(token.token);
    else if (!err.text[0])
        abort();
    return 0;
}
