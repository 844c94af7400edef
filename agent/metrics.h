/* SPDX-License-Identifier: Apache-2.0 */
/* metrics: what the daemon counts, from one table: names, help, the text for Prometheus, and the
 * table of docs/metrics.md. */
#pragma once

#include "base/macro.h"

/* A name ends with its unit, a counter's with _total, as Prometheus' and OpenMetrics' conventions
 * ask.  No label holds a reference, a host, a pod or anything else that somebody outside can make
 * more of: the number of series is fixed.
 *
 * M(ID, TYPE, VALUE, LABEL, LABEL, name, help); VALUE: COUNT numbers and bytes; TIME microseconds,
 * shown as seconds; SHORT and LONG the same, in buckets. */
#define METRICS(M)                                                                                 \
    M(BUILD_INFO, GAUGE, COUNT, VERSION, NONE, "modelcached_build_info", "Always 1.")              \
    M(START_TIME, GAUGE, TIME, NONE, NONE, "process_start_time_seconds",                           \
      "When the daemon started, since the epoch.")                                                 \
    M(CPU, COUNTER, TIME, NONE, NONE, "process_cpu_seconds_total",                                 \
      "CPU time of the daemon, without its pull workers.")                                         \
    M(RESIDENT, GAUGE, COUNT, NONE, NONE, "process_resident_memory_bytes",                         \
      "Memory of the daemon, without its pull workers.")                                           \
    M(OPEN_FDS, GAUGE, COUNT, NONE, NONE, "process_open_fds", "Open file descriptors.")            \
    M(MAX_FDS, GAUGE, COUNT, NONE, NONE, "process_max_fds", "How many may be open.")               \
    M(REGISTERED, GAUGE, COUNT, NONE, NONE, "modelcached_kubelet_registered",                      \
      "1 when the kubelet has registered the driver, or registration is off.")                     \
    M(CSI_REQUESTS, COUNTER, COUNT, METHOD, CODE, "modelcached_csi_requests_total",                \
      "Calls of the kubelet that have ended. ABORTED: the pull goes on, and the kubelet asks "     \
      "again.")                                                                                    \
    M(PUBLISH_DURATION, HISTOGRAM, SHORT, ORIGIN, NONE,                                            \
      "modelcached_volume_publish_duration_seconds",                                               \
      "Volumes that were mounted, from the call to the mount. store: the artifact was there; "     \
      "pull: a pull was waited for (by the kubelet's last call).")                                 \
    M(VOLUMES, GAUGE, COUNT, NONE, NONE, "modelcached_volumes", "Volumes that are published.")     \
    M(ARTIFACT_REQUESTS, COUNTER, COUNT, OUTCOME, NONE, "modelcached_artifact_requests_total",     \
      "Requests of volumes and of cache-ctl for an artifact. hit: it was in the store; pull: a "   \
      "pull began, perhaps only to ask the registry about these credentials; joined: one was "     \
      "under way; failed: neither.")                                                               \
    M(PULLS_RUNNING, GAUGE, COUNT, STATE, NONE, "modelcached_pulls_in_progress",                   \
      "Pulls that wait for their turn (queued) or run.")                                           \
    M(PULL_BUFFERS, GAUGE, COUNT, NONE, NONE, "modelcached_pull_buffers_bytes",                    \
      "Memory that pulls may have in use now for what they receive, of pull.memory_total.")        \
    M(PULLS, COUNTER, COUNT, CODE, NONE, "modelcached_pulls_total",                                \
      "Pulls that have ended. DATA_LOSS: content was not what its digest says.")                   \
    M(PULL_QUEUE, HISTOGRAM, LONG, NONE, NONE, "modelcached_pull_queue_duration_seconds",          \
      "How long pulls waited for their turn.")                                                     \
    M(PULL_DURATION, HISTOGRAM, LONG, NONE, NONE, "modelcached_pull_duration_seconds",             \
      "Pulls that succeeded and brought something, from their turn to the end.")                   \
    M(PULL_BYTES, COUNTER, COUNT, SOURCE, NONE, "modelcached_pull_bytes_total",                    \
      "Bytes of layers that pulls needed, by where they came from. registry: downloaded, counted " \
      "as they come. The others are downloads saved, counted when a pull succeeds; store: the "    \
      "layer was there; shared: another pull brought it; resumed: left by an earlier try.")        \
    M(DEDUPLICATED, COUNTER, COUNT, NONE, NONE, "modelcached_store_deduplicated_bytes_total",      \
      "Bytes of files that came in new layers, and that the store had already: disk saved.")       \
    M(VERIFY_FAILURES, COUNTER, COUNT, PLACE, NONE, "modelcached_verify_failures_total",           \
      "Content that is not what its digest says. pull: a pull failed by it; store: cache-ctl "     \
      "verify found a damaged file or an incomplete artifact.")                                    \
    M(WORKERS, COUNTER, COUNT, NONE, NONE, "modelcached_pull_workers_started_total",               \
      "Processes that got a pull or a check to do.")                                               \
    M(WORKER_FAILURES, COUNTER, COUNT, REASON, NONE, "modelcached_pull_worker_failures_total",     \
      "Pull workers that did not end as they should. crashed: by a signal (perhaps for want of "   \
      "memory) or with an exit code; silent: killed after a minute without a sign of life; "       \
      "protocol: killed because they broke it.")                                                   \
    M(STORE_BYTES, GAUGE, COUNT, NONE, NONE, "modelcached_store_bytes", "Bytes of stored files.")  \
    M(STORE_OBJECTS, GAUGE, COUNT, NONE, NONE, "modelcached_store_objects", "Stored files.")       \
    M(ARTIFACTS, GAUGE, COUNT, COMPLETE, NONE, "modelcached_store_artifacts",                      \
      "Artifacts in the store. incomplete: content was lost or damaged; a pull repairs them.")     \
    M(PARTIAL_LAYERS, GAUGE, COUNT, NONE, NONE, "modelcached_store_partial_layers",                \
      "Layers that interrupted pulls had in part, kept for the next try.")                         \
    M(PARTIAL_BYTES, GAUGE, COUNT, NONE, NONE, "modelcached_store_partial_bytes",                  \
      "What these take on disk.")                                                                  \
    M(FS_BYTES, GAUGE, COUNT, NONE, NONE, "modelcached_store_filesystem_bytes",                    \
      "Size of the store's file system.")                                                          \
    M(FS_FREE_BYTES, GAUGE, COUNT, NONE, NONE, "modelcached_store_filesystem_free_bytes",          \
      "What is free there.")                                                                       \
    M(REMOVED_BYTES, COUNTER, COUNT, CAUSE, NONE, "modelcached_store_removed_bytes_total",         \
      "Bytes that went out of the store. request: cache-ctl rm and prune; space: unused content "  \
      "that gave way to a pull.")

typedef enum MetricId {
#define METRIC_AS_ID(id, ...) METRIC_##id,
    METRICS(METRIC_AS_ID)
#undef METRIC_AS_ID
        METRIC_COUNT,
} MetricId;

/* Values of labels; a code is a GrpcCode, a method a number of csi_method_name(), a state a
 * FlightState. */
typedef enum MetricOrigin { METRIC_FROM_STORE, METRIC_FROM_PULL } MetricOrigin;
typedef enum MetricOutcome { METRIC_HIT, METRIC_PULL, METRIC_JOINED, METRIC_FAILED } MetricOutcome;
typedef enum MetricSource {
    METRIC_REGISTRY,
    METRIC_STORE,
    METRIC_SHARED,
    METRIC_RESUMED,
} MetricSource;
typedef enum MetricPlace { METRIC_IN_PULL, METRIC_IN_STORE } MetricPlace;
typedef enum MetricReason { METRIC_CRASHED, METRIC_SILENT, METRIC_PROTOCOL } MetricReason;
typedef enum MetricComplete { METRIC_COMPLETE, METRIC_INCOMPLETE } MetricComplete;
typedef enum MetricCause { METRIC_BY_REQUEST, METRIC_FOR_SPACE } MetricCause;

/* Values of the labels of one series; 0 where the metric has no label. */
typedef struct MetricLabels {
    unsigned first, second;
} MetricLabels;
#define METRIC_NO_LABEL    ((MetricLabels){ 0 })
#define METRIC_LABEL(word) ((MetricLabels){ .first = (word) })

/* All values; of the loop's thread.  Every function takes NULL and then counts nothing. */
typedef struct Metrics Metrics;

void metrics_new(Metrics **ret);
Metrics *metrics_free(Metrics *m); /* returns NULL */
DEFINE_CLEANUP(Metrics, metrics_free);

/* Counters.  Time in microseconds. */
void metrics_add(Metrics *m, MetricId id, MetricLabels labels, uint64_t n);
/* Gauges, and counters that somebody else counts. */
void metrics_set(Metrics *m, MetricId id, MetricLabels labels, uint64_t value);
/* Histograms. */
void metrics_observe(Metrics *m, MetricId id, MetricLabels labels, uint64_t usec);

/* The text format of Prometheus, version 0.0.4.  A series with a label "code" appears once it is
 * not 0, or for OK; all others are there from the start. */
void metrics_write(const Metrics *m, FILE *f);
/* The table of docs/metrics.md. */
void metrics_write_markdown(FILE *f);
