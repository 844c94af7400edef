# SPDX-License-Identifier: Apache-2.0
"""Writes a run down for docs/performance: results.md, results.json and one plot a case."""
import json
import os

from mcbench import plot, report, targets

HEAD = """# Results

Written by `bench/run --report`; what the columns mean and how it was measured: [performance.md](../performance.md).

Measured {started} on {cpus} CPUs ({cpu}), {memory_gib} GiB, Linux {kernel}; load average {load:.1f} when it began
and {load_end:.1f} at the end{scaled}. {runs} rounds. {versions}.
"""


def text(run):
    """The page of a run."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run["versions"].items()))
    scaled = "" if run["scale"] == 1 else f", sizes times {run['scale']:g}"
    parts = [HEAD.format(started=run["started"], runs=run["runs"], versions=versions or "No peers", scaled=scaled,
                         **run["machine"])]
    for name, case in sorted(run["cases"].items()):
        parts.append(f"## ({name}) {case['title']}\n\n![{case['title']}]({name}.svg)\n\n"
                     f"```\n{report.table(name, case)}```\n")
    parts.append(f"## Targets\n\n```\n{targets.table(run['targets'])}```\n")
    return "\n".join(parts)


def write(folder, run):
    """Everything into the folder."""
    os.makedirs(folder, exist_ok=True)
    for name, case in run["cases"].items():
        if "latency" in case or case["rows"]:
            plot.case(os.path.join(folder, name + ".svg"), name, case)
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(run, file, indent=1)
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(text(run))
