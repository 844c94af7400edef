/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_params: volume attributes, secrets and target paths: lines "key=value"; a line "/…" is a
 * target path. */
#include "csi/params.h"
#include "csi/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MANY 64

static void try_target(const char *path) {
    _cleanup_(target_roots_freep) TargetRoots *roots = NULL;
    _cleanup_free_ char *real = NULL;
    Err err;

    if (target_roots_new(&roots, (const char *[]){ "/nowhere/kubelet", NULL }, &err) < 0)
        abort();
    if (target_resolve(roots, path, &real, &err) < 0)
        return;
    /* Whatever is let through stays beneath the root by its text. */
    assert(startswith(real, "/nowhere/kubelet/"));
    assert(!strstr(real, "/../") && !endswith(real, "/.."));
}

static void try_params(const KeyValue *pairs, size_t n) {
    _cleanup_(params_done) Params p = { 0 };
    _cleanup_(credential_list_done) CredentialList l = { 0 };
    Err err;

    if (params_parse(&p, pairs, n, &err) >= 0) {
        _cleanup_free_ char *text = params_text(&p);

        assert(startswith(text, "reference="));
        assert(!p.sub_path || (p.sub_path[0] != '/' && !startswith(p.sub_path, "../")));
    }
    if (!p.reference && reference_parse(&p.reference, "r.example/m:v1", &err) < 0)
        abort();
    (void)!params_parse_secrets(&l, p.reference, pairs, n, &err); /* any outcome is fine */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xnew_n(char, size + 1);
    KeyValue pairs[MANY];
    size_t n = 0;

    if (size > 0)
        memcpy(text, data, size);
    for (char *line = text, *next; line && n < MANY; line = next) {
        char *value;

        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        if (line[0] == '/')
            try_target(line);
        value = strchr(line, '=');
        if (!value)
            continue;
        *value++ = '\0';
        pairs[n++] = (KeyValue){ line, value };
    }
    try_params(pairs, n);
    return 0;
}
