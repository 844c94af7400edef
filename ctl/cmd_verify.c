/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_verify: cache-ctl verify, reads what is stored and compares digests. */
#include "base/parse.h"
#include "ctl/output.h"
#include "ctl/progress.h"

typedef struct VerifyView {
    const Ctl *ctl;
    Progress progress;
    uint64_t objects, bytes;
} VerifyView;

static void show_json(const Modelcached__Control__VerifyProgress *p) {
    output_json(json_pack("{s:I,s:I,s:I,s:I,s:o}", "objects_done", (json_int_t)p->objects_done,
                          "objects_total", (json_int_t)p->objects_total, "bytes_done",
                          (json_int_t)p->bytes_done, "bytes_total", (json_int_t)p->bytes_total,
                          "bad", output_json_strings(p->bad, p->n_bad)),
                true);
}

static void show(VerifyView *v, const Modelcached__Control__VerifyProgress *p) {
    ProgressStep step = { "verifying", p->bytes_done, p->bytes_total, 0, NULL };

    for (size_t i = 0; i < p->n_bad; i++) {
        _cleanup_free_ char *bad = output_clean(p->bad[i]);
        progress_end(&v->progress);
        fprintf(stderr, "cache-ctl: %s\n", bad);
    }
    progress_show(&v->progress, &step);
}

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    VerifyView *v = arg;
    Modelcached__Control__VerifyProgress *p = CTL_UNPACK(verify_progress, message, n);

    if (!p)
        return ctl_not_understood();
    v->objects = p->objects_done;
    v->bytes = p->bytes_done;
    if (v->ctl->json)
        show_json(p);
    else
        show(v, p);
    modelcached__control__verify_progress__free_unpacked(p, NULL);
    return CTL_EXIT_DONE;
}

static void on_end(void *arg) {
    VerifyView *v = arg;

    progress_end(&v->progress);
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    Modelcached__Control__VerifyRequest request = MODELCACHED__CONTROL__VERIFY_REQUEST__INIT;
    VerifyView view = { .ctl = ctl, .progress = { .terminal = ctl->terminal, .last_decile = -1 } };
    CtlCall call = {
        "Verify", &request.base, on_message, on_end, "verification was stopped", &view
    };
    CtlExit exit;

    (void)arg;
    if (n == 1)
        request.reference = arguments[0];
    exit = ctl_call(ctl, &call);
    if (exit == CTL_EXIT_DONE && !ctl->json)
        printf("%llu files, %s: all are what their digests say\n", (unsigned long long)view.objects,
               FORMAT_BYTES(view.bytes));
    return exit;
}

const CtlCommand ctl_verify = {
    .name = "verify",
    .arguments = "[REFERENCE]",
    .summary = "read what is stored and compare digests",
    .help = "Reads every file of an artifact, or of the whole cache, and compares it with its "
            "digest. A file that is bad\n"
            "is taken out of the cache; the next pull brings it again. Exit code 7 when something "
            "was bad\n"
            "or an artifact lacks content.\n\n"
            "  cache-ctl verify\n"
            "  cache-ctl verify registry.example/team/llama:8b\n",
    .n_arguments_max = 1,
    .run = run,
};
