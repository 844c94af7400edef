/* SPDX-License-Identifier: Apache-2.0 */
/* manifest: reads manifests and indexes and tells what each layer becomes in the tree. */
#pragma once

#include "cache/store.h"
#include "oci/media.h"
#include "oci/ref.h"

typedef struct Descriptor {
    char *media_type;
    Digest digest;
    uint64_t size;
    char *platform; /* in an index: "os/arch[/variant]" or NULL */
    uint8_t *data;  /* embedded content, checked against digest and size; NULL when there is none */
} Descriptor;

typedef struct ManifestLayer {
    Layer layer;   /* what cache/ wants: digest, size, kind, path, executable, media type */
    Codec codec;   /* of a tar layer: none, gzip, zstd; MEDIA says it, content decides */
    uint8_t *data; /* embedded content of `layer.size` bytes, or NULL */
} ManifestLayer;

typedef struct ManifestDoc {
    bool is_index;
    char *media_type, *artifact_type, *family;
    Descriptor *manifests; /* of an index */
    size_t n_manifests;
    ManifestLayer *layers; /* of a manifest, lowest first; files that are not content (ModelPack
                              docs are content) included as the format says */
    size_t n_layers;
    Descriptor config;
} ManifestDoc;

/* Parses a manifest or index.  `content_type`: of the answer, parameters ignored, may be NULL.
 * OCI image-spec v1.1 manifest.md, image-index.md; Docker schema 2; facts of every family in
 * media.c. Errors: -EPROTO malformed, mediaType and Content-Type differ, both manifests and layers
 * (CVE-2021-41190), unsafe file name, two raw layers with one path; -ENOTSUP schema 1, unknown
 * digest algorithm, a layer kind we cannot read; -E2BIG. */
int manifest_parse(ManifestDoc **ret, const void *data, size_t n, const char *content_type,
                   Err *err) _must_check_;
ManifestDoc *manifest_doc_free(ManifestDoc *m);
DEFINE_CLEANUP(ManifestDoc, manifest_doc_free);

/* The first entry of the index that fits (image-index.md, "platform"); entries without platform fit
 * when nothing else does and there is one.  Errors: -ENOENT with the platforms there are. */
int manifest_choose(const ManifestDoc *index, const Platform *want, const Descriptor **ret,
                    Err *err) _must_check_;
