# SPDX-License-Identifier: Apache-2.0
"""/metrics of a daemon, read by Prometheus' own parser, and checked for what that lets pass."""
import re
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def fetch(address, path, seconds=10, method="GET"):
    """(status, headers, text)"""
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def check_histogram(family):
    """Buckets rise to +Inf, which is the count; one sum and one count for each set of labels."""
    series = {}
    for sample in family.samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(labels, []).append(sample)
    for samples in series.values():
        buckets = [(float(s.labels["le"]), s.value) for s in samples if s.name.endswith("_bucket")]
        assert buckets == sorted(buckets) and [v for _, v in buckets] == sorted(v for _, v in buckets)
        [count] = [s.value for s in samples if s.name.endswith("_count")]
        [total] = [s.value for s in samples if s.name.endswith("_sum")]
        assert buckets[-1] == (float("inf"), count) and total >= 0


def parse(text):
    """{"name{label="value",…}": value}, after checks of what Prometheus asks for."""
    values, families = {}, set()
    assert text.endswith("\n") and text.isascii()
    for family in text_string_to_metric_families(text):
        assert family.name not in families and family.type in ("counter", "gauge", "histogram"), family
        assert family.documentation.strip(), family
        families.add(family.name)
        if family.type == "histogram":
            check_histogram(family)
        for sample in family.samples:
            suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
            assert sample.name in [family.name + suffix for suffix in suffixes[family.type]], sample
            assert all(re.fullmatch("[a-z]+", label) for label in sample.labels), sample
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in values, name
            values[name] = sample.value
    return values


def scrape(address):
    status, headers, text = fetch(address, "/metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(text)
