/* SPDX-License-Identifier: Apache-2.0 */
/* cmd_events: cache-ctl events, what happened on this node. */
#include "base/parse.h"
#include "ctl/ctl.h"
#include "ctl/output.h"

#include <time.h>

enum { OPTION_FOLLOW = 1000, OPTION_LAST, OPTION_PULL, OPTION_POD };

static const struct option options[] = {
    { "follow", no_argument, NULL, OPTION_FOLLOW },
    { "last", required_argument, NULL, OPTION_LAST },
    { "pull", required_argument, NULL, OPTION_PULL },
    { "pod", required_argument, NULL, OPTION_POD },
    { NULL, 0, NULL, 0 },
};

typedef struct EventsArguments {
    bool follow;
    uint32_t last;
    const char *pull, *pod_name; /* NULL: any */
    char *pod_namespace;         /* the same; kept until the end of the program */
} EventsArguments;

/* "NAMESPACE/NAME" or "NAME" */
static void take_pod(EventsArguments *a, const char *value) {
    const char *slash = strchr(value, '/');

    a->pod_name = slash ? slash + 1 : value;
    free(a->pod_namespace);
    a->pod_namespace = slash ? xstrndup(value, (size_t)(slash - value)) : NULL;
}

static int take_option(void *arg, int val, const char *value) {
    EventsArguments *a = arg;
    uint64_t n;

    if (val == OPTION_FOLLOW)
        a->follow = true;
    if (val == OPTION_PULL)
        a->pull = value;
    if (val == OPTION_POD)
        take_pod(a, value);
    if (val != OPTION_LAST)
        return 0;
    if (parse_u64(value, &n) < 0 || n < 1 || n > 10000) {
        fprintf(stderr, "cache-ctl events: --last is a number from 1 to 10000, not %s\n", value);
        return CTL_EXIT_USAGE;
    }
    a->last = (uint32_t)n;
    return 0;
}

static void show_text(const Modelcached__Control__Event *e) {
    _cleanup_free_ char *type = output_clean(e->type), *text = output_clean(e->text);
    _cleanup_free_ char *pull = output_clean(isempty(e->pull) ? "-" : e->pull);
    time_t seconds = (time_t)(e->time_usec / (int64_t)USEC_PER_SEC);
    char when[32] = "";
    struct tm tm;

    if (localtime_r(&seconds, &tm))
        (void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    printf("%s  %-18s  %-16s  %s\n", when, type, pull, text);
    (void)fflush(stdout); /* main() looks at it at the end */
}

static void show_json(const Modelcached__Control__Event *e) {
    output_json(
        json_pack("{s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "id", (json_int_t)e->id, "time",
                  output_json_time(e->time_usec), "type", output_json_string(e->type), "reference",
                  output_json_string(e->reference), "digest", output_json_string(e->digest),
                  "volume_id", output_json_string(e->volume_id), "pull",
                  output_json_string(e->pull), "namespace", output_json_string(e->pod_namespace),
                  "pod", output_json_string(e->pod_name), "text", output_json_string(e->text)),
        true);
}

static CtlExit on_message(void *arg, const uint8_t *message, size_t n) {
    const Ctl *ctl = arg;
    Modelcached__Control__Event *e = CTL_UNPACK(event, message, n);

    if (!e)
        return ctl_not_understood();
    if (ctl->json)
        show_json(e);
    else
        show_text(e);
    modelcached__control__event__free_unpacked(e, NULL);
    return CTL_EXIT_DONE;
}

static CtlExit run(const Ctl *ctl, void *arg, char **arguments, int n) {
    const EventsArguments *a = arg;
    Modelcached__Control__EventsRequest request = MODELCACHED__CONTROL__EVENTS_REQUEST__INIT;
    CtlCall call = { "Events", &request.base, on_message, NULL, NULL, (void *)ctl };

    (void)arguments;
    (void)n;
    request.follow = a->follow;
    request.last = a->last;
    request.pull = (char *)(a->pull ? a->pull : "");
    request.pod_name = (char *)(a->pod_name ? a->pod_name : "");
    request.pod_namespace = a->pod_namespace ? a->pod_namespace : (char *)"";
    return ctl_call(ctl, &call);
}

static EventsArguments events_arguments;

const CtlCommand ctl_events = {
    .name = "events",
    .arguments = "",
    .summary = "what happened on this node",
    .help = "Shows the history of pulls, volumes and removals, oldest first; it outlives restarts "
            "of the daemon.\n"
            "The third column is the id of the pull: the lines of the log about it"
            " have it as well, those of the pull worker too.\n\n"
            "  cache-ctl events --last 20\n"
            "  cache-ctl events --pod prod/llama-0\n"
            "  cache-ctl events --pull 5f0c2a9e81d4b376\n"
            "  cache-ctl events --follow --output json\n\n"
            "Options of events:\n"
            "      --follow                 go on with what happens from now on\n"
            "      --last N                 how many old ones first (default 50)\n"
            "      --pull ID                only those of this pull\n"
            "      --pod [NAMESPACE/]NAME   only those of this pod's volumes\n",
    .options = options,
    .option = take_option,
    .run = run,
    .arg = &events_arguments,
};
