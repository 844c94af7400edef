/* SPDX-License-Identifier: Apache-2.0 */
/* test_content_range: what is one, and what only looks like it. */
#include "oci/content_range.h"

#include "tests/unit/test.h"

TEST(content_range) {
    static const struct {
        const char *value;
        int r;
        ContentRange c;
    } cases[] = {
        { "bytes 0-99/1000", 0, { 0, 100, 1000 } },
        { "Bytes 0-0/1", 0, { 0, 1, 1 } },
        { "bytes 5-9/*", 0, { 5, 10, CONTENT_RANGE_UNKNOWN } },
        { "bytes 18446744073709551610-18446744073709551613/18446744073709551614",
          0,
          { UINT64_MAX - 5, UINT64_MAX - 1, UINT64_MAX - 1 } },
        { "bytes 0-18446744073709551615/*", -EINVAL, { 0 } },
        { "bytes 0-18446744073709551616/*", -EINVAL, { 0 } },
        { "bytes 0-9/18446744073709551615", -EINVAL, { 0 } },
        { "bytes 9-5/10", -EINVAL, { 0 } },
        { "bytes 0-10/10", -EINVAL, { 0 } },
        { "bytes */10", -EINVAL, { 0 } },
        { "bytes 0-9", -EINVAL, { 0 } },
        { "bytes 0-9/", -EINVAL, { 0 } },
        { "bytes 0-9/10 ", -EINVAL, { 0 } },
        { "bytes  0-9/10", -EINVAL, { 0 } },
        { "bytes=0-9/10", -EINVAL, { 0 } },
        { "bytes +0-9/10", -EINVAL, { 0 } },
        { "bytes 0-9/**", -EINVAL, { 0 } },
        { "lines 0-9/10", -EINVAL, { 0 } },
        { "", -EINVAL, { 0 } },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        ContentRange c = { 0 };
        int r = content_range_parse(cases[i].value, &c);

        if (r != cases[i].r || memcmp(&c, &cases[i].c, sizeof(c)) != 0)
            test_fail(__FILE__, __LINE__, "\"%s\": %d", cases[i].value, r);
    }
}
