/* SPDX-License-Identifier: Apache-2.0 */
/* artifact: what several commands share: messages as JSON, the option --platform. */
#include "ctl/artifact.h"

#include "ctl/output.h"

static json_t *subset_json(const Modelcached__Control__Artifact *a) {
    return isempty(a->subset_id)
               ? json_null()
               : json_pack("{s:o,s:o,s:o}", "id", output_json_string(a->subset_id), "include",
                           output_json_string(a->include), "exclude",
                           output_json_string(a->exclude));
}

json_t *artifact_json(const Modelcached__Control__Artifact *a) {
    return json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:o,s:o,s:I,s:b,s:o}", "references",
        output_json_strings(a->references, a->n_references), "digest",
        output_json_string(a->digest), "family", output_json_string(a->family), "media_type",
        output_json_string(a->media_type), "artifact_type", output_json_string(a->artifact_type),
        "platform", output_json_string(a->platform), "bytes", (json_int_t)a->bytes, "unique_bytes",
        (json_int_t)a->unique_bytes, "files", (json_int_t)a->files, "created",
        output_json_time(a->created_usec), "used", output_json_time(a->used_usec), "volumes",
        (json_int_t)a->volumes, "complete", !a->incomplete, "subset", subset_json(a));
}

const char *pull_state_name(Modelcached__Control__PullState state) {
    static const char *const states[] = { "queued", "resolving", "fetching", "committing", "done" };

    return (size_t)state < ELEMENTSOF(states) ? states[state] : "unknown";
}

json_t *volumes_json(Modelcached__Control__VolumeDetail *const *volumes, size_t n) {
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++) {
        const Modelcached__Control__VolumeDetail *v = volumes[i];
        (void)json_array_append_new(
            array,
            json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:b}", "volume_id",
                      output_json_string(v->volume_id), "namespace",
                      output_json_string(v->pod_namespace), "pod", output_json_string(v->pod_name),
                      "target", output_json_string(v->target), "reference",
                      output_json_string(v->reference), "digest", output_json_string(v->digest),
                      "sub_path", output_json_string(v->sub_path), "created",
                      output_json_time(v->created_usec), "mounted", v->mounted));
    }
    return array;
}

static char *pod_text(const Modelcached__Control__VolumeDetail *v) {
    return isempty(v->pod_name)
               ? xstrdup("-")
               : xasprintf("%s/%s", isempty(v->pod_namespace) ? "?" : v->pod_namespace,
                           v->pod_name);
}

void volumes_table(Modelcached__Control__VolumeDetail *const *volumes, size_t n) {
    static const char *const columns[] = { "VOLUME", "POD",    "REFERENCE", "MOUNTED",
                                           "SINCE",  "TARGET", NULL };
    OutputTable *t;

    if (n == 0)
        return;
    t = output_table_new(columns);
    for (size_t i = 0; i < n; i++) {
        const Modelcached__Control__VolumeDetail *v = volumes[i];
        char *cells[] = { xstrdup(v->volume_id),       pod_text(v),
                          xstrdup(v->reference),       xstrdup(v->mounted ? "yes" : "NO"),
                          output_ago(v->created_usec), xstrdup(v->target) };
        output_table_row(t, cells);
    }
    output_table_print(t);
}

const struct option platform_options[] = {
    { "platform", required_argument, NULL, 1000 },
    { NULL, 0, NULL, 0 },
};

int platform_option(void *arg, int val, const char *value) {
    (void)val; /* there is one option */
    *(const char **)arg = value;
    return 0;
}
