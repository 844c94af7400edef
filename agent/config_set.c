/* SPDX-License-Identifier: Apache-2.0 */
/* config_set: one value, from a file or --set, into its field. */
#include "agent/address.h"
#include "agent/config_internal.h"
#include "base/fs.h"
#include "base/parse.h"

#include <ctype.h>

int config_fail(Err *err, ConfigWhere where, const char *path, const char *what,
                const char *allowed) {
    char line[16] = "";

    if (where.line > 0)
        (void)snprintf(line, sizeof(line), ":%u", where.line);
    return err_set(err, -EINVAL, "%s%s: %s: %s, allowed: %s", where.source, line, path, what,
                   allowed);
}

static bool is_printable(const char *s) {
    for (; *s; s++)
        if (iscntrl((unsigned char)*s))
            return false;
    return true;
}

/* RFC 1123 labels, as the CSI specification asks of a driver's name. */
static bool is_dns_name(const char *s) {
    char before = '.';

    for (; *s; before = *s++) {
        bool alnum = islower((unsigned char)*s) || isdigit((unsigned char)*s);
        if (!alnum && (*s != '-' || before == '.') && (*s != '.' || before == '.' || before == '-'))
            return false;
    }
    return before != '.' && before != '-';
}

static bool is_host(const char *s) {
    const char *colon = s[0] == '[' ? strstr(s, "]:") : strchr(s, ':');
    uint64_t port;

    if (colon && s[0] == '[')
        colon++;
    if (colon && (parse_u64(colon + 1, &port) < 0 || port < 1 || port > 65535))
        return false;
    if (colon == s || s[0] == '.' || s[0] == '-')
        return false;
    for (; *s && s != colon; s++)
        if (!isalnum((unsigned char)*s) && !strchr(".-_[]:", *s))
            return false;
    return true;
}

/* Text types: NULL when it is fine, else what is wrong. */
static const char *text_problem(const ConfigKey *key, const char *text) {
    size_t n = strlen(text);
    Address address;

    if (n == 0 && (key->type == CONFIG_NAME || key->type == CONFIG_OPTIONAL_PATH ||
                   key->type == CONFIG_LISTEN))
        return NULL;
    if (n < key->min)
        return n == 0 ? "is empty" : "is too short";
    if (n > key->max)
        return "is too long";
    if (!is_printable(text))
        return "has control characters";
    switch (key->type) {
    case CONFIG_DRIVER:
        return is_dns_name(text) ? NULL : "is not a DNS name";
    case CONFIG_HOST:
        return is_host(text) ? NULL : "is not a registry's host";
    case CONFIG_LISTEN:
        return address_parse(&address, text) >= 0 ? NULL : "is no address with a port";
    case CONFIG_PATH:
    case CONFIG_OPTIONAL_PATH:
    case CONFIG_PATHS:
    case CONFIG_ENDPOINT:
        return path_is_clean_absolute(text) ? NULL : "is not a clean absolute path";
    default:
        return NULL;
    }
}

static bool is_word_of(const char *text, const char *words) {
    size_t n = strlen(text);

    for (const char *w = words; *w;) {
        size_t k = strcspn(w, " ");
        if (k == n && strncmp(w, text, n) == 0)
            return true;
        w += k + (w[k] == ' ');
    }
    return false;
}

/* "2%" of the machine's memory, or an absolute size. */
static int parse_size_or_percent(const char *text, uint64_t *ret) {
    const char *percent = endswith(text, "%");
    _cleanup_free_ char *digits = NULL;
    uint64_t n;
    int r;

    if (!percent)
        return parse_size(text, ret);
    digits = xstrndup(text, (size_t)(percent - text));
    r = parse_u64(digits, &n);
    if (r < 0)
        return r;
    if (n > 100)
        return -ERANGE;
    *ret = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 100 * n;
    return 0;
}

static const char *set_number(const ConfigKey *key, const char *text, uint64_t *field) {
    uint64_t n;
    int r = key->type == CONFIG_SIZE       ? parse_size_or_percent(text, &n)
            : key->type == CONFIG_DURATION ? parse_duration(text, &n)
                                           : parse_u64(text, &n);

    if (key->words && streq(text, key->words)) {
        *field = CONFIG_SIZE_WORD;
        return NULL;
    }
    if (r == -EINVAL)
        return key->type == CONFIG_SIZE       ? "is not a size"
               : key->type == CONFIG_DURATION ? "is not a duration"
                                              : "is not a number";
    if (r < 0 || n < key->min || n > key->max)
        return "is out of range";
    *field = n;
    return NULL;
}

static const char *set_text(const ConfigKey *key, const char *text, char **field) {
    const char *problem;

    if (key->type == CONFIG_ENDPOINT && startswith(text, "unix://"))
        text += strlen("unix://");
    problem = key->type == CONFIG_ENUM ? (is_word_of(text, key->words) ? NULL : "is unknown")
                                       : text_problem(key, text);
    if (!problem)
        xfree_and_strdup(field, text);
    return problem;
}

static const char *set_path(const ConfigKey *key, const char *text, bool append,
                            ConfigPaths *paths) {
    const char *problem = text_problem(key, text);

    if (problem)
        return problem;
    if (!append) {
        for (size_t i = 0; i < paths->n; i++)
            free(paths->items[i]);
        paths->n = 0;
    }
    paths->items = xrealloc(paths->items, paths->n + 1, sizeof(char *));
    paths->items[paths->n++] = xstrdup(text);
    return NULL;
}

int config_set(void *base, const ConfigValue *value, ConfigWhere where, Err *err) {
    const ConfigKey *key = value->key;
    void *field = (char *)base + key->offset;
    const char *problem;
    char what[128];

    switch (key->type) {
    case CONFIG_SIZE:
    case CONFIG_DURATION:
    case CONFIG_UINT:
        problem = set_number(key, value->text, field);
        break;
    case CONFIG_BOOL:
        problem = parse_bool(value->text, field) < 0 ? "is not a yes or no" : NULL;
        break;
    case CONFIG_PATHS:
        problem = set_path(key, value->text, value->append, field);
        break;
    default:
        problem = set_text(key, value->text, field);
        break;
    }
    if (!problem)
        return 0;
    (void)snprintf(what, sizeof(what), "\"%.60s\" %s", value->text, problem);
    return config_fail(err, where, value->path, what,
                       config_key_allowed((char[CONFIG_ALLOWED_MAX]){ "" }, key));
}

ConfigRegistry *config_add_registry(Config *c) {
    ConfigRegistry *r;

    c->registries = xrealloc(c->registries, c->n_registries + 1, sizeof(*c->registries));
    r = &c->registries[c->n_registries++];
    *r = (ConfigRegistry){ .host = xstrdup(""),
                           .ca_file = xstrdup(""),
                           .range_min = CONFIG_SIZE_WORD,
                           .access_check = xstrdup("default") };
    return r;
}

void config_registry_done(ConfigRegistry *r) {
    free(r->host);
    free(r->ca_file);
    free(r->access_check);
}

/* "registries.HOST.member": the host may hold dots and a port, so the member is what follows the
 * last dot. */
static int set_registry(Config *c, const char *path, const char *value, ConfigWhere where,
                        Err *err) {
    const char *host = path + strlen("registries."), *dot = strrchr(host, '.');
    _cleanup_free_ char *name = xstrndup(host, dot ? (size_t)(dot - host) : 0);
    _cleanup_free_ char *key_path = xasprintf("registries[].%s", dot ? dot + 1 : "");
    const ConfigKey *key = config_find(key_path);
    ConfigRegistry *registry = NULL;
    int r;

    if (!key || streq(key_path, "registries[].host") || !*name)
        return config_fail(err, where, path, "is not a key",
                           "registries.HOST.plain_http, .ca_file, .skip_verify, .connections, "
                           ".range_min, .access_check");
    for (size_t i = 0; i < c->n_registries; i++)
        if (streq(c->registries[i].host, name))
            registry = &c->registries[i];
    if (!registry) {
        ConfigValue of_host = { config_find("registries[].host"), path, name, false };
        registry = config_add_registry(c);
        r = config_set(registry, &of_host, where, err);
        if (r < 0)
            return r;
    }
    return config_set(registry, &(ConfigValue){ key, path, value, false }, where, err);
}

static int set_paths(Config *c, const ConfigKey *key, const char *list, ConfigWhere where,
                     Err *err) {
    bool append = false;

    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        _cleanup_free_ char *item = xstrndup(p, n);
        int r = config_set(c, &(ConfigValue){ key, key->path, item, append }, where, err);
        if (r < 0)
            return r;
        append = true;
        p += n;
        if (!*p)
            return 0;
    }
}

int config_parse_set(Config *c, const char *assignment, Err *err) {
    const ConfigWhere where = { "--set", 0 };
    const char *equals = strchr(assignment, '=');
    _cleanup_free_ char *path = NULL;
    const ConfigKey *key;

    if (!equals)
        return config_fail(err, where, assignment, "has no value", "KEY=VALUE");
    path = xstrndup(assignment, (size_t)(equals - assignment));
    if (startswith(path, "registries."))
        return set_registry(c, path, equals + 1, where, err);
    key = config_find(path);
    if (!key || config_key_is_registry(key))
        return config_fail(err, where, path, "is not a key", "those of modelcached --help");
    if (key->type == CONFIG_PATHS)
        return set_paths(c, key, equals + 1, where, err);
    return config_set(c, &(ConfigValue){ key, path, equals + 1, false }, where, err);
}
