/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_health: cache-ctl health, for probes: does the daemon answer, is it ready. */
#include "ctl/ctl.h"
#include "ctl/output.h"

enum { OPTION_READY = 1000 };

static const struct option options[] = {
    { "ready", no_argument, NULL, OPTION_READY },
    { NULL, 0, NULL, 0 },
};

typedef struct HealthView {
    const Ctl *ctl;
    bool ready; /* --ready: not being ready is a failure */
} HealthView;

static int take_option(void *arg, int val, const char *value) {
    (void)val;
    (void)value;
    ((HealthView *)arg)->ready = true;
    return 0;
}

static void show(const HealthView *v, const Modelcached__Control__HealthResponse *h) {
    _cleanup_free_ char *reason = output_clean(h->not_ready);

    if (v->ctl->json)
        output_json(json_pack("{s:b,s:o}", "ready", h->ready, "not_ready",
                              output_json_string(h->not_ready)),
                    false);
    else if (h->ready)
        printf("ready\n");
    else
        printf("not ready: %s\n", reason);
}

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    const HealthView *v = arg;
    Modelcached__Control__HealthResponse *h = CTL_UNPACK(health_response, message, n);
    bool failed;

    if (!h)
        return ctl_not_understood();
    show(v, h);
    failed = v->ready && !h->ready;
    modelcached__control__health_response__free_unpacked(h, NULL);
    return failed ? CTL_EXIT_FAILED : CTL_EXIT_DONE;
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    Modelcached__Control__HealthRequest request = MODELCACHED__CONTROL__HEALTH_REQUEST__INIT;
    HealthView *v = arg;
    CtlCall call = { "Health", &request.base, on_message, NULL, NULL, v };

    (void)arguments;
    (void)n;
    v->ctl = ctl;
    return ctl_call(ctl, &call);
}

static HealthView health_view;

const CtlCommand ctl_health = {
    .name = "health",
    .arguments = "",
    .summary = "does the daemon answer, and is it ready (for probes)",
    .help = "Asks whether the daemon is ready: volumes can be published, and the kubelet has "
            "registered the\n"
            "driver. It costs nearly nothing. Exit code 0: the daemon answers; with --ready: and "
            "is ready.\n\n"
            "  cache-ctl health\n"
            "  cache-ctl health --ready\n\n"
            "Options of health:\n"
            "      --ready                  exit code 1 when it is not ready\n",
    .options = options,
    .option = take_option,
    .run = run,
    .arg = &health_view,
};
