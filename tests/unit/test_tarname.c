/* SPDX-License-Identifier: Apache-2.0 */
/* test_tarname: what names in tars mean, and which are refused. */
#include "oci/tarname.h"
#include "tests/unit/test.h"

typedef struct Case {
    const char *name;
    bool whiteouts;
    int r;
    TarnameKind kind;
    const char *path;
} Case;

static const Case cases[] = {
    { "a/b", false, 0, TARNAME_PLAIN, "a/b" },
    { "./a/b", false, 0, TARNAME_PLAIN, "a/b" },
    { "././a", false, 0, TARNAME_PLAIN, "a" },
    { "a/b/", false, 0, TARNAME_PLAIN, "a/b" },
    { "...", false, 0, TARNAME_PLAIN, "..." },
    { "gr\xc3\xbc\xc3\x9f", false, 0, TARNAME_PLAIN, "gr\xc3\xbc\xc3\x9f" },
    { ".", false, 0, TARNAME_ROOT, "" },
    { "./", false, 0, TARNAME_ROOT, "" },
    { "", false, -EPROTO, 0, NULL },
    { "/", false, -EPROTO, 0, NULL },
    { "/etc/passwd", false, -EPROTO, 0, NULL },
    { "/.", false, -EPROTO, 0, NULL },
    { "//a", false, -EPROTO, 0, NULL },
    { ".//a", false, 0, TARNAME_PLAIN, "a" },
    { ".//", false, 0, TARNAME_ROOT, "" },
    { "././.", false, 0, TARNAME_ROOT, "" },
    { "..", false, -EPROTO, 0, NULL },
    { "../a", false, -EPROTO, 0, NULL },
    { "a/../b", false, -EPROTO, 0, NULL },
    { "a/..", false, -EPROTO, 0, NULL },
    { "./../a", false, -EPROTO, 0, NULL },
    { "a//b", false, 0, TARNAME_PLAIN, "a/b" },
    { "a/./b", false, 0, TARNAME_PLAIN, "a/b" },
    { "a/.//./b//", false, 0, TARNAME_PLAIN, "a/b" },
    { "a/.", false, 0, TARNAME_PLAIN, "a" },
    { "a/./..", false, -EPROTO, 0, NULL },
    { ".//..", false, -EPROTO, 0, NULL },
    { "a/..b", false, 0, TARNAME_PLAIN, "a/..b" },
    { "a\xff", false, -ENOTSUP, 0, NULL },
    { "a\xed\xa0\x80", false, -ENOTSUP, 0, NULL },
    { "a\xc3", false, -ENOTSUP, 0, NULL },
    { ".wh.a", false, 0, TARNAME_PLAIN, ".wh.a" },
    { ".wh.a", true, 0, TARNAME_WHITEOUT, "a" },
    { "d/.wh.a", true, 0, TARNAME_WHITEOUT, "d/a" },
    { "d/.wh..wh..opq", true, 0, TARNAME_OPAQUE, "d" },
    { ".wh..wh..opq", true, 0, TARNAME_OPAQUE, "" },
    { "d/.wh..wh.plnk", true, 0, TARNAME_IGNORED, "d/.wh..wh.plnk" },
    { "d//./.wh.a", true, 0, TARNAME_WHITEOUT, "d/a" },
    { "./.wh..wh..opq", true, 0, TARNAME_OPAQUE, "" },
    { ".wh.", true, -EPROTO, 0, NULL },
    { "d/.wh..", true, -EPROTO, 0, NULL },
    { "d/.wh...", true, -EPROTO, 0, NULL },
    { ".wh.d/a", true, -EPROTO, 0, NULL },
    { "d/.wh.e/.wh.a", true, -EPROTO, 0, NULL },
    { "x.wh.d/a", true, 0, TARNAME_PLAIN, "x.wh.d/a" },
};

TEST(names_mean_what_the_table_says) {
    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        const Case *c = &cases[i];
        Tarname name;
        Err err = { "" };
        int r = tarname_read(&name, c->name, c->whiteouts, &err);

        if (r != c->r)
            test_fail(__FILE__, __LINE__, "\"%s\" gives %d (%s), not %d", c->name, r, err.text,
                      c->r);
        if (r < 0)
            continue;
        ASSERT_STREQ(name.path, c->path);
        ASSERT_EQ(name.kind, c->kind);
    }
}

TEST(long_names_are_refused) {
    char name[LIMIT_PATH_BYTES + 10];
    Tarname t;
    Err err;

    memset(name, 'a', sizeof(name));
    name[LIMIT_NAME_BYTES] = '\0';
    ASSERT_OK(tarname_read(&t, name, false, &err));
    name[LIMIT_NAME_BYTES] = 'a';
    name[LIMIT_NAME_BYTES + 1] = '\0';
    ASSERT_ERR(tarname_read(&t, name, false, &err), -EPROTO);
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = i % 2 ? '/' : 'a';
    name[sizeof(name) - 1] = '\0';
    ASSERT_ERR(tarname_read(&t, name, false, &err), -EPROTO);
}

TEST(names_are_shown_printable_and_cut) {
    char shown[TARNAME_SHOWN_MAX], name[300];

    ASSERT_STREQ(tarname_show(shown, "a\x1b[31m\n\xff"), "a?[31m??");
    memset(name, 'x', sizeof(name));
    name[299] = '\0';
    ASSERT_EQ(strlen(tarname_show(shown, name)), TARNAME_SHOWN_MAX - 1);
}

TEST(names_too_deep_are_refused_and_named) {
    char path[2 * LIMIT_PATH_DEPTH + 8] = "";
    Tarname name;
    Err err = { "" };

    for (size_t i = 0; i < LIMIT_PATH_DEPTH - 1; i++)
        (void)strcat(path, "b/");
    (void)strcat(path, "c");
    ASSERT_OK(tarname_read(&name, path, false, &err));
    (void)strcat(path, "/d");
    ASSERT_ERR(tarname_read(&name, path, false, &err), -E2BIG);
    ASSERT_STRSTR(err.text, "b/b/c/d");
}
