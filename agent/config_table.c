/* SPDX-License-Identifier: Apache-2.0 */
/* config_table: the one table of configuration keys. */
#include "agent/config_internal.h"
#include "base/parse.h"

#define UNIX_PATH_MAX_BYTES 107 /* sun_path of unix(7) without its NUL */

/* KEY(path, type, field, default, min, max, words, live, help); ITEM: the same for an entry of
 * `registries`. */
#define CONFIG_KEYS(KEY, ITEM)                                                                     \
    KEY("node", NAME, node, "", 0, 253, NULL, false,                                               \
        "Name of this node, as Kubernetes knows it. Empty: $NODE_NAME, then the host name.")       \
    KEY("store.path", PATH, store_path, "/var/lib/modelcached", 1, 4095, NULL, false,              \
        "Directory of the store, on ext4, xfs or btrfs.")                                          \
    KEY("store.selinux_label", NAME, store_selinux_label,                                          \
        "system_u:object_r:container_ro_file_t:s0", 0, 511, NULL, false,                           \
        "Label of the store's content where the kernel has SELinux, which containers may read. "   \
        "Empty: it stays as it is.")                                                               \
    KEY("csi.driver", DRIVER, csi_driver, "csi.modelcached.dev", 1, 63, NULL, false,               \
        "Name of the CSI driver; pods name it in their volumes.")                                  \
    KEY("csi.endpoint", ENDPOINT, csi_endpoint,                                                    \
        "unix:///var/lib/kubelet/plugins/csi.modelcached.dev/csi.sock", 2, UNIX_PATH_MAX_BYTES,    \
        NULL, false, "Socket of the CSI services. $CSI_ENDPOINT wins over it.")                    \
    KEY("csi.kubelet_dir", PATHS, csi_kubelet_dir, "/var/lib/kubelet", 1, 4095, NULL, false,       \
        "Directory of the kubelet, or a list: volumes are published beneath it only. With --set: " \
        "paths with commas between them.")                                                         \
    KEY("csi.registration_dir", OPTIONAL_PATH, csi_registration_dir,                               \
        "/var/lib/kubelet/plugins_registry", 1, 4095, NULL, false,                                 \
        "Where the kubelet looks for sockets of plugins; waited for while it is not there. "       \
        "Empty: no "                                                                               \
        "registration.")                                                                           \
    KEY("csi.warm_bandwidth", SIZE, csi_warm_bandwidth, "512MiB", 0, GiB(1024), NULL, false,       \
        "Bytes per second of reading volumes with warm: \"true\" into the page cache. 0: no "      \
        "limit.")                                                                                  \
    KEY("control.socket", PATH, control_socket, "/run/modelcached/control.sock", 2,                \
        UNIX_PATH_MAX_BYTES, NULL, false, "Socket for cache-ctl, mode 0660.")                      \
    KEY("metrics.address", LISTEN, metrics_address, "127.0.0.1:19753", 2, 64, NULL, false,         \
        "Where /metrics, /healthz and /readyz are served, by http, to everybody who reaches it. "  \
        ":19753 is every address of the node. Empty: nowhere.")                                    \
    KEY("pull.concurrent", UINT, pull_concurrent, "4", 1, 64, NULL, true,                          \
        "Pulls that run at the same time, of those that somebody waits for; background pulls "     \
        "run beside them: at most twice as many in all.")                                          \
    KEY("pull.connections", UINT, pull_connections, "8", 1, 64, NULL, true,                        \
        "Blobs and ranges that are fetched at the same time on this node, by all pulls together; " \
        "a pull that gets none waits for one. What comes in one stream, as range_min says, "       \
        "is not broken off before the registry has shown that it would go on.")                    \
    KEY("pull.memory", SIZE, pull_memory, "128MiB", MiB(16), GiB(16), NULL, true,                  \
        "Buffers of one pull at most; it has no use for more than 108 MiB. Besides, each tar "     \
        "layer that is decoded, of at most four, takes up to 7 MiB and a window of up to 32 MiB "  \
        "(8 of zstd's up to level 19); those with a larger one (zstd --long, --ultra), up to "     \
        "128 MiB, are decoded one at a time.")                                                     \
    KEY("pull.memory_total", SIZE, pull_memory_total, "512MiB", MiB(16), GiB(1024), NULL, true,    \
        "Buffers of all pulls together: what was received and is not yet hashed and written, at "  \
        "most. A pull gets what others leave, up to pull.memory, and more when they end. Half of " \
        "all, but not more than 40 MiB for each of pull.concurrent, is kept for pulls that may "   \
        "still begin. At least 8 MiB for each of pull.concurrent.")                                \
    KEY("pull.io", ENUM, pull_io, "auto", 0, 0, "auto uring threads", true,                        \
        "How a pull writes: by io_uring, by threads, or by io_uring where the kernel allows it.")  \
    KEY("pull.range_min", SIZE, pull_range_min, "64MiB", 0, GiB(1024), NULL, true,                 \
        "Files of at least this size come in ranges over several connections. 0: never.")          \
    KEY("pull.stall_timeout", DURATION, pull_stall_timeout, "30s", USEC_PER_SEC,                   \
        3600 * USEC_PER_SEC, NULL, true,                                                           \
        "A connection without a byte for so long is dropped, and what is missing asked for anew.") \
    KEY("pull.give_up", DURATION, pull_give_up, "1m", USEC_PER_SEC, 86400 * USEC_PER_SEC, NULL,    \
        true, "A pull fails after so long without any progress.")                                  \
    KEY("pull.background_bandwidth", SIZE, pull_background_bandwidth, "0", 0, GiB(1024), NULL,     \
        true, "Bytes per second of all pulls together that nobody waits for. 0: no limit.")        \
    KEY("pull.standby", DURATION, pull_standby, "1m", 0, 86400 * USEC_PER_SEC, NULL, true,         \
        "A worker process, up to 40 MiB with its libraries and its first buffers, stays ready "    \
        "for so long after the start and after the last of the pulls that run, so that the next "  \
        "one begins 10 ms sooner, with TLS 30, and comes to its full speed at once. 0: none.")     \
    KEY("pull.page_cache", BOOL, pull_page_cache, "false", 0, 0, NULL, true,                       \
        "Write through the page cache, so that the first reader finds the files in memory.")       \
    KEY("credentials.docker_config", OPTIONAL_PATH, credentials_docker_config, "", 1, 4095, NULL,  \
        true, "A docker config.json with the node's credentials. Empty: none.")                    \
    KEY("access.check", ENUM, access_check, "ifNotGranted", 0, 0, "always ifNotGranted never",     \
        true,                                                                                      \
        "When a registry is asked whether a pod, with its own credentials, may have what is "      \
        "stored: at each publish; unless it said so before; never, so that every pod may have "    \
        "everything.")                                                                             \
    KEY("access.lifetime", DURATION, access_lifetime, "168h", 60 * USEC_PER_SEC,                   \
        365 * 86400 * USEC_PER_SEC, NULL, true,                                                    \
        "How long what a registry said counts for ifNotGranted; every pull renews it, a no (401, " \
        "403, or the 404 that hides) ends it.")                                                    \
    KEY("access.unreachable", ENUM, access_unreachable, "deny", 0, 0, "deny allow", true,          \
        "What a pod gets that is to be checked while the registry cannot be reached: nothing "     \
        "until it can, or what is stored.")                                                        \
    ITEM("registries[].host", HOST, host, "", 1, 255, NULL, true,                                  \
         "Registry that the other keys of this entry are for: host or host:port. Required.")       \
    ITEM("registries[].plain_http", BOOL, plain_http, "false", 0, 0, NULL, true,                   \
         "Speak http without TLS to it. Everybody on the way can read and change what is "         \
         "fetched; digests still hold.")                                                           \
    ITEM("registries[].ca_file", OPTIONAL_PATH, ca_file, "", 1, 4095, NULL, true,                  \
         "PEM file of CAs to trust for it, beside those of the system.")                           \
    ITEM("registries[].skip_verify", BOOL, skip_verify, "false", 0, 0, NULL, true,                 \
         "Accept any certificate from it.")                                                        \
    ITEM("registries[].connections", UINT, connections, "0", 0, 64, NULL, true,                    \
         "Blobs and ranges that are fetched from it at the same time, by all pulls together. 0: "  \
         "no limit of its own.")                                                                   \
    ITEM("registries[].range_min", SIZE, range_min, "default", 0, GiB(1024), "default", true,      \
         "pull.range_min for what comes from it; default: as that key says. 0, never, is for one " \
         "that mishandles ranges.")                                                                \
    ITEM("registries[].access_check", ENUM, access_check, "default", 0, 0,                         \
         "default always ifNotGranted never", true,                                                \
         "access.check for what comes from it; default: as that key says.")                        \
    KEY("log.level", ENUM, log_level, "info", 0, 0, "error warn info debug", true,                 \
        "The least important lines that are written.")                                             \
    KEY("log.format", ENUM, log_format, "auto", 0, 0, "auto text json journal", true,              \
        "auto: journal under systemd, text on a terminal, else JSON lines.")

#define AS_KEY(p, t, field, d, lo, hi, w, l, h) \
    { p, CONFIG_##t, offsetof(Config, field), d, lo, hi, w, l, h },
#define AS_ITEM(p, t, field, d, lo, hi, w, l, h) \
    { p, CONFIG_##t, offsetof(ConfigRegistry, field), d, lo, hi, w, l, h },

static const ConfigKey keys[] = { CONFIG_KEYS(AS_KEY, AS_ITEM) };

const ConfigKey *config_keys(size_t *ret_n) {
    *ret_n = ELEMENTSOF(keys);
    return keys;
}

const ConfigKey *config_find(const char *path) {
    for (size_t i = 0; i < ELEMENTSOF(keys); i++)
        if (streq(keys[i].path, path))
            return &keys[i];
    return NULL;
}

bool config_key_is_registry(const ConfigKey *key) {
    return startswith(key->path, "registries[].") != NULL;
}

static void words_with_commas(char *buf, size_t n, const char *words) {
    size_t used = 0;

    for (; *words && used + 3 < n; words++) {
        if (*words == ' ')
            buf[used++] = ',';
        buf[used++] = *words;
    }
    buf[used] = 0;
}

const char *config_key_allowed(char buf[static CONFIG_ALLOWED_MAX], const ConfigKey *key) {
    const size_t n = CONFIG_ALLOWED_MAX;
    unsigned long long min = key->min, max = key->max;

    switch (key->type) {
    case CONFIG_NAME:
        (void)snprintf(buf, n, "text of at most %llu bytes", max);
        break;
    case CONFIG_DRIVER:
        (void)snprintf(buf, n, "a lower-case DNS name of at most %llu characters", max);
        break;
    case CONFIG_PATH:
        (void)snprintf(buf, n, "an absolute path of at most %llu bytes without . or .. components",
                       max);
        break;
    case CONFIG_OPTIONAL_PATH:
        (void)snprintf(buf, n, "an absolute path without . or .. components, or empty");
        break;
    case CONFIG_PATHS:
        (void)snprintf(buf, n, "an absolute path without . or .. components, or a list of such");
        break;
    case CONFIG_ENDPOINT:
        (void)snprintf(buf, n, "unix:///path, the path at most %llu bytes", max);
        break;
    case CONFIG_HOST:
        (void)snprintf(buf, n, "host or host:port");
        break;
    case CONFIG_LISTEN:
        (void)snprintf(buf, n, "127.0.0.1:port, [::1]:port, :port and the like, or empty");
        break;
    case CONFIG_SIZE:
        (void)snprintf(buf, n, "%s%s%s to %s, as 128MiB, 1.5GiB or 2%%",
                       key->words ? key->words : "", key->words ? ", or " : "",
                       FORMAT_BYTES(key->min), FORMAT_BYTES(key->max));
        break;
    case CONFIG_DURATION:
        (void)snprintf(buf, n, "%s to %s, as 30s, 5m or 2h", FORMAT_DURATION(key->min),
                       FORMAT_DURATION(key->max));
        break;
    case CONFIG_UINT:
        (void)snprintf(buf, n, "%llu to %llu", min, max);
        break;
    case CONFIG_BOOL:
        (void)snprintf(buf, n, "true, false");
        break;
    case CONFIG_ENUM:
        words_with_commas(buf, n, key->words);
        break;
    }
    return buf;
}
