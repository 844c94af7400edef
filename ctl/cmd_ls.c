/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_ls: cache-ctl ls, what is in the cache. */
#include "base/parse.h"
#include "ctl/artifact.h"
#include "ctl/ctl.h"
#include "ctl/output.h"

typedef struct ListView {
    const Ctl *ctl;
    bool full;
} ListView;

static const char *const columns[] = { "REFERENCE", "DIGEST", "KIND",    "PLATFORM", ">SIZE",
                                       ">OWN",      ">FILES", "VOLUMES", "USED",     NULL };

static void add_row(OutputTable *t, const Modelcached__Control__Artifact *a, const char *reference,
                    bool full) {
    char *cells[] = { xstrdup(reference),
                      output_digest(a->digest, full),
                      xasprintf("%s%s%s", a->family, isempty(a->subset_id) ? "" : ", subset",
                                a->incomplete ? ", incomplete" : ""),
                      xstrdup(isempty(a->platform) ? "any" : a->platform),
                      xstrdup(FORMAT_BYTES(a->bytes)),
                      xstrdup(FORMAT_BYTES(a->unique_bytes)),
                      xasprintf("%llu", (unsigned long long)a->files),
                      xasprintf("%u", a->volumes),
                      output_ago(a->used_usec) };

    output_table_row(t, cells);
}

static void show_table(const Modelcached__Control__ListResponse *list, bool full) {
    OutputTable *t = output_table_new(columns);

    for (size_t i = 0; i < list->n_artifacts; i++) {
        const Modelcached__Control__Artifact *a = list->artifacts[i];
        for (size_t k = 0; k < a->n_references; k++)
            add_row(t, a, a->references[k], full);
        if (a->n_references == 0)
            add_row(t, a, "(no name)", full);
    }
    output_table_print(t);
}

static void show_json(const Modelcached__Control__ListResponse *list) {
    json_t *artifacts = json_array();

    for (size_t i = 0; i < list->n_artifacts; i++)
        (void)json_array_append_new(artifacts, artifact_json(list->artifacts[i]));
    output_json(json_pack("{s:o}", "artifacts", artifacts), false);
}

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    const ListView *v = arg;
    Modelcached__Control__ListResponse *list = CTL_UNPACK(list_response, message, n);

    if (!list)
        return ctl_not_understood();
    if (v->ctl->json)
        show_json(list);
    else
        show_table(list, v->full);
    modelcached__control__list_response__free_unpacked(list, NULL);
    return CTL_EXIT_DONE;
}

enum { OPTION_FULL = 1000 };

static const struct option options[] = {
    { "full", no_argument, NULL, OPTION_FULL },
    { NULL, 0, NULL, 0 },
};

static int take_option(void *arg, int val, const char *value) {
    (void)val; /* there is one option */
    (void)value;
    *(bool *)arg = true;
    return 0;
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    Modelcached__Control__ListRequest request = MODELCACHED__CONTROL__LIST_REQUEST__INIT;
    ListView view = { ctl, *(bool *)arg };
    CtlCall call = { "List", &request.base, on_message, NULL, NULL, &view };

    (void)arguments;
    (void)n;
    return ctl_call(ctl, &call);
}

static bool list_full;

const CtlCommand ctl_ls = {
    .name = "ls",
    .arguments = "",
    .summary = "what is in the cache",
    .help = "Lists the artifacts of the cache: SIZE is what a pod sees, OWN is what no other "
            "artifact shares and removing\n"
            "it would free. PLATFORM is what was taken from an index; \"any\": there was no "
            "choice. What "
            "is \"incomplete\" lost\n"
            "content or has it damaged: the next pull repairs it. A \"subset\" has only the "
            "files that patterns left\n"
            "when it was pulled: cache-ctl inspect shows them.\n\n"
            "  cache-ctl ls\n"
            "  cache-ctl ls --output json | jq -r '.artifacts[].digest'\n\n"
            "Options of ls:\n"
            "      --full                   whole digests\n",
    .options = options,
    .option = take_option,
    .run = run,
    .arg = &list_full,
};
