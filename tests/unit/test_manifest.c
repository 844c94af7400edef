/* SPDX-License-Identifier: Apache-2.0 */
/* test_manifest: documents of every artifact family, hostile ones, and the choice of a platform. */
#include "oci/manifest.h"

#include "tests/unit/test.h"

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX    "application/vnd.oci.image.index.v1+json"
#define A            "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B            "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define C            "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define EMPTY        "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
#define DESC(type, digest, more) \
    "{\"mediaType\":\"" type "\",\"digest\":\"" digest "\",\"size\":7" more "}"
#define ANN(name, value) ",\"annotations\":{\"" name "\":\"" value "\"}"
#define MANIFEST(config, layers)                         \
    "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST \
    "\",\"config\":" DESC(config, C, "") ",\"layers\":[" layers "]}"
#define MODELPACK "application/vnd.cncf.model.config.v1+json"
#define RAW       "application/vnd.cncf.model.weight.v1.raw"
#define FILEPATH  "org.cncf.model.filepath"
#define TITLE     "org.opencontainers.image.title"

/* Layers as "path", "path*" (executable), "<tar>", "<gzip>", "<zstd>", separated by blanks. */
static char *describe(const ManifestDoc *m) {
    char *text = xstrdup("");

    for (size_t i = 0; i < m->n_layers; i++) {
        const ManifestLayer *l = &m->layers[i];
        static const char *const tars[] = { "<tar>", "<gzip>", "<zstd>" };
        char *more = xasprintf("%s%s%s%s", text, i > 0 ? " " : "",
                               l->layer.kind == LAYER_KIND_TAR ? tars[l->codec] : l->layer.path,
                               l->layer.executable ? "*" : "");
        free(text);
        text = more;
    }
    return text;
}

static int parse(ManifestDoc **ret, const char *text, const char *content_type, Err *err) {
    return manifest_parse(ret, text, strlen(text), content_type, err);
}

#define DOCKER_AI(kind) "application/vnd.docker.ai." kind
#define DMR             "application/vnd.docker.ai.model.config.v0.1+json"
#define KITOPS          "application/vnd.kitops.modelkit.config.v1+json"
#define OCI_CONFIG      "application/vnd.oci.image.config.v1+json"
#define DOCKER_CONFIG   "application/vnd.docker.container.image.v1+json"
#define UNKNOWN_CONFIG  "application/vnd.unknown.config.v1+json"
#define EMPTY_TYPE      "application/vnd.oci.empty.v1+json"
#define LAYER_TAR       "application/vnd.oci.image.layer.v1.tar"
#define MODE_X                      \
    ",\"annotations\":{\"" FILEPATH \
    "\":\"run.sh\",\"org.cncf.model.file.metadata+json\":\"{\\\"mode\\\":493}\"}"
#define MODE_BAD                    \
    ",\"annotations\":{\"" FILEPATH \
    "\":\"a\",\"org.cncf.model.file.metadata+json\":\"{\\\"mode\\\":\"}"
#define UNPACK ",\"annotations\":{\"" TITLE "\":\"dir\",\"io.deis.oras.content.unpack\":\"true\"}"

static const struct {
    const char *what, *text, *family, *layers;
} families[] = {
    { "modelpack raw and tar",
      MANIFEST(MODELPACK,
               DESC(RAW, A, ANN(FILEPATH, "model/w.safetensors")) "," DESC(
                   "application/vnd.cncf.model.code.v1.tar+zstd", B, ANN(FILEPATH, "code"))),
      "modelpack", "model/w.safetensors <zstd>" },
    { "modelpack: executable bit", MANIFEST(MODELPACK, DESC(RAW, A, MODE_X)), "modelpack",
      "run.sh*" },
    { "modelpack: metadata that cannot be read", MANIFEST(MODELPACK, DESC(RAW, A, MODE_BAD)),
      "modelpack", "a" },
    { "modelpack: the title when there is no path",
      MANIFEST(MODELPACK, DESC(RAW, A, ANN(TITLE, "t"))), "modelpack", "t" },
    { "modelpack: leading ./", MANIFEST(MODELPACK, DESC(RAW, A, ANN(FILEPATH, "././x"))),
      "modelpack", "x" },
    { "modelpack: gguf without a name",
      MANIFEST(MODELPACK, DESC("application/vnd.cncf.model.weight.v1.gguf", A, "")), "modelpack",
      "model.gguf" },
    { "modelpack: nameless", MANIFEST(MODELPACK, DESC(RAW, A, "")), "modelpack",
      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" },
    { "cnai",
      MANIFEST("application/vnd.cnai.model.config.v1+json",
               DESC("application/vnd.cnai.model.weight.v1.raw", A,
                    ANN("org.cnai.model.filepath",
                        "w")) "," DESC("application/vnd.cnai.model.weight.v1.tar", B, "")),
      "cnai", "w <tar>" },
    { "docker model runner: one",
      MANIFEST(DMR, DESC(DOCKER_AI("gguf.v3"), A, "") "," DESC(DOCKER_AI("license"), B, "")),
      "docker-model", "model.gguf LICENSE" },
    { "docker model runner: parts",
      MANIFEST(DMR, DESC(DOCKER_AI("gguf.v3"), A, "") "," DESC(
                        DOCKER_AI("gguf.v3"), B, "") "," DESC(DOCKER_AI("mmproj"), C, "")),
      "docker-model", "model-00001-of-00002.gguf model-00002-of-00002.gguf model.mmproj" },
    { "docker model runner: config tar",
      MANIFEST(DMR, DESC(DOCKER_AI("safetensors"), A,
                         "") "," DESC(DOCKER_AI("vllm.config.tar"), B,
                                      "") "," DESC(DOCKER_AI("chat.template.jinja"), C, "")),
      "docker-model", "model.safetensors <tar> template.jinja" },
    { "docker model runner 0.2",
      MANIFEST("application/vnd.docker.ai.model.config.v0.2+json",
               DESC(DOCKER_AI("model.file"), A, ANN(FILEPATH, "sub/tokenizer.json"))),
      "docker-model", "sub/tokenizer.json" },
    { "kitops",
      MANIFEST(KITOPS, DESC("application/vnd.kitops.modelkit.model.v1.tar+gzip", A,
                            "") "," DESC("application/vnd.kitops.modelkit.docs.v1.tar", B, "")),
      "kitops", "<gzip> <tar>" },
    { "ollama",
      MANIFEST(DOCKER_CONFIG, DESC("application/vnd.ollama.image.model", A, "") "," DESC(
                                  "application/vnd.ollama.image.license", B,
                                  "") "," DESC("application/vnd.ollama.image.license", C,
                                               "") "," DESC("application/vnd.ollama.image.tensor",
                                                            EMPTY, ",\"name\":\"blk.0.weight\"")),
      "ollama", "model.gguf license license-2 blk.0.weight" },
    { "oras: file of the default tar type",
      MANIFEST(UNKNOWN_CONFIG, DESC(LAYER_TAR, A, ANN(TITLE, "hello.txt"))), "oras", "hello.txt" },
    { "oras: directory", MANIFEST(EMPTY_TYPE, DESC(LAYER_TAR "+gzip", A, UNPACK)), "oras",
      "<gzip>" },
    { "oras: directory of another type", MANIFEST(EMPTY_TYPE, DESC("application/x", A, UNPACK)),
      "oras", "<gzip>" },
    { "oras: tar without a title", MANIFEST(EMPTY_TYPE, DESC(LAYER_TAR "+gzip", A, "")), "oras",
      "<gzip>" },
    { "oras: no content",
      "{\"schemaVersion\":2,\"artifactType\":\"a/b\",\"config\":{\"mediaType\":\"" EMPTY_TYPE
      "\",\"digest\":\"" EMPTY
      "\",\"size\":2,\"data\":\"e30=\"},\"layers\":[{\"mediaType\":\"" EMPTY_TYPE
      "\",\"digest\":\"" EMPTY "\",\"size\":2,\"data\":\"e30=\"}]}",
      "oras", "" },
    { "image",
      MANIFEST(OCI_CONFIG,
               DESC(LAYER_TAR "+gzip", A, "") "," DESC(LAYER_TAR "+gzip", A, "") "," DESC(
                   LAYER_TAR "+zstd", B, "") "," DESC(LAYER_TAR, C, "")),
      "image", "<gzip> <gzip> <zstd> <tar>" },
    { "docker image, foreign layer",
      MANIFEST(DOCKER_CONFIG,
               DESC("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", A,
                    ",\"urls\":[\"http://x/\"]") "," DESC("application/"
                                                          "vnd.docker.image.rootfs.diff.tar.gzip",
                                                          B, "")),
      "image", "<gzip> <gzip>" },
    { "no layers", MANIFEST(OCI_CONFIG, ""), "image", "" },
    { "the same file twice",
      MANIFEST(MODELPACK, DESC(RAW, A, ANN(FILEPATH, "x")) "," DESC(
                              RAW, B, ANN(FILEPATH, "y")) "," DESC(RAW, A, ANN(FILEPATH, "x"))),
      "modelpack", "x y" },
};

TEST(manifest_families) {
    for (size_t i = 0; i < ELEMENTSOF(families); i++) {
        _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
        _cleanup_free_ char *layers = NULL;
        Err err = { 0 };
        if (parse(&m, families[i].text, OCI_MANIFEST "; charset=utf-8", &err) < 0)
            test_fail(__FILE__, __LINE__, "%s: %s", families[i].what, err.text);
        ASSERT_TRUE(!m->is_index);
        ASSERT_STREQ(m->family, families[i].family);
        layers = describe(m);
        ASSERT_STREQ(layers, families[i].layers);
    }
}

TEST(manifest_keeps_what_the_cache_wants) {
    _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
    static const char text[] =
        "{\"schemaVersion\":2,\"artifactType\":\"a/b\",\"config\":{\"mediaType\":\"" EMPTY_TYPE
        "\",\"digest\":\"" EMPTY
        "\",\"size\":2,\"data\":\"e30=\"},\"layers\":[{\"mediaType\":\"x/y\","
        "\"digest\":\"" EMPTY "\",\"size\":2,\"data\":\"e30=\",\"annotations\":{\"" TITLE
        "\":\"f\"}}],\"unknown\":[1]}";

    ASSERT_OK(parse(&m, text, NULL, NULL));
    ASSERT_STREQ(m->media_type, OCI_MANIFEST);
    ASSERT_STREQ(m->artifact_type, "a/b");
    ASSERT_EQ(m->config.size, 2);
    ASSERT_MEMEQ(m->config.data, "{}", 2);
    ASSERT_EQ(m->layers[0].layer.size, 2);
    ASSERT_STREQ(m->layers[0].layer.media_type, "x/y");
    ASSERT_MEMEQ(m->layers[0].data, "{}", 2);
    ASSERT_STREQ(DIGEST_STR(&m->layers[0].layer.digest), EMPTY);
}

#define SIZE(n)                                                                               \
    "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"digest\":\"" A "\",\"size\":" n \
    "},\"layers\":[]}"
#define DATA(d)                                                                  \
    "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"digest\":\"" EMPTY \
    "\",\"size\":2,\"data\":\"" d "\"},\"layers\":[]}"
#define NAME(n) MANIFEST(MODELPACK, DESC(RAW, A, ANN(FILEPATH, n)))

static const struct {
    int r;
    const char *text, *content_type, *sentence;
} bad[] = {
    { -EPROTO, "", NULL, "JSON" },
    { -EPROTO, "[]", NULL, "object" },
    { -EPROTO, "{}", NULL, "schemaVersion" },
    { -EPROTO, "{\"schemaVersion\":\"2\"}", NULL, "schemaVersion" },
    { -EPROTO, "{\"schemaVersion\":2}", NULL, "layers" },
    { -EPROTO, "{\"schemaVersion\":2,\"schemaVersion\":2}", NULL, "twice" },
    { -EPROTO, MANIFEST(OCI_CONFIG, "") "x", NULL, "bytes follow" },
    { -ENOTSUP, "{\"schemaVersion\":1,\"fsLayers\":[]}", NULL, "schema 1" },
    { -EPROTO, MANIFEST(OCI_CONFIG, ""), "application/vnd.docker.distribution.manifest.v2+json",
      "Content-Type" },
    { -EPROTO, MANIFEST(OCI_CONFIG, ""), OCI_INDEX, "Content-Type" },
    { -ENOTSUP, "{\"schemaVersion\":2,\"mediaType\":\"a/b\"}", NULL, "neither" },
    { -ENOTSUP, "{\"schemaVersion\":2}", "text/html", "neither" },
    { -EPROTO, "{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}", NULL, "members" },
    { -EPROTO, "{\"schemaVersion\":2,\"manifests\":[],\"config\":{}}", NULL, "members" },
    { -EPROTO, "{\"schemaVersion\":2,\"manifests\":[],\"fsLayers\":[]}", NULL, "members" },
    { -EPROTO, "{\"schemaVersion\":2,\"manifests\":[]}", OCI_MANIFEST, "members" },
    { -EPROTO, "{\"schemaVersion\":2,\"layers\":[]}", OCI_INDEX, "members" },
    { -EPROTO, "{\"schemaVersion\":2,\"layers\":{},\"config\":{}}", NULL, "layers" },
    { -EPROTO, "{\"schemaVersion\":2,\"layers\":[]}", NULL, "config" },
    { -EPROTO, SIZE("-1"), NULL, "size" },
    { -EPROTO, SIZE("1.5"), NULL, "size" },
    { -EPROTO, SIZE("\"1\""), NULL, "size" },
    { -EPROTO, SIZE("99999999999999999999"), NULL, "number" },
    { -E2BIG, SIZE("9000000000000000000"), NULL, "limit" },
    { -EPROTO, DATA("e3s="), NULL, "embedded" },
    { -EPROTO, DATA("e30"), NULL, "base64" },
    { -EPROTO, MANIFEST(OCI_CONFIG, "{\"mediaType\":\"a/b\",\"digest\":\"" A "\"}"), NULL, "size" },
    { -EPROTO, MANIFEST(OCI_CONFIG, "{\"mediaType\":\"a/b\",\"size\":1}"), NULL, "digest" },
    { -EPROTO, MANIFEST(OCI_CONFIG, "{\"digest\":\"" A "\",\"size\":1}"), NULL, "mediaType" },
    { -EPROTO, MANIFEST(OCI_CONFIG, "17"), NULL, "layer 1" },
    { -EPROTO, MANIFEST(OCI_CONFIG, DESC("a/b", "sha256:ABC", "")), NULL, "igest" },
    { -ENOTSUP, MANIFEST(OCI_CONFIG, DESC("a/b", "sha512:abc", "")), NULL, "SHA-256" },
    { -ENOTSUP, MANIFEST(OCI_CONFIG, DESC("application/vnd.oci.image.layer.nydus.blob.v1", A, "")),
      NULL, "nydus" },
    { -ENOTSUP, MANIFEST(OCI_CONFIG, DESC(LAYER_TAR "+gzip+encrypted", A, "")), NULL, "encrypted" },
    { -EPROTO, MANIFEST(OCI_CONFIG, DESC("a\\nb", A, "")), NULL, "media type" },
    { -EPROTO, NAME("/etc/passwd"), NULL, "file name" },
    { -EPROTO, NAME("../x"), NULL, "file name" },
    { -EPROTO, NAME("a/../b"), NULL, "file name" },
    { -EPROTO, NAME("a//b"), NULL, "file name" },
    { -EPROTO, NAME("a/"), NULL, "file name" },
    { -EPROTO, NAME("./"), NULL, "file name" },
    { -EPROTO, NAME("."), NULL, "file name" },
    { -EPROTO,
      MANIFEST(MODELPACK, DESC(RAW, A, ANN(FILEPATH, "x")) "," DESC(RAW, B, ANN(FILEPATH, "x"))),
      NULL, "file name" },
    { -EPROTO, MANIFEST(MODELPACK, DESC(RAW, A, ",\"annotations\":{\"" FILEPATH "\":1}")), NULL,
      FILEPATH },
    { -EPROTO, MANIFEST(MODELPACK, DESC(RAW, A, ",\"annotations\":[]")), NULL, "annotations" },
    { -EPROTO, "{\"schemaVersion\":2,\"manifests\":[{}]}", NULL, "entry 1" },
    { -EPROTO, "{\"schemaVersion\":2,\"manifests\":{}}", NULL, "manifests" },
};

TEST(manifest_refuses) {
    for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
        _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
        Err err = { 0 };
        int r = parse(&m, bad[i].text, bad[i].content_type, &err);
        if (r != bad[i].r)
            test_fail(__FILE__, __LINE__, "%zu: %s gave %d: %s", i, bad[i].text, r, err.text);
        ASSERT_STRSTR(err.text, bad[i].sentence);
    }
}

TEST(manifest_has_limits) {
    _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
    size_t big = (4 << 20) + 1, n = 0;
    _cleanup_free_ char *text = xcalloc(big + 1, 1);
    Err err = { 0 };

    memset(text, ' ', big);
    ASSERT_ERR(manifest_parse(&m, text, big, NULL, &err), -E2BIG);
    n = (size_t)sprintf(text,
                        "{\"schemaVersion\":2,\"config\":" DESC("a/b", A, "") ",\"layers\":[0");
    for (size_t i = 0; i < 8192; i++)
        n += (size_t)sprintf(text + n, ",0");
    n += (size_t)sprintf(text + n, "]}");
    ASSERT_ERR(manifest_parse(&m, text, n, NULL, &err), -E2BIG);
    ASSERT_STRSTR(err.text, "8192");
    n = (size_t)sprintf(text, "{\"schemaVersion\":2,\"manifests\":[0");
    for (size_t i = 0; i < 8192; i++)
        n += (size_t)sprintf(text + n, ",0");
    n += (size_t)sprintf(text + n, "]}");
    ASSERT_ERR(manifest_parse(&m, text, n, NULL, &err), -E2BIG);
}

#define PLATFORM(o, a) ",\"platform\":{\"os\":\"" o "\",\"architecture\":\"" a "\"}"
#define VARIANT(o, a, v) \
    ",\"platform\":{\"os\":\"" o "\",\"architecture\":\"" a "\",\"variant\":\"" v "\"}"
#define INDEX(entries)      "{\"schemaVersion\":2,\"manifests\":[" entries "]}"
#define ENTRY(digest, more) DESC(OCI_MANIFEST, digest, more)

TEST(manifest_choose_takes_what_fits) {
    static const struct {
        const char *text, *want, *digest;
    } cases[] = {
        { INDEX(ENTRY(A, PLATFORM("linux", "arm64")) "," ENTRY(B, PLATFORM("linux", "amd64"))),
          "linux/amd64", B },
        { INDEX(ENTRY(A, PLATFORM("linux", "amd64")) "," ENTRY(B, PLATFORM("linux", "amd64"))),
          "linux/amd64", A },
        { INDEX(ENTRY(A, PLATFORM("windows", "amd64")) "," ENTRY(B, PLATFORM("linux", "amd64"))),
          "linux/amd64", B },
        { INDEX(ENTRY(A, VARIANT("linux", "arm64", "v8"))), "linux/arm64", A },
        { INDEX(ENTRY(A, PLATFORM("linux", "arm64"))), "linux/arm64/v8", A },
        { INDEX(ENTRY(A, VARIANT("linux", "amd64", "v3")) "," ENTRY(B, PLATFORM("linux", "amd64"))),
          "linux/amd64", B },
        { INDEX(ENTRY(A, PLATFORM("linux", "amd64")) "," ENTRY(B, VARIANT("linux", "amd64", "v3"))),
          "linux/amd64/v3", B },
        { INDEX(ENTRY(A, VARIANT("linux", "amd64", "v2"))), "linux/amd64/v3", A },
        { INDEX(ENTRY(A, VARIANT("linux", "amd64", "v4"))), "linux/amd64/v3", NULL },
        { INDEX(
              ENTRY(A, VARIANT("linux", "arm", "v6")) "," ENTRY(B, VARIANT("linux", "arm", "v7"))),
          "linux/arm/v7", B },
        { INDEX(ENTRY(A, VARIANT("linux", "arm", "v6"))), "linux/arm/v7", A },
        { INDEX(ENTRY(A, "")), "linux/amd64", A },
        { INDEX(ENTRY(A, PLATFORM("linux", "arm64")) "," ENTRY(B, "")), "linux/amd64", B },
        { INDEX(ENTRY(A, "") "," ENTRY(B, PLATFORM("linux", "amd64"))), "linux/amd64", B },
        { INDEX(ENTRY(A, "") "," ENTRY(B, "")), "linux/amd64", NULL },
        { INDEX(ENTRY(A, PLATFORM("unknown", "unknown"))), "linux/amd64", NULL },
        { INDEX(ENTRY("sha512:abc",
                      PLATFORM("linux", "amd64")) "," ENTRY(B, PLATFORM("linux", "amd64"))),
          "linux/amd64", B },
        { INDEX(DESC("a/b", A, PLATFORM("linux", "amd64")) "," DESC(OCI_INDEX, B,
                                                                    PLATFORM("linux", "amd64"))),
          "linux/amd64", B },
        { INDEX(""), "linux/amd64", NULL },
    };

    for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
        _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
        const Descriptor *d = NULL;
        Platform want;
        Err err = { 0 };
        int r;
        ASSERT_OK(platform_parse(&want, cases[i].want, NULL));
        ASSERT_OK(parse(&m, cases[i].text, OCI_INDEX, &err));
        ASSERT_TRUE(m->is_index);
        r = manifest_choose(m, &want, &d, &err);
        if (cases[i].digest ? r < 0 || !streq(DIGEST_STR(&d->digest), cases[i].digest)
                            : r != -ENOENT)
            test_fail(__FILE__, __LINE__, "%zu: %s for %s", i, cases[i].text, cases[i].want);
    }
}

TEST(manifest_choose_tells_what_there_is) {
    _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
    const Descriptor *d = NULL;
    Platform want;
    Err err = { 0 };

    ASSERT_OK(platform_parse(&want, "linux/s390x", NULL));
    ASSERT_OK(parse(
        &m, INDEX(ENTRY(A, PLATFORM("linux", "amd64")) "," ENTRY(B, VARIANT("linux", "arm", "v7"))),
        NULL, NULL));
    ASSERT_ERR(manifest_choose(m, &want, &d, &err), -ENOENT);
    ASSERT_STRSTR(err.text, "linux/s390x; it has: linux/amd64, linux/arm/v7");
}
