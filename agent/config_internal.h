/* SPDX-License-Identifier: Apache-2.0 */
/* config_internal: what the files of config share: setting one key from text, and where a mistake
 * is. */
#pragma once

#include "agent/config.h"

/* Where a value comes from: a line of a file, or (line 0) an option or variable. */
typedef struct ConfigWhere {
    const char *source; /* "config.yaml", "--set", "$CSI_ENDPOINT" */
    unsigned line;
} ConfigWhere;

/* -EINVAL with "source:line: path: what, allowed: allowed". */
int config_fail(Err *err, ConfigWhere where, const char *path, const char *what,
                const char *allowed);
/* Puts the value `text` into the field of `key` in `base` (Config or ConfigRegistry).  `path` names
 * it in the sentence. For CONFIG_PATHS the first item replaces what is there when `append` is
 * false. */
typedef struct ConfigValue {
    const ConfigKey *key;
    const char *path;
    const char *text;
    bool append;
} ConfigValue;
int config_set(void *base, const ConfigValue *value, ConfigWhere where, Err *err) _must_check_;

const ConfigKey *config_find(const char *path);
/* A registry with the defaults, appended to the list. */
ConfigRegistry *config_add_registry(Config *c);
void config_registry_done(ConfigRegistry *r);

/* The file: config_yaml.c. */
int config_parse_yaml(Config *c, const char *file, const char *text, size_t n, Err *err)
    _must_check_;
/* KEY=VALUE: config_set.c. */
int config_parse_set(Config *c, const char *assignment, Err *err) _must_check_;
