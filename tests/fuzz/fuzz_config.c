/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config: any bytes as a configuration file: settings or a sentence. */
#include "agent/config_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    _cleanup_(config_freep) Config *c = NULL;
    Config *parsed;
    Err err = { "" };

    if (config_load(&c, &(ConfigSources){ 0 }, &err) < 0)
        abort();
    parsed = c;
    if (config_parse_yaml(parsed, "fuzz.yaml", (const char *)data, n, &err) < 0 && !err.text[0])
        abort();
    return 0;
}
