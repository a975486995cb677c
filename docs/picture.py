#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Draws docs/demo.svg, an animated picture of what `sh examples/demo.sh` plays in a terminal.

python3 docs/picture.py            plays the demo and draws it
python3 docs/picture.py --check    says whether the picture has the conversation that the demo plays now
"""
import os
import pathlib
import pty
import re
import sys
import time
from xml.etree import ElementTree
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).parents[1]
PICTURE = ROOT / "docs/demo.svg"
COLUMNS, ROWS = 88, 18  # of the terminal
LINE, LETTER = 19, 8.4  # the height of a line and the width of a letter, in pixels
PAUSE = 6  # seconds from the last line to the first again
COLOURS = {"type": "#7ee787", "see": "#79c0ff", "log": "#ffa657"}


def play():
    """Runs the demo in a terminal. Returns (seconds, line) for each line of the conversation."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvp("sh", ["sh", str(ROOT / "examples/demo.sh")])
    lines, rest, begin = [], b"", None
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the end of a terminal
            break
        *whole, rest = (rest + data).split(b"\n")
        for line in (line.decode().rstrip("\r") for line in whole):
            if line.startswith("The server listens on port"):
                begin = time.monotonic()
            if begin and not line.startswith("Now by hand"):
                lines.append((time.monotonic() - begin, line))
            elif begin:
                begin = None
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0 or not lines:
        sys.exit("picture: the demo has failed")
    return lines


def draw(lines):
    while not lines[-1][1]:
        lines.pop()
    total = lines[-1][0] + PAUSE
    height = LINE * (ROWS + 2)
    width = round(LETTER * (COLUMNS + 4))
    styles, texts, scrolls = [], [], ["0%{transform:translateY(0)}"]
    for number, (when, line) in enumerate(lines):
        begin = 100 * when / total
        styles.append(f"@keyframes l{number}{{0%,{begin:.2f}%{{opacity:0}}{begin + 0.01:.2f}%,100%{{opacity:1}}}}"
                      f".l{number}{{animation:l{number} {total:.1f}s infinite}}")
        if number >= ROWS:
            scrolls.append(f"{begin:.2f}%{{transform:translateY({(ROWS - 1 - number) * LINE}px)}}")
        verb = re.match(r"  \S+ +(type|see|log)s? ", line)
        colour = COLOURS[verb[1]] if verb else "#8b949e" if line.startswith("  ") else "#e6edf3"
        if line:
            texts.append(f'<text class="l{number}" x="{2 * LETTER:.0f}" y="{LINE * (number + 1.7):.0f}" '
                         f'fill="{colour}" xml:space="preserve">{escape(line[:COLUMNS])}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="The demo in a terminal: receivers listen in two rooms, senders talk to them">',
        "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}", *styles,
        f"@keyframes scroll{{{''.join(scrolls)}100%{{transform:translateY({(ROWS - len(lines)) * LINE}px)}}}}",
        f".scroll{{animation:scroll {total:.1f}s step-end infinite}}",
        "@media(prefers-reduced-motion){text,.scroll{animation:none!important}}</style>",
        f'<clipPath id="screen"><rect y="{0.5 * LINE}" width="{width}" height="{(ROWS + 1) * LINE}"/></clipPath>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>',
        '<g clip-path="url(#screen)"><g class="scroll">', *texts, "</g></g></svg>", ""])


def check():
    drawn = [element.text for element in ElementTree.parse(PICTURE).iter() if element.tag.endswith("text")]
    script = (ROOT / "examples/demo.sh").read_text(encoding="utf-8")
    typed = [f"{who:<5}  types  {line}" for who, line in re.findall(r"^types (\w+) '?([^'\n]+)'?$", script, re.M)]
    if [line.strip() for line in drawn if "  types  " in line and "/quit" not in line] != typed:
        sys.exit("picture: the demo plays another conversation now; draw it again: python3 docs/picture.py")


if sys.argv[1:] == ["--check"]:
    check()
elif len(sys.argv) == 1:
    PICTURE.write_text(draw(play()), encoding="utf-8")
else:
    sys.exit(__doc__)
