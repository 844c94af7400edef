/* SPDX-License-Identifier: Apache-2.0 */
/* tree: the layers of an artifact merged into one tree of names, in memory. */
#include "cache/tree.h"

#include "base/fs.h"
#include "base/limits.h"

#include <sys/random.h>

enum { TREE_BUCKETS_FIRST = 1024, TREE_TYPE_NONE = ENTRY_TYPE_COUNT };

/* A name.  It stays when its content is taken away (TREE_TYPE_NONE, and then so is all beneath it).
 */
typedef struct Node {
    struct Node *parent;
    struct Node *children, *next; /* first child; next child of the parent */
    struct Node *same_bucket;
    unsigned type; /* ENTRY_TYPE_FILE, _DIRECTORY, _SYMLINK or TREE_TYPE_NONE */
    bool executable;
    bool kept; /* belongs to the subset that tree_entries() is asked for */
    Digest digest;
    uint64_t size;
    char *target; /* owned; symlinks */
    uint64_t hash;
    uint32_t name_len;
    char name[];
} Node;

struct Tree {
    Node *root;
    Node **buckets; /* by parent and name */
    size_t n_buckets, n_nodes;
    uint64_t path_bytes; /* of all nodes' paths: so much tree_entries() takes */
    uint64_t key;        /* of name_hash(), random */
    uint64_t link_bytes; /* read of the targets of symlinks that paths lead through */
    bool image;
};

/* A walk by names.  `path` has no symlink: names that are there, or that are not. */
typedef struct Walk {
    char path[LIMIT_PATH_BYTES];
    size_t depth, links;
    size_t ends[LIMIT_PATH_DEPTH + 1]; /* how long `path` is at each depth */
    Node *nodes[LIMIT_PATH_DEPTH + 1]; /* what is at each depth; NULL: nothing */
    char rest[2 * LIMIT_PATH_BYTES];   /* its end, from `at` on, is still to go */
    size_t at;
} Walk;

__extension__ typedef unsigned __int128 Wide;

/* The names are a registry's: with a hash that is known beforehand, two million that fall into one
 * bucket would keep the store busy for hours.  So the path is a polynomial over a prime field, at
 * a random point: two paths of n bytes collide for at most n of its 2^61 - 1 points. */
static uint64_t name_hash(const Tree *t, const Node *parent, const char *name, size_t n) {
    const uint64_t prime = (1ULL << 61) - 1;
    uint64_t h = parent ? parent->hash : 0;

    for (size_t i = 0; i <= n; i++) { /* the end of a name counts as '/' */
        Wide product = (Wide)h * t->key + (i < n ? (unsigned char)name[i] : (unsigned char)'/') + 1;

        h = (uint64_t)(product & prime) + (uint64_t)(product >> 61);
        h = h >= prime ? h - prime : h;
    }
    return h;
}

static Node *node_new(Tree *t, Node *parent, const char *name, size_t n) {
    Node *node = xcalloc(1, sizeof(Node) + n + 1);

    memcpy(node->name, name, n);
    node->name_len = (uint32_t)n;
    node->type = TREE_TYPE_NONE;
    node->hash = name_hash(t, parent, name, n);
    node->parent = parent;
    if (parent) {
        node->next = parent->children;
        parent->children = node;
    }
    t->n_nodes++;
    return node;
}

static void buckets_grow(Tree *t) {
    size_t n = t->n_buckets * 2;
    Node **buckets = xcalloc(n, sizeof(*buckets));

    for (size_t i = 0; i < t->n_buckets; i++)
        for (Node *node = t->buckets[i], *next; node; node = next) {
            next = node->same_bucket;
            node->same_bucket = buckets[node->hash & (n - 1)];
            buckets[node->hash & (n - 1)] = node;
        }
    free(t->buckets);
    t->buckets = buckets;
    t->n_buckets = n;
}

Tree *tree_new(bool image) {
    Tree *t = xnew(Tree);

    if (getrandom(&t->key, sizeof(t->key), 0) != sizeof(t->key))
        abort(); /* cannot fail for 8 bytes once the system is up (getrandom(2)) */
    t->key %= 1ULL << 60;
    t->image = image;
    t->n_buckets = TREE_BUCKETS_FIRST;
    t->buckets = xcalloc(t->n_buckets, sizeof(*t->buckets));
    t->root = node_new(t, NULL, "", 0);
    t->root->type = ENTRY_TYPE_DIRECTORY;
    return t;
}

static void node_free(Node *node) {
    free(node->target);
    free(node);
}

Tree *tree_free(Tree *t) {
    if (!t)
        return NULL;
    for (size_t i = 0; i < t->n_buckets; i++)
        for (Node *node = t->buckets[i], *next; node; node = next) {
            next = node->same_bucket;
            node_free(node);
        }
    node_free(t->root);
    free(t->buckets);
    free(t);
    return NULL;
}

static Node *child_find(const Tree *t, const Node *parent, const char *name, size_t n) {
    uint64_t hash = name_hash(t, parent, name, n);

    for (Node *node = t->buckets[hash & (t->n_buckets - 1)]; node; node = node->same_bucket)
        if (node->hash == hash && node->parent == parent && node->name_len == n &&
            memcmp(node->name, name, n) == 0)
            return node;
    return NULL;
}

/* `path_bytes`: how long the whole path is. */
static Node *child_make(Tree *t, Node *parent, const char *name, size_t n, size_t path_bytes) {
    Node *node = child_find(t, parent, name, n);

    if (node)
        return node;
    if (t->n_nodes >= t->n_buckets)
        buckets_grow(t);
    node = node_new(t, parent, name, n);
    t->path_bytes += path_bytes;
    node->same_bucket = t->buckets[node->hash & (t->n_buckets - 1)];
    t->buckets[node->hash & (t->n_buckets - 1)] = node;
    return node;
}

/* Takes away what is at the node and beneath it.  Depth is bound by LIMIT_PATH_DEPTH. */
static void node_clear(Node *node) {
    if (node->type == TREE_TYPE_NONE)
        return;
    node->type = TREE_TYPE_NONE;
    free(node->target);
    node->target = NULL;
    for (Node *child = node->children; child; child = child->next)
        node_clear(child);
}

/* The node of a path, or NULL; symlinks are not followed. */
static Node *node_find(const Tree *t, const char *path) {
    Node *node = t->root;

    while (node && *path) {
        size_t n = strcspn(path, "/");

        node = child_find(t, node, path, n);
        path += n + (path[n] == '/');
    }
    return node;
}

static int refuse_long(const char *path, Err *err) {
    return err_set(err, -E2BIG, "path '%.200s…' is longer than %d bytes", path,
                   LIMIT_PATH_BYTES - 1);
}

static int refuse_deep(const char *path, Err *err) {
    return err_set(err, -E2BIG, "path '%.200s' lies deeper than %d directories", path,
                   LIMIT_PATH_DEPTH);
}

static int check_size(const Tree *t, const char *path, Err *err) {
    if (t->n_nodes > LIMIT_TREE_ENTRIES)
        return err_set(err, -E2BIG, "the artifact has more than %d files and directories",
                       LIMIT_TREE_ENTRIES);
    if (t->path_bytes > LIMIT_TREE_PATH_BYTES)
        return err_set(err, -E2BIG, "the paths of the artifact pass %llu MiB at '%.200s'",
                       (unsigned long long)LIMIT_TREE_PATH_BYTES >> 20, path);
    return 0;
}

/* The node of a path with its parents, which become directories. */
static int node_make(Tree *t, const char *path, Node **ret, Err *err) {
    const char *rest = path;
    Node *node = t->root;
    int r;

    if (path_depth(path) > LIMIT_PATH_DEPTH)
        return refuse_deep(path, err);
    for (;;) {
        size_t n = strcspn(rest, "/");

        if (node->type == ENTRY_TYPE_FILE)
            return err_set(err, -EPROTO,
                           "the layers contradict each other: '%s' lies beneath a file", path);
        if (node->type != ENTRY_TYPE_DIRECTORY) {
            node_clear(node);
            node->type = ENTRY_TYPE_DIRECTORY;
        }
        r = check_size(t, path, err);
        if (r < 0)
            return r;
        node = child_make(t, node, rest, n, (size_t)(rest - path) + n);
        if (!rest[n])
            break;
        rest += n + 1;
    }
    *ret = node;
    return 0;
}

int tree_check_entry(const LayerEntry *e, Err *err) {
    const char *path = e->path ? e->path : "";
    bool target_fine = true;

    if ((unsigned)e->type >= ENTRY_TYPE_COUNT)
        return err_set(err, -EPROTO, "entry '%.200s' of the layer has the unknown type %u", path,
                       (unsigned)e->type);
    /* An opaque mark at the root has no name to stand for it. */
    if (!path_is_safe_relative(path) && !(e->type == ENTRY_TYPE_OPAQUE && !*path))
        return err_set(err, -EPROTO,
                       "entry '%.200s' of the layer has a path that is not a safe name", path);
    if (path_depth(path) > LIMIT_PATH_DEPTH)
        return refuse_deep(path, err);
    if (e->type == ENTRY_TYPE_SYMLINK)
        target_fine = !isempty(e->target) && strlen(e->target) <= LIMIT_SYMLINK_BYTES;
    else if (e->type == ENTRY_TYPE_HARDLINK)
        target_fine = e->target && path_is_safe_relative(e->target);
    if (!target_fine)
        return err_set(
            err, -EPROTO,
            "link '%.200s' of the layer has the target '%.200s', which is not a safe name", path,
            e->target ? e->target : "");
    if (e->type == ENTRY_TYPE_FILE && e->size > LIMIT_BLOB_BYTES)
        return err_set(err, -EPROTO, "file '%.200s' of the layer claims an impossible size", path);
    return 0;
}

static int path_join(char buf[static LIMIT_PATH_BYTES], const char *prefix, const char *path,
                     Err *err) {
    int n = isempty(prefix)
                ? snprintf(buf, LIMIT_PATH_BYTES, "%s", path)
                : snprintf(buf, LIMIT_PATH_BYTES, "%s%s%s", prefix, *path ? "/" : "", path);

    return n < 0 || n >= LIMIT_PATH_BYTES ? refuse_long(path, err) : 0;
}

static int walk_name(const Tree *t, Walk *w, const char *name, size_t n, Err *err) {
    size_t end = w->ends[w->depth], slash = w->depth > 0;

    if (w->depth == LIMIT_PATH_DEPTH)
        return refuse_deep(w->path, err);
    if (!name_is_safe(name, n))
        return err_set(err, -EPROTO,
                       "the symlinks of the artifact lead through '%.*s', which is not a safe name",
                       (int)MIN(n, (size_t)LIMIT_NAME_BYTES), name);
    if (end + slash + n >= sizeof(w->path))
        return refuse_long(w->path, err);
    if (slash)
        w->path[end] = '/';
    memcpy(w->path + end + slash, name, n);
    w->path[end + slash + n] = '\0';
    w->ends[w->depth + 1] = end + slash + n;
    w->nodes[w->depth + 1] = w->nodes[w->depth] ? child_find(t, w->nodes[w->depth], name, n) : NULL;
    w->depth++;
    return 0;
}

/* Goes up, but never above the root. */
static void walk_up(Walk *w) {
    if (w->depth > 0)
        w->depth--;
    w->path[w->ends[w->depth]] = '\0';
}

/* Puts `text` before what is still to go. */
static int walk_prepend(Walk *w, const char *text, Err *err) {
    size_t n = strlen(text);

    if (n + 1 > w->at)
        return refuse_long(text, err);
    w->at -= n + 1;
    memcpy(w->rest + w->at, text, n);
    w->rest[w->at + n] = '/';
    return 0;
}

/* The last name is a symlink: its target takes its place.  The sum is bounded, so that entries that
 * all lead through long targets cannot keep the store busy. */
static int walk_link(Tree *t, Walk *w, Err *err) {
    const Node *link = w->nodes[w->depth];

    if (++w->links > LIMIT_SYMLINKS_FOLLOWED)
        return err_set(err, -EPROTO,
                       "more than %d symlinks have to be followed, the last is '%.200s'",
                       LIMIT_SYMLINKS_FOLLOWED, w->path);
    t->link_bytes += strlen(link->target);
    if (t->link_bytes > LIMIT_TREE_LINK_BYTES)
        return err_set(err, -E2BIG, "paths lead through more than %llu MiB of symlinks at '%.200s'",
                       (unsigned long long)LIMIT_TREE_LINK_BYTES >> 20, w->path);
    if (*link->target == '/')
        w->depth = 0;
    walk_up(w);
    return walk_prepend(w, link->target, err);
}

/* Follows `path` and all symlinks in it as somebody would whose root is the tree's; names that are
 * not there are walked through as well.  This is all in memory: no path reaches the kernel. */
static int walk(Tree *t, Walk *w, const char *path, Err *err) {
    int r;

    w->depth = w->links = w->ends[0] = 0;
    w->path[0] = '\0';
    w->nodes[0] = t->root;
    w->at = sizeof(w->rest);
    r = walk_prepend(w, path, err);
    while (r >= 0 && w->at < sizeof(w->rest)) {
        const char *name = w->rest + w->at;
        size_t n = (size_t)((char *)memchr(name, '/', sizeof(w->rest) - w->at) - name);

        w->at += n + 1;
        if (n == 2 && memcmp(name, "..", 2) == 0)
            walk_up(w);
        else if (n > 0 && !(n == 1 && *name == '.'))
            r = walk_name(t, w, name, n, err);
        if (r >= 0 && w->nodes[w->depth] && w->nodes[w->depth]->type == ENTRY_TYPE_SYMLINK)
            r = walk_link(t, w, err);
    }
    return r < 0 ? err_prefix(err, r, "path '%.200s'", path) : 0;
}

/* The path in the tree that a path in a layer means: in an image the symlinks among its parents
 * (`whole`: and itself) are followed. */
static int locate(Tree *t, const char *prefix, const char *path, bool whole,
                  char ret[static LIMIT_PATH_BYTES], Err *err) {
    char joined[LIMIT_PATH_BYTES], *slash;
    Walk w;
    int r = path_join(joined, prefix, path, err);

    if (r < 0)
        return r;
    slash = whole ? NULL : strrchr(joined, '/');
    if (!t->image || (!whole && !slash))
        return path_join(ret, NULL, joined, err);
    if (slash)
        *slash++ = '\0';
    r = walk(t, &w, joined, err);
    return r < 0 ? r : path_join(ret, w.path, slash ? slash : "", err);
}

static int put_symlink(const Tree *t, Node *node, const char *path, const char *target, Err *err) {
    char *copy;

    if (!symlink_stays_inside(path, target) && !(t->image && *target == '/'))
        return err_set(
            err, -EPROTO,
            "symlink '%.200s' points to '%.200s', outside of the artifact: it is refused", path,
            target);
    copy = xstrdup(target); /* clearing `node` may clear the symlink that `target` is of */
    node_clear(node);
    node->type = ENTRY_TYPE_SYMLINK;
    node->target = copy;
    return 0;
}

static void put_file(Node *node, const Digest *digest, bool executable, uint64_t size) {
    node_clear(node);
    node->type = ENTRY_TYPE_FILE;
    node->digest = *digest;
    node->executable = executable;
    node->size = size;
}

static int put_hardlink(Tree *t, Node *node, const char *path, const char *target, Err *err) {
    const Node *file = node_find(t, target);

    if (!file || (file->type != ENTRY_TYPE_FILE && file->type != ENTRY_TYPE_SYMLINK))
        return err_set(
            err, -EPROTO,
            "hard link '%.200s' names '%.200s', which is no file of this layer or one below", path,
            target);
    if (file == node)
        return 0;
    if (file->type == ENTRY_TYPE_SYMLINK)
        return put_symlink(t, node, path, file->target, err);
    Node copy = *file; /* clearing `node` may clear `file` beneath it */
    put_file(node, &copy.digest, copy.executable, copy.size);
    return 0;
}

static int put(Tree *t, const char *prefix, const LayerEntry *e, Err *err) {
    char path[LIMIT_PATH_BYTES], target[LIMIT_PATH_BYTES];
    Node *node = NULL;
    int r = locate(t, prefix, e->path, false, path, err);

    if (r < 0)
        return r;
    r = node_make(t, path, &node, err);
    if (r < 0)
        return r;
    switch (e->type) {
    case ENTRY_TYPE_FILE:
        put_file(node, &e->digest, e->executable, e->size);
        return 0;
    case ENTRY_TYPE_DIRECTORY:
        if (node->type != ENTRY_TYPE_DIRECTORY)
            node_clear(node);
        node->type = ENTRY_TYPE_DIRECTORY;
        return 0;
    case ENTRY_TYPE_SYMLINK:
        return put_symlink(t, node, path, e->target, err);
    default:
        assert(e->type == ENTRY_TYPE_HARDLINK);
        r = locate(t, prefix, e->target, false, target, err);
        return r < 0 ? r : put_hardlink(t, node, path, target, err);
    }
}

/* What an entry takes away of the lower layers before any entry of its own is put.  In an image
 * also the symlink that a directory replaces: what the layer says of paths beneath it means the
 * directory. */
static int hide(Tree *t, const char *prefix, const LayerEntry *e, Err *err) {
    bool opaque = e->type == ENTRY_TYPE_OPAQUE, directory = e->type == ENTRY_TYPE_DIRECTORY;
    char path[LIMIT_PATH_BYTES];
    Node *node;
    int r;

    if (!opaque && e->type != ENTRY_TYPE_WHITEOUT && !(directory && t->image))
        return 0;
    r = locate(t, prefix, e->path, opaque, path, err);
    if (r < 0)
        return r;
    node = node_find(t, path);
    if (!node || (directory && node->type != ENTRY_TYPE_SYMLINK))
        return 0;
    if (!opaque)
        node_clear(node);
    else if (node->type == ENTRY_TYPE_DIRECTORY)
        for (Node *child = node->children; child; child = child->next)
            node_clear(child);
    return 0;
}

int tree_add_layer(Tree *t, const char *prefix, const LayerEntry *entries, size_t n, Err *err) {
    int r = 0;

    if (prefix && !path_is_safe_relative(prefix))
        return err_set(err, -EPROTO, "layer directory '%.200s' is not a safe name", prefix);
    for (size_t i = 0; r >= 0 && i < n; i++) {
        r = tree_check_entry(&entries[i], err);
        if (r >= 0)
            r = hide(t, prefix, &entries[i], err);
    }
    for (size_t i = 0; r >= 0 && i < n; i++)
        if (entries[i].type != ENTRY_TYPE_WHITEOUT && entries[i].type != ENTRY_TYPE_OPAQUE)
            r = put(t, prefix, &entries[i], err);
    return r;
}

static bool has_children(const Node *node) {
    for (const Node *child = node->children; child; child = child->next)
        if (child->type != TREE_TYPE_NONE)
            return true;
    return false;
}

static char *node_path(const Node *node) {
    size_t n = 0;
    char *path, *end;

    for (const Node *p = node; p->parent; p = p->parent)
        n += p->name_len + 1;
    path = xcalloc(1, n);
    end = path + n - 1;
    for (const Node *p = node; p->parent; p = p->parent) {
        end -= p->name_len;
        memcpy(end, p->name, p->name_len);
        if (end > path)
            *--end = '/';
    }
    return path;
}

static int compare_paths(const void *a, const void *b) {
    return strcmp(((const LayerEntry *)a)->path, ((const LayerEntry *)b)->path);
}

/* Sets `kept` of all nodes that belong to the subset, with the directories above them. */
static int keep_nodes(Tree *t, const Filter *filter, Err *err) {
    uint64_t steps = LIMIT_FILTER_TREE_STEPS;

    for (size_t i = 0; i < t->n_buckets; i++)
        for (Node *node = t->buckets[i]; node; node = node->same_bucket) {
            _cleanup_free_ char *path = NULL;

            if (node->type == TREE_TYPE_NONE || has_children(node))
                continue;
            path = node_path(node);
            if (filter_keeps(filter, path, &steps))
                for (Node *p = node; p && !p->kept; p = p->parent)
                    p->kept = true;
        }
    return filter_check_steps(steps, err);
}

static void add_entry(const Node *node, LayerEntry *ret) {
    *ret = (LayerEntry){
        .type = (EntryType)node->type,
        .executable = node->executable,
        .digest = node->digest,
        .size = node->type == ENTRY_TYPE_FILE ? node->size : 0,
        .path = node_path(node),
        .target = xstrdup(node->target),
    };
}

int tree_entries(Tree *t, const Filter *filter, LayerEntry **ret, size_t *ret_n, Err *err) {
    LayerEntry *entries = NULL;
    size_t n = 0, cap = 0;
    int r = filter ? keep_nodes(t, filter, err) : 0;

    if (r < 0)
        return r;
    for (size_t i = 0; i < t->n_buckets; i++)
        for (const Node *node = t->buckets[i]; node; node = node->same_bucket) {
            if (node->type == TREE_TYPE_NONE || (filter && !node->kept))
                continue;
            ARRAY_GROW(entries, n, cap);
            add_entry(node, &entries[n++]);
        }
    if (n > 0)
        qsort(entries, n, sizeof(*entries), compare_paths);
    *ret = entries;
    *ret_n = n;
    return 0;
}
