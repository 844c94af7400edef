/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_status: cache-ctl status, is the daemon well and what does it do. */
#include "base/parse.h"
#include "ctl/artifact.h"
#include "ctl/ctl.h"
#include "ctl/output.h"

static json_t *features_json(const Modelcached__Control__StatusResponse *s) {
    json_t *features = json_object();

    for (size_t i = 0; i < s->n_features; i++)
        (void)json_object_set_new(features, s->features[i]->name,
                                  json_pack("{s:b,s:o}", "active", s->features[i]->active, "detail",
                                            output_json_string(s->features[i]->detail)));
    return features;
}

static json_t *pulls_json(const Modelcached__Control__StatusResponse *s) {
    json_t *pulls = json_array();

    for (size_t i = 0; i < s->n_pulls; i++) {
        const Modelcached__Control__PullProgress *p = s->pulls[i];
        (void)json_array_append_new(
            pulls,
            json_pack("{s:o,s:s,s:o,s:o,s:I,s:I,s:I,s:o}", "id", output_json_string(p->id), "state",
                      pull_state_name(p->state), "reference", output_json_string(p->reference),
                      "digest", output_json_string(p->digest), "bytes_done",
                      (json_int_t)p->bytes_done, "bytes_total", (json_int_t)p->bytes_total, "rate",
                      (json_int_t)p->rate, "waiting", output_json_string(p->waiting)));
    }
    return pulls;
}

static json_t *registration_json(const Modelcached__Control__StatusResponse *s) {
    return json_pack("{s:o,s:o}", "state", output_json_string(s->registration), "detail",
                     output_json_string(s->registration_detail));
}

static json_t *metrics_json(const Modelcached__Control__StatusResponse *s) {
    return json_pack("{s:o,s:o}", "address", output_json_string(s->metrics_address), "trouble",
                     output_json_string(s->metrics_trouble));
}

static void show_json(const Modelcached__Control__StatusResponse *s) {
    json_t *document = json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "version",
        output_json_string(s->version), "node", output_json_string(s->node), "kernel",
        output_json_string(s->kernel), "started", output_json_time(s->started_usec), "store",
        output_json_string(s->store_path), "store_filesystem",
        output_json_string(s->store_filesystem), "store_bytes", (json_int_t)s->store_bytes,
        "filesystem_bytes", (json_int_t)s->filesystem_bytes, "filesystem_free_bytes",
        (json_int_t)s->filesystem_free_bytes, "artifacts", (json_int_t)s->artifacts,
        "artifacts_incomplete", (json_int_t)s->artifacts_incomplete, "objects",
        (json_int_t)s->objects, "partial_layers", (json_int_t)s->partial_layers, "partial_bytes",
        (json_int_t)s->partial_bytes, "volumes", (json_int_t)s->volumes);

    (void)json_object_set_new(document, "driver",
                              output_json_string(s->driver)); /* only memory can fail here */
    (void)json_object_set_new(document, "csi_endpoint", output_json_string(s->csi_endpoint));
    (void)json_object_set_new(document, "registration", registration_json(s));
    (void)json_object_set_new(document, "ready", json_boolean(s->ready));
    (void)json_object_set_new(document, "not_ready", output_json_string(s->not_ready));
    (void)json_object_set_new(document, "metrics", metrics_json(s));
    (void)json_object_set_new(document, "mount_shape", output_json_string(s->mount_shape));
    (void)json_object_set_new(document, "mount_detail", output_json_string(s->mount_detail));
    (void)json_object_set_new(document, "features", features_json(s));
    (void)json_object_set_new(document, "pulls", pulls_json(s));
    (void)json_object_set_new(document, "volume_list",
                              volumes_json(s->volume_list, s->n_volume_list));
    output_json(document, false);
}

static void show_features(const Modelcached__Control__StatusResponse *s) {
    for (size_t i = 0; i < s->n_features; i++) {
        _cleanup_free_ char *detail = output_clean(s->features[i]->detail);
        printf("  %-14s %s%s%s\n", s->features[i]->name, s->features[i]->active ? "yes" : "NO",
               isempty(detail) ? "" : ", ", detail);
    }
}

static void show_pulls(const Modelcached__Control__StatusResponse *s) {
    static const char *const columns[] = { "PULL", "ID",    "STATE",       ">DONE",
                                           ">OF",  ">RATE", "WAITING FOR", NULL };
    OutputTable *t;

    if (s->n_pulls == 0)
        return;
    t = output_table_new(columns);
    for (size_t i = 0; i < s->n_pulls; i++) {
        const Modelcached__Control__PullProgress *p = s->pulls[i];
        char *cells[] = { xstrdup(p->reference),
                          xstrdup(p->id),
                          xstrdup(pull_state_name(p->state)),
                          xstrdup(FORMAT_BYTES(p->bytes_done)),
                          xstrdup(p->bytes_total ? FORMAT_BYTES(p->bytes_total) : "?"),
                          xasprintf("%s/s", FORMAT_BYTES(p->rate)),
                          xstrdup(p->waiting) };
        output_table_row(t, cells);
    }
    printf("\n");
    output_table_print(t);
}

static const char *plural(unsigned n) {
    return n == 1 ? "" : "s";
}

static void show_partial(const Modelcached__Control__StatusResponse *s) {
    if (s->partial_layers > 0)
        printf("partial     %u layer%s of interrupted pulls, %s, for the next try\n",
               s->partial_layers, plural(s->partial_layers), FORMAT_BYTES(s->partial_bytes));
}

static void show_kubelet(const Modelcached__Control__StatusResponse *s) {
    _cleanup_free_ char *detail = output_clean(s->registration_detail);
    _cleanup_free_ char *reason = output_clean(s->not_ready);

    printf("kubelet     registration %s%s%s\n", s->registration, isempty(detail) ? "" : ": ",
           detail);
    if (!s->ready)
        printf("NOT READY   %s\n", reason);
}

static void show_metrics(const Modelcached__Control__StatusResponse *s) {
    _cleanup_free_ char *trouble = output_clean(s->metrics_trouble);

    if (isempty(s->metrics_address))
        printf("metrics     off\n");
    else
        printf("metrics     http://%s/metrics%s%s\n", s->metrics_address,
               isempty(trouble) ? "" : ": NO, ", trouble);
}

static void show_text(const Modelcached__Control__StatusResponse *s) {
    _cleanup_free_ char *started = output_ago(s->started_usec), *incomplete = NULL;

    if (s->artifacts_incomplete > 0)
        incomplete = xasprintf(" (%u incomplete)", s->artifacts_incomplete);
    printf("modelcached %s on %s (%s), started %s\n", s->version, s->node, s->kernel, started);
    printf("store       %s (%s): %s in %u file%s, %u artifact%s%s; %s of %s free\n", s->store_path,
           s->store_filesystem, FORMAT_BYTES(s->store_bytes), s->objects, plural(s->objects),
           s->artifacts, plural(s->artifacts), incomplete ? incomplete : "",
           FORMAT_BYTES(s->filesystem_free_bytes), FORMAT_BYTES(s->filesystem_bytes));
    show_partial(s);
    printf("csi         %s at %s, %u volume%s\n", s->driver, s->csi_endpoint, s->volumes,
           plural(s->volumes));
    show_kubelet(s);
    show_metrics(s);
    printf("mounts      %s, %s\n", s->mount_shape, s->mount_detail);
    printf("pull worker\n");
    show_features(s);
    show_pulls(s);
    if (s->n_volume_list > 0)
        printf("\n");
    volumes_table(s->volume_list, s->n_volume_list);
}

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    const Ctl *ctl = arg;
    Modelcached__Control__StatusResponse *s = CTL_UNPACK(status_response, message, n);

    if (!s)
        return ctl_not_understood();
    if (ctl->json)
        show_json(s);
    else
        show_text(s);
    modelcached__control__status_response__free_unpacked(s, NULL);
    return CTL_EXIT_DONE;
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    Modelcached__Control__StatusRequest request = MODELCACHED__CONTROL__STATUS_REQUEST__INIT;
    CtlCall call = { "Status", &request.base, on_message, NULL, NULL, (void *)ctl };

    (void)arg;
    (void)arguments;
    (void)n;
    return ctl_call(ctl, &call);
}

const CtlCommand ctl_status = {
    .name = "status",
    .arguments = "",
    .summary = "is the daemon well, and what is it doing",
    .help = "Shows the daemon, its store and what is kept there of interrupted pulls, whether the "
            "kubelet has registered it,\n"
            "where its metrics are, how it mounts, what confines its pull workers (a NO says what "
            "this kernel lacks), the\n"
            "pulls that run and the volumes that are published.\n\n"
            "  cache-ctl status\n"
            "  cache-ctl status --output json | jq .pulls\n",
    .run = run,
};
