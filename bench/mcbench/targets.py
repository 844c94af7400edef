# SPDX-License-Identifier: Apache-2.0
"""What the figures must show, from the document of a run."""
from mcbench.report import GIB, MIB, OURS, aligned


class Figures:
    """Looks figures up: wall(case, contender), cpu(…); None when they were not measured."""

    def __init__(self, cases):
        self.cases = cases

    def row(self, case, contender, point="", mode="cold"):
        for row in self.cases.get(case, {}).get("rows", []):
            if (row["contender"], row["point"], row["mode"]) == (contender, point, mode):
                return row
        return None

    def median(self, case, contender, what="wall_seconds", point=""):
        row = self.row(case, contender, point)
        return row[what]["median"] if row else None

    def ratio(self, case, contender, what="wall_seconds", point=""):
        """Ours over theirs."""
        ours, theirs = self.median(case, OURS, what, point), self.median(case, contender, what, point)
        return ours / theirs if ours and theirs else None

    def speed(self, case, contender, point=""):
        """How many times faster ours is."""
        ratio = self.ratio(case, contender, point=point)
        return 1 / ratio if ratio else None


def wall_per_gib(figures, case):
    wall = figures.median(case, OURS)
    return wall * GIB / sum(figures.cases[case]["bytes"].values()) if wall else None


def flatness(figures):
    """The dearest size's CPU per GiB over the cheapest's, less one, in per cent."""
    costs = [row["cpu_seconds_per_gib"]["median"] for row in figures.cases.get("f", {}).get("rows", [])
             if row["contender"] == OURS and row["mode"] == "cold"]
    return (max(costs) / min(costs) - 1) * 100 if costs else None


def growth(figures):
    """The same for the wall time per GiB."""
    case = figures.cases.get("f", {})
    costs = [row["wall_seconds"]["median"] / case["bytes"][row["point"]] for row in case.get("rows", [])
             if row["contender"] == OURS and row["mode"] == "cold"]
    return (max(costs) / min(costs) - 1) * 100 if costs else None


def peak(figures):
    """The most memory that any cold or warm pull took, in MiB."""
    peaks = [row["peak_bytes"]["max"] / MIB for case in figures.cases.values() for row in case.get("rows", [])
             if row["contender"].startswith(OURS)]
    return max(peaks) if peaks else None


def wire_bound(figures, connections=8, mib=50):
    """Wall time of (h) over size / (connections x rate)."""
    wall = figures.median("h", OURS)
    return wall * connections * mib * MIB / sum(figures.cases["h"]["bytes"].values()) if wall else None


def quantile_ms(figures, name):
    for row in figures.cases.get("e", {}).get("latency", []):
        if row["what"] == "publish":
            return row[name]["median"] * 1000
    return None


def idle(figures):
    case = figures.cases.get("e")
    return case["idle_bytes"] / MIB if case else None


def two_cores(figures):
    """None when the two were not measured in one run."""
    if figures.cases.get("a", {}).get("when") != figures.cases.get("b", {}).get("when"):
        return None
    a, b = wall_per_gib(figures, "a"), wall_per_gib(figures, "b")
    return b / a if a and b else None


# What it must show: (sentence, figure of Figures, the bound, whether the figure must be at least it).
TARGETS = (
    ("(a) wall over the lower bound", lambda f: f.ratio("a", "lower bound"), 1.15, False),
    ("(a) CPU over the lower bound", lambda f: f.ratio("a", "lower bound", "cpu_seconds_per_gib"), 1.25, False),
    ("(a) times faster than skopeo copy", lambda f: f.speed("a", "skopeo copy"), 2.5, True),
    ("(a) times faster than curl + openssl + fsync", lambda f: f.speed("a", "curl + openssl + fsync"), 2.5, True),
    ("(a) times faster than containerd 1.x fetch", lambda f: f.speed("a", "containerd 1.x"), 3, True),
    ("(a) times faster than containerd 2.x fetch", lambda f: f.speed("a", "containerd 2.x"), 3, True),
    ("(b) wall per GiB over that of (a)", two_cores, 0.75, False),
    ("(c) gzip, times faster than containerd 1.x", lambda f: f.speed("c", "containerd 1.x", "gzip"), 1.5, True),
    ("(c) gzip, times faster than containerd 2.x", lambda f: f.speed("c", "containerd 2.x", "gzip"), 1.5, True),
    ("(c) zstd, times faster than containerd 1.x", lambda f: f.speed("c", "containerd 1.x", "zstd"), 1.5, True),
    ("(c) zstd, times faster than containerd 2.x", lambda f: f.speed("c", "containerd 2.x", "zstd"), 1.5, True),
    ("(e) publish, p50 in ms", lambda f: quantile_ms(f, "p50"), 1, False),
    ("(e) publish, p99 in ms", lambda f: quantile_ms(f, "p99"), 10, False),
    ("(f) spread of CPU per GiB in %", flatness, 10, False),
    ("(f) spread of wall per GiB in %", growth, 10, False),
    ("(h) wall over size / (8 x 50 MiB/s)", wire_bound, 1.1, False),
    ("peak memory of daemon and worker in MiB", peak, 160, False),
    ("idle daemon in MiB", idle, 12, False),
)


def targets(cases):
    """[{"what", "got", "bound", "met"}] of those that were measured."""
    figures, found = Figures(cases), []
    for what, figure, bound, at_least in TARGETS:
        got = figure(figures) if needed(what, cases) else None
        if got is not None:
            found.append({"what": what, "got": got, "bound": bound, "at_least": at_least,
                          "met": got >= bound if at_least else got <= bound})
    return found


def needed(what, cases):
    """The case that the sentence names was measured."""
    return not what.startswith("(") or what[1] in cases


def table(rows):
    lines = [("target", "got", "bound", "")]
    for row in rows:
        sign = "≥" if row["at_least"] else "≤"
        lines.append((row["what"], f"{row['got']:.2f}", f"{sign} {row['bound']:g}",
                      "met" if row["met"] else "NOT MET"))
    return aligned(lines) + "\n"
