/* SPDX-License-Identifier: Apache-2.0 */
/* test_pull_setup: how a job's memory becomes buffers. */
#include "oci/pull_setup.h"

#include "tests/unit/test.h"

TEST(buffers_fit_the_memory_and_are_never_too_few) {
    static const struct {
        uint64_t memory;
        size_t buffer;
        unsigned n;
    } cases[] = {
        { 0, KiB(64), PULL_BUFFERS_MIN },
        { KiB(256), KiB(64), PULL_BUFFERS_MIN },
        { KiB(512), KiB(64), 8 },
        { MiB(4), KiB(512), 8 },
        { MiB(8), MiB(1), 8 },
        { MiB(128), MiB(1), 128 },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        size_t bytes;
        unsigned n;

        pull_setup_buffers(cases[i].memory, &bytes, &n);
        ASSERT_EQ(bytes, cases[i].buffer);
        ASSERT_EQ(n, cases[i].n);
    }
}
