/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_rm: cache-ctl rm, takes an artifact out of the cache. */
#include "base/parse.h"
#include "ctl/artifact.h"
#include "ctl/ctl.h"
#include "ctl/output.h"

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    const Ctl *ctl = arg;
    Modelcached__Control__RemoveResponse *m = CTL_UNPACK(remove_response, message, n);

    if (!m)
        return ctl_not_understood();
    if (ctl->json)
        output_json(json_pack("{s:o,s:I}", "digest", output_json_string(m->digest), "bytes_freed",
                              (json_int_t)m->bytes_freed),
                    false);
    else
        printf("removed %s, %s freed\n", m->digest, FORMAT_BYTES(m->bytes_freed));
    modelcached__control__remove_response__free_unpacked(m, NULL);
    return CTL_EXIT_DONE;
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    Modelcached__Control__RemoveRequest request = MODELCACHED__CONTROL__REMOVE_REQUEST__INIT;
    CtlCall call = { "Remove", &request.base, on_message, NULL, NULL, (void *)ctl };

    const char *platform = *(const char **)arg;

    (void)n;
    request.reference = arguments[0];
    request.platform = platform ? (char *)platform : request.platform;
    return ctl_call(ctl, &call);
}

static const char *remove_platform;

const CtlCommand ctl_rm = {
    .name = "rm",
    .arguments = "REFERENCE|DIGEST",
    .summary = "take an artifact out of the cache",
    .help = "Removes a name, and with its last name the artifact and what no other artifact "
            "shares. An artifact that a\n"
            "volume uses is refused: unpublish the volume (delete the pod) first.\n\n"
            "  cache-ctl rm registry.example/team/llama:8b\n\n"
            "Options of rm:\n"
            "      --platform OS/ARCH       the name for this platform only (default: for all)\n",
    .options = platform_options,
    .n_arguments_min = 1,
    .n_arguments_max = 1,
    .option = platform_option,
    .run = run,
    .arg = &remove_platform,
};
