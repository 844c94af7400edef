/* SPDX-License-Identifier: Apache-2.0 */
/* report: what is said and counted of pulls. */
#include "agent/report.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/parse.h"
#include "proto/status.h"

static void say(const Report *r, const char *type, const Flight *pull, const Asker *asker,
                const char *text) {
    FlightView v;
    char digest[DIGEST_TEXT_MAX] = "";
    StoreEvent e = {
        .type = (char *)type,
        .text = (char *)text,
        .volume_id = (char *)asker->volume_id,
        .pod_namespace = (char *)asker->pod_namespace,
        .pod_name = (char *)asker->pod_name,
    };

    flight_view(pull, &v);
    e.pull = (char *)v.id;
    e.reference = (char *)v.reference;
    if (v.digest)
        e.digest = (char *)digest_text(digest, v.digest);
    if (r->on_event)
        r->on_event(r->arg, &e);
}

void report_started(const Report *r, const Flight *pull, const Asker *cause) {
    char text[LIMIT_REFERENCE_BYTES + 64];
    FlightView v;

    flight_view(pull, &v);
    (void)snprintf(text, sizeof(text), "pulling %s", v.reference);
    say(r, "pull.started", pull, cause, text);
}

void report_joined(const Report *r, const Flight *pull, const Asker *asker) {
    char text[LIMIT_REFERENCE_BYTES + 2 * LIMIT_POD_NAME_BYTES + 64],
        pod[sizeof(text)] = "a volume";
    FlightView v;

    flight_view(pull, &v);
    if (asker->pod_name)
        (void)snprintf(pod, sizeof(pod), "pod %s/%s",
                       asker->pod_namespace ? asker->pod_namespace : "?", asker->pod_name);
    (void)snprintf(text, sizeof(text), "%.*s waits for the pull of %s",
                   2 * LIMIT_POD_NAME_BYTES + 8, pod, v.reference);
    say(r, "pull.joined", pull, asker, text);
}

static void count_space(const Report *r, const Flight *pull) {
    metrics_add(r->metrics, METRIC_REMOVED_BYTES, METRIC_LABEL(METRIC_FOR_SPACE),
                flight_freed(pull).bytes);
}

void report_retry(const Report *r, const Flight *pull, const Asker *cause) {
    FlightView v;

    flight_view(pull, &v);
    count_space(r, pull);
    log_write(LOG_INFO,
              LOG_FIELDS({ "pull", v.id }, { "reference", v.reference },
                         { "volume", cause->volume_id }, { "pod", cause->pod_name },
                         { "namespace", cause->pod_namespace }),
              "pull %s: no space; dropped what nothing uses, %s or more, trying again", v.reference,
              FORMAT_BYTES(flight_freed(pull).bytes));
}

static void count_done(Metrics *m, const FlightView *v) {
    const struct {
        MetricSource source;
        uint64_t bytes;
    } sources[] = {
        { METRIC_STORE, v->bytes_cached - v->bytes_shared },
        { METRIC_SHARED, v->bytes_shared },
        { METRIC_RESUMED, v->bytes_resumed },
    };

    for (size_t i = 0; i < ELEMENTSOF(sources); i++)
        metrics_add(m, METRIC_PULL_BYTES, METRIC_LABEL(sources[i].source), sources[i].bytes);
    if (v->bytes_total > 0) /* else the registry was only asked */
        metrics_observe(m, METRIC_PULL_DURATION, METRIC_NO_LABEL, v->elapsed_usec);
}

static void count_end(const Report *r, const Flight *pull, const FlightView *v, int result) {
    const GrpcCode code = result < 0 ? status_from_errno(result) : GRPC_OK;

    count_space(r, pull);
    metrics_add(r->metrics, METRIC_PULLS, METRIC_LABEL(code), 1);
    if (result >= 0)
        count_done(r->metrics, v);
    else if (code == GRPC_DATA_LOSS)
        metrics_add(r->metrics, METRIC_VERIFY_FAILURES, METRIC_LABEL(METRIC_IN_PULL), 1);
}

void report_ended(const Report *r, const Flight *pull, const Asker *cause, int result,
                  const Err *err) {
    char text[sizeof(err->text) + 128];
    FlightView v;

    flight_view(pull, &v);
    count_end(r, pull, &v, result);
    if (result < 0)
        (void)snprintf(text, sizeof(text), "%s", err_text(err, result));
    else if (v.bytes_total == 0)
        (void)snprintf(text, sizeof(text), "%s is up to date", v.reference);
    else
        (void)snprintf(text, sizeof(text), "pulled %s: %s fetched, %s were here, in %s",
                       v.reference, FORMAT_BYTES(v.bytes_total - v.bytes_resumed),
                       FORMAT_BYTES(v.bytes_cached + v.bytes_resumed),
                       FORMAT_DURATION(v.elapsed_usec));
    say(r, result < 0 ? "pull.failed" : "pull.done", pull, cause, text);
}
