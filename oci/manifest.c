/* SPDX-License-Identifier: Apache-2.0 */
/* manifest: reads manifests and indexes and tells what each layer becomes in the tree. */
#include "oci/manifest.h"

#include "base/limits.h"
#include "base/parse.h"
#include "oci/manifest_internal.h"

#include <strings.h>

#define MEDIA_TYPE_MAX 255 /* RFC 6838 section 4.2: 127 each side */

void descriptor_done(Descriptor *d) {
    free(d->media_type);
    free(d->platform);
    free(d->data);
    *d = (Descriptor){ 0 };
}

ManifestDoc *manifest_doc_free(ManifestDoc *m) {
    if (!m)
        return NULL;
    for (size_t i = 0; i < m->n_manifests; i++)
        descriptor_done(&m->manifests[i]);
    for (size_t i = 0; i < m->n_layers; i++) {
        free(m->layers[i].layer.media_type);
        free(m->layers[i].layer.path);
        free(m->layers[i].data);
    }
    descriptor_done(&m->config);
    free(m->manifests);
    free(m->layers);
    free(m->media_type);
    free(m->artifact_type);
    free(m->family);
    free(m);
    return NULL;
}

/* Printable, without blanks, and short: it goes into messages and the index. */
static bool media_type_is_valid(const char *s) {
    size_t n = strlen(s);

    if (n == 0 || n > MEDIA_TYPE_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~')
            return false;
    return true;
}

static int read_media_type(const json_t *json, const char *name, char **ret, Err *err) {
    const char *s = NULL;

    if (json_get_string(json, name, &s, err) < 0)
        return -EPROTO;
    if (s && *s && !media_type_is_valid(s))
        return err_set(err, -EPROTO, "\"%s\" is not a media type", name);
    free(*ret);
    *ret = isempty(s) ? NULL : xstrdup(s);
    return 0;
}

/* "data": base64 of the content, which must be what digest and size say. */
static int read_data(const json_t *json, Descriptor *d, Err *err) {
    const char *text = NULL;
    Digest digest;
    size_t n = 0;

    if (json_get_string(json, "data", &text, err) < 0)
        return -EPROTO;
    if (!text)
        return 0;
    if (parse_base64(text, strlen(text), (char **)&d->data, &n) < 0)
        return err_set(err, -EPROTO, "\"data\" is not base64");
    digest_of(&digest, d->data, n);
    if (n != d->size || !digest_equal(&digest, &d->digest))
        return err_set(err, -EPROTO,
                       "the embedded \"data\" is not what the descriptor's digest and size say");
    return 0;
}

int descriptor_read(const json_t *json, Descriptor *ret, Err *err) {
    _cleanup_(descriptor_done) Descriptor d = { 0 };
    const char *digest = NULL;
    int r;

    if (!json_is_object(json))
        return err_set(err, -EPROTO, "a descriptor is not an object");
    r = read_media_type(json, "mediaType", &d.media_type, err);
    if (r < 0)
        return r;
    if (!d.media_type)
        return err_set(err, -EPROTO, "a descriptor has no \"mediaType\"");
    if (json_get_string(json, "digest", &digest, err) < 0 ||
        json_get_u64(json, "size", UINT64_MAX, &d.size, err) < 0)
        return -EPROTO;
    if (!digest || d.size == UINT64_MAX)
        return err_set(err, -EPROTO, "a descriptor has no \"%s\"", digest ? "size" : "digest");
    r = digest_parse(&d.digest, digest, err);
    if (r < 0)
        return r == -ENOTSUP ? r : -EPROTO;
    if (d.size > LIMIT_BLOB_BYTES)
        return err_set(err, -E2BIG, "%s has %llu bytes; the limit is %llu", DIGEST_STR(&d.digest),
                       (unsigned long long)d.size, (unsigned long long)LIMIT_BLOB_BYTES);
    r = read_data(json, &d, err);
    if (r < 0)
        return r;
    *ret = d;
    d = (Descriptor){ 0 };
    return 0;
}

/* "platform" of an index entry as "os/arch[/variant]". */
static int read_platform(const json_t *entry, char **ret, Err *err) {
    const char *os = NULL, *architecture = NULL, *variant = NULL;
    json_t *platform = NULL;

    if (json_get_object(entry, "platform", &platform, err) < 0)
        return -EPROTO;
    if (!platform)
        return 0;
    if (json_get_string(platform, "os", &os, err) < 0 ||
        json_get_string(platform, "architecture", &architecture, err) < 0 ||
        json_get_string(platform, "variant", &variant, err) < 0)
        return -EPROTO;
    if (isempty(os) && isempty(architecture)) /* written by some tools for artifacts */
        return 0;
    *ret = xasprintf("%s/%s%s%s", os ? os : "", architecture ? architecture : "",
                     isempty(variant) ? "" : "/", variant ? variant : "");
    if (!media_type_is_valid(*ret))
        return err_set(err, -EPROTO, "\"platform\" holds a blank or a character that is not ASCII");
    return 0;
}

static int read_manifests(ManifestDoc *m, const json_t *manifests, Err *err) {
    const json_t *entry = NULL;
    size_t i;

    if (json_array_size(manifests) > LIMIT_LAYERS)
        return err_set(err, -E2BIG, "the index has %zu entries; the limit is %d",
                       json_array_size(manifests), LIMIT_LAYERS);
    m->manifests = xnew_n(Descriptor, json_array_size(manifests));
    json_array_foreach (manifests, i, entry) {
        Descriptor *d = &m->manifests[m->n_manifests];
        int r = descriptor_read(entry, d, err);
        if (r == -ENOTSUP) /* an entry in an algorithm we do not know may be for others */
            continue;
        if (r < 0)
            return err_prefix(err, r, "entry %zu of the index", i + 1);
        m->n_manifests++;
        r = read_platform(entry, &d->platform, err);
        if (r < 0)
            return err_prefix(err, r, "entry %zu of the index", i + 1);
        if (!media_is_manifest(d->media_type) &&
            !media_is_index(d->media_type)) { /* image-index.md: ignore these */
            descriptor_done(d);
            m->n_manifests--;
        }
    }
    return 0;
}

/* Without parameters and blanks; NULL when there is none. */
static char *bare_content_type(const char *s) {
    size_t n;

    if (!s)
        return NULL;
    s += strspn(s, " \t");
    n = strcspn(s, "; \t");
    return n > 0 ? xstrndup(s, n) : NULL;
}

/* The body's and the answer's type must agree (CVE-2021-41190). */
static int check_type(ManifestDoc *m, const json_t *root, const char *content_type, Err *err) {
    _cleanup_free_ char *answer = bare_content_type(content_type);
    uint64_t version = 0;
    int r;

    if (json_get_u64(root, "schemaVersion", 0, &version, err) < 0)
        return -EPROTO;
    if (version == 1)
        return err_set(
            err, -ENOTSUP,
            "it is of the old schema 1, which is not supported; push the artifact again with a "
            "tool of today");
    if (version != 2)
        return err_set(err, -EPROTO, "\"schemaVersion\" is not 2");
    r = read_media_type(root, "mediaType", &m->media_type, err);
    if (r < 0)
        return r;
    if (answer && !media_type_is_valid(answer))
        return err_set(err, -EPROTO, "the answer's Content-Type is not a media type");
    if (m->media_type && answer && strcasecmp(m->media_type, answer) != 0)
        return err_set(err, -EPROTO,
                       "its mediaType %.100s is not the Content-Type %.100s of the answer; the "
                       "registry or a proxy is at "
                       "fault",
                       m->media_type, answer);
    if (!m->media_type)
        m->media_type = TAKE_PTR(answer);
    if (m->media_type && !media_is_index(m->media_type) && !media_is_manifest(m->media_type))
        return err_set(err, -ENOTSUP, "its type %.100s is neither a manifest nor an index",
                       m->media_type);
    return 0;
}

/* A document is one or the other, whatever its type says (CVE-2021-41190). */
static int check_shape(ManifestDoc *m, const json_t *root, Err *err) {
    bool manifests = json_object_get(root, "manifests");
    bool layers = json_object_get(root, "layers") || json_object_get(root, "config") ||
                  json_object_get(root, "fsLayers") || json_object_get(root, "history");

    if (manifests && layers)
        return err_set(err, -EPROTO, "it has members of an index and of a manifest");
    m->is_index = m->media_type ? media_is_index(m->media_type) : manifests;
    if (m->is_index != manifests)
        return err_set(err, -EPROTO, "its type %.100s does not go with its members", m->media_type);
    if (!m->media_type)
        m->media_type = xstrdup(m->is_index ? "application/vnd.oci.image.index.v1+json"
                                            : "application/vnd.oci.image.manifest.v1+json");
    return 0;
}

static int read_manifest(ManifestDoc *m, const json_t *root, Err *err) {
    json_t *layers = NULL, *first = NULL;
    const char *first_type;
    int r;

    if (json_get_array(root, "layers", &layers, err) < 0)
        return -EPROTO;
    if (!json_object_get(root, "layers")) /* null is what Go writes for none */
        return err_set(err, -EPROTO, "it has no \"layers\"");
    r = descriptor_read(json_object_get(root, "config"), &m->config, err);
    if (r < 0)
        return err_prefix(err, r, "\"config\"");
    first = json_array_get(layers, 0);
    first_type = json_string_value(json_object_get(first, "mediaType"));
    m->family = xstrdup(media_family(m->artifact_type, m->config.media_type, first_type));
    return manifest_read_layers(m, layers, err);
}

int manifest_parse(ManifestDoc **ret, const void *data, size_t n, const char *content_type,
                   Err *err) {
    _cleanup_(manifest_doc_freep) ManifestDoc *m = xnew(ManifestDoc);
    _cleanup_json_ json_t *root = NULL;
    json_t *manifests = NULL;
    int r;

    if (n > LIMIT_MANIFEST_BYTES)
        return err_set(err, -E2BIG, "the manifest has %zu bytes; the limit is %zu", n,
                       (size_t)LIMIT_MANIFEST_BYTES);
    if (json_parse(data, n, "the manifest", &root, err) < 0)
        return -EPROTO;
    if (!json_is_object(root))
        return err_set(err, -EPROTO, "the manifest is not a JSON object");
    r = check_type(m, root, content_type, err);
    if (r >= 0)
        r = check_shape(m, root, err);
    if (r >= 0)
        r = read_media_type(root, "artifactType", &m->artifact_type, err);
    if (r < 0)
        return err_prefix(err, r, "the manifest");
    if (m->is_index) {
        if (json_get_array(root, "manifests", &manifests, err) < 0)
            return err_prefix(err, -EPROTO, "the index");
        r = read_manifests(m, manifests, err);
    } else {
        r = read_manifest(m, root, err);
    }
    if (r < 0)
        return err_prefix(err, r, m->is_index ? "the index" : "the manifest");
    *ret = TAKE_PTR(m);
    return 0;
}

/* The number in "v8"; 0 when there is none. */
static unsigned variant_number(const char *variant) {
    uint64_t n = 0;

    return variant[0] == 'v' && parse_u64(variant + 1, &n) == 0 && n < 100 ? (unsigned)n : 0;
}

/* No variant means the lowest one that everybody has. */
static const char *variant_implied(const Platform *p) {
    if (p->variant[0])
        return p->variant;
    return streq(p->architecture, "arm64") ? "v8" : streq(p->architecture, "amd64") ? "v1" : "";
}

/* 2: just what is wanted; 1: runs there too (a lower variant, or one that nobody named); 0: no. */
static int platform_fits(const char *text, const Platform *want) {
    const char *has, *wants = variant_implied(want);
    Platform p;

    if (platform_parse(&p, text, NULL) < 0 || !streq(p.os, want->os) ||
        !streq(p.architecture, want->architecture))
        return 0;
    has = variant_implied(&p);
    if (streq(has, wants))
        return 2;
    if (!p.variant[0])
        return 1;
    return variant_number(has) > 0 && variant_number(has) <= variant_number(wants);
}

static int choose_error(const ManifestDoc *index, const Platform *want, Err *err) {
    char have[320] = "";
    size_t n = 0;

    for (size_t i = 0; i < index->n_manifests && n < sizeof(have); i++) {
        const char *platform = index->manifests[i].platform;
        if (platform && !strstr(have, platform))
            n += (size_t)snprintf(have + n, sizeof(have) - n, "%s%.60s", n > 0 ? ", " : "",
                                  platform);
    }
    return err_set(err, -ENOENT, "the index has nothing for %s; it has: %s",
                   platform_text((char[PLATFORM_TEXT_MAX]){ "" }, want),
                   have[0] ? have : "no platform");
}

int manifest_choose(const ManifestDoc *index, const Platform *want, const Descriptor **ret,
                    Err *err) {
    const Descriptor *best = NULL, *nameless = NULL;
    size_t n_nameless = 0;
    int best_fit = 0;

    for (size_t i = 0; i < index->n_manifests; i++) {
        const Descriptor *d = &index->manifests[i];
        int fit = d->platform ? platform_fits(d->platform, want) : 0;
        if (fit > best_fit) {
            best = d;
            best_fit = fit;
        }
        if (!d->platform) {
            nameless = d;
            n_nameless++;
        }
    }
    if (!best && n_nameless == 1)
        best = nameless;
    if (!best)
        return choose_error(index, want, err);
    *ret = best;
    return 0;
}
