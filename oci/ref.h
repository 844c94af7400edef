/* SPDX-License-Identifier: Apache-2.0 */
/* ref: artifact references as people write them: [host[:port]/]repository[:tag][@digest]. */
#pragma once

#include "cache/digest.h"

/* Normalised as Docker's reference grammar says (distribution/reference): no host, or a first
 * component without '.', ':' and other than "localhost", means docker.io; one component on
 * docker.io means library/…; neither tag nor digest means :latest.  index.docker.io is docker.io.
 */
typedef struct Reference {
    char *registry;   /* "docker.io", "127.0.0.1:5000", "[::1]:5000" */
    char *repository; /* "library/busybox" */
    char *tag;        /* NULL when only a digest was given */
    bool has_digest;
    Digest digest;
} Reference;

/* Errors: -EINVAL with a sentence that says which part is wrong and shows the right form. */
int reference_parse(Reference **ret, const char *text, Err *err) _must_check_;
Reference *reference_free(Reference *r);
DEFINE_CLEANUP(Reference, reference_free);
/* "docker.io/library/busybox:latest", "host/repo@sha256:…" (a digest wins over the tag: the content
 * it names is fixed).  The key in the index. */
char *reference_text(const Reference *r) _must_check_;
/* "registry/repository": what its content is believed for. */
char *reference_origin(const Reference *r) _must_check_;
/* Where its API is: "registry-1.docker.io" for docker.io, else the registry.  Borrowed. */
const char *reference_api_host(const Reference *r);
/* Is the tag "latest"?  (Kubernetes' default pull policy asks.) */
bool reference_is_latest(const Reference *r);

/* A tag by itself; "host", "host:port", "[v6]:port" by itself. */
bool reference_tag_is_valid(const char *tag);
bool reference_registry_is_valid(const char *registry);

/* "os/architecture[/variant]".  Known other spellings (x86_64, aarch64, ...) become the usual ones.
 * Errors: -EINVAL. */
typedef struct Platform {
    char os[32], architecture[32], variant[32]; /* variant may be empty */
} Platform;
int platform_parse(Platform *ret, const char *text, Err *err) _must_check_;
void platform_of_node(
    Platform *ret); /* from uname(2): x86_64 -> amd64, aarch64 -> arm64 (v8 is implied) … */
#define PLATFORM_TEXT_MAX 100
const char *platform_text(char buf[static PLATFORM_TEXT_MAX], const Platform *p);
