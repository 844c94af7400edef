/* SPDX-License-Identifier: Apache-2.0 */
/* test_target: the rules for target paths, with hostile ones. */
#include "csi/target.h"

#include "tests/unit/test.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

static const struct {
    const char *path, *error, *real; /* beneath the root "@" */
} paths[] = {
    { "@/pods/u/volumes/kubernetes.io~csi/m/mount", NULL,
      "@/pods/u/volumes/kubernetes.io~csi/m/mount" },
    { "@/x", NULL, "@/x" },
    { "@", "is not beneath", NULL },
    { "@/", "must be absolute", NULL },
    { "@x/y", "is not beneath", NULL },
    { "@/../etc", "must be absolute", NULL },
    { "@/x/..", "must be absolute", NULL },
    { "@/./x", "must be absolute", NULL },
    { "@//x", "must be absolute", NULL },
    { "@/x/", "must be absolute", NULL },
    { "@/x\n", "control character", NULL },
    { "/", "must be absolute", NULL },
    { "/etc", "is not beneath", NULL },
    { "some/path", "must be absolute", NULL },
    { "../..", "must be absolute", NULL },
};

static char *expand(const char *path, const char *root) {
    return path[0] == '@' ? xasprintf("%s%s", root, path + 1) : xstrdup(path);
}

TEST(target_resolve_table) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(target_roots_freep) TargetRoots *roots = NULL;
    Err err;

    ASSERT_OK(
        target_roots_new(&roots, (const char *[]){ "/nowhere", tmpdir_path(dir), NULL }, &err));
    for (size_t i = 0; i < ELEMENTSOF(paths); i++) {
        _cleanup_free_ char *in = expand(paths[i].path, tmpdir_path(dir)), *real = NULL;
        int r = target_resolve(roots, in, &real, &err);

        if (paths[i].error) {
            ASSERT_ERR(r, -EINVAL);
            ASSERT_STRSTR(err.text, paths[i].error);
        } else {
            _cleanup_free_ char *want = expand(paths[i].real, tmpdir_path(dir));

            ASSERT_OK(r);
            ASSERT_STREQ(real, want);
        }
    }
}

TEST(target_roots_follow_the_administrators_symlink) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(target_roots_freep) TargetRoots *roots = NULL;
    _cleanup_free_ char *real = NULL, *path = NULL;
    const char *link = tmpdir_join(dir, "link");
    Err err;

    ASSERT_OK(mkdir(tmpdir_join(dir, "disk"), 0755));
    ASSERT_OK(symlink("disk", link));
    ASSERT_OK(target_roots_new(&roots, (const char *[]){ link, NULL }, &err));
    path = xasprintf("%s/pods/x", link);
    ASSERT_OK(target_resolve(roots, path, &real, &err));
    ASSERT_STREQ(real, tmpdir_join(dir, "disk/pods/x"));
}

TEST(target_roots_refuse_what_is_no_root) {
    TargetRoots *roots = NULL;
    Err err;

    ASSERT_ERR(target_roots_new(&roots, (const char *[]){ NULL }, &err), -EINVAL);
    ASSERT_ERR(target_roots_new(&roots, (const char *[]){ "kubelet", NULL }, &err), -EINVAL);
    ASSERT_ERR(target_roots_new(&roots, (const char *[]){ "/", NULL }, &err), -EINVAL);
    ASSERT_ERR(target_roots_new(&roots, (const char *[]){ "/a/../b", NULL }, &err), -EINVAL);
}

TEST(target_open_makes_and_undoes) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(target_done) Target t = TARGET_INIT;
    struct stat st;
    Err err;

    ASSERT_OK(target_open(&t, tmpdir_join(dir, "mount"), &err));
    ASSERT_TRUE(t.made);
    ASSERT_OK(stat(tmpdir_join(dir, "mount"), &st));
    ASSERT_EQ(st.st_mode & 07777, 0750);
    target_undo(&t);
    ASSERT_EQ(tmpdir_count(dir), 0);
}

TEST(target_open_takes_an_empty_directory_and_leaves_it) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(target_done) Target t = TARGET_INIT;
    Err err;

    ASSERT_OK(mkdir(tmpdir_join(dir, "mount"), 0700));
    ASSERT_OK(target_open(&t, tmpdir_join(dir, "mount"), &err));
    ASSERT_TRUE(!t.made);
    target_undo(&t);
    ASSERT_EQ(tmpdir_count(dir), 1);
}

TEST(target_open_refuses_attacks) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    static const struct {
        const char *name;
        int want;
    } cases[] = {
        { "full", -EBUSY },      { "file", -EINVAL },      { "file/x", -EINVAL },
        { "link", -EINVAL },     { "link/x", -EINVAL },    { "dangling", -EINVAL },
        { "absent/x", -EINVAL }, { "full/../x", -EINVAL },
    };

    ASSERT_OK(mkdir(tmpdir_join(dir, "full"), 0755));
    ASSERT_OK(mkdir(tmpdir_join(dir, "full/in"), 0755));
    ASSERT_OK(mkdir(tmpdir_join(dir, "elsewhere"), 0755));
    ASSERT_OK(symlink("elsewhere", tmpdir_join(dir, "link")));
    ASSERT_OK(symlink("nothing", tmpdir_join(dir, "dangling")));
    ASSERT_OK(mknod(tmpdir_join(dir, "file"), S_IFREG | 0600, 0));
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(target_done) Target t = TARGET_INIT;
        Err err;

        ASSERT_ERR(target_open(&t, tmpdir_join(dir, cases[i].name), &err), cases[i].want);
    }
    ASSERT_EQ(tmpdir_count(dir), 5);
    ASSERT_OK(rmdir(tmpdir_join(dir, "elsewhere"))); /* still empty */
}

TEST(target_open_refuses_a_mount) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    _cleanup_(target_done) Target t = TARGET_INIT;
    const char *path = tmpdir_join(dir, "mount");
    Err err;

    if (geteuid() != 0)
        SKIP("needs root to mount");
    ASSERT_OK(mkdir(path, 0700));
    ASSERT_OK(mount("none", path, "tmpfs", 0, "size=4k"));
    ASSERT_ERR(target_open(&t, path, &err), -EBUSY);
    ASSERT_STRSTR(err.text, "mounted");
    ASSERT_OK(umount2(path, MNT_DETACH));
}

TEST(target_remove_removes_only_empty_directories) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    Err err;

    ASSERT_OK(mkdir(tmpdir_join(dir, "empty"), 0700));
    ASSERT_OK(mkdir(tmpdir_join(dir, "full"), 0700));
    ASSERT_OK(mkdir(tmpdir_join(dir, "full/x"), 0700));
    ASSERT_OK(mknod(tmpdir_join(dir, "file"), S_IFREG | 0600, 0));
    ASSERT_OK(symlink("empty", tmpdir_join(dir, "link")));
    ASSERT_ERR(target_remove(tmpdir_join(dir, "full"), &err), -EBUSY);
    ASSERT_ERR(target_remove(tmpdir_join(dir, "file"), &err), -EBUSY);
    ASSERT_ERR(target_remove(tmpdir_join(dir, "link"), &err), -EBUSY);
    ASSERT_ERR(target_remove(tmpdir_join(dir, "link/x"), &err), -EINVAL);
    ASSERT_OK(target_remove(tmpdir_join(dir, "empty"), &err));
    ASSERT_OK(target_remove(tmpdir_join(dir, "empty"), &err));
    ASSERT_OK(target_remove(tmpdir_join(dir, "no/such/parent"), &err));
    ASSERT_EQ(tmpdir_count(dir), 3);
}
