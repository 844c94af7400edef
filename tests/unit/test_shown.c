/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/shown: trees that mounts show are found and never removed. */
#include "cache/shown.h"
#include "tests/unit/store_env.h"

#include <sys/mount.h>

#define ONE ((const char *const[][2]){ { "a", "12345" }, { "d/b", "1" } })
#define TWO ((const char *const[][2]){ { "c", "333" } })

static void unmount(const char **point) {
    (void)umount2(*point, MNT_DETACH); /* mostly gone already */
}

static bool is_shown(const Store *s, const char *name, const char *point) {
    _cleanup_(shown_done) Shown shown = { 0 };

    ASSERT_OK(shown_read(&shown, s, NULL));
    for (size_t i = 0; i < shown.n; i++)
        ASSERT_EQ(shown_is_tree(&shown, i), streq(shown.list[i].target, point));
    return shown_has(&shown, name);
}

static int remove_tree(const Store *s, const char *name) {
    _cleanup_(shown_done) Shown shown = { 0 };

    ASSERT_OK(shown_read(&shown, s, NULL));
    return shown_remove_tree(&shown, s, name, NULL);
}

/* The tree itself, and a directory in it. */
TEST(trees_that_are_mounted_are_kept) {
    static const char *const parts[] = { "", "/d" };

    for (size_t i = 0; i < ELEMENTSOF(parts); i++) {
        STORE_TEST_DIR(dir);
        _cleanup_(store_closep) Store *s = env_open(dir);
        Digest one = env_artifact(s, "one", ONE, 2), two = env_artifact(s, "two", TWO, 1);
        _cleanup_free_ char *tree = env_tree_path(s, &one, NULL), *content = NULL;
        _cleanup_free_ char *what = xasprintf("%s%s", tree, parts[i]);
        _cleanup_free_ char *first = xstrdup(DIGEST_HEX(&one)), *second = xstrdup(DIGEST_HEX(&two));
        _cleanup_(unmount) const char *point = tmpdir_join(dir, "point");
        const char *file = tmpdir_join(dir, i == 0 ? "point/d/b" : "point/b");
        uint64_t freed;

        ASSERT_OK(mkdir(point, 0700));
        if (mount(what, point, NULL, MS_BIND, NULL) < 0)
            SKIP("mounting is not allowed here");
        ASSERT_TRUE(is_shown(s, first, point));
        ASSERT_TRUE(!is_shown(s, second, point));
        first[10] = '\0'; /* the beginning of its name */
        ASSERT_TRUE(!is_shown(s, first, point));
        /* Its name is free, what is mounted stays. */
        ASSERT_EQ(remove_tree(s, DIGEST_HEX(&one)), 1);
        ASSERT_EQ(remove_tree(s, second), 0);
        ASSERT_EQ(access(tree, F_OK), -1);
        ASSERT_OK(fs_read_file(AT_FDCWD, file, 16, &content, NULL, NULL));
        ASSERT_STREQ(content, "1");
        ASSERT_EQ(remove_tree(s, DIGEST_HEX(&one)), 0); /* absent */
        ASSERT_EQ(store_sweep_trees(s, NULL), 0);
        ASSERT_OK(access(file, F_OK));
        ASSERT_EQ(env_count(s, "trees", false), 2);
        ASSERT_OK(umount(point));
        ASSERT_EQ(store_prune(s, &freed, NULL), 1); /* as store_sweep_trees() */
        ASSERT_EQ(freed, 0);
        ASSERT_EQ(env_count(s, "trees", true), 0);
    }
}
