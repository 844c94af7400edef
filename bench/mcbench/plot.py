# SPDX-License-Identifier: Apache-2.0
"""Writes one SVG a case: bars with min-max whiskers, or lines for the growth."""
from xml.sax.saxutils import escape

GIB = 1 << 30
LEFT, BAR, GAP, WIDTH, TOP = 250, 18, 8, 420, 46
COLOURS = {"modelcached": "#1b6ca8", "modelcached, threads": "#5fa8d3", "lower bound": "#555555",
           "lower bound, 2 threads": "#555555", "lower bound, 2 threads, no SHA-256": "#999999",
           "lower bound, 2 threads, writes alone": "#999999"}
OTHER = "#c9a66b"


class Svg:
    """Collects elements; save() writes them with the size that they need."""

    def __init__(self, title):
        self.parts, self.title = [], title
        self.text(10, 20, title, weight="bold", size=14)

    def text(self, x, y, words, anchor="start", weight="normal", size=12):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
                          f'font-weight="{weight}">{escape(words)}</text>')

    def bar(self, x, y, width, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{BAR}" fill="{colour}"/>')

    def line(self, points, colour="#222222", width=1.0):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def dot(self, x, y, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')

    def save(self, path, width, height):
        with open(path, "w", encoding="utf-8") as file:
            file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
                       f'viewBox="0 0 {width} {height}" font-family="sans-serif" role="img">\n'
                       f"<title>{escape(self.title)}</title>\n"
                       '<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def bars(path, title, unit, rows):
    """rows: (label, colour, {"median", "min", "max"}, note)."""
    svg, top = Svg(title), max(value["max"] for _, _, value, _ in rows)
    svg.text(LEFT, 38, unit, size=11)
    y = TOP
    for label, colour, value, note in rows:
        middle = y + BAR / 2
        svg.text(LEFT - 8, middle + 4, label, "end")
        svg.bar(LEFT, y, value["median"] / top * WIDTH, colour)
        low, high = (LEFT + value[key] / top * WIDTH for key in ("min", "max"))
        svg.line([(low, middle), (high, middle)])
        for x in (low, high):
            svg.line([(x, middle - 4), (x, middle + 4)])
        svg.text(max(high, LEFT) + 8, middle + 4, note)
        y += BAR + GAP
    svg.save(path, LEFT + WIDTH + 190, y + 10)


def growth(path, title, case):
    """CPU and wall seconds per GiB against the size, on a scale of powers of two, with the least and most of wall."""
    svg, sizes = Svg(title), case["bytes"]
    rows = [row for row in case["rows"] if row["mode"] == "cold"]
    walls = {(row["contender"], row["point"]): {key: row["wall_seconds"][key] * GIB / sizes[row["point"]]
                                                for key in ("median", "min", "max")} for row in rows}
    wall = {key: value["median"] for key, value in walls.items()}
    cpu = {(row["contender"], row["point"]): row["cpu_seconds_per_gib"]["median"] for row in rows}
    top, height, bottom = max([*(value["max"] for value in walls.values()), *cpu.values()]) * 1.05, 220, TOP + 220
    places = {label: 70 + i * 110 for i, label in enumerate(sizes)}
    svg.text(10, 38, "seconds per GiB: wall (thick), CPU (thin)", size=11)
    svg.line([(50, TOP), (50, bottom), (60 + 110 * len(sizes), bottom)])
    for part in range(5):
        y = bottom - height * part / 4
        svg.text(44, y + 4, f"{top * part / 4:.2f}", "end", size=10)
    for label, x in places.items():
        svg.text(x, bottom + 16, label, "middle", size=11)
    for i, name in enumerate(dict.fromkeys(row["contender"] for row in rows)):
        colour = COLOURS.get(name, OTHER)
        for values, width in ((wall, 2.5), (cpu, 1.0)):
            points = [(places[label], bottom - height * values[name, label] / top)
                      for label in sizes if (name, label) in values]
            svg.line(points, colour, width)
            for x, y in points:
                svg.dot(x, y, colour)
        for label in sizes:
            if (name, label) in walls:
                ends = (bottom - height * walls[name, label][key] / top for key in ("min", "max"))
                svg.line([(places[label] + 3 * i, y) for y in ends], colour)
        svg.dot(80 + 200 * i, bottom + 36, colour)
        svg.text(90 + 200 * i, bottom + 40, name)
    svg.save(path, 90 + 110 * len(sizes) + 60, bottom + 52)


def latency(path, title, case):
    rows = []
    for row in case["latency"]:
        for key in ("p50", "p99"):
            value = {name: row[key][name] * 1000 for name in ("median", "min", "max")}
            colour = COLOURS["modelcached"] if row["what"].startswith("publish") else OTHER
            rows.append((f"{row['what']}, {key}", colour, value, f"{value['median']:.2f} ms"))
    bars(path, title, "milliseconds", rows)


def case(path, name, document):
    """Writes the plot of a case."""
    title = f"({name}) {document['title']}"
    if "latency" in document:
        latency(path, title, document)
    elif name == "f":
        growth(path, title, document)
    else:
        walls(path, title, document)


def walls(path, title, document):
    rows = []
    for row in document["rows"]:
        if row["mode"] == "cold":
            who, value = row["contender"], row["wall_seconds"]
            label = f"{row['point']} {who}".strip()
            note = f"{value['median']:.2f} s, {row['cpu_seconds_per_gib']['median']:.1f} CPU-s/GiB"
            rows.append((label, COLOURS.get(who, OTHER), value, note))
    bars(path, title, "seconds, cold: median with least and most", rows)
