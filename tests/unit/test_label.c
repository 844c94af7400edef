/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/label: which files get the label.  Without SELinux the kernel keeps the attribute
 * as any other, so what is set can be seen; that new files inherit it, and what a policy allows,
 * test_soak_selinux.py sees.  This program's lsetxattr() can fail as that of a policy does. */
#include "cache/label.h"

#include "tests/unit/store_env.h"

#include <sys/syscall.h>
#include <sys/xattr.h>

#define LABEL "system_u:object_r:container_ro_file_t:s0"

static int fails;

/* In the place of the C library's. */
int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags) {
    if (fails) {
        errno = fails;
        return -1;
    }
    return (int)syscall(SYS_lsetxattr, path, name, value, size, flags);
}

static void assert_label(const Store *s, const char *path, const char *want) {
    _cleanup_free_ char *full = xasprintf("%s/%s", store_path(s), path);
    char have[128] = "";
    ssize_t n = lgetxattr(full, "security.selinux", have, sizeof(have) - 1);

    if (want) {
        ASSERT_EQ(n, (ssize_t)strlen(want) + 1);
        ASSERT_STREQ(have, want);
    } else
        ASSERT_TRUE(n < 0 || strstr(have, "container_") == NULL);
}

/* A tree with a directory, a file and a symlink. */
static Digest make_artifact(Store *s) {
    _cleanup_close_ int fd = env_ingest(s, "p");
    LayerEntry *entries = xnew_n(LayerEntry, 2);
    Layer layer = env_tar("tar");
    _cleanup_(manifest_freep) Manifest *m = NULL;
    Err err = { "" };

    entries[0] = env_file(fd, "d/file", "content");
    entries[1] = env_entry(ENTRY_TYPE_SYMLINK, "d/link", "file");
    ASSERT_OK(env_commit(s, ENV_PULL("p"), &layer, entries, 2, &err));
    layer_entries_free(entries, 2);
    m = env_manifest("m", &layer, 1);
    ASSERT_OK(store_commit_manifest(s, m, ENV_ORIGIN, "r", &err));
    ASSERT_OK(store_ingest_end(s, "p", &err));
    return m->digest;
}

TEST(label_is_needed_where_the_kernel_has_selinux) {
    _cleanup_(tmpdir_freep) TmpDir *dir = tmpdir_new();
    static const struct {
        const char *text;
        bool want;
    } cases[] = {
        { "nodev\tsysfs\nnodev\tselinuxfs\n\text4\n", true },
        { "nodev\tsysfs\n\text4\n", false },
        { "nodev\tnoselinuxfs\n", false },
    };

    ASSERT_TRUE(!label_is_needed(tmpdir_path(dir)));
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        env_write(tmpdir_fd(dir), "filesystems", cases[i].text, strlen(cases[i].text));
        ASSERT_EQ(label_is_needed(tmpdir_path(dir)), cases[i].want);
    }
}

TEST(label_content_and_nothing_else) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest d = make_artifact(s);
    _cleanup_free_ char *tree = xasprintf("trees/%s", DIGEST_HEX(&d));
    _cleanup_free_ char *file = xasprintf("%s/d/file", tree), *link = xasprintf("%s/d/link", tree);
    uint64_t n = 0;
    Err err = { "" };

    ASSERT_OK(label_content(s, LABEL, &n, &err));
    /* ingest; objects, its 256 folders and the object; partial; trees, the tree, d, the link */
    ASSERT_EQ(n, 1 + 1 + 256 + 1 + 1 + 1 + 1 + 1 + 1);
    assert_label(s, "objects", LABEL);
    assert_label(s, "objects/00", LABEL);
    assert_label(s, "ingest", LABEL);
    assert_label(s, "partial", LABEL);
    assert_label(s, tree, LABEL);
    assert_label(s, file, LABEL);
    assert_label(s, link, LABEL);
    assert_label(s, ".", NULL);
    assert_label(s, "index.db", NULL);
    assert_label(s, "format", NULL);
    ASSERT_OK(label_content(s, LABEL, &n, &err));
    ASSERT_EQ(n, 0);
    ASSERT_OK(label_content(s, LABEL ":c1", &n, &err)); /* the configuration was changed */
    ASSERT_EQ(n, 264);
    assert_label(s, file, LABEL ":c1");
}

TEST(label_goes_on_after_it_was_broken_off) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    Digest d = make_artifact(s);
    _cleanup_free_ char *trees = xasprintf("%s/trees", store_path(s));
    uint64_t n = 0;
    Err err = { "" };

    (void)d;
    ASSERT_OK(label_content(s, LABEL, &n, &err));
    ASSERT_OK(lremovexattr(trees, "security.selinux"));
    ASSERT_OK(label_content(s, LABEL, &n, &err));
    ASSERT_EQ(n, 1); /* all in it had it */
}

TEST(label_errors) {
    STORE_TEST_DIR(dir);
    _cleanup_(store_closep) Store *s = env_open(dir);
    static const int errors[] = { EOPNOTSUPP, EINVAL, EACCES, EPERM };
    uint64_t n = 1;
    Err err = { "" };

    for (size_t i = 0; i < ELEMENTSOF(errors); i++) {
        fails = errors[i];
        ASSERT_ERR(label_content(s, LABEL, &n, &err), -errors[i]);
        ASSERT_STRSTR(err.text, LABEL);
        ASSERT_EQ(n, 0);
    }
    fails = 0;
    assert_label(s, "objects", NULL);
}
