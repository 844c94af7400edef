/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of cache/tree: merges as tables, one entry a line, and the entries that must be refused. */
#include "base/limits.h"
#include "base/loop.h"
#include "cache/tree.h"
#include "tests/unit/test.h"

enum { LAYERS_MAX = 4, ENTRIES_MAX = 16 };

/* "f path content", "x path content", "d path", "l path target", "h path target", "w path", "o
 * path" */
static LayerEntry parse_entry(char *line) {
    static const char kinds[] = { 'f', 'd', 'l', 'h', 'w', 'o' };
    char *path = strlen(line) > 2 ? line + 2 : line + strlen(line), *value = strchr(path, ' ');
    LayerEntry e = { .type = ENTRY_TYPE_FILE, .executable = line[0] == 'x' };

    if (value)
        *value++ = '\0';
    for (size_t i = 0; i < sizeof(kinds); i++)
        if (line[0] == kinds[i])
            e.type = (EntryType)i;
    e.path = path;
    if (e.type == ENTRY_TYPE_FILE) {
        digest_of(&e.digest, value ? value : "", value ? strlen(value) : 0);
        e.size = value ? strlen(value) : 0;
    } else
        e.target = value;
    return e;
}

/* A layer is lines; a first line "prefix P" names its directory. */
static int add_layer(Tree *t, const char *text, Err *err) {
    _cleanup_free_ char *copy = xstrdup(text);
    LayerEntry entries[ENTRIES_MAX];
    const char *prefix = NULL;
    size_t n = 0;
    char *save = NULL;

    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (startswith(line, "prefix "))
            prefix = line + strlen("prefix ");
        else
            entries[n++] = parse_entry(line);
    }
    return tree_add_layer(t, prefix, entries, n, err);
}

/* One line a name: "d a", "f a/b 3" (size), "x …", "l a target". */
static char *dump(Tree *t, const Filter *filter) {
    LayerEntry *entries;
    size_t n;
    char *text = xstrdup("");
    Err err = { "" };

    ASSERT_OK(tree_entries(t, filter, &entries, &n, &err));
    for (size_t i = 0; i < n; i++) {
        const LayerEntry *e = &entries[i];
        char *old = text;

        if (e->type == ENTRY_TYPE_FILE)
            text = xasprintf("%s%s %s %llu\n", old, e->executable ? "x" : "f", e->path,
                             (unsigned long long)e->size);
        else if (e->type == ENTRY_TYPE_DIRECTORY)
            text = xasprintf("%sd %s\n", old, e->path);
        else
            text = xasprintf("%sl %s %s\n", old, e->path, e->target);
        free(old);
    }
    layer_entries_free(entries, n);
    return text;
}

typedef struct Merge {
    const char *name;
    const char *layers[LAYERS_MAX];
    const char *want; /* NULL: it is refused */
} Merge;

static void assert_merges(bool image, const Merge *m) {
    _cleanup_(tree_freep) Tree *t = tree_new(image);
    _cleanup_free_ char *got = NULL, *labelled = NULL, *want = NULL;
    Err err = { "" };
    int r = 0;

    for (size_t k = 0; r >= 0 && k < LAYERS_MAX && m->layers[k]; k++)
        r = add_layer(t, m->layers[k], &err);
    if (!m->want) {
        ASSERT_ERR(r, -EPROTO);
        return;
    }
    got = r < 0 ? xstrdup(err.text) : dump(t, NULL);
    labelled = xasprintf("%s:\n%s", m->name, got);
    want = xasprintf("%s:\n%s", m->name, m->want);
    /* tree_entries() sorts by strcmp(3), the tables are written for reading. */
    if (strlen(labelled) != strlen(want))
        test_fail(__FILE__, __LINE__, "%s", labelled);
    for (char *save = NULL, *line = strtok_r(want, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        ASSERT_STRSTR(labelled, line);
}

TEST(tree_merge_table) {
    static const Merge cases[] = {
        { "nothing", { "" }, "" },
        { "parents are made", { "f a/b/c 1" }, "d a\nd a/b\nf a/b/c 1\n" },
        { "later file wins", { "f a 1", "x a 22" }, "x a 2\n" },
        { "duplicate in one layer: the later", { "f a 1\nf a 22" }, "f a 2\n" },
        { "directories merge", { "f a/x 1", "d a\nf a/y 1" }, "d a\nf a/x 1\nf a/y 1\n" },
        { "file replaces directory", { "f a/x 1\nf a/y/z 1", "f a 1" }, "f a 1\n" },
        { "directory replaces file", { "f a 1", "d a" }, "d a\n" },
        { "directory replaces symlink", { "l a b\nf b/x 1", "d a" }, "d a\nd b\nf b/x 1\n" },
        { "whiteout of a file", { "f a/x 1\nf a/y 1", "w a/x" }, "d a\nf a/y 1\n" },
        { "whiteout of a directory", { "f a/x/y 1\nf b 1", "w a" }, "f b 1\n" },
        { "whiteout of what is not there", { "f a 1", "w b\nw a/b\nw c/d" }, "f a 1\n" },
        { "whiteout spares its own layer", { "f a 1", "f a 22\nw a" }, "f a 2\n" },
        { "whiteout, and a new directory", { "f a/x 1", "w a\nf a/y 1" }, "d a\nf a/y 1\n" },
        { "whiteout of a symlink spares its target",
          { "l a b\nf b/x 1", "w a" },
          "d b\nf b/x 1\n" },
        { "whiteout does not pass a symlink",
          { "l a b\nf b/x 1", "w a/x" },
          "d b\nf b/x 1\nl a b\n" },
        { "opaque", { "f a/x 1\nf a/b/c 1", "f a/y 1\no a" }, "d a\nf a/y 1\n" },
        { "opaque root", { "f x 1\nf a/b 1", "o \nf y 1" }, "f y 1\n" },
        { "opaque with prefix",
          { "f p/x 1\nf q 1", "prefix p\no \nf y 1" },
          "d p\nf p/y 1\nf q 1\n" },
        { "prefix",
          { "prefix p/q\nf a 1\nl l a\nh h a" },
          "d p\nd p/q\nf p/q/a 1\nf p/q/h 1\nl p/q/l a\n" },
        { "three layers", { "f a 1", "w a", "f a 333" }, "f a 3\n" },
        { "hard link in a layer", { "x a 1\nh b a" }, "x a 1\nx b 1\n" },
        { "hard link to a lower layer", { "f d/a 1", "h b d/a" }, "d d\nf b 1\nf d/a 1\n" },
        { "hard link keeps its content", { "f a 1\nh b a\nf a 22" }, "f a 2\nf b 1\n" },
        { "hard link to itself", { "f a 1", "h a a" }, "f a 1\n" },
        { "hard link over its own directory", { "f a/b 1", "h a a/b" }, "f a 1\n" },
        { "hard link to a symlink", { "l a b\nh c a" }, "l a b\nl c b\n" },
        { "hard link over the directory of its symlink", { "l a/s t", "h a a/s" }, "l a t\n" },
        { "symlink that leads out", { "l a ../x", NULL }, NULL },
        { "never through a symlink",
          { "l a b\nf b/x 1", "f a/y 1" },
          "d a\nd b\nf a/y 1\nf b/x 1\n" },
        { "never through a symlink, same layer", { "l a b\nf a/y 1" }, "d a\nf a/y 1\n" },
        { "symlinks that stay inside", { "l a/b ../c\nl d a/b" }, "d a\nl a/b ../c\nl d a/b\n" },
        { "sorted with parents first",
          { "f a/c 1\nf a-b 1\nf a.d/e 1" },
          "d a\nf a-b 1\nd a.d\nf a.d/e 1\nf a/c 1\n" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_merges(false, &cases[i]);
}

TEST(tree_of_an_image_follows_symlinks_within_itself) {
    static const Merge cases[] = {
        { "usrmerge",
          { "d usr/lib\nl lib usr/lib\nf usr/lib/libc 1", "f lib/libnew 22" },
          "d usr\nd usr/lib\nf usr/lib/libc 1\nf usr/lib/libnew 2\nl lib usr/lib\n" },
        { "in one layer", { "l a b\nf a/x 1" }, "d b\nf b/x 1\nl a b\n" },
        { "absolute", { "d u\nl a /u\nf a/x 1" }, "d u\nf u/x 1\nl a /u\n" },
        { "absolute, deeper",
          { "l d/a /u/v\nf d/a/x 1" },
          "d d\nd u\nd u/v\nf u/v/x 1\nl d/a /u/v\n" },
        { "relative, up",
          { "l d/e/a ../u\nf d/e/a/x 1" },
          "d d\nd d/e\nd d/u\nf d/u/x 1\nl d/e/a ../u\n" },
        { "never above the root",
          { "l d/a /../../u/../v\nf d/a/x 1" },
          "d d\nd v\nf v/x 1\nl d/a /../../u/../v\n" },
        { "the root itself", { "l d/a /\nf d/a/x 1" }, "d d\nf x 1\nl d/a /\n" },
        { "links lead to links",
          { "l a b/\nl b ./c//d\nf a/x 1" },
          "d c\nd c/d\nf c/d/x 1\nl a b/\nl b ./c//d\n" },
        { "a name of an entry is not followed", { "l a b\nf b 1", "f a 22" }, "f a 2\nf b 1\n" },
        { "a directory replaces the symlink",
          { "l a b\nf b/x 1", "d a\nf a/y 1" },
          "d a\nd b\nf a/y 1\nf b/x 1\n" },
        { "and what is marked in it is its own",
          { "l a b\nf b/x 1", "d a\no a\nw a/x" },
          "d a\nd b\nf b/x 1\n" },
        { "whiteout", { "l a b\nf b/x 1\nf b/y 1", "w a/x" }, "d b\nf b/y 1\nl a b\n" },
        { "whiteout of the symlink", { "l a b\nf b/x 1", "w a" }, "d b\nf b/x 1\n" },
        { "whiteout of the symlink, then a parent",
          { "l a b\nf b/x 1", "w a\nf a/y 1" },
          "d a\nd b\nf a/y 1\nf b/x 1\n" },
        { "whiteout of what is not there", { "l a b", "w a/x\nw a/c/d" }, "l a b\n" },
        { "opaque", { "l a b\nf b/x 1", "f a/y 1\no a" }, "d b\nf b/y 1\nl a b\n" },
        { "hard link",
          { "l a b\nf b/x 1\nf a/y 1", "h a/z a/x" },
          "d b\nf b/x 1\nf b/y 1\nf b/z 1\nl a b\n" },
        { "hard link to a symlink behind one",
          { "l a b\nl b/s t", "h c a/s" },
          "d b\nl a b\nl b/s t\nl c t\n" },
        { "a symlink is judged where it comes to lie",
          { "l a b/c\nl a/s ../t" },
          "d b\nd b/c\nl a b/c\nl b/c/s ../t\n" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        assert_merges(true, &cases[i]);
}

/* FNV-1a, the hash that any table of names is first attacked with. */
static uint32_t fnv(uint32_t h, const char *s) {
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619U;
    return h;
}

enum { WORD = 12, TRIES = 1 << 20 };

static void spell(uint32_t number, char word[static WORD + 1]) {
    uint64_t mixed = (number + 1) * 0x9e3779b97f4a7c15ULL;

    for (unsigned k = 0; k < WORD; k++)
        word[k] = (char)('a' + (mixed >> 5 * k) % 32 % 26);
    word[WORD] = '\0';
}

/* Two words that lead from the state `h` to one and the same: a matter of some 80,000 tries. */
static void find_pair(uint32_t h, char pair[2][WORD + 1]) {
    enum { SLOTS = 1 << 20 };
    _cleanup_free_ uint32_t *seen = xnew_n(uint32_t, SLOTS); /* word + 1, by hash */

    for (uint32_t i = 0; i < TRIES; i++) {
        uint32_t *slot;

        spell(i, pair[0]);
        slot = &seen[fnv(h, pair[0]) % SLOTS];
        if (*slot)
            spell(*slot - 1, pair[1]);
        if (*slot && fnv(h, pair[0]) == fnv(h, pair[1]))
            return;
        *slot = i + 1;
    }
    test_fail(__FILE__, __LINE__, "no two words collide");
}

TEST(tree_is_not_slowed_down_by_names_that_were_made_to_collide) {
    enum { STEPS = 17, NAMES = 1 << STEPS };
    _cleanup_(tree_freep) Tree *t = tree_new(false);
    LayerEntry *entries = xnew_n(LayerEntry, NAMES);
    uint32_t h = 2166136261U ^ (2166136261U ^ 2166136261U >> 15) * 16777619U;
    char pairs[STEPS][2][WORD + 1];
    clock_t begin = clock(), finding;
    Err err = { "" };

    for (unsigned i = 0; i < STEPS; i++) {
        find_pair(h, pairs[i]);
        h = fnv(h, pairs[i][0]);
    }
    finding = clock() - begin; /* a measure of this machine and build */
    for (unsigned i = 0; i < NAMES; i++) {
        char name[WORD * STEPS + 1] = "";

        for (unsigned k = 0; k < STEPS; k++)
            memcpy(name + WORD * k, pairs[k][i >> k & 1], WORD + 1);
        entries[i] = (LayerEntry){ .type = ENTRY_TYPE_DIRECTORY, .path = xstrdup(name) };
    }
    begin = clock();
    ASSERT_OK(tree_add_layer(t, NULL, entries, NAMES, &err));
    ASSERT_TRUE(clock() - begin < 20 * finding); /* thousands of times with one chain */
    layer_entries_free(entries, NAMES);
}

TEST(tree_refuses_hostile_entries) {
    static const struct {
        const char *layers[LAYERS_MAX];
        const char *sentence;
    } cases[] = {
        { { "f /etc/passwd 1" }, "not a safe name" },
        { { "f ../x 1" }, "not a safe name" },
        { { "f a/../../x 1" }, "not a safe name" },
        { { "f a//b 1" }, "not a safe name" },
        { { "f a/ 1" }, "not a safe name" },
        { { "f . 1" }, "not a safe name" },
        { { "f ./a 1" }, "not a safe name" },
        { { "f " }, "not a safe name" },
        { { "d " }, "not a safe name" },
        { { "d .." }, "not a safe name" },
        { { "w " }, "not a safe name" },
        { { "w .." }, "not a safe name" },
        { { "w ." }, "not a safe name" },
        { { "o .." }, "not a safe name" },
        { { "o /" }, "not a safe name" },
        { { "l a /etc/passwd" }, "outside" },
        { { "l a .." }, "outside" },
        { { "l a/b ../../x" }, "outside" },
        { { "l a b/../../c" }, "outside" },
        { { "l a" }, "not a safe name" },
        { { "f x 1\nh a /x" }, "not a safe name" },
        { { "f x 1\nh a ../x" }, "not a safe name" },
        { { "h a" }, "not a safe name" },
        { { "h a b" }, "no file of this layer" },
        { { "d b\nh a b" }, "no file of this layer" },
        { { "h a b\nf b 1" }, "no file of this layer" },
        { { "f b 1", "w b\nh a b" }, "no file of this layer" },
        { { "l d e\nf e/x 1\nh a d/x" }, "no file of this layer" },
        { { "f a 1\nf a/b 1" }, "beneath a file" },
        { { "f a 1", "f a/b/c 1" }, "beneath a file" },
        { { "l x/a ../y\nh b x/a" }, "outside" },
        { { "prefix ../up\nf a 1" }, "not a safe name" },
        { { "prefix /up\nf a 1" }, "not a safe name" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(tree_freep) Tree *t = tree_new(false);
        Err err = { "" };
        int r = 0;

        for (size_t k = 0; r >= 0 && k < LAYERS_MAX && cases[i].layers[k]; k++)
            r = add_layer(t, cases[i].layers[k], &err);
        ASSERT_STRSTR(err.text, cases[i].sentence);
        ASSERT_ERR(r, -EPROTO);
    }
}

TEST(tree_of_an_image_refuses_symlinks_without_end) {
    static const struct {
        const char *layer, *sentence;
    } cases[] = {
        { "l a a\nf a/x 1", "more than 40 symlinks" },
        { "l a b\nl b a\nf a/x 1", "more than 40 symlinks" },
        { "l a b\nl b a\nw a/x", NULL }, /* marks are about lower layers */
        { "f f 1\nl a f\nf a/x 1", "beneath a file" },
        { "l a b\nl a/s ../../t", "outside" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(tree_freep) Tree *t = tree_new(true);
        Err err = { "" };

        ASSERT_ERR(add_layer(t, cases[i].layer, &err), cases[i].sentence ? -EPROTO : 0);
        ASSERT_STRSTR(err.text, cases[i].sentence ? cases[i].sentence : "");
    }
}

TEST(tree_of_an_image_bounds_where_symlinks_lead) {
    enum { LONG = LIMIT_SYMLINK_BYTES };
    _cleanup_(tree_freep) Tree *t = tree_new(true);
    _cleanup_free_ char *target = xcalloc(1, LONG + 1);
    LayerEntry link = { .type = ENTRY_TYPE_SYMLINK, .path = (char *)"a", .target = target },
               dir = { .type = ENTRY_TYPE_DIRECTORY, .path = (char *)"a/x" };
    int r = 0;
    Err err;

    (void)memset(target, 'n', LIMIT_NAME_BYTES + 1); /* a name that no file system takes */
    ASSERT_OK(tree_add_layer(t, NULL, &link, 1, &err));
    ASSERT_ERR(tree_add_layer(t, NULL, &dir, 1, &err), -EPROTO);
    ASSERT_STRSTR(err.text, "not a safe name");

    for (size_t i = 0; i < LONG; i++)
        target[i] = i % 2 ? '/' : 'd';
    ASSERT_OK(tree_add_layer(t, NULL, &link, 1, &err));
    ASSERT_ERR(tree_add_layer(t, NULL, &dir, 1, &err), -E2BIG);
    ASSERT_STRSTR(err.text, "deeper than 64");

    for (size_t i = 0; i < LONG; i++)
        target[i] = i % 200 ? 'd' : '/';
    ASSERT_OK(tree_add_layer(t, NULL, &link, 1, &err));
    ASSERT_ERR(tree_add_layer(t, NULL, &dir, 1, &err), -E2BIG);
    ASSERT_STRSTR(err.text, "longer than");

    (void)memset(target, '/', LONG); /* the root, with much to read */
    ASSERT_OK(tree_add_layer(t, NULL, &link, 1, &err));
    for (size_t i = 0; r >= 0 && i <= LIMIT_TREE_LINK_BYTES / LONG; i++)
        r = tree_add_layer(t, NULL, &dir, 1, &err);
    ASSERT_ERR(r, -E2BIG);
    ASSERT_STRSTR(err.text, "64 MiB of symlinks");
}

TEST(tree_of_an_image_keeps_absolute_symlinks_and_no_others_that_lead_out) {
    _cleanup_(tree_freep) Tree *t = tree_new(true);
    _cleanup_free_ char *got = NULL;
    Err err = { "" };

    ASSERT_OK(add_layer(t, "l bin/sh /bin/busybox\nh x bin/sh", &err));
    got = dump(t, NULL);
    ASSERT_STREQ(got, "d bin\nl bin/sh /bin/busybox\nl x /bin/busybox\n");
    ASSERT_ERR(add_layer(t, "l y ../z", &err), -EPROTO);
}

TEST(tree_refuses_what_is_too_long_or_no_type) {
    _cleanup_(tree_freep) Tree *t = tree_new(false);
    _cleanup_free_ char *prefix = xcalloc(1, LIMIT_PATH_BYTES),
                        *path = xcalloc(1, LIMIT_PATH_BYTES);
    LayerEntry e = { .type = ENTRY_TYPE_COUNT, .path = path };
    Err err;

    for (size_t i = 0; i < 3000; i++)
        prefix[i] = path[i] = i % 200 == 199 ? '/' : 'a';
    prefix[2999] = path[2999] = '\0';
    ASSERT_ERR(tree_add_layer(t, NULL, &e, 1, &err), -EPROTO);
    e.type = ENTRY_TYPE_DIRECTORY;
    ASSERT_ERR(tree_add_layer(t, prefix, &e, 1, &err), -E2BIG);
    ASSERT_OK(tree_add_layer(t, NULL, &e, 1, &err));
    e.type = ENTRY_TYPE_FILE;
    e.size = UINT64_MAX;
    ASSERT_ERR(tree_add_layer(t, NULL, &e, 1, &err), -EPROTO);
}

static char *deep(const char *name, size_t depth) {
    char *path = xcalloc(1, 2 * depth + strlen(name) + 1);

    for (size_t i = 1; i < depth; i++)
        (void)memcpy(path + 2 * (i - 1), "a/", 2);
    (void)memcpy(path + 2 * (depth - 1), name, strlen(name));
    return path;
}

TEST(tree_refuses_what_lies_too_deep) {
    _cleanup_(tree_freep) Tree *t = tree_new(false);
    _cleanup_free_ char *fits = deep("name", LIMIT_PATH_DEPTH),
                        *too_deep = deep("name", LIMIT_PATH_DEPTH + 1);
    LayerEntry e = { .type = ENTRY_TYPE_DIRECTORY, .path = fits };
    Err err;

    ASSERT_OK(tree_check_entry(&e, &err));
    ASSERT_OK(tree_add_layer(t, NULL, &e, 1, &err));
    ASSERT_ERR(tree_add_layer(t, "prefix", &e, 1, &err), -E2BIG); /* deeper with its prefix */
    e.path = too_deep;
    ASSERT_ERR(tree_check_entry(&e, &err), -E2BIG);
    ASSERT_STRSTR(err.text, too_deep);
    ASSERT_STRSTR(err.text, "deeper than 64");
}

TEST(tree_refuses_paths_that_take_too_much_memory) {
    enum { LONG = 3800, N = 80000 };
    _cleanup_(tree_freep) Tree *t = tree_new(false);
    _cleanup_free_ char *path = xcalloc(1, LONG + 32);
    LayerEntry e = { .type = ENTRY_TYPE_DIRECTORY, .path = path };
    size_t i;
    int r = 0;
    Err err;

    for (i = 0; i < LONG; i++)
        path[i] = i % 200 == 199 ? '/' : 'a';
    for (i = 0; r >= 0 && i < N; i++) {
        (void)snprintf(path + LONG, 32, "%zu", i);
        r = tree_add_layer(t, NULL, &e, 1, &err);
    }
    ASSERT_ERR(r, -E2BIG);
    ASSERT_STRSTR(err.text, "256 MiB");
    ASSERT_TRUE(i > LIMIT_TREE_PATH_BYTES / (LONG + 6));
}

TEST(tree_takes_a_hundred_thousand_files) {
    enum { N = 100000 };
    _cleanup_(tree_freep) Tree *t = tree_new(false);
    LayerEntry *entries = xnew_n(LayerEntry, N), *merged;
    size_t n;
    Err err;

    for (size_t i = 0; i < N; i++)
        entries[i] =
            (LayerEntry){ .type = ENTRY_TYPE_FILE, .path = xasprintf("d%zu/f%zu", i % 100, i) };
    ASSERT_OK(tree_add_layer(t, NULL, entries, N, &err));
    layer_entries_free(entries, N);
    ASSERT_OK(tree_entries(t, NULL, &merged, &n, &err));
    ASSERT_EQ(n, N + 100);
    for (size_t i = 1; i < n; i++)
        ASSERT_TRUE(strcmp(merged[i - 1].path, merged[i].path) < 0);
    layer_entries_free(merged, n);
}

TEST(tree_of_a_subset) {
    static const struct {
        const char *include, *exclude, *want;
    } cases[] = {
        { "*.json", NULL, "d a\nd a/b\nf a/b/c.json 1\nf d.json 1\n" },
        { "a", "*.json", "d a\nd a/b\nf a/b/x 1\nd a/empty\nl a/l b/c.json\n" },
        { NULL, "a", "f d.json 1\n" },
        { "empty", NULL, "d a\nd a/empty\n" },
        { "no", NULL, "" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(tree_freep) Tree *t = tree_new(false);
        _cleanup_(filter_freep) Filter *f = NULL;
        _cleanup_free_ char *got = NULL;
        Err err = { "" };

        ASSERT_OK(
            add_layer(t, "f a/b/c.json 1\nf a/b/x 1\nd a/empty\nl a/l b/c.json\nf d.json 1", &err));
        ASSERT_OK(filter_parse(&f, cases[i].include, cases[i].exclude, &err));
        got = dump(t, f);
        ASSERT_STREQ(got, cases[i].want);
    }
}

/* Pods choose the patterns, and others wait for the index meanwhile. */
TEST(tree_refuses_a_subset_that_takes_long_to_find) {
    enum { LONG = 250, N = 16384 };
    _cleanup_(tree_freep) Tree *t = tree_new(false);
    _cleanup_(filter_freep) Filter *f = NULL;
    char name[LONG + 16], pattern[LONG / 2 + 2] = "*";
    LayerEntry e = { .type = ENTRY_TYPE_FILE, .path = name }, *entries;
    size_t n;
    Err err = { "" };

    memset(name, 'a', LONG);
    memset(pattern + 1, 'a', LONG / 2 - 1);
    memcpy(pattern + LONG / 2, "b", 2);
    for (int i = 0; i < N; i++) {
        (void)snprintf(name + LONG, 16, "%05d", i);
        ASSERT_OK(tree_add_layer(t, NULL, &e, 1, &err));
    }
    ASSERT_OK(filter_parse(&f, NULL, pattern, &err));
    ASSERT_ERR(tree_entries(t, f, &entries, &n, &err), -E2BIG);
}
