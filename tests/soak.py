#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""soak.py SAMPLES.csv PICTURE.svg POLICY: draws the samples of soak."""
import csv
import math
import sys
from html import escape

WIDTH, LEFT, RIGHT = 720, 90, 32
TOP, PANEL, GAP, BOTTOM = 40, 110, 34, 52
STYLE = """
  text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #222 }
  .title { font-size: 16px; font-weight: 600 }
  .ground { fill: #fff } .grid { stroke: #ddd } .axis { stroke: #555 }
  .line { fill: none; stroke: #0072b2; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .ground { fill: #16181d } .grid { stroke: #33363d } .axis { stroke: #999 }
    .line { stroke: #56b4e9 }
  }
"""


def number(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def ticks(high):
    """Returns 0 and at least two round numbers up to `high`, which is not 0."""
    power = 10.0 ** math.floor(math.log10(high))
    step = next(s for s in (power / 5, power / 2, power, 2 * power, 5 * power) if high / s <= 4)
    return [i * step for i in range(int(high / step) + 1)]


def per_second(times, counts):
    """Returns each sample's rate since the one before."""
    return [0.0] + [(counts[i] - counts[i - 1]) / (times[i] - times[i - 1]) for i in range(1, len(times))]


def picture(policy, columns):
    """Returns an SVG with a panel for each figure that should not change over time."""
    times = columns["seconds"]
    minutes = [time / 60 for time in times]
    panels = [("resident memory, KiB", columns["resident_kib"]), ("descriptors", columns["descriptors"]),
              ("threads", columns["threads"]), ("CPU, %", per_second(times, [100 * c for c in columns["cpu_seconds"]])),
              ("deliveries in a second", per_second(times, columns["deliveries"]))]
    wrong = sum(columns[key][-1] for key in ("lost", "duplicated", "misordered", "corrupt", "unexpected"))
    title = (f"{policy}: {number(columns['deliveries'][-1])} deliveries, {number(columns['connections'][-1])} clients, "
             f"{number(wrong) if wrong else 'nothing'} wrong")
    said = "; ".join(f"{name}: {number(min(ys[1:]))} to {number(max(ys[1:]))}" for name, ys in panels)
    height = TOP + len(panels) * (PANEL + GAP) + BOTTOM - GAP
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
           ' role="img" aria-labelledby="title desc">',
           f'<title id="title">{escape(title)}</title>', f'<desc id="desc">{escape(said)}.</desc>',
           f"<style>{STYLE}</style>", f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
           f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>']
    right = max(minutes)
    for i, (name, ys) in enumerate(panels):
        top = TOP + i * (PANEL + GAP) + 18
        bottom = top + PANEL - 18
        most = max(max(ys), 1)
        for y in ticks(most):
            down = bottom - y / most * (bottom - top)
            out.append(f'<path class="grid" d="M{LEFT} {down:.1f}H{WIDTH - RIGHT}"/>')
            out.append(f'<text x="{LEFT - 8}" y="{down + 4.5:.1f}" text-anchor="end">{number(y) if y else 0}</text>')
        points = " ".join(f"{LEFT + x / right * (WIDTH - LEFT - RIGHT):.1f},{bottom - y / most * (bottom - top):.1f}"
                          for x, y in list(zip(minutes, ys))[1:])
        out.append(f'<path class="axis" fill="none" d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}"/>')
        out.append(f'<polyline class="line" points="{points}"/>')
        out.append(f'<text x="{LEFT}" y="{top - 7}">{escape(name)}</text>')
    for x in ticks(right):
        across = LEFT + x / right * (WIDTH - LEFT - RIGHT)
        out.append(f'<text x="{across:.1f}" y="{height - 32}" text-anchor="middle">{number(x) if x else 0}</text>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 12}" text-anchor="middle">minutes</text>')
    return "\n".join(out) + "\n</svg>\n"


def main():
    if len(sys.argv) != 4:
        print("usage: soak.py SAMPLES.csv PICTURE.svg POLICY", file=sys.stderr)
        return 2
    samples, path, policy = sys.argv[1:]
    try:
        with open(samples, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if len(rows) < 3:
            print("There are too few samples for a picture")
            return 0
        # The last sample is from the end, when all clients have left.
        columns = {key: [float(row[key]) for row in rows[:-1]] for key in rows[0]}
        with open(path, "w", encoding="utf-8") as file:
            file.write(picture(policy, columns))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"soak.py: {samples}: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
