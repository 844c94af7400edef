/* SPDX-License-Identifier: Apache-2.0 */
/* control_find: what people name artifacts by, and the volumes that show them. */
#include "agent/control_internal.h"

#include <ctype.h>

#define PREFIX_MIN 6 /* hex digits */

static bool is_hex(const char *s) {
    for (; *s; s++)
        if (!isdigit((unsigned char)*s) && (*s < 'a' || *s > 'f'))
            return false;
    return true;
}

/* Artifacts of one name, as they are found one by one. */
typedef struct Found {
    Digest digest;   /* the artifact: the whole rather than a subset */
    Digest manifest; /* of the first */
    unsigned n;      /* different manifests */
    unsigned n_subsets;
    bool whole;
} Found;

static void found_add(Found *f, const ArtifactInfo *a) {
    if (f->n > 0 && !digest_equal(&f->manifest, &a->manifest)) {
        f->n++;
        return;
    }
    if (f->n == 0 || !a->filter)
        f->digest = a->digest;
    f->manifest = a->manifest;
    f->n = 1;
    f->n_subsets += a->filter != NULL;
    f->whole |= !a->filter;
}

/* As control_find(): 1 when there are several subsets, and not the whole. */
static int found_take(const Found *f, Digest *ret) {
    bool several = !f->whole && f->n_subsets > 1;

    *ret = several ? f->manifest : f->digest;
    return several;
}

/* `hex` is the beginning of exactly one digest. */
static int find_prefix(Store *s, const char *hex, Digest *ret, Err *err) {
    Found found = { 0 };
    ArtifactInfo *list;
    size_t n;
    int r = store_list(s, &list, &n, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (startswith(DIGEST_HEX(&list[i].manifest), hex) ||
            startswith(DIGEST_HEX(&list[i].digest), hex))
            found_add(&found, &list[i]);
    artifact_info_array_free(list, n);
    if (found.n == 0)
        return err_set(err, -ENOENT, "no stored artifact has a digest that begins with %.64s", hex);
    if (found.n > 1)
        return err_set(err, -EINVAL, "%u stored artifacts begin with %.64s; give more digits",
                       found.n, hex);
    return found_take(&found, ret);
}

int control_platform(char ret[static PLATFORM_TEXT_MAX], const char *text, Err *err) {
    Platform platform;
    int r = isempty(text) ? 0 : platform_parse(&platform, text, err);

    ret[0] = '\0';
    if (r >= 0 && !isempty(text))
        (void)platform_text(ret, &platform);
    return r;
}

static bool has_reference(const ArtifactInfo *a, const char *key) {
    for (size_t i = 0; i < a->n_references; i++)
        if (streq(a->references[i], key))
            return true;
    return false;
}

/* By its key, for the platform; without one for this node's, or for whichever it is stored. */
static int find_reference(Store *s, const char *key, const char *platform, Digest *ret, Err *err) {
    char buf[PLATFORM_TEXT_MAX];
    Found found = { 0 };
    ArtifactInfo *list;
    Platform node;
    size_t n;
    int r;

    platform_of_node(&node);
    r = store_resolve(s, key, *platform ? platform : platform_text(buf, &node), NULL, ret, err);
    if (r != -ENOENT)
        return r;
    r = store_list(s, &list, &n, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        if (has_reference(&list[i], key) &&
            (!*platform || isempty(list[i].platform) || streq(list[i].platform, platform)))
            found_add(&found, &list[i]);
    artifact_info_array_free(list, n);
    return found.n > 0
               ? found_take(&found, ret)
               : err_set(err, -ENOENT, "%s is not stored here%s%s; cache-ctl ls shows what is", key,
                         *platform ? " for " : "", platform);
}

int control_several(const char *text, Err *err) {
    return err_set(err, -EINVAL,
                   "of %.300s there are only subsets here, several; name one by its id, which "
                   "cache-ctl ls --output json shows",
                   text);
}

int control_find(Store *s, const char *text, const char *platform, Digest *ret,
                 char **ret_reference, Err *err) {
    const char *hex = startswith(text, "sha256:");
    _cleanup_(reference_freep) Reference *reference = NULL;
    _cleanup_free_ char *key = NULL;
    bool prefix = strlen(hex ? hex : text) >= PREFIX_MIN && is_hex(hex ? hex : text);
    int r;

    *ret_reference = NULL;
    if (hex)
        return prefix ? find_prefix(s, hex, ret, err)
                      : err_set(err, -EINVAL,
                                "\"%.100s\" is not a digest: sha256: and %d to 64 hex digits", text,
                                PREFIX_MIN);
    r = reference_parse(&reference, text, err);
    if (r < 0)
        return r;
    key = reference_text(reference);
    r = find_reference(s, key, platform, ret, err);
    if (r == -ENOENT && prefix) {
        int found = find_prefix(s, text, ret, NULL);

        return found >= 0 ? found : r;
    }
    if (r >= 0)
        *ret_reference = TAKE_PTR(key);
    return r;
}

static bool is_mounted(const MountInfo *mounts, size_t n, const char *target) {
    for (size_t i = 0; i < n; i++)
        if (streq(mounts[i].target, target))
            return true;
    return false;
}

int control_volumes(Store *s, const Digest *manifest, Modelcached__Control__VolumeDetail ***ret,
                    size_t *ret_n, Err *err) {
    Modelcached__Control__VolumeDetail **list;
    MountInfo *mounts;
    Volume *volumes;
    size_t n_mounts, n_volumes, n = 0;
    int r = store_volume_list(s, &volumes, &n_volumes, err);

    if (r < 0)
        return r;
    r = mount_list(&mounts, &n_mounts, err);
    if (r < 0) {
        volume_array_free(volumes, n_volumes);
        return r;
    }
    list = xnew_n(Modelcached__Control__VolumeDetail *, MAX(n_volumes, (size_t)1));
    for (size_t i = 0; i < n_volumes; i++) {
        const Volume *v = &volumes[i];
        Modelcached__Control__VolumeDetail *m;

        if (manifest && !digest_equal(manifest, &v->manifest) && !digest_equal(manifest, &v->whole))
            continue;
        m = list[n++] = CONTROL_NEW(VolumeDetail, volume_detail);
        m->volume_id = xstrdup(v->volume_id);
        m->target = xstrdup(v->target);
        m->reference = xstrdup(v->reference);
        m->digest = xstrdup(DIGEST_STR(&v->manifest));
        m->created_usec = v->created_usec;
        m->sub_path = xstrdup(v->sub_path);
        m->pod_namespace = xstrdup(v->pod_namespace);
        m->pod_name = xstrdup(v->pod_name);
        m->mounted = is_mounted(mounts, n_mounts, v->target);
    }
    mount_info_free(mounts, n_mounts);
    volume_array_free(volumes, n_volumes);
    *ret = list;
    *ret_n = n;
    return 0;
}
