#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""report.py RESULTS.jsonl DIR: prints tables (also DIR/tables.md), draws pictures of run.sh's results, checks bounds.

Exit code 1 if a delivery was lost, misordered or corrupt, if a run failed, or if a bound is missed.
"""
import io
import json
import math
import os
import statistics
import sys
from html import escape

try:
    import matplotlib
    from matplotlib import figure, ticker
except ImportError:
    matplotlib = None  # then there are no pictures

# Colours of Okabe and Ito, which colour-blind readers can tell apart, dashes, markers and their sizes: the first marker
# is larger, as the others may cover it.
POLICIES = {"pool": ("#0072b2", "-", "o", 8), "strand": ("#d55e00", "--", "s", 5),
            "thread-per-client": ("#009e73", "-.", "^", 7), "other": ("#cc79a7", ":", "D", 6),
            "floor": ("#000000", (0, (1, 1)), "", 0),
           # of run.sh --tls
           "plain": ("#000000", (0, (1, 1)), "", 0), "tls": ("#0072b2", "-", "o", 8),
           "stunnel": ("#d55e00", "--", "s", 5), "haproxy": ("#009e73", "-.", "^", 7),
           # of run.sh --redis
           "alone": ("#000000", (0, (1, 1)), "", 0), "one": ("#0072b2", "-", "o", 8),
           "three": ("#d55e00", "--", "s", 5), "three-two": ("#009e73", "-.", "^", 7),
           # of run.sh --websocket
           "tcp": ("#000000", (0, (1, 1)), "", 0), "websocket": ("#0072b2", "-", "o", 8),
           # of run.sh --against
           "without": ("#000000", (0, (1, 1)), "", 0), "with": ("#0072b2", "-", "o", 8)}

# Keys of run.sh's results; a pair is a key and a percentage.
DELIVERY, TEXT, MEMORY = "cpu_us_per_delivery", "cpu_us_per_message", "rss_bytes_per_client"
HANDSHAKE = "cpu_us_per_handshake"
ENGINE, RATE, THROUGHPUT = "engine_cpu_us_per_message", "messages_per_second", "deliveries_per_second"
ENGINE_RATIO = "engine CPU / that of a server alone"  # per text; made by read()
P50, P99 = ("latency_us", 50), ("latency_us", 99)

CLUSTER = ["many", "saturated"]
FAN = ["fan1x100", "fan4x100", "fan1x1000", "fan4x1000", "sync1x100", "sync50x100"]
REQUESTS = ["rooms", "latency", "rooms-curve", "threads"]
# title, cases, keys of one cell
TABLES = [
    ("Server CPU per delivery, us", FAN + ["receivers", "text", "slow"], [DELIVERY]),
    ("Server CPU per text with its deliveries, us", REQUESTS + CLUSTER, [TEXT]),
    ("CPU of Redis per text, us", FAN + REQUESTS + CLUSTER, [ENGINE]),
    ("Texts per second", CLUSTER, [RATE]),
    ("Cores used: servers / Redis / load", CLUSTER, ["server_cpu_share", "engine_cpu_share", "load_cpu_share"]),
    ("From sending to delivery, us: median / 99 %", FAN + REQUESTS + CLUSTER + ["storm"], [P50, P99]),
    ("Server CPU per TLS handshake, us", ["handshakes"], [HANDSHAKE]),
    ("TLS handshakes beside the chat / of these failed", ["storm"], ["handshakes", "failed_handshakes"]),
    ("Memory per idle client, bytes / CPU for its login and join, us", ["idle", "clients"], [MEMORY, "login_cpu_us"]),
    ("Growth of the server's peak memory, KiB / slow receivers that joined / that were disconnected", ["slow"],
     ["peak_rss_growth_kb", "slow_joined", "slow_cut"]),
]

# file name, case, key, title, what it shows, in words, unit of x, labels of the axes
PICTURES = [
    ("receivers.svg", "receivers", DELIVERY, "What a delivery costs the server",
     "CPU time in microseconds", "receivers", "receivers in the room", "CPU per delivery, µs"),
    ("memory.svg", "clients", MEMORY, "What an idle client costs the server",
     "Bytes of memory", "clients", "clients", "memory per client, bytes"),
    ("latency.svg", "latency", "latency_us", "How long a text is on its way, one sender and one receiver",
     "Microseconds from sending to delivery", "%", "share of the texts that take at most so long, %", "latency, µs"),
]
PERCENTS = [1, 25, 50, 75, 90, 95, 99, 99.9]

# The bounds: the most that a figure may be, and why. Only ratios or bytes, because times depend on the machine.
# (at most, key, (case, point, policy), the same of what it is divided by or None, name, reason)
BOUNDS = [
    (1.5, DELIVERY, ("fan1x100", 0, "strand"), ("fan1x100", 0, "pool"), "strand / pool, CPU per delivery, fan1x100",
     "a strand costs a hand-over for each event, not for each delivery"),
    (2.0, DELIVERY, ("fan4x1000", 0, "pool"), ("fan1x100", 0, "pool"), "fan4x1000 / fan1x100, CPU per delivery, pool",
     "the work for a delivery does not grow with the room"),
    (3.0, DELIVERY, ("receivers", 5000, "pool"), ("receivers", 100, "pool"), "5000 / 100 receivers, CPU per delivery, "
     "pool", "nor when the room no longer fits into the caches, apart from cache misses"),
    (2.0, TEXT, ("rooms-curve", 1000, "pool"), ("rooms-curve", 100, "pool"), "1000 / 100 rooms, CPU per text, pool",
     "rooms do not know of each other"),
    (1.3, TEXT, ("threads", 2, "pool"), ("threads", 1, "pool"), "2 threads / 1, CPU per text, pool",
     "clients of two threads share nothing but their room"),
    (1024, MEMORY, ("idle", 5000, "pool"), None, "memory per idle receiver, bytes, pool",
     "an idle client holds no buffers"),
    (1.25, DELIVERY, ("slow", 1, "pool"), ("slow", 0, "pool"), "CPU per delivery with a slow receiver / without, pool",
     "a receiver that does not read costs nobody else anything"),
    (1.11, THROUGHPUT, ("slow", 0, "pool"), ("slow", 1, "pool"),
     "deliveries per second without a slow receiver / with, pool", "and nobody waits for it"),
    (8192, "peak_rss_growth_kb", ("slow", 1, "pool"), None, "growth of the peak memory with a slow receiver, KiB, pool",
     "what waits for a receiver is bounded"),
]
# The same for the ratio to the floor: (case, point, key, at most, reason)
TO_FLOOR = [
    *[(case, 0, DELIVERY, 1.5, "a delivery may cost half as much again as its share of one write of all")
      for case in FAN[:4]],
    ("sync1x100", 0, DELIVERY, 1.2, "a write for each delivery: nearly all of it is the system's"),
    ("sync50x100", 0, DELIVERY, 2.0, "50 texts share a receiver's write, so the server's own work is a larger part"),
    ("rooms", 500, TEXT, 1.3, "a read and three writes for a text"),
    ("latency", 0, TEXT, 1.3, "a read and two writes for a text"),
    ("latency", 0, P50, 1.15, "nothing stands between the read and the write"),
]
NAMES = {DELIVERY: "CPU per delivery", TEXT: "CPU per text", P50: "median latency"}
BOUNDS += [(most, key, (case, point, "pool"), (case, point, "floor"), f"pool / floor, {NAMES[key]}, {case}", reason)
           for case, point, key, most, reason in TO_FLOOR]

# What TLS costs is compared with these: (case, point, key)
OVER_TLS = [*[(case, 0, DELIVERY) for case in FAN], ("rooms", 500, TEXT), ("latency", 0, TEXT), ("latency", 0, P50),
            ("handshakes", 0, HANDSHAKE), ("idle", 1000, "login_cpu_us"), ("idle", 1000, MEMORY)]
NAMES |= {HANDSHAKE: "CPU per handshake", "login_cpu_us": "CPU for login and join, and handshake if any",
          MEMORY: "memory"}
# (at most, the other, case, reason)
TO_OTHERS = [
    *[(1.5, "plain", case, "all texts of a batch share a record") for case in FAN[:4]],
    *[(0.5, "stunnel", case, "no second process, no second copy") for case in ("fan1x100", "sync1x100", "rooms")],
    *[(1.0, "haproxy", case, "no second process, no second copy") for case in ("fan1x100", "sync1x100", "rooms")],
    (1.25, "haproxy", "handshakes", "0.8 times as many in a second of CPU: both leave the work to OpenSSL"),
]
BOUNDS += [(most, key, (case, point, "tls"), (case, point, other), f"tls / {other}, {NAMES[key]}, {case}", reason)
           for most, other, wanted, reason in TO_OTHERS for case, point, key in OVER_TLS if case == wanted]
BOUNDS.append((20_480, MEMORY, ("idle", 1000, "tls"), None, "memory per idle receiver, bytes, tls",
               "OpenSSL's state for a connection, and no buffers"))
# What WebSocket costs is compared with TCP: (case, point, key)
OVER_WEBSOCKET = [*[(case, 0, DELIVERY) for case in FAN], ("rooms", 500, DELIVERY), ("latency", 0, DELIVERY),
                  ("latency", 0, P50), ("idle", 5000, "login_cpu_us"), ("idle", 5000, MEMORY)]
BOUNDS += [(1.2, key, (case, point, "websocket"), (case, point, "tcp"), f"websocket / tcp, {NAMES[key]}, {case}",
            "a header for all texts of a write") for case, point, key in OVER_WEBSOCKET
           if case in ("fan1x100", "sync1x100", "rooms")]
BOUNDS.append((1229, MEMORY, ("idle", 5000, "websocket"), None, "memory per idle receiver, bytes, websocket",
               "a layer, and no buffers"))
# What three servers cost that share a Redis is compared with one alone: (case, point, key)
OVER_REDIS = [*[(case, 0, DELIVERY) for case in FAN], *[(case, 0, TEXT) for case in ("latency", "many")],
              ("rooms", 500, TEXT), ("latency", 0, P50), ("sync1x100", 0, P50), ("idle", 5000, "login_cpu_us"),
              ("idle", 5000, MEMORY)]
# (at most, (case, point, key), reason)
TO_ALONE = [
    (1.3, ("fan1x100", 0, DELIVERY), "a block that comes is decoded once by each server"),
    (1.3, ("sync1x100", 0, DELIVERY), "the same for a block of one text"),
    (7, ("latency", 0, P50), "a text makes its way through Redis"),
]
BOUNDS += [(most, where[2], (*where[:2], "three"), (*where[:2], "alone"),
            f"three servers / alone, {NAMES[where[2]]}, {where[0]}", reason) for most, where, reason in TO_ALONE]
BOUNDS += [
    (3.5, ENGINE_RATIO, ("latency", 0, "three"), None, "CPU of Redis / of a server alone, per text, latency",
     "one script numbers, stores and publishes a text"),
    (1 / 1.8, RATE, ("saturated", 500, "three"), ("saturated", 500, "three-two"),
     "texts per second with one Redis / with two, saturated", "they share nothing"),
]
# (at most, key, (case, point, policy), the same of what is subtracted, name, reason)
DIFFERENCES = [
    (50_000, P99, ("storm", 5000, "tls"), ("storm", 0, "tls"), "p99 with a storm of handshakes - without, us, tls",
     "handshakes do not keep others waiting"),
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
    everything = [run for found in runs.values() for run in found]
    alone = {run["turn"]: run.get(TEXT) for run in everything if run["policy"] == "alone"}
    for run in everything:
        if run.get(ENGINE) and alone.get(run["turn"]):
            run[ENGINE_RATIO] = run[ENGINE] / alone[run["turn"]]
    return runs


def values(runs, where, key, floor=None):
    """Returns the value of each turn, or its ratio to that of `floor`: in one turn, other load affects both."""
    def by_turn(where):
        found = {run["turn"]: dict(run.get(key[0], [])).get(key[1]) if isinstance(key, tuple) else run.get(key)
                 for run in runs.get(where, [])}
        return {turn: value for turn, value in found.items() if value is not None}
    if not floor:
        return list(by_turn(where).values())
    base = by_turn(floor)
    return [value / base[turn] for turn, value in by_turn(where).items() if base.get(turn)]


def median(found):
    return statistics.median(found) if found else None


def short(value):
    """Formats three significant digits."""
    if value is None:
        return "-"
    digits = 0 if value == round(value) else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def cell(*found):
    """Returns the medians, and for a single list its greatest difference from the median."""
    text = " / ".join(short(median(each)) for each in found) if any(found) else "-"
    middle = median(found[0])
    if len(found) == 1 and len(found[0]) > 1 and middle > 0:
        text += f" ±{max(max(found[0]) - middle, middle - min(found[0])) / middle:.0%}"
    return text


def spread(found):
    return f"{short(median(found))} ({short(min(found))} to {short(max(found))})" if found else "-"


def tables(runs):
    """Yields (title, rows) of each table with any rows; the first row is its header."""
    policies = [policy for policy in POLICIES if any(key[2] == policy for key in runs)]
    ours = [policy for policy in policies if policy != "floor"]
    found = [(title, policies, [
        [f"{case} {point:,}" if point > 0 or case == "slow" else case]
        + [cell(*(values(runs, (case, point, policy), key) for key in keys)) for policy in policies]
        for case in cases for point in sorted({key[1] for key in runs if key[0] == case})])
        for title, cases, keys in TABLES]
    found.append(("Server CPU, as a multiple of the floor's in the same round", ours, [
        [case] + [cell(values(runs, (case, point, policy), key, (case, point, "floor"))) for policy in ours]
        for case, point, key, *_ in TO_FLOOR if key != P50]))
    others = [policy for policy in ("plain", "stunnel", "haproxy") if policy in policies]
    found.append(("TLS: multiples of the others' figures in the same round", others, [
        [f"{case}: {NAMES[key]}"] + [cell(values(runs, (case, point, "tls"), key, (case, point, other)))
                                     for other in others] for case, point, key in OVER_TLS]))
    shared = [policy for policy in ("one", "three", "three-two") if policy in policies]
    found.append(("Redis: multiples of the figures of a server alone in the same round", shared, [
        [f"{case}: {NAMES[key]}"] + [cell(values(runs, (case, point, policy), key, (case, point, "alone")))
                                     for policy in shared] for case, point, key in OVER_REDIS]))
    found.append(("WebSocket: multiples of TCP's figures in the same round", ["websocket"], [
        [f"{case}: {NAMES[key]}", cell(values(runs, (case, point, "websocket"), key, (case, point, "tcp")))]
        for case, point, key in OVER_WEBSOCKET]))
    options = {run["options"] for each in runs.values() for run in each if "options" in run}
    found.append((f"With {' or '.join(sorted(options))}: multiples of the figures without in the same round, "
                  "median (least to greatest)", ["CPU per delivery", "deliveries per second"], [
        [f"{case} {point:,}" if point > 0 else case]
        + [spread(values(runs, (case, point, policy), key, (case, point, "without")))
           for key in (DELIVERY, THROUGHPUT)] for case, point, policy in runs if policy == "with"]))
    for title, columns, rows in found:
        rows = [row for row in rows if any(text != "-" for text in row[1:])]
        if rows:
            yield title, [["case"] + columns] + rows


def as_text(title, rows):
    first, *widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [f"  {row[0]:{first}}" + "".join(f"  {text:>{width}}" for text, width in zip(row[1:], widths))
             for row in rows]
    return "\n".join([title, ""] + [line.rstrip() for line in lines]) + "\n"


def as_markdown(title, rows):
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    return f"**{title}**\n\n{lines[0]}|---{'|---:' * (len(rows[0]) - 1)}|\n{''.join(lines[1:])}"


def plain(value, _=None):
    return f"{value:,.0f}" if value >= 1 and value == round(value) else f"{value:g}"


def draw(title, description, x_label, y_label, lines, of_percents):
    """Returns an SVG. lines: {policy: [(x, y)]}; y is logarithmic, and so is x, unless it is a percentage."""
    def across(x):  # each nine of a percentage takes as much space as the one before
        return -math.log10(1 - x / 100) if of_percents else x

    matplotlib.rcdefaults()  # whatever the user has configured, the same results give the same bytes
    matplotlib.rcParams.update({
        "svg.fonttype": "none", "svg.hashsalt": "chatproto", "font.size": 11, "axes.spines.top": False,
        "axes.spines.right": False, "figure.constrained_layout.h_pad": 0.1, "figure.constrained_layout.w_pad": 0.1})
    drawing = figure.Figure(figsize=(9, 5.2), layout="constrained")
    drawing.suptitle(title, x=0.012, horizontalalignment="left", fontweight="semibold")
    axes = drawing.subplots()
    for policy, points in lines.items():
        colour, dashes, marker, size = POLICIES[policy]
        axes.plot([across(x) for x, _ in points], [y for _, y in points], color=colour, linestyle=dashes, linewidth=1.8,
                  marker=marker, markersize=size, label=policy)
    heights = [y for points in lines.values() for _, y in points]
    steps = [step * 10.0 ** power for power in range(-6, 13) for step in (1, 2, 5)]
    axes.set(xlabel=x_label, ylabel=y_label, yscale="log", xscale="linear" if of_percents else "log",
             ylim=(max(s for s in steps if s <= min(heights)), min(s for s in steps if s > max(heights))))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set(major_locator=ticker.LogLocator(subs=(1, 2, 5), numticks=99), major_formatter=plain,
                 minor_locator=ticker.NullLocator())
    if of_percents:
        axes.set_xticks([across(x) for x in PERCENTS], map(plain, PERCENTS))
    axes.grid(color="#dddddd")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncol=len(lines), frameon=False,
                handlelength=3, columnspacing=1.2)
    file = io.StringIO()
    drawing.savefig(file, format="svg", metadata={"Title": title, "Date": None, "Creator": None})
    # Screen readers take the description of an image from there, not from the metadata.
    return file.getvalue().replace("<svg ", '<svg role="img" ', 1).replace(
        "</title>", f"</title>\n <desc>{escape(description)}</desc>", 1)


def pictures(runs):
    """Yields (file name, SVG)."""
    for name, case, key, title, what, unit, x_label, y_label in PICTURES:
        lines, of_percents = {}, key == "latency_us"
        for policy in POLICIES:
            points = [(x, median(values(runs, (case, 0, policy), (key, x)) if of_percents
                                 else values(runs, (case, x, policy), key)))
                      for x in (PERCENTS if of_percents else sorted({k[1] for k in runs if k[0] == case}))]
            points = [(x, y) for x, y in points if y and y > 0]
            if points and (policy, key) != ("floor", MEMORY):
                lines[policy] = points
        if lines and not matplotlib:
            print("report.py: no pictures: there is no matplotlib (Debian: python3-matplotlib)", file=sys.stderr)
            return
        if lines:
            ends = "; ".join(f"{policy}: {short(points[0][1])} at {plain(points[0][0])}, {short(points[-1][1])} at "
                             f"{plain(points[-1][0])} {unit}" for policy, points in lines.items())
            yield name, draw(title, f"{what}: {ends}.", x_label, y_label, lines, of_percents)


def check_bounds(runs):
    """Prints each bound. Returns how many are missed."""
    missed, lines = 0, []
    for most, key, where, other, name, reason in BOUNDS + DIFFERENCES:
        if other and other[:2] == where[:2]:  # in the same turn
            value = median(values(runs, where, key, other))
        else:
            value, base = (median(values(runs, each, key)) if each else 1 for each in (where, other))
            if value is None or not base:
                value = None
            elif (most, key, where, other, name, reason) in DIFFERENCES:
                value -= base
            else:
                value /= base
        if value is None:
            continue  # not measured
        missed += value > most
        lines.append(f"  {'ok    ' if value <= most else 'MISSED'}  {short(value):>6} <= {short(most):<6}  {name}\n"
                     f"{'':28}{reason}")
    if lines:
        print("Bounds\n\n" + "\n".join(lines) + "\n")
    return missed


def check_runs(runs):
    """Prints each failure. Returns how many there are."""
    failures = []
    for (case, point, policy), found in runs.items():
        for run in found:
            wrong = [f"{run[key]} {key}" for key in ("lost", "misordered", "corrupt", "errors", "unacknowledged")
                     if run.get(key)] or ([f"exit code {run['exit']}"] if run.get("exit") else [])
            if "failed" in run or wrong:
                said = f"{case} {point}, {policy}, round {run.get('round')}: {run.get('failed', ', '.join(wrong))}"
                failures.append(("FAILED: " if "failed" in run else "WRONG: ") + said)
    print("".join(f"{line}\n" for line in failures), end="")
    return len(failures)


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
        files = [("tables.md", "\n".join(as_markdown(*each) for each in found)), *pictures(runs)]
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
