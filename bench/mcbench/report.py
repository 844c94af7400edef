# SPDX-License-Identifier: Apache-2.0
"""Turns samples into figures: the document for --json and the tables."""
import statistics

GIB, MIB = 1 << 30, 1 << 20
OURS = "modelcached"


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "all": values}


def row_of(key, samples, size):
    label, name, mode = key
    return {"point": label, "contender": name, "mode": mode, "runs": len(samples),
            "wall_seconds": spread([s.wall for s in samples]),
            "cpu_seconds_per_gib": spread([s.cpu * GIB / size for s in samples]),
            "peak_bytes": spread([s.peak for s in samples]),
            "machine_busy": spread([s.busy for s in samples])}


def case_document(case, rounds):
    """One case as JSON.  ratio: median wall time over that of modelcached, same point and mode."""
    rows = [row_of(key, samples, rounds.bytes[key[0]]) for key, samples in rounds.rows.items()]
    base = {(row["point"], row["mode"]): row["wall_seconds"]["median"] for row in rows if row["contender"] == OURS}
    for row in rows:
        own = base.get((row["point"], row["mode"]))
        row["ratio"] = row["wall_seconds"]["median"] / own if own else None
    rows.sort(key=lambda row: (list(rounds.bytes).index(row["point"]), row["mode"], row["ratio"] or 0))
    failed = [{"point": label, "contender": name, "why": why} for (label, name), why in rounds.failed.items()]
    return {"title": case.title, "bytes": rounds.bytes, "rows": rows, "failed": failed}


def latency_document(title, rows, idle, count):
    table = [{"what": name, **{key: spread(values) for key, values in figures.items()}}
             for name, figures in rows.items()]
    return {"title": title, "publishes": count, "latency": table, "idle_bytes": idle}


def aligned(lines, words=1):
    """Columns; the first `words` hold words, the others figures."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) if i < words else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def busy_text(row):
    """In %; older results have none."""
    return f"{row['machine_busy']['median'] * 100:.0f}" if "machine_busy" in row else "-"


def case_table(name, case):
    lines = [("point", "contender", "mode", "wall s", "min", "max", "MiB/s", "CPU-s/GiB", "busy %", "peak MiB", "ratio")]
    for row in case["rows"]:
        wall = row["wall_seconds"]
        lines.append((row["point"], row["contender"], row["mode"], f"{wall['median']:.2f}", f"{wall['min']:.2f}",
                      f"{wall['max']:.2f}", f"{case['bytes'][row['point']] / MIB / wall['median']:.0f}",
                      f"{row['cpu_seconds_per_gib']['median']:.2f}", busy_text(row),
                      f"{row['peak_bytes']['max'] / MIB:.0f}", f"{row['ratio']:.2f}" if row["ratio"] else "-"))
    text = f"({name}) {case['title']}\n{aligned(lines, 3)}\n"
    for failure in case["failed"]:
        text += f"failed: {failure['contender']} {failure['point']}: {failure['why']}\n"
    return text


def latency_table(name, case):
    lines = [("what", "p50 ms", "min", "max", "p99 ms", "min", "max")]
    for row in case["latency"]:
        lines.append((row["what"], *(f"{row[q][k] * 1000:.2f}" for q in ("p50", "p99")
                                            for k in ("median", "min", "max"))))
    return (f"({name}) {case['title']}, {case['publishes']} times a round\n{aligned(lines)}\n"
            f"idle daemon, when no worker stands by any more: {case['idle_bytes'] / MIB:.1f} MiB\n")


def table(name, case):
    return latency_table(name, case) if "latency" in case else case_table(name, case)
