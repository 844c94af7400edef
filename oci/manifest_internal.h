/* SPDX-License-Identifier: Apache-2.0 */
/* manifest_internal: what manifest.c and manifest_layer.c share. */
#pragma once

#include "base/json.h"
#include "oci/manifest.h"

/* Reads a descriptor (OCI image-spec v1.1, descriptor.md); `platform` is not read.  Errors:
 * -EPROTO; -ENOTSUP. */
int descriptor_read(const json_t *json, Descriptor *ret, Err *err) _must_check_;
void descriptor_done(Descriptor *d);
/* Reads "layers" into `m`, whose config and types are there.  Errors: as manifest_parse(). */
int manifest_read_layers(ManifestDoc *m, const json_t *layers, Err *err) _must_check_;
