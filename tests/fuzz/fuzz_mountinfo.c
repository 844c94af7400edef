/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_mountinfo: lines of /proc/self/mountinfo; their paths are chosen by whoever mounts. */
#include "cache/mount.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_free_ char *text = xcalloc(1, size + 1);
    MountInfo *m = xnew(MountInfo);

    if (size > 0)
        memcpy(text, data, size);
    if (mount_info_parse(text, m) == 0 && (!m->root || !m->target || strlen(m->target) > size))
        abort();
    mount_info_free(m, 1);
    return 0;
}
