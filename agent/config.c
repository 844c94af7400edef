/* SPDX-License-Identifier: Apache-2.0 */
/* config: the daemon's settings: where they come from, in which order, and what a reload changes.
 */
#include "agent/config_internal.h"
#include "agent/divide.h"
#include "base/fs.h"
#include "base/limits.h"
#include "base/parse.h"

#include <fcntl.h>
#include <limits.h>

static bool is_text(ConfigType type) {
    return type != CONFIG_PATHS && type != CONFIG_SIZE && type != CONFIG_DURATION &&
           type != CONFIG_UINT && type != CONFIG_BOOL;
}

static void paths_done(ConfigPaths *p) {
    for (size_t i = 0; i < p->n; i++)
        free(p->items[i]);
    free(p->items);
    *p = (ConfigPaths){ 0 };
}

Config *config_free(Config *c) {
    size_t n;
    const ConfigKey *keys = config_keys(&n);

    if (!c)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!config_key_is_registry(&keys[i]) && is_text(keys[i].type))
            free(*(char **)((char *)c + keys[i].offset));
    paths_done(&c->csi_kubelet_dir);
    for (size_t i = 0; i < c->n_registries; i++)
        config_registry_done(&c->registries[i]);
    free(c->registries);
    free(c);
    return NULL;
}

static int set_defaults(Config *c, Err *err) {
    size_t n;
    const ConfigKey *keys = config_keys(&n);

    for (size_t i = 0; i < n; i++) {
        const ConfigKey *key = &keys[i];
        ConfigValue value = { key, key->path, key->fallback, false };
        int r = config_key_is_registry(key)
                    ? 0
                    : config_set(c, &value, (ConfigWhere){ "default", 0 }, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_file(Config *c, const ConfigSources *sources, Err *err) {
    _cleanup_free_ char *text = NULL;
    size_t n;
    int r;

    if (!sources->file)
        return 0;
    r = fs_read_file(AT_FDCWD, sources->file, LIMIT_CONFIG_FILE_BYTES, &text, &n, err);
    if (r == -ENOENT && sources->file_may_be_absent)
        return 0;
    if (r < 0)
        return r;
    return config_parse_yaml(c, sources->file, text, n, err);
}

static int read_environment(Config *c, Err *err) {
    const char *endpoint = getenv("CSI_ENDPOINT"), *node = getenv("NODE_NAME");
    ConfigValue of_endpoint = { config_find("csi.endpoint"), "csi.endpoint", endpoint, false };
    ConfigValue of_node = { config_find("node"), "node", node, false };
    char host[HOST_NAME_MAX + 1] = "";
    int r = 0;

    if (!isempty(endpoint))
        r = config_set(c, &of_endpoint, (ConfigWhere){ "$CSI_ENDPOINT", 0 }, err);
    if (r < 0 || *c->node)
        return r;
    if (!isempty(node))
        return config_set(c, &of_node, (ConfigWhere){ "$NODE_NAME", 0 }, err);
    if (gethostname(host, sizeof(host) - 1) < 0 || !*host)
        return err_set(err, -EINVAL, "node: this machine has no host name; set node or $NODE_NAME");
    xfree_and_strdup(&c->node, host);
    return 0;
}

/* What no key by itself shows. */
static int check_together(const Config *c, Err *err) {
    if (streq(c->csi_endpoint, c->control_socket))
        return err_set(err, -EINVAL,
                       "csi.endpoint and control.socket are both %s; they need a socket each",
                       c->control_socket);
    if (c->pull_memory_total / DIVIDE_MEMORY_LEAST / 2 < c->pull_concurrent)
        return err_set(err, -EINVAL,
                       "pull.memory_total is %s; %llu pulls (pull.concurrent), and as many in the "
                       "background, need %s: raise it, or lower pull.concurrent",
                       FORMAT_BYTES(c->pull_memory_total), (unsigned long long)c->pull_concurrent,
                       FORMAT_BYTES(2 * c->pull_concurrent * DIVIDE_MEMORY_LEAST));
    return 0;
}

int config_load(Config **ret, const ConfigSources *sources, Err *err) {
    _cleanup_(config_freep) Config *c = xnew(Config);
    int r = set_defaults(c, err);

    if (r >= 0)
        r = read_file(c, sources, err);
    for (size_t i = 0; r >= 0 && i < sources->n_sets; i++)
        r = config_parse_set(c, sources->sets[i], err);
    if (r >= 0)
        r = read_environment(c, err);
    if (r >= 0)
        r = check_together(c, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(c);
    return 0;
}

static bool same_value(const ConfigKey *key, const Config *a, const Config *b) {
    const void *x = (const char *)a + key->offset, *y = (const char *)b + key->offset;
    const ConfigPaths *p = x, *q = y;

    if (key->type == CONFIG_SIZE || key->type == CONFIG_DURATION || key->type == CONFIG_UINT)
        return *(const uint64_t *)x == *(const uint64_t *)y;
    if (key->type == CONFIG_BOOL)
        return *(const bool *)x == *(const bool *)y;
    if (is_text(key->type))
        return streq(*(char *const *)x, *(char *const *)y);
    if (p->n != q->n)
        return false;
    for (size_t i = 0; i < p->n; i++)
        if (!streq(p->items[i], q->items[i]))
            return false;
    return true;
}

static bool same_registries(const Config *a, const Config *b) {
    if (a->n_registries != b->n_registries)
        return false;
    for (size_t i = 0; i < a->n_registries; i++) {
        const ConfigRegistry *x = &a->registries[i], *y = &b->registries[i];
        if (!streq(x->host, y->host) || !streq(x->ca_file, y->ca_file) ||
            x->plain_http != y->plain_http || x->skip_verify != y->skip_verify ||
            x->connections != y->connections || x->range_min != y->range_min ||
            !streq(x->access_check, y->access_check))
            return false;
    }
    return true;
}

/* Exchanges one field; `fresh` frees the old value. */
static void swap_value(const ConfigKey *key, Config *a, Config *b) {
    size_t n = key->type == CONFIG_BOOL    ? sizeof(bool)
               : key->type == CONFIG_PATHS ? sizeof(ConfigPaths)
               : is_text(key->type)        ? sizeof(char *)
                                           : sizeof(uint64_t);
    char old[sizeof(ConfigPaths)];

    memcpy(old, (char *)a + key->offset, n);
    memcpy((char *)a + key->offset, (char *)b + key->offset, n);
    memcpy((char *)b + key->offset, old, n);
}

static void list_add(char **list, const char *name) {
    char *longer = xasprintf("%s%s%s", *list, **list ? ", " : "", name);

    free(*list);
    *list = longer;
}

void config_reload(Config *c, Config *fresh, char **ret_changed, char **ret_restart) {
    char *changed = xstrdup(""), *restart = xstrdup("");
    size_t n;
    const ConfigKey *keys = config_keys(&n);

    for (size_t i = 0; i < n; i++) {
        if (config_key_is_registry(&keys[i]) || same_value(&keys[i], c, fresh))
            continue;
        list_add(keys[i].live ? &changed : &restart, keys[i].path);
        if (keys[i].live)
            swap_value(&keys[i], c, fresh);
    }
    if (!same_registries(c, fresh)) {
        Config old = *c;
        c->registries = fresh->registries;
        c->n_registries = fresh->n_registries;
        fresh->registries = old.registries;
        fresh->n_registries = old.n_registries;
        list_add(&changed, "registries");
    }
    *ret_changed = changed;
    *ret_restart = restart;
}
