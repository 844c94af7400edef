/* SPDX-License-Identifier: Apache-2.0 */
/* config: the daemon's settings, from one table of keys: file, --set, help, man page and
 * docs/config.md agree. */
#pragma once

#include "base/err.h"

#define CONFIG_DEFAULT_FILE "/etc/modelcached/config.yaml"

/* Types of values.  The comment is what a person may write. */
typedef enum ConfigType {
    CONFIG_NAME,   /* text without control characters, or empty */
    CONFIG_DRIVER, /* lower-case DNS name of at most 63 characters (CSI spec, GetPluginInfo) */
    CONFIG_PATH,   /* absolute path without ".", ".." and double slashes */
    CONFIG_OPTIONAL_PATH, /* the same, or empty */
    CONFIG_PATHS,         /* one such path or a list */
    CONFIG_ENDPOINT,      /* unix:///path or /path */
    CONFIG_HOST,          /* host or host:port */
    CONFIG_LISTEN,        /* address:port or :port (address_parse()), or empty */
    CONFIG_SIZE,          /* bytes; KiB, MiB, GiB, TiB, or % of the machine's memory; or `words` */
    CONFIG_DURATION,      /* 30s, 5m, 2h; microseconds */
    CONFIG_UINT,          /* decimal number */
    CONFIG_BOOL,          /* true, false */
    CONFIG_ENUM,          /* one of `words` */
} ConfigType;

#define CONFIG_SIZE_WORD UINT64_MAX /* a CONFIG_SIZE whose value is its word */

typedef struct ConfigPaths {
    char **items;
    size_t n;
} ConfigPaths;

typedef struct ConfigRegistry {
    char *host;
    bool plain_http;
    char *ca_file; /* empty: the system's CAs alone */
    bool skip_verify;
    uint64_t connections; /* 0: no limit of its own */
    uint64_t range_min;   /* as Config.pull_range_min, or CONFIG_SIZE_WORD: as that */
    char *access_check;   /* as Config.access_check, or "default" */
} ConfigRegistry;

/* Strings are never NULL. */
typedef struct Config {
    char *node;
    char *store_path;
    char *store_selinux_label; /* "": none */
    char *csi_driver;
    char *csi_endpoint; /* "unix://" is taken off: a path */
    ConfigPaths csi_kubelet_dir;
    char *csi_registration_dir;
    uint64_t csi_warm_bandwidth; /* bytes per second; 0: no limit */
    char *control_socket;
    char *metrics_address;
    uint64_t pull_concurrent;
    uint64_t pull_connections;
    uint64_t pull_memory;               /* bytes, of one pull … */
    uint64_t pull_memory_total;         /* … and of all together */
    char *pull_io;                      /* "auto" "uring" "threads" */
    uint64_t pull_range_min;            /* bytes; 0: never */
    uint64_t pull_stall_timeout;        /* microseconds */
    uint64_t pull_give_up;              /* microseconds */
    uint64_t pull_background_bandwidth; /* bytes per second; 0: no limit */
    uint64_t pull_standby;              /* microseconds */
    bool pull_page_cache;
    char *credentials_docker_config;
    char *access_check;       /* "always" "ifNotGranted" "never" */
    uint64_t access_lifetime; /* microseconds */
    char *access_unreachable; /* "deny" "allow" */
    char *log_level;
    char *log_format;
    ConfigRegistry *registries;
    size_t n_registries;
} Config;

/* One key.  Keys of the list `registries` have paths like "registries[].host" and fields in
 * ConfigRegistry. */
typedef struct ConfigKey {
    const char *path;
    ConfigType type;
    size_t offset;        /* of the field */
    const char *fallback; /* as a person would write it */
    uint64_t min, max;    /* numbers and sizes: the value; text: its length in bytes */
    const char *words;    /* CONFIG_ENUM: "auto uring threads"; CONFIG_SIZE: one, or NULL */
    bool live;            /* SIGHUP changes it; else a restart is needed */
    const char *help;
} ConfigKey;

/* The table; `*ret_n` entries in the order of the documentation. */
const ConfigKey *config_keys(size_t *ret_n);
#define CONFIG_ALLOWED_MAX 160
/* What the key takes, for people: "1 to 64", "true, false". */
const char *config_key_allowed(char buf[static CONFIG_ALLOWED_MAX], const ConfigKey *key);
bool config_key_is_registry(const ConfigKey *key);

typedef struct ConfigSources {
    const char *file;        /* NULL: none */
    bool file_may_be_absent; /* the default file */
    const char *const *sets; /* "KEY=VALUE", in order; they win over the file */
    size_t n_sets;
} ConfigSources;

/* Defaults, then the file, then `sets`, then what the environment decides ($CSI_ENDPOINT;
 * $NODE_NAME and the host name for an empty node).  Errors: -EINVAL a mistake, with "FILE:LINE:
 * key: what, allowed: …"; -E2BIG the file passes LIMIT_CONFIG_FILE_BYTES; as open(2). */
int config_load(Config **ret, const ConfigSources *sources, Err *err) _must_check_;
Config *config_free(Config *c);
DEFINE_CLEANUP(Config, config_free);

/* SIGHUP: takes the live keys of `fresh` over into `c`.  The caller frees the two lists "log.level,
 * pull.memory" of keys that differed: those that changed now, and those that need a restart; both
 * empty when nothing differs. */
void config_reload(Config *c, Config *fresh, char **ret_changed, char **ret_restart);

/* The keys for --help, for docs/config.md, and as troff for modelcached-config(5). */
void config_write_help(FILE *f);
void config_write_markdown(FILE *f);
void config_write_man(FILE *f);
