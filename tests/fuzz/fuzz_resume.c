/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_resume: any map is read without harm; its checksum is put right first, as it hides the rest.
 */
#include "oci/resume.h"

#define SUMMED_AT 40
#define DIGEST_AT 56

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t map[RESUME_MAP_BYTES] = { 0 };
    ResumeMap m = { .size = 1 << 20 };
    Digest sum;

    memcpy(map, data, MIN(size, sizeof(map)));
    if (resume_decode(&m, map, size) >= 0 && extents_bytes(&m.written) > m.size)
        abort();
    resume_map_done(&m);
    memcpy(map, "MCRESUM1", 8);
    memset(map + SUMMED_AT + 8, 0, 8);
    map[SUMMED_AT + 10] = 0x10;
    memset(map + DIGEST_AT, 0, DIGEST_BYTES);
    digest_of(&sum, map + SUMMED_AT, RESUME_SLOT_BYTES - SUMMED_AT);
    memcpy(map + 8, sum.bytes, DIGEST_BYTES);
    if (resume_decode(&m, map, sizeof(map)) < 0 || extents_bytes(&m.written) > m.size ||
        extents_bytes(&m.durable) > extents_bytes(&m.written))
        abort();
    resume_map_done(&m);
    return 0;
}
