# SPDX-License-Identifier: Apache-2.0
"""Writes a run down for docs/performance: results.md, results.json and one plot a case."""
import json
import os

from mcbench import plot, report, targets

HEAD = """# Results

Written by `bench/run --report`; what the columns mean and how it was measured: [performance.md](../performance.md).

On {cpus} CPUs ({cpu}), {memory_gib} GiB, Linux {kernel}. {versions}.
"""
CASE = """## ({name}) {title}

{runs} rounds of commit {commit}, in the run of {started}, when the load average was {load:.1f} at first and {load_end:.1f} at the end{scaled}.

![{title}]({name}.svg)

```
{table}```
"""


def when(run):
    """What each case keeps of the run that measured it."""
    return {"started": run["started"], "runs": run["runs"], "load": run["machine"]["load"],
            "load_end": run["machine"]["load_end"], "commit": run["commit"],
            "scaled": "" if run["scale"] == 1 else f"; sizes times {run['scale']:g}"}


def joined(folder, run):
    """The run with the cases of the page that is there and that it did not measure again."""
    path = os.path.join(folder, "results.json")
    old = {"cases": {}, "versions": {}}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if all(found["machine"][key] == run["machine"][key] for key in ("cpu", "cpus", "kernel")):
            old = found  # figures of two machines do not go on one page
    fresh = {name: {**case, "when": when(run)} for name, case in run["cases"].items()}
    cases = dict(sorted({**old["cases"], **fresh}.items()))
    return {**run, "cases": cases, "versions": {**old["versions"], **run["versions"]},
            "targets": targets.targets(cases)}


def text(run):
    """The page of a run."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run["versions"].items()))
    parts = [HEAD.format(versions=versions or "No peers", **run["machine"])]
    for name, case in run["cases"].items():
        parts.append(CASE.format(name=name, title=case["title"], table=report.table(name, case), **case["when"]))
    parts.append(f"## Targets\n\n```\n{targets.table(run['targets'])}```\n")
    return "\n".join(parts)


def write(folder, run):
    """Everything into the folder; cases that are there and were not measured again stay."""
    os.makedirs(folder, exist_ok=True)
    run = joined(folder, run)
    for name, case in run["cases"].items():
        if "latency" in case or case["rows"]:
            plot.case(os.path.join(folder, name + ".svg"), name, case)
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(run, file, indent=1)
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(text(run))
