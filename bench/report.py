#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""report.py RESULTS.jsonl DIR: prints tables (also DIR/tables.md), draws pictures of run.sh's results, checks bounds.

Exit code 1 if a delivery was lost, misordered or corrupt, if a run failed, or if a bound is missed.
"""
import json
import math
import os
import statistics
import sys
from html import escape

POLICIES = ["pool", "strand", "thread-per-client", "other", "floor"]


def pool_to_floor(case, point, what, key, most, reason):
    """Returns a bound, as in BOUNDS."""
    return (f"pool / floor, {what}, {case}", (case, point, "pool", key), (case, point, "floor", key), most, reason)


# The bounds: a figure, the most it may be, and why. Only ratios or bytes, because times depend on the machine.
# (name, (case, point, policy, key), divided by, at most, reason)
BOUNDS = [
    ("strand / pool, CPU per delivery, fan1x100",
     ("fan1x100", 0, "strand", "cpu_us_per_delivery"), ("fan1x100", 0, "pool", "cpu_us_per_delivery"), 1.5,
     "a strand costs a hand-over for each event, not for each delivery"),
    ("fan4x1000 / fan1x100, CPU per delivery, pool",
     ("fan4x1000", 0, "pool", "cpu_us_per_delivery"), ("fan1x100", 0, "pool", "cpu_us_per_delivery"), 2.0,
     "the work for a delivery does not grow with the room"),
    ("5000 / 100 receivers, CPU per delivery, pool",
     ("receivers", 5000, "pool", "cpu_us_per_delivery"), ("receivers", 100, "pool", "cpu_us_per_delivery"), 3.0,
     "nor when the room no longer fits into the caches, but for their misses"),
    ("1000 / 100 rooms, CPU per text, pool",
     ("rooms-curve", 1000, "pool", "cpu_us_per_message"), ("rooms-curve", 100, "pool", "cpu_us_per_message"), 2.0,
     "rooms do not know of each other"),
    ("2 threads / 1, CPU per text, pool",
     ("threads", 2, "pool", "cpu_us_per_message"), ("threads", 1, "pool", "cpu_us_per_message"), 1.3,
     "clients of two threads share nothing but their room"),
    ("memory per idle receiver, bytes, pool",
     ("idle", 5000, "pool", "rss_bytes_per_client"), None, 1024,
     "an idle client holds no buffers"),
    ("CPU per delivery with a slow receiver / without, pool",
     ("slow", 1, "pool", "cpu_us_per_delivery"), ("slow", 0, "pool", "cpu_us_per_delivery"), 1.25,
     "a receiver that does not read harms only itself"),
    ("deliveries per second without a slow receiver / with, pool",
     ("slow", 0, "pool", "deliveries_per_second"), ("slow", 1, "pool", "deliveries_per_second"), 1.11,
     "and no other client waits for it"),
    ("growth of the peak memory with a slow receiver, KiB, pool",
     ("slow", 1, "pool", "peak_rss_growth_kb"), None, 8192,
     "what waits for a receiver is bounded"),
    *[pool_to_floor(case, 0, "CPU per delivery", "cpu_us_per_delivery", 1.5,
                    "a delivery may cost half as much again as its part of one write of all")
      for case in ("fan1x100", "fan4x100", "fan1x1000", "fan4x1000")],
    pool_to_floor("sync1x100", 0, "CPU per delivery", "cpu_us_per_delivery", 1.2,
                  "a write for each delivery: nearly all of it is the system's"),
    pool_to_floor("sync50x100", 0, "CPU per delivery", "cpu_us_per_delivery", 2.0,
                  "a queue for each receiver costs a push and a lock for each delivery, "
                  "which one log per room would not"),
    pool_to_floor("rooms", 500, "CPU per text", "cpu_us_per_message", 1.3, "a read and three writes for a text"),
    pool_to_floor("latency", 0, "CPU per text", "cpu_us_per_message", 1.3, "a read and two writes for a text"),
    pool_to_floor("latency", 0, "median latency", ("latency_us", 50), 1.15,
                  "nothing stands between the read and the write"),
]


def read(path):
    """Returns lists of runs by (case, point, policy), in the order of the file.

    There, the runs of one turn (all policies at one point in one round) are adjacent; "turn" counts the turns.
    """
    runs = {}
    turn, last, seen = 0, None, set()
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                run = json.loads(line)
                runs.setdefault((run["case"], run["point"], run["policy"]), []).append(run)
                where = run["case"], run["point"], run.get("round")
                if where != last or run["policy"] in seen:
                    turn, last, seen = turn + 1, where, set()
                seen.add(run["policy"])
                run["turn"] = turn
            except (ValueError, KeyError, TypeError):
                sys.exit(f"report.py: {path}:{number} is no result of run.sh")
    if not runs:
        sys.exit(f"report.py: there is nothing in {path}")
    return runs


def by_turn(runs, case, point, policy, key):
    """Returns the value of each turn; key may be ("latency_us", percent)."""
    result = {}
    for run in runs.get((case, point, policy), []):
        value = dict(run.get(key[0], [])).get(key[1]) if isinstance(key, tuple) else run.get(key)
        if value is not None:
            result[run["turn"]] = value
    return result


def values(runs, case, point, policy, key):
    return list(by_turn(runs, case, point, policy, key).values())


def times_the_floor(runs, case, point, policy, key):
    """Returns the ratio to the floor's value in each turn: in one turn, other load affects both."""
    floor = by_turn(runs, case, point, "floor", key)
    return [value / floor[turn] for turn, value in by_turn(runs, case, point, policy, key).items() if floor.get(turn)]


def median(runs, case, point, policy, key):
    found = values(runs, case, point, policy, key)
    return statistics.median(found) if found else None


def short(value):
    """Formats three significant digits."""
    if value is None:
        return "-"
    if value == round(value):
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


# --- Tables ---------------------------------------------------------------------------------------------------------

FAN = ["fan1x100", "fan4x100", "fan1x1000", "fan4x1000", "sync1x100", "sync50x100", "receivers", "text", "slow"]
REQUESTS = ["rooms", "latency", "rooms-curve", "threads"]
P50, P99 = ("latency_us", 50), ("latency_us", 99)
TO_FLOOR = [(case, 0, "cpu_us_per_delivery") for case in FAN[:6]] + [
    ("rooms", 500, "cpu_us_per_message"), ("latency", 0, "cpu_us_per_message")]
# title, cases, keys of one cell
TABLES = [
    ("Server CPU per delivery, us", FAN, ["cpu_us_per_delivery"]),
    ("Server CPU per text with its deliveries, us", REQUESTS, ["cpu_us_per_message"]),
    ("From sending to delivery, us: median / 99 %", FAN[:6] + REQUESTS, [P50, P99]),
    ("Memory per idle client, bytes / CPU for its login and join, us", ["idle", "clients"],
     ["rss_bytes_per_client", "login_cpu_us"]),
    ("Growth of the server's peak memory, KiB / slow receivers that joined / that were disconnected", ["slow"],
     ["peak_rss_growth_kb", "slow_joined", "slow_cut"]),
]


def cell(runs, case, point, policy, keys):
    """Returns the medians, and for a single key how much the runs differ from it."""
    found = [values(runs, case, point, policy, key) for key in keys]
    if not any(found):
        return "-"
    text = " / ".join(short(statistics.median(each) if each else None) for each in found)
    return text + spread(found[0]) if len(keys) == 1 else text


def spread(found):
    """Returns the greatest difference from the median."""
    middle = statistics.median(found)
    if len(found) < 2 or middle <= 0:
        return ""
    return f" ±{max(max(found) - middle, middle - min(found)) / middle:.0%}"


def tables(runs):
    """Yields (title, header, rows) of each table with any rows."""
    policies = [policy for policy in POLICIES if any(key[2] == policy for key in runs)]
    for title, cases, keys in TABLES:
        rows = []
        for case in cases:
            for point in sorted({key[1] for key in runs if key[0] == case}):
                cells = [cell(runs, case, point, policy, keys) for policy in policies]
                if any(text != "-" for text in cells):
                    rows.append([f"{case} {point:,}" if point > 0 or case == "slow" else case] + cells)
        if rows:
            yield title, ["case"] + policies, rows
    policies = [policy for policy in policies if policy != "floor"]
    rows = []
    for case, point, key in TO_FLOOR:
        ratios = [times_the_floor(runs, case, point, policy, key) for policy in policies]
        if any(ratios):
            rows.append([case] + [short(statistics.median(each)) + spread(each) if each else "-" for each in ratios])
    if rows:
        yield "Server CPU, as a multiple of the floor's in the same round", ["case"] + policies, rows


def as_text(title, header, rows):
    widths = [max(len(row[i]) for row in [header] + rows) for i in range(len(header))]
    lines = [title, ""]
    for row in [header] + rows:
        lines.append("  " + row[0].ljust(widths[0]) + "".join("  " + c.rjust(w) for c, w in zip(row[1:], widths[1:])))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def as_markdown(title, header, rows):
    lines = ["| " + " | ".join(row) + " |" for row in [header] + rows]
    lines.insert(1, "|---" + "|---:" * (len(header) - 1) + "|")
    return f"**{title}**\n\n" + "\n".join(lines) + "\n"


# --- Pictures -------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 720, 430
LEFT, RIGHT, TOP, BOTTOM = 90, 32, 72, 62
# After Okabe and Ito's colours, which colour-blind readers can tell apart; lines also differ in dashes and markers.
STYLE = """
  text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #222 }
  .title { font-size: 16px; font-weight: 600 }
  .ground { fill: #fff } .grid { stroke: #ddd } .axis { stroke: #555 } .line { fill: none; stroke-width: 2 }
  .line.s1 { stroke-dasharray: 9 5 } .line.s3 { stroke-dasharray: 2 4 }
  .s0 { stroke: #0072b2 } .m0 { fill: #0072b2 } .s1 { stroke: #c04f00 } .m1 { fill: #c04f00 }
  .s2 { stroke: #00825f } .m2 { fill: #00825f } .s3 { stroke: #a8528a } .m3 { fill: #a8528a }
  .s4 { stroke: #808080 } .line.s4 { stroke-width: 1.3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .ground { fill: #16181d } .grid { stroke: #33363d } .axis { stroke: #999 }
    .s0 { stroke: #56b4e9 } .m0 { fill: #56b4e9 } .s1 { stroke: #f5913e } .m1 { fill: #f5913e }
    .s2 { stroke: #2fc39a } .m2 { fill: #2fc39a } .s3 { stroke: #e39cc8 } .m3 { fill: #e39cc8 }
  }
"""


def marker(kind, x, y):
    """Draws a different shape for each line, the first larger, as the second may cover it; none for the floor."""
    if POLICIES[kind] == "floor":
        return ""
    if kind == 0:
        return f'<circle class="m0" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>'
    shape = {1: [(-3.5, -3.5), (3.5, -3.5), (3.5, 3.5), (-3.5, 3.5)], 2: [(0, -5.5), (5, 4), (-5, 4)],
             3: [(0, -6), (6, 0), (0, 6), (-6, 0)]}[kind]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shape)
    return f'<polygon class="m{kind}" points="{points}"/>'


def log_ticks(low, high):
    """Returns 1, 2 and 5 times each power of ten, or only 1 if there are many powers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [1] if math.log10(high / low) > 3.5 else [1, 2, 5]
    ticks = [step * 10.0 ** power for power in powers for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def around(numbers):
    """Returns the nearest 1, 2 or 5 times a power of ten below and above the numbers."""
    steps = [step * 10.0 ** power for power in range(-6, 13) for step in (1, 2, 5)]
    return max(s for s in steps if s <= min(numbers)), min(s for s in steps if s > max(numbers))


def number(value):
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def picture(title, description, x_label, y_label, lines, x_ticks, x_place):
    """Returns an SVG. lines: (policy, points); x_place: maps x to 0..1; the y axis is logarithmic."""
    low, high = around([y for _, points in lines for _, y in points])

    def across(x):
        return LEFT + x_place(x) * (WIDTH - LEFT - RIGHT)

    def down(y):
        return HEIGHT - BOTTOM - math.log(y / low) / math.log(high / low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
           ' role="img" aria-labelledby="title desc">',
           f'<title id="title">{escape(title)}</title>', f'<desc id="desc">{escape(description)}</desc>',
           f"<style>{STYLE}</style>", f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
           f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>']
    for y in log_ticks(low, high):
        out.append(f'<path class="grid" d="M{LEFT} {down(y):.1f}H{WIDTH - RIGHT}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{down(y) + 4.5:.1f}" text-anchor="end">{number(y)}</text>')
    for x, label in x_ticks:
        out.append(f'<path class="grid" d="M{across(x):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        out.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">{label}</text>')
    out.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 16}" '
               f'text-anchor="middle">{escape(x_label)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    at = LEFT
    for policy, points in lines:
        kind = POLICIES.index(policy)
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        out.append(f'<polyline class="line s{kind}" points="{path}"/>')
        out += [marker(kind, across(x), down(y)) for x, y in points]
        out.append(f'<path class="line s{kind}" d="M{at} 48h26"/>' + marker(kind, at + 13, 48))
        out.append(f'<text x="{at + 33}" y="52.5">{escape(policy)}</text>')
        at += 60 + 8 * len(policy)
    return "\n".join(out) + "\n</svg>\n"


def curve(runs, case, key, policies):
    """Yields (policy, points) of each policy with any points."""
    for policy in policies:
        points = [(point, median(runs, case, point, policy, key))
                  for point in sorted({k[1] for k in runs if k[0] == case and k[2] == policy})]
        points = [(x, y) for x, y in points if y is not None and y > 0]
        if points:
            yield policy, points


def over_log(lines):
    """Returns the ticks and the mapping of a logarithmic x axis."""
    xs = sorted({x for _, points in lines for x, _ in points})
    low, high = xs[0] / 1.15, xs[-1] * 1.15
    return [(x, number(x)) for x in log_ticks(low, high)], lambda x: math.log(x / low) / math.log(high / low)


def summary(lines, what):
    """Describes the ends of each line."""
    return "; ".join(f"{policy}: {short(points[0][1])} at {number(points[0][0])}, {short(points[-1][1])} at "
                     f"{number(points[-1][0])} {what}" for policy, points in lines) + "."


def pictures(runs):
    """Yields (file name, SVG)."""
    lines = list(curve(runs, "receivers", "cpu_us_per_delivery", POLICIES))
    if lines:
        yield "receivers.svg", picture("What a delivery costs the server", "CPU time in microseconds: " + summary(
            lines, "receivers"), "receivers in the room", "CPU per delivery, µs", lines, *over_log(lines))
    lines = list(curve(runs, "clients", "rss_bytes_per_client", [p for p in POLICIES if p != "floor"]))
    if lines:
        yield "memory.svg", picture("What an idle client costs the server", "Bytes of memory: " + summary(
            lines, "clients"), "clients", "memory per client, bytes", lines, *over_log(lines))
    lines = []
    for policy in POLICIES:
        found = runs.get(("latency", 0, policy), [])
        percents = sorted({percent for run in found for percent, _ in run.get("latency_us", []) if percent < 100})
        if percents:
            lines.append((policy, [(p, median(runs, "latency", 0, policy, ("latency_us", p))) for p in percents]))
    if lines:
        def place(percent):  # each nine takes as much space as the one before
            return -math.log10(1 - percent / 100) / 3.15
        ticks = [(p, f"{p:g} %") for p in (1, 50, 75, 90, 95, 99, 99.9)]
        yield "latency.svg", picture("How long a text is on its way, one sender and one receiver",
                                     "Microseconds from sending to delivery: " + summary(lines, "%"),
                                     "so many texts take at most ...", "latency, µs", lines, ticks, place)


# --- Bounds ---------------------------------------------------------------------------------------------------------

def check_bounds(runs):
    """Prints each bound. Returns how many are missed."""
    missed = 0
    lines = []
    for name, key, divisor, most, reason in BOUNDS:
        value = median(runs, *key)
        if divisor and divisor[2] == "floor":
            ratios = times_the_floor(runs, *key)
            value = statistics.median(ratios) if ratios else None
        elif divisor and value is not None:
            base = median(runs, *divisor)
            value = value / base if base else None
        if value is None:
            continue  # not measured
        good = value <= most
        missed += not good
        lines.append(f"  {'ok    ' if good else 'MISSED'}  {short(value):>6} <= {most:<6,}  {name}\n"
                     f"                            {reason}")
    if lines:
        print("Bounds\n\n" + "\n".join(lines) + "\n")
    return missed


def check_runs(runs):
    """Prints each failure. Returns how many there are."""
    failures = 0
    for (case, point, policy), found in runs.items():
        for run in found:
            where = f"{case} {point}, {policy}, round {run.get('round')}"
            if "failed" in run:
                print(f"FAILED: {where}: {run['failed']}")
                failures += 1
                continue
            wrong = [f"{run[key]} {key}" for key in ("lost", "misordered", "corrupt", "errors", "unacknowledged")
                     if run.get(key)]
            if not wrong and run.get("exit"):
                wrong = [f"exit code {run['exit']}"]
            if wrong:
                print(f"WRONG: {where}: {', '.join(wrong)}")
                failures += 1
    return failures


def main():
    with_bounds = sys.argv[1:2] != ["--no-bounds"]
    if len(sys.argv) != (3 if with_bounds else 4):
        print("usage: report.py [--no-bounds] RESULTS.jsonl DIR", file=sys.stderr)
        return 2
    results, folder = sys.argv[-2:]
    try:
        runs = read(results)
        os.makedirs(folder, exist_ok=True)
        found = list(tables(runs))
        for each in found:
            print(as_text(*each))
        files = [("tables.md", "\n".join(as_markdown(*each) for each in found))] + list(pictures(runs))
        for name, text in files:
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    missed = (check_bounds(runs) if with_bounds else 0) + check_runs(runs)
    print(f"Wrote {', '.join(name for name, _ in files)} to {folder}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
