/* SPDX-License-Identifier: Apache-2.0 */
/* params: what a volume is to show, from volume_context (volumeAttributes). */
#include "csi/params.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/parse.h"

#define KUBELET_PREFIX "csi.storage.k8s.io/"
#define KNOWN \
    "reference (or image), pullPolicy, platform, subPath, include, exclude, timeout, warm, noexec"

/* The attributes as text, before they are understood. */
typedef enum Attribute {
    ATTRIBUTE_REFERENCE,
    ATTRIBUTE_IMAGE,
    ATTRIBUTE_PULL_POLICY,
    ATTRIBUTE_PLATFORM,
    ATTRIBUTE_SUB_PATH,
    ATTRIBUTE_INCLUDE,
    ATTRIBUTE_EXCLUDE,
    ATTRIBUTE_TIMEOUT,
    ATTRIBUTE_WARM,
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
    [ATTRIBUTE_INCLUDE] = "include",
    [ATTRIBUTE_EXCLUDE] = "exclude",
    [ATTRIBUTE_TIMEOUT] = "timeout",
    [ATTRIBUTE_WARM] = "warm",
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

/* Lists may have line ends, and check what they hold. */
static bool is_list(Attribute a) {
    return a == ATTRIBUTE_INCLUDE || a == ATTRIBUTE_EXCLUDE;
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
        if (!is_list(a) && !params_is_plain(context[i].value))
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

static int params_parse_timeout(Params *p, const char *text, Err *err) {
    uint64_t usec;

    if (isempty(text))
        return 0;
    if (parse_duration(text, &usec) < 0 || usec < USEC_PER_SEC || usec > PARAMS_TIMEOUT_MAX_USEC)
        return err_set(err, -EINVAL,
                       "timeout is \"%.32s\"; it is a time from 1s to 24h, as in 30s, 10m or 2h",
                       text);
    p->timeout_usec = usec;
    return 0;
}

/* Text is what YAML gives: "true", not yes or 1, which it would have changed. */
static int params_parse_bool(bool *ret, const char *key, const char *text, Err *err) {
    if (isempty(text))
        return 0;
    if (!streq(text, "true") && !streq(text, "false"))
        return err_set(err, -EINVAL, "%s is \"%.32s\"; it is \"true\" or \"false\"", key, text);
    *ret = streq(text, "true");
    return 0;
}

static int params_parse_rest(Params *p, const char *const *values, Err *err) {
    const char *sub_path = values[ATTRIBUTE_SUB_PATH];
    bool noexec = true;
    int r = params_parse_bool(&noexec, "noexec", values[ATTRIBUTE_NOEXEC], err);

    if (r >= 0)
        r = params_parse_bool(&p->warm, "warm", values[ATTRIBUTE_WARM], err);
    if (r < 0)
        return r;
    if (!isempty(sub_path) && !path_is_safe_relative(sub_path))
        return err_set(err, -EINVAL,
                       "subPath \"%.128s\" must be relative, without \"..\", \".\", double and "
                       "trailing slashes",
                       sub_path);
    if (!isempty(sub_path))
        p->sub_path = xstrdup(sub_path);
    p->exec = !noexec;
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
        r = filter_parse(&p.filter, values[ATTRIBUTE_INCLUDE], values[ATTRIBUTE_EXCLUDE], err);
    if (r >= 0)
        r = params_parse_timeout(&p, values[ATTRIBUTE_TIMEOUT], err);
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
    (void)filter_free(p->filter);
    free(p->sub_path);
    free(p->pod_namespace);
    free(p->pod_name);
    free(p->pod_uid);
    *p = (Params){ 0 };
}

char *params_text(const Params *p) {
    _cleanup_free_ char *reference = reference_text(p->reference);
    _cleanup_free_ char *filter = filter_text(p->filter);

    return xasprintf("reference=%s\nplatform=%s\npolicy=%d\nsubPath=%s\nexec=%d\n%s%s", reference,
                     p->platform ? p->platform : "", (int)p->policy, p->sub_path ? p->sub_path : "",
                     p->exec, filter, *filter ? "\n" : "");
}
