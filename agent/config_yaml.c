/* SPDX-License-Identifier: Apache-2.0 */
/* config_yaml: the configuration file: YAML events against the table of keys, mistakes with their
 * line. */
#include "agent/config_internal.h"

#include <yaml.h>

typedef struct Seen {
    char *path;
    unsigned line;
} Seen;

typedef struct Reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; owned */
    const char *file;
    Config *config;
    Seen *seen; /* keys so far, for duplicates */
    size_t n_seen, cap_seen;
} Reader;

static ConfigWhere where_now(const Reader *rd) {
    return (ConfigWhere){ rd->file, (unsigned)rd->event.start_mark.line + 1 };
}

static int next(Reader *rd, Err *err) {
    yaml_event_delete(&rd->event);
    if (!yaml_parser_parse(&rd->parser, &rd->event)) {
        rd->event = (yaml_event_t){ 0 };
        return err_set(err, -EINVAL, "%s:%zu: this is not YAML: %s", rd->file,
                       rd->parser.problem_mark.line + 1,
                       rd->parser.problem ? rd->parser.problem : "cannot be read");
    }
    if (rd->event.type == YAML_ALIAS_EVENT)
        return config_fail(err, where_now(rd), "*", "is an alias", "plain values");
    return 0;
}

static const char *type_name(const Reader *rd) {
    switch (rd->event.type) {
    case YAML_MAPPING_START_EVENT:
        return "is a mapping";
    case YAML_SEQUENCE_START_EVENT:
        return "is a list";
    default:
        return "is a single value";
    }
}

static const char *scalar(const Reader *rd) {
    return (const char *)rd->event.data.scalar.value;
}

/* "key:" with nothing behind it; YAML's null. */
static bool is_null(const Reader *rd) {
    return rd->event.type == YAML_SCALAR_EVENT &&
           rd->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*scalar(rd) || streq(scalar(rd), "~") || streq(scalar(rd), "null"));
}

/* Names of the members of the mapping `prefix` ("" or "pull." or "registries[]."), for people. */
static const char *members(char *buf, size_t n, const char *prefix) {
    size_t n_keys, used = 0, last_n = 0;
    const ConfigKey *keys = config_keys(&n_keys);
    const char *last = "";

    buf[0] = 0;
    for (size_t i = 0; i < n_keys; i++) {
        const char *rest = startswith(keys[i].path, prefix);
        size_t k = rest ? strcspn(rest, ".[") : 0;
        if (!rest || (k == last_n && strncmp(rest, last, k) == 0) || used + k + 3 > n)
            continue;
        used +=
            (size_t)snprintf(buf + used, n - used, "%s%.*s", used > 0 ? ", " : "", (int)k, rest);
        last = rest;
        last_n = k;
    }
    return buf;
}

/* `path` as the file has it, with indexes: "registries[1].host". */
static int check_duplicate(Reader *rd, const char *path, Err *err) {
    ConfigWhere where = where_now(rd);
    char allowed[64];

    for (size_t i = 0; i < rd->n_seen; i++)
        if (streq(rd->seen[i].path, path)) {
            (void)snprintf(allowed, sizeof(allowed), "one; the other is in line %u",
                           rd->seen[i].line);
            return config_fail(err, where, path, "is there twice", allowed);
        }
    ARRAY_GROW(rd->seen, rd->n_seen, rd->cap_seen);
    rd->seen[rd->n_seen++] = (Seen){ xstrdup(path), where.line };
    return 0;
}

static int read_list(Reader *rd, void *base, const ConfigValue *value, Err *err) {
    ConfigValue item = *value;

    for (int r;; item.append = true) {
        r = next(rd, err);
        if (r < 0)
            return r;
        if (rd->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        if (rd->event.type != YAML_SCALAR_EVENT)
            return config_fail(err, where_now(rd), value->path, type_name(rd),
                               config_key_allowed((char[CONFIG_ALLOWED_MAX]){ "" }, value->key));
        item.text = scalar(rd);
        r = config_set(base, &item, where_now(rd), err);
        if (r < 0)
            return r;
    }
    if (!item.append)
        return config_fail(err, where_now(rd), value->path, "is an empty list",
                           config_key_allowed((char[CONFIG_ALLOWED_MAX]){ "" }, value->key));
    return 0;
}

/* The value of a key of the table; its first event is current. */
static int read_value(Reader *rd, void *base, const ConfigKey *key, const char *path, Err *err) {
    char allowed[CONFIG_ALLOWED_MAX];
    const char *problem = NULL;
    bool quoted;

    if (key->type == CONFIG_PATHS && rd->event.type == YAML_SEQUENCE_START_EVENT)
        return read_list(rd, base, &(ConfigValue){ key, path, NULL, false }, err);
    quoted = rd->event.type == YAML_SCALAR_EVENT &&
             rd->event.data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (rd->event.type != YAML_SCALAR_EVENT)
        problem = type_name(rd);
    else if (is_null(rd))
        problem = "has no value";
    else if (quoted && (key->type == CONFIG_BOOL || key->type == CONFIG_UINT))
        problem = "is text in quotes";
    else if (strlen(scalar(rd)) != rd->event.data.scalar.length)
        problem = "has a NUL byte";
    if (problem)
        return config_fail(err, where_now(rd), path, problem, config_key_allowed(allowed, key));
    return config_set(base, &(ConfigValue){ key, path, scalar(rd), false }, where_now(rd), err);
}

static int read_registries(Reader *rd, Err *err);

/* A section of the file ("csi"): has the table keys beneath it? */
static bool is_section(const char *path) {
    _cleanup_free_ char *prefix = xasprintf("%s.", path);
    size_t n;
    const ConfigKey *keys = config_keys(&n);

    for (size_t i = 0; i < n; i++)
        if (startswith(keys[i].path, prefix))
            return true;
    return false;
}

/* Where a mapping belongs. */
typedef struct Level {
    void *base;
    const char *table; /* prefix in the table: "registries[]." */
    const char *shown; /* prefix for people: "registries[1]." */
} Level;

static int read_mapping(Reader *rd, const Level *level, Err *err);

static int read_section(Reader *rd, const Level *level, const char *name, Err *err) {
    _cleanup_free_ char *prefix = xasprintf("%s%s.", level->table, name);
    char allowed[CONFIG_ALLOWED_MAX];

    if (is_null(rd))
        return 0;
    if (rd->event.type != YAML_MAPPING_START_EVENT)
        return config_fail(err, where_now(rd), name, type_name(rd),
                           members(allowed, sizeof(allowed), prefix));
    return read_mapping(rd, &(Level){ level->base, prefix, prefix }, err);
}

static int read_member(Reader *rd, const Level *level, Err *err) {
    _cleanup_free_ char *name = NULL, *path = NULL, *shown = NULL;
    char allowed[CONFIG_ALLOWED_MAX];
    const ConfigKey *key;
    int r;

    if (rd->event.type != YAML_SCALAR_EVENT)
        return config_fail(err, where_now(rd), *level->shown ? level->shown : "(file)",
                           "has a key that is not text",
                           members(allowed, sizeof(allowed), level->table));
    name = xstrdup(scalar(rd));
    path = xasprintf("%s%s", level->table, name);
    shown = xasprintf("%s%s", level->shown, name);
    key = config_find(path);
    if (!key && !is_section(path) && !streq(path, "registries"))
        return config_fail(err, where_now(rd), shown, "is not a key",
                           members(allowed, sizeof(allowed), level->table));
    r = check_duplicate(rd, shown, err);
    if (r < 0)
        return r;
    r = next(rd, err);
    if (r < 0)
        return r;
    if (key)
        return read_value(rd, level->base, key, shown, err);
    return streq(path, "registries") ? read_registries(rd, err)
                                     : read_section(rd, level, name, err);
}

static int read_mapping(Reader *rd, const Level *level, Err *err) {
    for (;;) {
        int r = next(rd, err);
        if (r < 0)
            return r;
        if (rd->event.type == YAML_MAPPING_END_EVENT)
            return 0;
        r = read_member(rd, level, err);
        if (r < 0)
            return r;
    }
}

static int read_registry(Reader *rd, size_t index, Err *err) {
    _cleanup_free_ char *shown = xasprintf("registries[%zu].", index);
    ConfigWhere where = where_now(rd);
    char allowed[CONFIG_ALLOWED_MAX];
    ConfigRegistry *registry;
    int r;

    if (rd->event.type != YAML_MAPPING_START_EVENT)
        return config_fail(err, where, "registries", type_name(rd),
                           members(allowed, sizeof(allowed), "registries[]."));
    registry = config_add_registry(rd->config);
    r = read_mapping(rd, &(Level){ registry, "registries[].", shown }, err);
    if (r < 0)
        return r;
    if (!*registry->host)
        return config_fail(err, where, "registries", "has an entry without host",
                           "host or host:port");
    for (size_t i = 0; i < index; i++)
        if (streq(rd->config->registries[i].host, registry->host))
            return config_fail(err, where, "registries", "has this host twice", "one entry a host");
    return 0;
}

static int read_registries(Reader *rd, Err *err) {
    if (is_null(rd))
        return 0;
    if (rd->event.type != YAML_SEQUENCE_START_EVENT)
        return config_fail(err, where_now(rd), "registries", type_name(rd), "a list of mappings");
    for (size_t i = 0;; i++) {
        int r = next(rd, err);
        if (r < 0)
            return r;
        if (rd->event.type == YAML_SEQUENCE_END_EVENT)
            return 0;
        r = read_registry(rd, i, err);
        if (r < 0)
            return r;
    }
}

static int read_document(Reader *rd, Err *err) {
    char allowed[CONFIG_ALLOWED_MAX];
    int r;

    do /* stream start, document start */
        r = next(rd, err);
    while (r >= 0 && (rd->event.type == YAML_STREAM_START_EVENT ||
                      rd->event.type == YAML_DOCUMENT_START_EVENT));
    if (r < 0 || rd->event.type == YAML_STREAM_END_EVENT || is_null(rd))
        return r;
    if (rd->event.type != YAML_MAPPING_START_EVENT)
        return config_fail(err, where_now(rd), "(file)", type_name(rd),
                           members(allowed, sizeof(allowed), ""));
    r = read_mapping(rd, &(Level){ rd->config, "", "" }, err);
    while (r >= 0 && rd->event.type != YAML_STREAM_END_EVENT) {
        r = next(rd, err);
        if (r >= 0 && rd->event.type == YAML_DOCUMENT_START_EVENT)
            r = config_fail(err, where_now(rd), "(file)", "has a second document", "one");
    }
    return r;
}

int config_parse_yaml(Config *c, const char *file, const char *text, size_t n, Err *err) {
    Reader rd = { .file = file, .config = c };
    int r;

    if (!yaml_parser_initialize(&rd.parser))
        return err_set(err, -ENOMEM, "cannot read %s: no memory", file);
    yaml_parser_set_input_string(&rd.parser, (const unsigned char *)text, n);
    r = read_document(&rd, err);
    yaml_event_delete(&rd.event);
    yaml_parser_delete(&rd.parser);
    for (size_t i = 0; i < rd.n_seen; i++)
        free(rd.seen[i].path);
    free(rd.seen);
    return r;
}
