/* SPDX-License-Identifier: Apache-2.0 */
/* params: what a volume is to show, from volume_context (volumeAttributes). */
#include "csi/params.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"

#define KUBELET_PREFIX "csi.storage.k8s.io/"
#define KNOWN          "reference (or image), pullPolicy, platform, subPath, noexec"

/* The attributes as text, before they are understood. */
typedef enum Attribute {
    ATTRIBUTE_REFERENCE,
    ATTRIBUTE_IMAGE,
    ATTRIBUTE_PULL_POLICY,
    ATTRIBUTE_PLATFORM,
    ATTRIBUTE_SUB_PATH,
    ATTRIBUTE_NOEXEC,
    ATTRIBUTE_POD_NAMESPACE,
    ATTRIBUTE_POD_NAME,
    ATTRIBUTE_POD_UID,
    ATTRIBUTE_COUNT,
} Attribute;

static const char *const attribute_keys[ATTRIBUTE_COUNT] = {
    [ATTRIBUTE_REFERENCE] = "reference",
    [ATTRIBUTE_IMAGE] = "image",
    [ATTRIBUTE_PULL_POLICY] = "pullPolicy",
    [ATTRIBUTE_PLATFORM] = "platform",
    [ATTRIBUTE_SUB_PATH] = "subPath",
    [ATTRIBUTE_NOEXEC] = "noexec",
    [ATTRIBUTE_POD_NAMESPACE] = KUBELET_PREFIX "pod.namespace",
    [ATTRIBUTE_POD_NAME] = KUBELET_PREFIX "pod.name",
    [ATTRIBUTE_POD_UID] = KUBELET_PREFIX "pod.uid",
};

bool params_is_plain(const char *text) {
    _cleanup_json_ json_t *checked = json_string(text); /* NULL when it is not UTF-8 */

    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return checked;
}

/* Sorts the entries by their keys. */
static int attributes_collect(const char *values[static ATTRIBUTE_COUNT], const KeyValue *context,
                              size_t n, Err *err) {
    for (size_t i = 0; i < n; i++) {
        const char *key = context[i].key;
        Attribute a = 0;

        while (a < ATTRIBUTE_COUNT && !streq(key, attribute_keys[a]))
            a++;
        if (a == ATTRIBUTE_COUNT) {
            if (startswith(key, KUBELET_PREFIX))
                continue;
            return err_set(err, -EINVAL,
                           "the volume attribute \"%.64s\" is not known; known are " KNOWN,
                           params_is_plain(key) ? key : "?");
        }
        if (values[a])
            return err_set(err, -EINVAL, "the volume attribute %s is given twice", key);
        if (!params_is_plain(context[i].value))
            return err_set(err, -EINVAL,
                           "the volume attribute %s has a control character or is not UTF-8", key);
        values[a] = context[i].value;
    }
    return 0;
}

static int params_parse_reference(Params *p, const char *reference, const char *image, Err *err) {
    int r;

    if (isempty(reference) && isempty(image))
        return err_set(err, -EINVAL,
                       "the volume attribute reference is missing; give the artifact, as in "
                       "reference: registry.example/team/model:v1");
    if (!isempty(reference) && !isempty(image) && !streq(reference, image))
        return err_set(err, -EINVAL,
                       "the volume attributes reference and image (an alias) differ; give one");
    r = reference_parse(&p->reference, isempty(reference) ? image : reference, err);
    return r < 0 ? err_prefix(err, r, "volume attribute reference") : 0;
}

static int params_parse_platform(Params *p, const char *text, Err *err) {
    Platform platform;
    char canonical[PLATFORM_TEXT_MAX];
    int r;

    if (isempty(text))
        return 0;
    r = platform_parse(&platform, text, err);
    if (r < 0)
        return err_prefix(err, r, "volume attribute platform");
    p->platform = xstrdup(platform_text(canonical, &platform));
    return 0;
}

static int params_parse_rest(Params *p, const char *const *values, Err *err) {
    const char *sub_path = values[ATTRIBUTE_SUB_PATH], *noexec = values[ATTRIBUTE_NOEXEC];

    if (!isempty(sub_path) && !path_is_safe_relative(sub_path))
        return err_set(err, -EINVAL,
                       "subPath \"%.128s\" must be relative, without \"..\", \".\", double and "
                       "trailing slashes",
                       sub_path);
    if (!isempty(sub_path))
        p->sub_path = xstrdup(sub_path);
    if (!isempty(noexec) && !streq(noexec, "true") && !streq(noexec, "false"))
        return err_set(err, -EINVAL, "noexec is \"%.32s\"; it is \"true\" or \"false\"", noexec);
    p->exec = noexec && streq(noexec, "false");
    return 0;
}

/* Whose volume it is, for the log and the history alone. */
static int params_parse_pod(Params *p, const char *const *values, Err *err) {
    static const Attribute names[] = { ATTRIBUTE_POD_NAMESPACE, ATTRIBUTE_POD_NAME,
                                       ATTRIBUTE_POD_UID };
    char **fields[ELEMENTSOF(names)] = { &p->pod_namespace, &p->pod_name, &p->pod_uid };

    for (size_t i = 0; i < ELEMENTSOF(names); i++) {
        const char *value = values[names[i]];

        if (value && strlen(value) > LIMIT_POD_NAME_BYTES)
            return err_set(err, -EINVAL, "the volume attribute %s has more than %d bytes",
                           attribute_keys[names[i]], LIMIT_POD_NAME_BYTES);
        *fields[i] = xstrdup(value);
    }
    return 0;
}

int params_parse(Params *ret, const KeyValue *context, size_t n, Err *err) {
    _cleanup_(params_done) Params p = { 0 };
    const char *values[ATTRIBUTE_COUNT] = { 0 };
    int r;

    r = attributes_collect(values, context, n, err);
    if (r >= 0)
        r = params_parse_reference(&p, values[ATTRIBUTE_REFERENCE], values[ATTRIBUTE_IMAGE], err);
    if (r >= 0)
        r = pull_policy_parse(&p.policy, values[ATTRIBUTE_PULL_POLICY], err);
    if (r >= 0)
        r = params_parse_platform(&p, values[ATTRIBUTE_PLATFORM], err);
    if (r >= 0)
        r = params_parse_rest(&p, values, err);
    if (r >= 0)
        r = params_parse_pod(&p, values, err);
    if (r < 0)
        return r;
    *ret = p;
    p = (Params){ 0 };
    return 0;
}

void params_done(Params *p) {
    (void)reference_free(p->reference);
    free(p->platform);
    free(p->sub_path);
    free(p->pod_namespace);
    free(p->pod_name);
    free(p->pod_uid);
    *p = (Params){ 0 };
}

char *params_text(const Params *p) {
    _cleanup_free_ char *reference = reference_text(p->reference);

    return xasprintf("reference=%s\nplatform=%s\npolicy=%d\nsubPath=%s\nexec=%d\n", reference,
                     p->platform ? p->platform : "", (int)p->policy, p->sub_path ? p->sub_path : "",
                     p->exec);
}
