/* SPDX-License-Identifier: Apache-2.0 */
/* test_media: every layer type of the families we read. */
#include "oci/media.h"

#include "tests/unit/test.h"

TEST(media_layers) {
    static const struct {
        const char *type;
        bool is_tar;
        Codec codec;
        const char *name;
    } cases[] = {
        { "application/vnd.oci.image.layer.v1.tar", true, CODEC_NONE, NULL },
        { "application/vnd.oci.image.layer.v1.tar+gzip", true, CODEC_GZIP, NULL },
        { "application/vnd.oci.image.layer.v1.tar+zstd", true, CODEC_ZSTD, NULL },
        { "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true, CODEC_GZIP, NULL },
        { "application/vnd.docker.image.rootfs.diff.tar", true, CODEC_NONE, NULL },
        { "application/vnd.docker.image.rootfs.diff.tar.gzip", true, CODEC_GZIP, NULL },
        { "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true, CODEC_GZIP, NULL },
        { "application/vnd.cncf.model.weight.v1.raw", false, CODEC_NONE, NULL },
        { "application/vnd.cncf.model.weight.v1.tar", true, CODEC_NONE, NULL },
        { "application/vnd.cncf.model.weight.config.v1.tar+gzip", true, CODEC_GZIP, NULL },
        { "application/vnd.cncf.model.dataset.v1.tar+zstd", true, CODEC_ZSTD, NULL },
        { "application/vnd.cnai.model.weight.v1.tar", true, CODEC_NONE, NULL },
        { "application/vnd.cncf.model.weight.v1.gguf", false, CODEC_NONE, "model.gguf" },
        { "application/vnd.docker.ai.gguf.v3", false, CODEC_NONE, "model.gguf" },
        { "application/vnd.docker.ai.mmproj", false, CODEC_NONE, "model.mmproj" },
        { "application/vnd.docker.ai.chat.template.jinja", false, CODEC_NONE, "template.jinja" },
        { "application/vnd.docker.ai.vllm.config.tar", true, CODEC_NONE, NULL },
        { "application/vnd.docker.ai.dir.tar", true, CODEC_NONE, NULL },
        { "application/vnd.docker.ai.model.file", false, CODEC_NONE, NULL },
        { "application/vnd.kitops.modelkit.model.v1.tar+gzip", true, CODEC_GZIP, NULL },
        { "application/vnd.kitops.modelkit.code.v1.tar", true, CODEC_NONE, NULL },
        { "application/vnd.ollama.image.params", false, CODEC_NONE, "params.json" },
        { "application/vnd.ollama.image.draft", false, CODEC_NONE, "draft.gguf" },
        { "application/vnd.ollama.image.tensor", false, CODEC_NONE, NULL },
        { "application/octet-stream", false, CODEC_NONE, NULL },
        { "application/gzip", false, CODEC_NONE, NULL },
        { "application/x-tar", true, CODEC_NONE, NULL },
        { "text/markdown", false, CODEC_NONE, NULL },
        { "", false, CODEC_NONE, NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        MediaLayer l;
        media_layer(cases[i].type, &l);
        if (l.is_tar != cases[i].is_tar || l.codec != cases[i].codec ||
            !streq_ptr(l.default_name, cases[i].name))
            test_fail(__FILE__, __LINE__, "%s is not what it should be", cases[i].type);
    }
}

TEST(media_families) {
    static const struct {
        const char *artifact, *config, *layer, *family;
    } cases[] = {
        { "application/vnd.cncf.model.manifest.v1+json",
          "application/vnd.cncf.model.config.v1+json", NULL, "modelpack" },
        { NULL, "application/vnd.cncf.model.config.v1+json", NULL, "modelpack" },
        { "application/vnd.cnai.model.manifest.v1+json",
          "application/vnd.cnai.model.config.v1+json", NULL, "cnai" },
        { NULL, "application/vnd.docker.ai.model.config.v0.1+json", NULL, "docker-model" },
        { NULL, "application/vnd.docker.ai.model.config.v0.2+json", NULL, "docker-model" },
        { NULL, "application/vnd.kitops.modelkit.config.v1+json", NULL, "kitops" },
        { NULL, "application/vnd.docker.container.image.v1+json",
          "application/vnd.ollama.image.model", "ollama" },
        { NULL, "application/vnd.ollama.image.config", NULL, "ollama" },
        { NULL, "application/vnd.docker.container.image.v1+json", NULL, "image" },
        { NULL, "application/vnd.oci.image.config.v1+json",
          "application/vnd.oci.image.layer.v1.tar", "image" },
        { "application/x", "application/vnd.oci.empty.v1+json", "text/plain", "oras" },
        { NULL, "application/vnd.unknown.config.v1+json", NULL, "oras" },
        { NULL, NULL, NULL, "oras" },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++)
        ASSERT_STREQ(media_family(cases[i].artifact, cases[i].config, cases[i].layer),
                     cases[i].family);
}

TEST(media_documents) {
    ASSERT_TRUE(media_is_index("application/vnd.oci.image.index.v1+json"));
    ASSERT_TRUE(media_is_index("application/vnd.docker.distribution.manifest.list.v2+json"));
    ASSERT_TRUE(media_is_manifest("application/vnd.oci.image.manifest.v1+json"));
    ASSERT_TRUE(media_is_manifest("application/vnd.docker.distribution.manifest.v2+json"));
    ASSERT_TRUE(!media_is_manifest("application/vnd.docker.distribution.manifest.v1+json"));
    ASSERT_TRUE(!media_is_index(NULL) && !media_is_manifest(NULL) &&
                !media_is_manifest("application/json"));
}
