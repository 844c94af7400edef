/* SPDX-License-Identifier: Apache-2.0 */
/* test_metrics: values and labels in the text, the table against docs/metrics.md. */
#include "agent/metrics.h"
#include "base/fs.h"
#include "csi/server.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <regex.h>

static char *text_of(const Metrics *m) {
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    ASSERT_TRUE(f);
    if (m)
        metrics_write(m, f);
    else
        metrics_write_markdown(f);
    (void)fclose(f);
    return text;
}

TEST(counters_gauges_and_labels) {
    _cleanup_(metrics_freep) Metrics *m = NULL;
    _cleanup_free_ char *text = NULL;

    metrics_new(&m);
    metrics_add(m, METRIC_CSI_REQUESTS, (MetricLabels){ 3, GRPC_ABORTED }, 2);
    metrics_add(m, METRIC_CSI_REQUESTS, (MetricLabels){ 3, GRPC_ABORTED }, 1);
    metrics_add(m, METRIC_PULL_BYTES, METRIC_LABEL(METRIC_RESUMED), 1ULL << 40);
    metrics_set(m, METRIC_CPU, METRIC_NO_LABEL, 1500001);
    metrics_set(m, METRIC_VOLUMES, METRIC_NO_LABEL, 7);
    metrics_set(m, METRIC_VOLUMES, METRIC_NO_LABEL, 6);
    text = text_of(m);
    ASSERT_STRSTR(text, "# TYPE modelcached_csi_requests_total counter\n");
    ASSERT_STRSTR(text, "modelcached_csi_requests_total{method=\"NodePublishVolume\","
                        "code=\"ABORTED\"} 3\n");
    ASSERT_STRSTR(text, "{method=\"other\",code=\"OK\"} 0\n");
    ASSERT_TRUE(!strstr(text, "NodePublishVolume\",code=\"INTERNAL"));
    ASSERT_STRSTR(text, "modelcached_pull_bytes_total{source=\"resumed\"} 1099511627776\n");
    ASSERT_STRSTR(text, "modelcached_pull_bytes_total{source=\"registry\"} 0\n");
    ASSERT_STRSTR(text, "process_cpu_seconds_total 1.500001\n");
    ASSERT_STRSTR(text, "\nmodelcached_volumes 6\n");
    ASSERT_STRSTR(text, "modelcached_build_info{version=\"");
}

/* Microseconds, the first bucket that counts them, and the last that does not. */
static const struct {
    uint64_t usec;
    const char *bucket, *below;
} observed[] = {
    { 0, "le=\"0.0005\"} 1\n", NULL },
    { 500, "le=\"0.0005\"} 1\n", NULL },
    { 501, "le=\"0.001\"} 1\n", "le=\"0.0005\"} 0\n" },
    { 120000000, "le=\"120\"} 1\n", "le=\"30\"} 0\n" },
    { 120000001, "le=\"+Inf\"} 1\n", "le=\"120\"} 0\n" },
};

TEST(histograms) {
    for (size_t i = 0; i < ELEMENTSOF(observed); i++) {
        _cleanup_(metrics_freep) Metrics *m = NULL;
        _cleanup_free_ char *text = NULL;
        const char *series, *end;

        metrics_new(&m);
        metrics_observe(m, METRIC_PUBLISH_DURATION, METRIC_LABEL(METRIC_FROM_PULL),
                        observed[i].usec);
        text = text_of(m);
        series = strstr(text, "modelcached_volume_publish_duration_seconds_bucket{source=\"pull\"");
        ASSERT_TRUE(series);
        end = strstr(series, "_count{source=\"pull\"} 1\n");
        ASSERT_TRUE(end);
        ASSERT_STRSTR(series, observed[i].bucket);
        ASSERT_TRUE(strstr(series, observed[i].bucket) < end);
        ASSERT_STRSTR(series, "le=\"+Inf\"} 1\n");
        if (observed[i].below)
            ASSERT_STRSTR(series, observed[i].below);
        ASSERT_STRSTR(text, "_count{source=\"store\"} 0\n");
    }
}

TEST(nothing_to_count_in) {
    metrics_add(NULL, METRIC_WORKERS, METRIC_NO_LABEL, 1);
    metrics_set(NULL, METRIC_VOLUMES, METRIC_NO_LABEL, 1);
    metrics_observe(NULL, METRIC_PULL_QUEUE, METRIC_NO_LABEL, 1);
    ASSERT_TRUE(!metrics_free(NULL));
}

/* Prometheus, "Metric and label naming": our prefix, base units, _total for counters alone. */
TEST(names_follow_the_conventions) {
#define AS_NAME(id, type, value, first, second, name, help) { #type, #value, name, help },
    static const struct { const char *type, *value, *name, *help; } all[] = { METRICS(AS_NAME) };
    regex_t name;

    ASSERT_EQ(regcomp(&name, "^(modelcached|process)(_[a-z]+)+$", REG_EXTENDED | REG_NOSUB), 0);
    for (size_t i = 0; i < ELEMENTSOF(all); i++) {
        bool counter = streq(all[i].type, "COUNTER"), is_time = !streq(all[i].value, "COUNT");

        ASSERT_EQ(regexec(&name, all[i].name, 0, NULL, 0), 0);
        ASSERT_EQ(endswith(all[i].name, "_total") != NULL, counter);
        ASSERT_EQ(strstr(all[i].name, "_seconds") != NULL, is_time);
        ASSERT_TRUE(endswith(all[i].help, ".") && !strpbrk(all[i].help, "\n\\|"));
        for (size_t k = 0; k < i; k++)
            ASSERT_TRUE(!streq(all[i].name, all[k].name));
    }
    regfree(&name);
}

TEST(the_page_has_the_table) {
    const char *root = getenv("MC_SRC");
    _cleanup_free_ char *path = xasprintf("%s/docs/metrics.md", root ? root : ".");
    _cleanup_free_ char *table = text_of(NULL), *page = NULL;

    ASSERT_OK(fs_read_file(AT_FDCWD, path, MiB(1), &page, NULL, NULL));
    if (!strstr(page, table))
        test_fail(__FILE__, __LINE__,
                  "docs/metrics.md does not hold the table; see modelcached --print-docs metrics");
}
