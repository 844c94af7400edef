/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_inspect: cache-ctl inspect, all about one artifact. */
#include "base/parse.h"
#include "ctl/artifact.h"
#include "ctl/ctl.h"
#include "ctl/output.h"

static json_t *layers_json(const Modelcached__Control__InspectResponse *i) {
    json_t *layers = json_array();

    for (size_t k = 0; k < i->n_layers; k++) {
        const Modelcached__Control__LayerDetail *l = i->layers[k];
        (void)json_array_append_new(
            layers, json_pack("{s:o,s:o,s:o,s:I,s:o,s:b}", "digest", output_json_string(l->digest),
                              "media_type", output_json_string(l->media_type), "kind",
                              output_json_string(l->kind), "bytes", (json_int_t)l->bytes, "path",
                              output_json_string(l->path), "left_out", l->left_out));
    }
    return layers;
}

static json_t *file_json(const Modelcached__Control__FileDetail *f) {
    return json_pack("{s:o,s:o,s:o,s:I,s:b,s:o}", "path", output_json_string(f->path), "type",
                     output_json_string(f->type), "digest", output_json_string(f->digest), "bytes",
                     (json_int_t)f->bytes, "executable", f->executable, "target",
                     output_json_string(f->target));
}

/* One document, of which the list of files is not kept: it may have millions. */
static void begin_json(const Modelcached__Control__InspectResponse *i) {
    json_t *document = artifact_json(i->artifact), *manifest;

    (void)json_object_set_new(
        document, "volumes",
        volumes_json(i->volumes, i->n_volumes)); /* only memory can fail here */
    (void)json_object_set_new(document, "layers", layers_json(i));
    manifest = json_loads(i->manifest, 0, NULL);
    (void)json_object_set_new(document, "manifest", manifest ? manifest : json_null());
    output_json_begin(document, "tree");
}

static void show_head(const Modelcached__Control__Artifact *a) {
    _cleanup_free_ char *used = output_ago(a->used_usec), *created = output_ago(a->created_usec);
    _cleanup_free_ char *type =
        output_clean(isempty(a->artifact_type) ? a->media_type : a->artifact_type);

    for (size_t i = 0; i < a->n_references; i++) {
        _cleanup_free_ char *reference = output_clean(a->references[i]);
        printf("%s%s\n", i == 0 ? "reference  " : "           ", reference);
    }
    if (!isempty(a->subset_id))
        printf("subset     %s\ninclude    %s\nexclude    %s\n", a->subset_id,
               isempty(a->include) ? "(all)" : a->include,
               isempty(a->exclude) ? "(nothing)" : a->exclude);
    printf("digest     %s\nkind       %s (%s)%s%s\n", a->digest, a->family, type,
           isempty(a->platform) ? "" : " for ", a->platform);
    printf("size       %s in %llu files, %s of it its own\n", FORMAT_BYTES(a->bytes),
           (unsigned long long)a->files, FORMAT_BYTES(a->unique_bytes));
    printf("complete   %s\nused       %s\nvolumes    %u\n\n",
           a->incomplete ? "NO: content was lost or is damaged; cache-ctl pull repairs it"
                         : created,
           used, a->volumes);
}

static void show_layers(const Modelcached__Control__InspectResponse *i) {
    static const char *const columns[] = { "LAYER", "KIND", ">SIZE", "MEDIA TYPE", "PATH", NULL };
    OutputTable *t = output_table_new(columns);

    for (size_t k = 0; k < i->n_layers; k++) {
        const Modelcached__Control__LayerDetail *l = i->layers[k];
        char *cells[] = { output_digest(l->digest, false),
                          xasprintf("%s%s", l->kind, l->left_out ? ", left out" : ""),
                          xstrdup(FORMAT_BYTES(l->bytes)), xstrdup(l->media_type),
                          xstrdup(l->path) };
        output_table_row(t, cells);
    }
    output_table_print(t);
}

static void add_row(OutputTable *t, const Modelcached__Control__FileDetail *f) {
    bool link = streq(f->type, "symlink"), directory = streq(f->type, "directory");
    char *cells[] = { xasprintf("%s%s%s%s", f->path, directory ? "/" : "", link ? " -> " : "",
                                link ? f->target : ""),
                      xstrdup(link || directory ? "" : FORMAT_BYTES(f->bytes)),
                      output_digest(f->digest, false) };

    output_table_row(t, cells);
}

typedef struct InspectView {
    const Ctl *ctl;
    Modelcached__Control__InspectResponse *head; /* the first message */
    OutputTable *files;
    size_t n_files;
} InspectView;

static void take_files(InspectView *v, const Modelcached__Control__InspectResponse *i) {
    for (size_t k = 0; k < i->n_files; k++)
        if (v->ctl->json)
            output_json_item(file_json(i->files[k]), v->n_files++ == 0);
        else
            add_row(v->files, i->files[k]);
}

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    InspectView *v = arg;
    Modelcached__Control__InspectResponse *i = CTL_UNPACK(inspect_response, message, n);

    if (!i)
        return ctl_not_understood();
    if (!v->head && !i->artifact) {
        modelcached__control__inspect_response__free_unpacked(i, NULL);
        return ctl_not_understood();
    }
    if (!v->head && v->ctl->json)
        begin_json(i);
    take_files(v, i);
    if (v->head)
        modelcached__control__inspect_response__free_unpacked(i, NULL);
    else
        v->head = i;
    return CTL_EXIT_DONE;
}

static void show(InspectView *v) {
    if (v->ctl->json) {
        output_json_end(v->n_files == 0);
        return;
    }
    show_head(v->head->artifact);
    show_layers(v->head);
    printf("\n");
    output_table_print(TAKE_PTR(v->files));
    if (v->head->n_volumes > 0)
        printf("\n");
    volumes_table(v->head->volumes, v->head->n_volumes);
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    static const char *const columns[] = { "FILE", ">SIZE", "DIGEST", NULL };
    Modelcached__Control__InspectRequest request = MODELCACHED__CONTROL__INSPECT_REQUEST__INIT;
    InspectView view = { .ctl = ctl, .files = output_table_new(columns) };
    CtlCall call = { "Inspect", &request.base, on_message, NULL, NULL, &view };
    const char *platform = *(const char **)arg;
    CtlExit exit;

    (void)n;
    request.reference = arguments[0];
    request.platform = platform ? (char *)platform : request.platform;
    exit = ctl_call(ctl, &call);
    if (exit == CTL_EXIT_DONE && !view.head)
        exit = ctl_not_understood();
    if (exit == CTL_EXIT_DONE)
        show(&view);
    output_table_free(view.files);
    modelcached__control__inspect_response__free_unpacked(view.head, NULL);
    return exit;
}

static const char *inspect_platform;

const CtlCommand ctl_inspect = {
    .name = "inspect",
    .arguments = "REFERENCE|DIGEST",
    .summary = "all about one artifact",
    .help =
        "Shows an artifact of the cache: names, size, layers, files and the volumes that use "
        "it. DIGEST is\n"
        "\"sha256:…\" of the manifest, or its first digits as `cache-ctl ls` prints them, or the "
        "id of a subset.\n\n"
        "  cache-ctl inspect registry.example/team/llama:8b\n"
        "  cache-ctl inspect 4f1d2c3b9a00 --output json\n\n"
        "Options of inspect:\n"
        "      --platform OS/ARCH       of a name that stands for several (default: the node's)\n",
    .options = platform_options,
    .n_arguments_min = 1,
    .n_arguments_max = 1,
    .option = platform_option,
    .run = run,
    .arg = &inspect_platform,
};
