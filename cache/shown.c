/* SPDX-License-Identifier: Apache-2.0 */
/* shown: which trees of the store are mounted somewhere. */
#include "cache/shown.h"

#include "base/fs.h"
#include "base/parse.h"

#include <sys/random.h>

#define OLD_TREE_PREFIX ".old-"

int shown_read(Shown *ret, const Store *s, Err *err) {
    _cleanup_free_ char *trees = xasprintf("%s/trees", store_path(s));
    Shown sh = { 0 };
    int r = mount_list(&sh.list, &sh.n, err);

    if (r < 0)
        return r;
    sh.trees = mount_path_in_filesystem(sh.list, sh.n, trees);
    *ret = sh;
    return 0;
}

void shown_done(Shown *sh) {
    mount_info_free(sh->list, sh->n);
    free(sh->trees);
    *sh = (Shown){ 0 };
}

/* What of the mount's root lies beneath trees/; NULL: it is not beneath it. */
static const char *beneath_trees(const Shown *sh, size_t i) {
    const char *rest = sh->trees ? startswith(sh->list[i].root, sh->trees) : NULL;

    return rest && *rest == '/' ? rest + 1 : NULL;
}

bool shown_is_tree(const Shown *sh, size_t i) {
    return beneath_trees(sh, i) != NULL;
}

bool shown_has(const Shown *sh, const char *name) {
    for (size_t i = 0; i < sh->n; i++) {
        const char *rest = beneath_trees(sh, i);

        rest = rest ? startswith(rest, name) : NULL;
        if (rest && (*rest == '\0' || *rest == '/'))
            return true;
    }
    return false;
}

static int move_aside(const Store *s, const char *name, Err *err) {
    char old[sizeof(OLD_TREE_PREFIX) + 16] = OLD_TREE_PREFIX;
    uint8_t random[8];

    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return err_errno(err, "making a name for an old tree failed");
    format_hex(random, sizeof(random), old + strlen(OLD_TREE_PREFIX));
    if (renameat(store_trees_fd(s), name, store_trees_fd(s), old) < 0 && errno != ENOENT)
        return err_errno(err, "renaming the tree %s, which is mounted, failed", name);
    return 1;
}

int shown_remove_tree(const Shown *sh, const Store *s, const char *name, Err *err) {
    if (shown_has(sh, name))
        return move_aside(s, name, err);
    return fs_remove_recursive(store_trees_fd(s), name, err);
}
