/* SPDX-License-Identifier: Apache-2.0 */
/* media: media types of every artifact family, one table. */
#pragma once

#include "base/err.h"

typedef enum Codec {
    CODEC_NONE, /* raw bytes or plain tar */
    CODEC_GZIP,
    CODEC_ZSTD,
} Codec;

typedef struct MediaLayer {
    bool is_tar;
    Codec codec;
    const char
        *default_name; /* when no annotation names the file: "model.gguf"; NULL: the digest */
} MediaLayer;

#define MEDIA_ACCEPT                                                                        \
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, " \
    "application/vnd.docker.distribution.manifest.v2+json, "                                \
    "application/vnd.docker.distribution.manifest.list.v2+json"

bool media_is_index(const char *media_type);
bool media_is_manifest(const char *media_type);
/* What a layer of this type is; suffix rules for types that are not in the table (…+gzip, …+zstd,
 * .tar, .raw). */
void media_layer(const char *media_type, MediaLayer *ret);
/* "modelpack" "cnai" "docker-model" "kitops" "ollama" "oras" "image"; static. */
const char *media_family(const char *artifact_type, const char *config_media_type,
                         const char *first_layer_media_type);
