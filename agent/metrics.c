/* SPDX-License-Identifier: Apache-2.0 */
/* metrics: what the daemon counts. */
#include "agent/metrics.h"
#include "agent/flight.h"
#include "base/version.h"
#include "csi/server.h"

typedef enum MetricType { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM } MetricType;
typedef enum MetricValue {
    METRIC_COUNT_OF,
    METRIC_TIME_OF,
    METRIC_SHORT_OF,
    METRIC_LONG_OF,
} MetricValue;

static const char *const type_names[] = {
    [METRIC_COUNTER] = "counter",
    [METRIC_GAUGE] = "gauge",
    [METRIC_HISTOGRAM] = "histogram",
};

/* Upper bounds, microseconds: a publish from the store takes a millisecond, and the kubelet waits 2
 * minutes for one; a pull takes as long as it takes. */
static const uint64_t bounds_short[] = {
    500,    1000,   2500,    5000,    10000,   25000,    50000,    100000,
    250000, 500000, 1000000, 2500000, 5000000, 10000000, 30000000, 120000000,
};
static const uint64_t bounds_long[] = {
    100000,    500000,    1000000,   5000000,    10000000,   30000000,   60000000,
    120000000, 300000000, 600000000, 1800000000, 3600000000, 7200000000, 14400000000,
};

static const struct {
    const uint64_t *items;
    size_t n;
} bounds[] = {
    [METRIC_COUNT_OF] = { NULL, 0 },
    [METRIC_TIME_OF] = { NULL, 0 },
    [METRIC_SHORT_OF] = { bounds_short, ELEMENTSOF(bounds_short) },
    [METRIC_LONG_OF] = { bounds_long, ELEMENTSOF(bounds_long) },
};

/* Labels: their values by number, NULL after the last one. */
#define WORDS(function, ...)                                \
    static const char *function(unsigned i) {               \
        static const char *const words[] = { __VA_ARGS__ }; \
        return i < ELEMENTSOF(words) ? words[i] : NULL;     \
    }
WORDS(name_version, MC_VERSION)
WORDS(name_origin, [METRIC_FROM_STORE] = "store", [METRIC_FROM_PULL] = "pull")
WORDS(name_outcome, [METRIC_HIT] = "hit", [METRIC_PULL] = "pull", [METRIC_JOINED] = "joined",
      [METRIC_FAILED] = "failed")
WORDS(name_source, [METRIC_REGISTRY] = "registry", [METRIC_STORE] = "store",
      [METRIC_SHARED] = "shared", [METRIC_RESUMED] = "resumed")
WORDS(name_place, [METRIC_IN_PULL] = "pull", [METRIC_IN_STORE] = "store")
WORDS(name_reason, [METRIC_CRASHED] = "crashed", [METRIC_SILENT] = "silent",
      [METRIC_PROTOCOL] = "protocol")
WORDS(name_complete, [METRIC_COMPLETE] = "complete", [METRIC_INCOMPLETE] = "incomplete")
WORDS(name_cause, [METRIC_BY_REQUEST] = "request", [METRIC_FOR_SPACE] = "space")

static const char *name_code(unsigned i) {
    return i <= GRPC_UNAUTHENTICATED ? status_name((GrpcCode)i) : NULL;
}

static const char *name_state(unsigned i) { /* a pull that is done is not listed */
    return i < FLIGHT_DONE ? flight_state_name((FlightState)i) : NULL;
}

typedef struct MetricLabel {
    const char *name; /* NULL: no label */
    const char *(*value)(unsigned i);
} MetricLabel;

#define LABEL_NONE \
    { NULL, NULL }
#define LABEL_VERSION \
    { "version", name_version }
#define LABEL_METHOD \
    { "method", csi_method_name }
#define LABEL_CODE \
    { "code", name_code }
#define LABEL_ORIGIN \
    { "source", name_origin }
#define LABEL_OUTCOME \
    { "result", name_outcome }
#define LABEL_STATE \
    { "state", name_state }
#define LABEL_SOURCE \
    { "source", name_source }
#define LABEL_PLACE \
    { "where", name_place }
#define LABEL_REASON \
    { "reason", name_reason }
#define LABEL_COMPLETE \
    { "state", name_complete }
#define LABEL_CAUSE \
    { "cause", name_cause }

typedef struct MetricInfo {
    MetricType type;
    MetricValue value;
    MetricLabel labels[2];
    const char *name, *help;
} MetricInfo;

static const MetricInfo table[METRIC_COUNT] = {
#define AS_INFO(id, type, value, first, second, name, help)                               \
    [METRIC_##id] = {                                                                     \
        METRIC_##type, METRIC_##value##_OF, { LABEL_##first, LABEL_##second }, name, help \
    },
    METRICS(AS_INFO)
};

/* Of a histogram a series is its buckets (not cumulated), what is beyond, and the sum. */
struct Metrics {
    uint64_t *values[METRIC_COUNT];
};

static unsigned label_count(const MetricLabel *l) {
    unsigned n = 0;

    while (l->name && l->value(n))
        n++;
    return l->name ? n : 1;
}

static size_t width_of(const MetricInfo *info) {
    return info->type == METRIC_HISTOGRAM ? bounds[info->value].n + 2 : 1;
}

void metrics_new(Metrics **ret) {
    Metrics *m = xnew(Metrics);

    for (unsigned id = 0; id < METRIC_COUNT; id++) {
        const MetricInfo *info = &table[id];
        m->values[id] = xnew_n(uint64_t, (size_t)label_count(&info->labels[0]) *
                                             label_count(&info->labels[1]) * width_of(info));
    }
    metrics_set(m, METRIC_BUILD_INFO, METRIC_NO_LABEL, 1);
    *ret = m;
}

Metrics *metrics_free(Metrics *m) {
    for (unsigned id = 0; m && id < METRIC_COUNT; id++)
        free(m->values[id]);
    free(m);
    return NULL;
}

static uint64_t *series_of(const Metrics *m, MetricId id, MetricLabels labels) {
    const MetricInfo *info = &table[id];
    unsigned n = label_count(&info->labels[1]);

    assert(labels.first < label_count(&info->labels[0]) && labels.second < n);
    return m->values[id] + ((size_t)labels.first * n + labels.second) * width_of(info);
}

void metrics_add(Metrics *m, MetricId id, MetricLabels labels, uint64_t n) {
    assert(table[id].type == METRIC_COUNTER);
    if (m)
        *series_of(m, id, labels) += n;
}

void metrics_set(Metrics *m, MetricId id, MetricLabels labels, uint64_t value) {
    assert(table[id].type != METRIC_HISTOGRAM);
    if (m)
        *series_of(m, id, labels) = value;
}

void metrics_observe(Metrics *m, MetricId id, MetricLabels labels, uint64_t usec) {
    size_t n = bounds[table[id].value].n, i = 0;
    uint64_t *series;

    assert(table[id].type == METRIC_HISTOGRAM);
    if (!m)
        return;
    series = series_of(m, id, labels);
    while (i < n && usec > bounds[table[id].value].items[i])
        i++;
    series[i]++;
    series[n + 1] += usec;
}

/* Text. */

static void write_value(FILE *f, const MetricInfo *info, uint64_t value) {
    if (info->value == METRIC_COUNT_OF)
        (void)fprintf(f, " %llu\n", (unsigned long long)value);
    else
        (void)fprintf(f, " %llu.%06llu\n", (unsigned long long)(value / USEC_PER_SEC),
                      (unsigned long long)(value % USEC_PER_SEC));
}

/* {method="NodePublishVolume",code="OK",le="0.5"}: values need no escapes. */
static void write_labels(FILE *f, const MetricInfo *info, MetricLabels labels, const char *le) {
    const unsigned values[] = { labels.first, labels.second };
    const char *before = "{";

    for (size_t i = 0; i < ELEMENTSOF(values); i++)
        if (info->labels[i].name) {
            (void)fprintf(f, "%s%s=\"%s\"", before, info->labels[i].name,
                          info->labels[i].value(values[i]));
            before = ",";
        }
    if (le) {
        (void)fprintf(f, "%sle=\"%s\"", before, le);
        before = ",";
    }
    if (*before == ',')
        (void)fputc('}', f);
}

static void write_histogram(FILE *f, const MetricInfo *info, MetricLabels labels,
                            const uint64_t *series) {
    size_t n = bounds[info->value].n;
    uint64_t count = 0;

    for (size_t i = 0; i <= n; i++) {
        char le[32] = "+Inf";

        if (i < n)
            (void)snprintf(le, sizeof(le), "%g",
                           (double)bounds[info->value].items[i] / (double)USEC_PER_SEC);
        count += series[i];
        (void)fprintf(f, "%s_bucket", info->name);
        write_labels(f, info, labels, le);
        (void)fprintf(f, " %llu\n", (unsigned long long)count);
    }
    (void)fprintf(f, "%s_sum", info->name);
    write_labels(f, info, labels, NULL);
    write_value(f, info, series[n + 1]);
    (void)fprintf(f, "%s_count", info->name);
    write_labels(f, info, labels, NULL);
    (void)fprintf(f, " %llu\n", (unsigned long long)count);
}

/* Of all codes most never happen. */
static bool is_left_out(const MetricInfo *info, MetricLabels labels, uint64_t value) {
    const unsigned values[] = { labels.first, labels.second };

    for (size_t i = 0; i < ELEMENTSOF(values); i++)
        if (info->labels[i].value == name_code && values[i] != GRPC_OK && value == 0)
            return true;
    return false;
}

static void write_series(FILE *f, const Metrics *m, MetricId id, MetricLabels labels) {
    const MetricInfo *info = &table[id];
    const uint64_t *series = series_of(m, id, labels);

    if (info->type == METRIC_HISTOGRAM) {
        write_histogram(f, info, labels, series);
        return;
    }
    if (is_left_out(info, labels, *series))
        return;
    (void)fputs(info->name, f);
    write_labels(f, info, labels, NULL);
    write_value(f, info, *series);
}

void metrics_write(const Metrics *m, FILE *f) {
    for (unsigned id = 0; id < METRIC_COUNT; id++) {
        const MetricInfo *info = &table[id];
        unsigned n_first = label_count(&info->labels[0]), n_second = label_count(&info->labels[1]);

        (void)fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", info->name, info->help, info->name,
                      type_names[info->type]);
        for (unsigned first = 0; first < n_first; first++)
            for (unsigned second = 0; second < n_second; second++)
                write_series(f, m, (MetricId)id, (MetricLabels){ first, second });
    }
}

static void write_label_docs(FILE *f, const MetricLabel *l) {
    (void)fprintf(f, "`%s`: ", l->name);
    if (l->value == name_version || l->value == csi_method_name || l->value == name_code) {
        (void)fputs(l->value == name_version      ? "the program's"
                    : l->value == csi_method_name ? "of CSI, or other"
                                                  : "of gRPC",
                    f);
        return;
    }
    for (unsigned i = 0; l->value(i); i++)
        (void)fprintf(f, "%s%s", i > 0 ? ", " : "", l->value(i));
}

void metrics_write_markdown(FILE *f) {
    (void)fputs("| metric | type | labels | meaning |\n|---|---|---|---|\n", f);
    for (unsigned id = 0; id < METRIC_COUNT; id++) {
        const MetricInfo *info = &table[id];

        (void)fprintf(f, "| `%s` | %s | ", info->name, type_names[info->type]);
        for (size_t i = 0; i < ELEMENTSOF(info->labels); i++)
            if (info->labels[i].name) {
                (void)fputs(i > 0 ? "; " : "", f);
                write_label_docs(f, &info->labels[i]);
            }
        (void)fprintf(f, " | %s |\n", info->help);
    }
}
