/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/mountinfo: lines of proc_pid_mountinfo(5). */
#include "cache/mount.h"
#include "tests/unit/test.h"

TEST(mount_info_parse_table) {
    static const struct {
        const char *line;
        const char *root, *target; /* NULL: -EPROTO */
        bool read_only;
    } cases[] = {
        { "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue", "/mnt1",
          "/mnt2", false },
        { "36 35 98:0 / /a ro,nosuid - ext4 /dev/x rw", "/", "/a", true },
        { "36 35 98:0 / /a rw,ro - ext4 /dev/x rw", "/", "/a", true },
        { "36 35 98:0 / /a rw,errors=ro - ext4 /dev/x ro", "/", "/a", false },
        { "36 35 98:0 /a\\040b /c\\011d\\134e\\012 ro - x y z\n", "/a b", "/c\td\\e\n", true },
        { "36 35 0:4294967295 net:[4026531840] /run/netns/x ro - nsfs nsfs rw", "net:[4026531840]",
          "/run/netns/x", true },
        { "36 35 98:0 / /a ro", "/", "/a", true },
        { "", NULL, NULL, false },
        { "36", NULL, NULL, false },
        { "36 35 98:0 / /a", NULL, NULL, false },
        { "36 35 98 / /a rw", NULL, NULL, false },
        { "36 35 98: / /a rw", NULL, NULL, false },
        { "36 35 98:4294967296 / /a rw", NULL, NULL, false },
        { "x 35 98:0 / /a rw", NULL, NULL, false },
        { "36  35 98:0 / /a rw", NULL, NULL, false },
        { "36 35 98:0 /\\04 /a rw", NULL, NULL, false },
        { "36 35 98:0 /\\0 /a rw", NULL, NULL, false },
        { "36 35 98:0 /\\089 /a rw", NULL, NULL, false },
        { "36 35 98:0 /\\000 /a rw", NULL, NULL, false },
        { "36 35 98:0 /\\777 /a rw", NULL, NULL, false },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        MountInfo *m = xnew(MountInfo);

        ASSERT_ERR(mount_info_parse(cases[i].line, m), cases[i].root ? 0 : -EPROTO);
        ASSERT_STREQ(m->root, cases[i].root);
        ASSERT_STREQ(m->target, cases[i].target);
        ASSERT_EQ(m->read_only, cases[i].read_only);
        mount_info_free(m, 1);
    }
}

TEST(mount_path_in_filesystem_goes_by_the_innermost_and_latest_mount) {
    static const struct {
        const char *path, *want;
    } cases[] = {
        { "/x/y", "/x/y" },           { "/data", "/vol" }, { "/data/s/trees", "/vol/s/trees" },
        { "/database", "/database" }, { "/disk/s", "/s" },
    };
    MountInfo list[] = {
        { .target = (char *)"/", .root = (char *)"/" },
        { .target = (char *)"/data", .root = (char *)"/old" },
        { .target = (char *)"/data", .root = (char *)"/vol" },
        { .target = (char *)"/disk", .root = (char *)"/" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_free_ char *got = mount_path_in_filesystem(list, ELEMENTSOF(list), cases[i].path);
        ASSERT_STREQ(got, cases[i].want);
    }
    ASSERT_TRUE(!mount_path_in_filesystem(list + 1, 1, "/elsewhere"));
}

TEST(mount_list_finds_proc) {
    MountInfo *list;
    size_t n, found = 0;
    Err err;

    ASSERT_OK(mount_list(&list, &n, &err));
    for (size_t i = 0; i < n; i++)
        found += streq(list[i].target, "/proc");
    mount_info_free(list, n);
    ASSERT_TRUE(found > 0);
}
