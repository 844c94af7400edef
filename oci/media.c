/* SPDX-License-Identifier: Apache-2.0 */
/* media: media types of every artifact family, one table. */
#include "oci/media.h"

#define DOCKER_AI "application/vnd.docker.ai."
#define OLLAMA    "application/vnd.ollama.image."

/* Layers whose type says more than its suffix does.  Names: Docker Model Runner's bundle
 * (pkg/distribution/internal/ bundle/unpack.go); for Ollama, which has none, the words of its
 * Modelfile. */
static const struct {
    const char *media_type;
    MediaLayer layer;
} media_layers[] = {
    { "application/vnd.docker.image.rootfs.diff.tar", { true, CODEC_NONE, NULL } },
    { "application/vnd.docker.image.rootfs.diff.tar.gzip", { true, CODEC_GZIP, NULL } },
    { "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", { true, CODEC_GZIP, NULL } },
    { "application/vnd.docker.image.rootfs.diff.tar.zstd", { true, CODEC_ZSTD, NULL } },
    { DOCKER_AI "gguf.v3", { false, CODEC_NONE, "model.gguf" } },
    { DOCKER_AI "gguf.v3.lora", { false, CODEC_NONE, "lora.gguf" } },
    { DOCKER_AI "gguf.v3.mmproj", { false, CODEC_NONE, "model.mmproj" } },
    { DOCKER_AI "mmproj", { false, CODEC_NONE, "model.mmproj" } },
    { DOCKER_AI "safetensors", { false, CODEC_NONE, "model.safetensors" } },
    { DOCKER_AI "dduf", { false, CODEC_NONE, "model.dduf" } },
    { DOCKER_AI "license", { false, CODEC_NONE, "LICENSE" } },
    { DOCKER_AI "chat.template.jinja", { false, CODEC_NONE, "template.jinja" } },
    { "application/vnd.cncf.model.weight.v1.gguf", { false, CODEC_NONE, "model.gguf" } },
    { "application/vnd.cncf.model.weight.v1.safetensors",
      { false, CODEC_NONE, "model.safetensors" } },
    { OLLAMA "model", { false, CODEC_NONE, "model.gguf" } },
    { OLLAMA "adapter", { false, CODEC_NONE, "adapter.gguf" } },
    { OLLAMA "draft", { false, CODEC_NONE, "draft.gguf" } }, /* of speculative decoding */
    { OLLAMA "projector", { false, CODEC_NONE, "projector.gguf" } },
    { OLLAMA "embed", { false, CODEC_NONE, "embed" } },
    { OLLAMA "template", { false, CODEC_NONE, "template" } },
    { OLLAMA "prompt", { false, CODEC_NONE, "prompt" } },
    { OLLAMA "system", { false, CODEC_NONE, "system" } },
    { OLLAMA "params", { false, CODEC_NONE, "params.json" } },
    { OLLAMA "messages", { false, CODEC_NONE, "messages.json" } },
    { OLLAMA "license", { false, CODEC_NONE, "license" } },
};

/* Ends of types that hold a tar. */
static const struct {
    const char *suffix;
    Codec codec;
} media_suffixes[] = {
    { ".tar", CODEC_NONE },        { ".tar+gzip", CODEC_GZIP }, { ".tar+zstd", CODEC_ZSTD },
    { ".tar.gzip", CODEC_GZIP },   { ".tar.zstd", CODEC_ZSTD }, { ".tar.gz", CODEC_GZIP },
    { ".tar+gz", CODEC_GZIP },     { ".tar.zst", CODEC_ZSTD },  { "/x-tar", CODEC_NONE },
    { "/tar", CODEC_NONE },        { "/tar+gzip", CODEC_GZIP }, { "/tar+zstd", CODEC_ZSTD },
    { "/x-tar+gzip", CODEC_GZIP },
};

/* The first that fits names the family; `prefix` of the artifact type, the config's type, or the
 * first layer's. */
static const struct {
    enum { ARTIFACT = 1, CONFIG = 2, LAYER = 4 } where;
    const char *prefix, *family;
} media_families[] = {
    { ARTIFACT | CONFIG, "application/vnd.cncf.model.", "modelpack" },
    { ARTIFACT | CONFIG, "application/vnd.cnai.model.", "cnai" },
    { CONFIG, "application/vnd.docker.ai.model.config.", "docker-model" },
    { ARTIFACT | CONFIG, "application/vnd.kitops.modelkit.", "kitops" },
    { CONFIG, "application/vnd.jozu.model.", "kitops" },
    { CONFIG | LAYER, "application/vnd.ollama.image.", "ollama" },
    { CONFIG, "application/vnd.oci.image.config.v1+json", "image" },
    { CONFIG, "application/vnd.docker.container.image.v1+json", "image" },
};

bool media_is_index(const char *media_type) {
    return media_type &&
           (streq(media_type, "application/vnd.oci.image.index.v1+json") ||
            streq(media_type, "application/vnd.docker.distribution.manifest.list.v2+json"));
}

bool media_is_manifest(const char *media_type) {
    return media_type &&
           (streq(media_type, "application/vnd.oci.image.manifest.v1+json") ||
            streq(media_type, "application/vnd.docker.distribution.manifest.v2+json"));
}

void media_layer(const char *media_type, MediaLayer *ret) {
    *ret = (MediaLayer){ 0 };
    for (size_t i = 0; i < ELEMENTSOF(media_layers); i++)
        if (streq(media_type, media_layers[i].media_type)) {
            *ret = media_layers[i].layer;
            return;
        }
    for (size_t i = 0; i < ELEMENTSOF(media_suffixes); i++)
        if (endswith(media_type, media_suffixes[i].suffix)) {
            *ret = (MediaLayer){ .is_tar = true, .codec = media_suffixes[i].codec };
            return;
        }
}

const char *media_family(const char *artifact_type, const char *config_media_type,
                         const char *first_layer_media_type) {
    for (size_t i = 0; i < ELEMENTSOF(media_families); i++) {
        const char *prefix = media_families[i].prefix;
        unsigned where = media_families[i].where;
        if ((where & ARTIFACT && artifact_type && startswith(artifact_type, prefix)) ||
            (where & CONFIG && config_media_type && startswith(config_media_type, prefix)) ||
            (where & LAYER && first_layer_media_type && startswith(first_layer_media_type, prefix)))
            return media_families[i].family;
    }
    return "oras";
}
