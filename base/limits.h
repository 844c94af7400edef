/* SPDX-License-Identifier: Apache-2.0 */
/* limits: every cap on what comes from outside, in one place. */
#pragma once

#include "base/macro.h"

/* Documents of a registry. */
#define LIMIT_MANIFEST_BYTES \
    MiB(4) /* manifest or index; distribution-spec suggests at least 4 MiB */
#define LIMIT_CONFIG_BYTES      MiB(4)   /* a config blob that is read */
#define LIMIT_TOKEN_BYTES       KiB(128) /* answer of a token endpoint */
#define LIMIT_ERROR_BODY_BYTES  KiB(64)  /* body of an error answer */
#define LIMIT_HTTP_HEADER_BYTES KiB(64)  /* all headers of one answer */
#define LIMIT_HTTP_REDIRECTS    10
#define LIMIT_JSON_DEPTH        64
#define LIMIT_INDEX_DEPTH       4
#define LIMIT_LAYERS            8192             /* layers of a manifest */
#define LIMIT_BLOB_BYTES        (64 * GiB(1024)) /* one layer, and one artifact unpacked */

/* Trees. */
#define LIMIT_TREE_ENTRIES    2000000  /* files, directories and links of one artifact */
#define LIMIT_PATH_BYTES      4096     /* a path within a tree */
#define LIMIT_NAME_BYTES      255      /* one component */
#define LIMIT_PATH_DEPTH      64       /* components of a path; models have 10, images 40 */
#define LIMIT_TREE_PATH_BYTES MiB(256) /* all paths of one artifact */
#define LIMIT_SYMLINK_BYTES   4095
#define LIMIT_TREE_LINK_BYTES MiB(64) /* targets that paths of one image lead through */
#define LIMIT_SYMLINKS_FOLLOWED \
    40 /* by one path of an image, as the kernel has it: path_resolution(7) */
#define LIMIT_FILTER_PATTERNS    64 /* of include, and of exclude */
#define LIMIT_FILTER_BYTES       KiB(4)
#define LIMIT_FILTER_LAYER_STEPS (1ULL << 26) /* comparing all raw layers: 0.1 s, on the loop */
#define LIMIT_FILTER_TREE_STEPS  (1ULL << 27) /* comparing a tree: 0.3 s, others may wait for it */
#define LIMIT_ZSTD_WINDOW_LOG    27           /* 128 MiB: what zstd --long accepts by default */
#define LIMIT_ZSTD_COMMON_WINDOW_LOG                                                             \
    25 /* 32 MiB: those of all levels, also of Go's encoder; of those above, a pull has one at a \
          time */

/* gRPC. */
#define LIMIT_GRPC_MESSAGE_BYTES MiB(16)
#define LIMIT_GRPC_STREAMS       256 /* at once, on one connection */
#define LIMIT_GRPC_CONNECTIONS   512 /* the kubelet has one for each volume that it waits for */
#define LIMIT_GRPC_HEADER_BYTES  KiB(64)

/* HTTP: metrics and health, for whoever reaches the address. */
#define LIMIT_HTTPD_CONNECTIONS  32 /* at once; one gives way to a new one */
#define LIMIT_HTTPD_HEADER_BYTES KiB(8)
#define LIMIT_HTTPD_USEC         (10 * USEC_PER_SEC) /* of a connection, from its begin to its end */

/* Between daemon and worker. */
/* Resolved: a manifest, the indexes before it, its layers in fewer bytes than the manifest has. */
#define LIMIT_WORKER_MESSAGE_BYTES MiB(16)
#define LIMIT_INDEXES_BYTES        MiB(4)   /* all indexes on the way to one manifest */
#define LIMIT_WORKER_ENTRY_BYTES   MiB(256) /* names and targets of all entries of one pull */

/* Local files and requests. */
#define LIMIT_CONFIG_FILE_BYTES MiB(1)
#define LIMIT_CREDENTIALS_BYTES MiB(1) /* a docker config.json, a secret of a volume */
#define LIMIT_CA_BYTES          MiB(4)
#define LIMIT_REFERENCE_BYTES   1024
#define LIMIT_VOLUME_ID_BYTES   1024
#define LIMIT_POD_NAME_BYTES    253     /* of a pod or a namespace: a DNS subdomain, RFC 1123 */
#define LIMIT_MOUNTINFO_BYTES   MiB(64) /* /proc/self/mountinfo */
