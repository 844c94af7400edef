/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_prune: cache-ctl prune, drops what interrupted pulls left. */
#include "base/parse.h"
#include "ctl/ctl.h"
#include "ctl/output.h"

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    const Ctl *ctl = arg;
    Modelcached__Control__PruneResponse *m = CTL_UNPACK(prune_response, message, n);

    if (!m)
        return ctl_not_understood();
    if (ctl->json)
        output_json(json_pack("{s:I}", "bytes_freed", (json_int_t)m->bytes_freed), false);
    else
        printf("dropped what interrupted pulls had left, %s freed\n", FORMAT_BYTES(m->bytes_freed));
    modelcached__control__prune_response__free_unpacked(m, NULL);
    return CTL_EXIT_DONE;
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    Modelcached__Control__PruneRequest request = MODELCACHED__CONTROL__PRUNE_REQUEST__INIT;
    CtlCall call = { "Prune", &request.base, on_message, NULL, NULL, (void *)ctl };

    (void)arg;
    (void)arguments;
    (void)n;
    return ctl_call(ctl, &call);
}

const CtlCommand ctl_prune = {
    .name = "prune",
    .arguments = "",
    .summary = "drop what interrupted pulls left for the next try",
    .help = "Drops what only serves another try of a pull: layers that came in part, as status "
            "counts them, and those\n"
            "that came whole before their pull ended early. The next pull fetches them again. What "
            "artifacts, volumes\n"
            "and running pulls use stays. When space runs out the daemon does this by itself.\n\n"
            "  cache-ctl prune\n",
    .run = run,
};
