/* SPDX-License-Identifier: Apache-2.0 */
/* manifest_layer: kind and file name of each layer, by the rules of every artifact family. */
#include "oci/manifest_internal.h"

#include "base/fs.h"
#include "base/limits.h"

#define EMPTY_MEDIA_TYPE "application/vnd.oci.empty.v1+json"
#define TITLE            "org.opencontainers.image.title"
#define UNPACK           "io.deis.oras.content.unpack"

/* What is known of a layer before its name is final. */
typedef struct Draft {
    const char *annotated;    /* the name that the artifact gives; borrowed from the document */
    const char *default_name; /* the name of its kind: several layers may have the same; static */
    bool unpack;              /* ORAS: a directory as tar+gzip */
} Draft;

/* The first of the names that is there: ModelPack, CNAI, generic; then Ollama's own member of a
 * layer. */
static int read_names(const json_t *layer, Draft *ret, Err *err) {
    static const char *const names[] = { "org.cncf.model.filepath", "org.cnai.model.filepath",
                                         TITLE };
    const char *unpack = NULL;
    json_t *annotations = NULL;

    if (json_get_object(layer, "annotations", &annotations, err) < 0)
        return -EPROTO;
    for (size_t i = 0; i < ELEMENTSOF(names) && isempty(ret->annotated); i++)
        if (json_get_string(annotations, names[i], &ret->annotated, err) < 0)
            return -EPROTO;
    if (json_get_string(annotations, UNPACK, &unpack, err) < 0)
        return -EPROTO;
    ret->unpack = unpack && streq(unpack, "true");
    if (isempty(ret->annotated) &&
        startswith(json_string_value(json_object_get(layer, "mediaType")),
                   "application/vnd.ollama.image."))
        if (json_get_string(layer, "name", &ret->annotated, err) < 0)
            return -EPROTO;
    return 0;
}

/* {"name":…,"mode":420,…}: only whether somebody may execute the file is taken from it. */
static bool read_executable(const json_t *layer) {
    static const char *const names[] = { "org.cncf.model.file.metadata+json",
                                         "org.cnai.model.file.metadata+json" };
    const json_t *annotations = json_object_get(layer, "annotations");

    for (size_t i = 0; i < ELEMENTSOF(names); i++) {
        const char *text = json_string_value(json_object_get(annotations, names[i]));
        _cleanup_json_ json_t *metadata = NULL;
        uint64_t mode = 0;

        if (!text)
            continue;
        /* A hint that cannot be read is no reason to refuse the content. */
        if (json_parse(text, strlen(text), "file metadata", &metadata, NULL) < 0 ||
            json_get_u64(metadata, "mode", 0, &mode, NULL) < 0)
            return false;
        return mode & 0111;
    }
    return false;
}

/* ORAS gives files a tar type by default (oras push, "application/vnd.oci.image.layer.v1.tar") and
 * says in annotations what they are: a title alone is a file.  Tars of ModelPack, KitOps and images
 * hold their paths themselves: ModelPack's file path of a tar layer names what was packed, it is
 * not a prefix (modctl's tar codec does not look at it). */
static void decide_kind(const ManifestDoc *m, const Draft *draft, const MediaLayer *media,
                        ManifestLayer *l) {
    bool generic = streq(m->family, "oras");

    l->layer.kind = media->is_tar ? LAYER_KIND_TAR : LAYER_KIND_RAW;
    l->codec = media->codec;
    if (draft->unpack) {
        l->layer.kind = LAYER_KIND_TAR;
        if (!media->is_tar)
            l->codec = CODEC_GZIP;
    } else if (generic && !isempty(draft->annotated)) {
        l->layer.kind = LAYER_KIND_RAW;
    }
    if (l->layer.kind == LAYER_KIND_RAW)
        l->codec = CODEC_NONE;
}

static int check_readable(const ManifestDoc *m, const ManifestLayer *l, const Draft *draft,
                          Err *err) {
    if (strstr(l->layer.media_type, "+encrypted"))
        return err_set(err, -ENOTSUP, "it is encrypted (%.100s), which is not supported",
                       l->layer.media_type);
    if (streq(m->family, "image") && l->layer.kind == LAYER_KIND_RAW && isempty(draft->annotated))
        return err_set(err, -ENOTSUP, "images with layers of type %.100s are not supported",
                       l->layer.media_type);
    return 0;
}

/* Reads one layer; its path stays open when it has neither annotation nor digest as its name.
 * Returns 1 when it is content, 0 when it only stands in for "no content". */
static int read_layer(const ManifestDoc *m, const json_t *json, ManifestLayer *ret, Draft *draft,
                      Err *err) {
    _cleanup_(descriptor_done) Descriptor d = { 0 };
    MediaLayer media;
    int r;

    r = descriptor_read(json, &d, err);
    if (r >= 0)
        r = read_names(json, draft, err);
    if (r < 0)
        return r;
    if (streq(d.media_type, EMPTY_MEDIA_TYPE) && isempty(draft->annotated))
        return 0;
    media_layer(d.media_type, &media);
    ret->layer =
        (Layer){ .digest = d.digest, .size = d.size, .media_type = TAKE_PTR(d.media_type) };
    ret->data = TAKE_PTR(d.data);
    draft->default_name = media.default_name;
    decide_kind(m, draft, &media, ret);
    ret->layer.executable = ret->layer.kind == LAYER_KIND_RAW && read_executable(json);
    r = check_readable(m, ret, draft, err);
    return r < 0 ? r : 1;
}

/* "model.gguf" the second of three: "model-00002-of-00003.gguf", as model loaders (and Docker Model
 * Runner) look for parts of weights; of other kinds: "license", "license-2". */
static char *numbered_name(const char *name, size_t i, size_t n) {
    const char *dot = strrchr(name, '.');
    int stem = dot ? (int)(dot - name) : (int)strlen(name);

    if (n == 1)
        return xstrdup(name);
    if (streq(name, "model.gguf") || streq(name, "model.safetensors"))
        return xasprintf("%.*s-%05zu-of-%05zu%s", stem, name, i, n, dot);
    if (i == 1)
        return xstrdup(name);
    return xasprintf("%.*s-%zu%s", stem, name, i, dot ? dot : "");
}

/* How many layers want the same name. */
typedef struct Kinds {
    struct {
        const char *name;
        size_t total, named;
    } items[32]; /* more than media.c has names */
    size_t n;
} Kinds;

static size_t kinds_find(Kinds *k, const char *name) {
    size_t i = 0;

    while (i < k->n && !streq(k->items[i].name, name))
        i++;
    if (i == k->n) {
        assert(k->n < ELEMENTSOF(k->items));
        k->items[k->n++].name = name;
    }
    return i;
}

static bool wants_default(const ManifestLayer *l, const Draft *draft) {
    return l->layer.kind == LAYER_KIND_RAW && isempty(draft->annotated) && draft->default_name;
}

static int name_layer(Layer *l, const Draft *draft, Kinds *kinds, Err *err) {
    const char *name = draft->annotated;

    if (l->kind == LAYER_KIND_TAR)
        return 0;
    if (!isempty(name)) {
        while (startswith(name, "./"))
            name += 2;
        if (!path_is_safe_relative(name))
            return err_set(err, -EPROTO,
                           "its file name is not a relative path that stays inside the artifact");
        if (path_depth(name) > LIMIT_PATH_DEPTH)
            return err_set(err, -E2BIG, "its file name lies deeper than %d directories",
                           LIMIT_PATH_DEPTH);
        l->path = xstrdup(name);
    } else if (draft->default_name) {
        size_t i = kinds_find(kinds, draft->default_name);
        l->path =
            numbered_name(draft->default_name, ++kinds->items[i].named, kinds->items[i].total);
    } else {
        l->path = xstrdup(DIGEST_HEX(&l->digest));
    }
    return 0;
}

static int name_layers(ManifestDoc *m, const Draft *drafts, Err *err) {
    Kinds kinds = { 0 };

    for (size_t i = 0; i < m->n_layers; i++)
        if (wants_default(&m->layers[i], &drafts[i]))
            kinds.items[kinds_find(&kinds, drafts[i].default_name)].total++;
    for (size_t i = 0; i < m->n_layers; i++) {
        int r = name_layer(&m->layers[i].layer, &drafts[i], &kinds, err);
        if (r < 0)
            return err_prefix(err, r, "layer %s", DIGEST_STR(&m->layers[i].layer.digest));
    }
    return 0;
}

static int compare_paths(const void *a, const void *b) {
    const ManifestLayer *x = *(const ManifestLayer *const *)a,
                        *y = *(const ManifestLayer *const *)b;
    int r = strcmp(x->layer.path, y->layer.path);

    return r != 0 ? r : x < y ? -1 : x > y;
}

/* Two files of one name: the same content is there once, other content is an error. */
static int drop_repeated(ManifestDoc *m, Err *err) {
    _cleanup_free_ ManifestLayer **raw = xnew_n(ManifestLayer *, m->n_layers);
    size_t n = 0, kept = 0;

    for (size_t i = 0; i < m->n_layers; i++)
        if (m->layers[i].layer.kind == LAYER_KIND_RAW)
            raw[n++] = &m->layers[i];
    qsort(raw, n, sizeof(*raw), compare_paths);
    for (size_t i = 1; i < n; i++) {
        if (!streq(raw[i]->layer.path, raw[i - 1]->layer.path))
            continue;
        if (!digest_equal(&raw[i]->layer.digest, &raw[i - 1]->layer.digest))
            return err_set(err, -EPROTO,
                           "two layers with different content have the file name \"%.200s\"",
                           raw[i]->layer.path);
        raw[i]->layer.kind = LAYER_KIND_TAR; /* marks it: a tar has no path */
    }
    for (size_t i = 0; i < m->n_layers; i++) {
        ManifestLayer *l = &m->layers[i];
        if (l->layer.kind == LAYER_KIND_TAR && l->layer.path) {
            free(l->layer.media_type);
            free(l->layer.path);
            free(l->data);
        } else {
            m->layers[kept++] = *l;
        }
    }
    m->n_layers = kept;
    return 0;
}

/* The limit is for the artifact, too. */
static int check_total(const ManifestDoc *m, Err *err) {
    uint64_t total = 0;

    for (size_t i = 0; i < m->n_layers; i++)
        if (__builtin_add_overflow(total, m->layers[i].layer.size, &total) ||
            total > LIMIT_BLOB_BYTES)
            return err_set(err, -E2BIG, "its layers together pass the limit of %llu bytes",
                           (unsigned long long)LIMIT_BLOB_BYTES);
    return 0;
}

int manifest_read_layers(ManifestDoc *m, const json_t *layers, Err *err) {
    _cleanup_free_ Draft *drafts = NULL;
    const json_t *json = NULL;
    size_t i;
    int r;

    if (json_array_size(layers) > LIMIT_LAYERS)
        return err_set(err, -E2BIG, "it has %zu layers; the limit is %d", json_array_size(layers),
                       LIMIT_LAYERS);
    drafts = xnew_n(Draft, json_array_size(layers));
    m->layers = xnew_n(ManifestLayer, json_array_size(layers));
    json_array_foreach (layers, i, json) {
        ManifestLayer *l = &m->layers[m->n_layers];
        r = read_layer(m, json, l, &drafts[m->n_layers], err);
        if (r < 0) {
            free(l->layer.media_type);
            free(l->data);
            return err_prefix(err, r, "layer %zu", i + 1);
        }
        m->n_layers += (size_t)r;
        if (r == 0)
            drafts[m->n_layers] = (Draft){ 0 };
    }
    r = name_layers(m, drafts, err);
    if (r >= 0)
        r = check_total(m, err);
    return r < 0 ? r : drop_repeated(m, err);
}
