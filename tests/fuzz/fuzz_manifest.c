/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_manifest: any bytes as a manifest or index: safe file names, sane sizes, or a sentence. */
#include "base/fs.h"
#include "base/limits.h"
#include "oci/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_layers(const ManifestDoc *m) {
    for (size_t i = 0; i < m->n_layers; i++) {
        const Layer *l = &m->layers[i].layer;
        if (l->kind == LAYER_KIND_RAW && !path_is_safe_relative(l->path))
            abort();
        if (!l->media_type || l->size > LIMIT_BLOB_BYTES || (l->kind == LAYER_KIND_TAR && l->path))
            abort();
    }
}

/* The first byte chooses the Content-Type. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const types[] = { NULL, "application/vnd.oci.image.manifest.v1+json",
                                         "application/vnd.oci.image.index.v1+json; charset=utf-8",
                                         "text/html" };
    const Platform want = { "linux", "amd64", "v3" };
    _cleanup_(manifest_doc_freep) ManifestDoc *m = NULL;
    const Descriptor *d = NULL;
    Err err = { "" };

    if (size < 1)
        return 0;
    if (manifest_parse(&m, data + 1, size - 1, types[data[0] % ELEMENTSOF(types)], &err) < 0) {
        if (!err.text[0])
            abort();
        return 0;
    }
    if (m->is_index && manifest_choose(m, &want, &d, &err) >= 0 && !d)
        abort();
    check_layers(m);
    return 0;
}
