#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Draws docs/demo.svg, an animated picture of the terminal client in a conversation. Needs tmux.

python3 docs/picture.py [BIN]      plays the conversation with the programs in BIN (build/dev/bin), and draws it
python3 docs/picture.py --check    says whether the picture has the conversation that is played now
"""
import os
import pathlib
import re
import subprocess
import sys
import time
from xml.etree import ElementTree
from xml.sax.saxutils import escape

ROOT = pathlib.Path(__file__).parents[1]
PICTURE = ROOT / "docs/demo.svg"
COLUMNS, ROWS = 66, 13  # of the terminal
LINE, LETTER = 19, 8.4  # the height of a line and the width of a letter, in pixels
PAUSE = 5  # seconds from the last screen to the first again
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#d29922", "34": "#79c0ff", "35": "#d2a8ff", "36": "#76e3ea",
           "92": "#56d364", "93": "#e3b341", "94": "#58a6ff", "95": "#bc8cff", "96": "#39c5cf"}
# Who does what: bob types in the picture, the others are elsewhere. The last field is on the screen before it goes on.
SCRIPT = (
    ("alice", "hey everybody!", "alice: hey everybody!"),
    ("bob", "hi alice, who else is here?", "bob: hi alice"),
    ("bob", "/who", "here:"),
    ("bob", "I am typing a long", None),
    ("carol", "The kettle is on.", "carol: The kettle is on."),
    ("alice", "One for me, please.", "alice: One for me"),
    ("bob", " line, and it stays whole.\n", "it stays whole."),
    ("bob", "/msg carol two sugars", "two sugars"),
    ("server", "is stopped, and started again", "connected again"),
    ("alice", "There you are.", "There you are."),
    ("bob", "/quit", "$"),
)


def play(programs):
    """Plays the script. Returns (seconds, rows) for each screen; a row is a list of (colour, text)."""
    os.environ.update(LC_ALL="C.UTF-8", EDITRC="/dev/null", TERM="xterm-256color")
    for name in "NO_COLOR", "TMUX":
        os.environ.pop(name, None)
    screens, begin = [], time.monotonic()

    def tmux(*arguments):
        return subprocess.run(["tmux", "-L", "picture", "-f", "/dev/null", *map(str, arguments)], check=True,
                              capture_output=True, text=True).stdout

    def look():
        rows = pieces(tmux("capture-pane", "-p", "-e"))
        if not screens or screens[-1][1] != rows:
            screens.append((time.monotonic() - begin, rows))
        return "\n".join("".join(text for _, text in row) for row in rows)

    def wait_for(text):
        end = time.monotonic() + 60
        while text not in look():
            if time.monotonic() > end:
                sys.exit(f"picture: waited in vain for {text!r}")
            time.sleep(0.05)

    def serve(port):
        return subprocess.Popen([programs / "server", str(port), "--presence"], stderr=subprocess.PIPE, text=True)

    server = serve(0)
    port = server.stderr.readline().split()[-1]
    people = {}

    def talk(who, text):
        if who not in people:
            people[who] = subprocess.Popen([programs / "chat", "localhost", port, who, "cafe"], text=True,
                                           stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        people[who].stdin.write(text + "\n")
        people[who].stdin.flush()

    tmux("new-session", "-d", "-x", COLUMNS, "-y", ROWS, "env", "PS1=$ ", "sh")
    try:
        wait_for("$")
        tmux("send-keys", "-l", f"PATH={programs}:$PATH; clear")
        tmux("send-keys", "Enter")
        wait_for("$")
        screens.clear()
        begin = time.monotonic()
        for who, text, shown in (("bob", f"chat localhost {port} bob cafe", "cafe>"), *SCRIPT):
            time.sleep(0.8)
            if who == "bob":
                for letter in text.rstrip("\n"):
                    tmux("send-keys", "-l", letter)
                    time.sleep(0.05)
                    look()
                if shown is not None:
                    tmux("send-keys", "Enter")
            elif who == "server":
                server.terminate()
                server.wait()
                people.clear()  # without a terminal they end
                wait_for("trying again")
                server = serve(port)
            else:
                talk(who, text)
            if shown is not None:
                wait_for(shown)
        time.sleep(0.5)
        look()
    finally:
        tmux("kill-server")
        server.terminate()
        server.wait()
    return screens


def pieces(screen):
    """Splits the rows of a screen with the terminal's colours into (colour, text). A colour holds beyond its row."""
    colour, rows = "#e6edf3", []
    for row in screen.split("\n")[:ROWS]:
        rows.append([])
        for codes, text in re.findall(r"(?:\x1b\[([0-9;]*)m)?([^\x1b]*)", row):
            each = codes.split(";")
            if codes:
                colour = "#8b949e" if "2" in each else COLOURS.get(each[-1], "#e6edf3")
            if text:
                rows[-1].append((colour, text))
    return rows


def draw(screens):
    """A row of the picture is shown from the screen that it is first on until another is in its place."""
    total = screens[-1][0] + PAUSE
    styles, texts = [], []
    for number in range(ROWS):
        begin = 0
        for index in range(1, len(screens) + 1):
            row = screens[begin][1][number]
            if index < len(screens) and screens[index][1][number] == row:
                continue
            start = 100 * screens[begin][0] / total
            end = 100 * screens[index][0] / total if index < len(screens) else 100
            if row:
                name = f"l{len(texts)}"
                styles.append(f"@keyframes {name}{{0%{{opacity:0}}{start:.2f}%{{opacity:1}}{end:.2f}%{{opacity:0}}}}"
                              f".{name}{{opacity:{int(end == 100)};animation:{name} {total:.1f}s step-end infinite}}")
                spans = "".join(f'<tspan fill="{colour}">{escape(text)}</tspan>' for colour, text in row)
                texts.append(f'<text class="{name}" x="{2 * LETTER:.0f}" y="{LINE * (number + 1.7):.0f}" '
                             f'xml:space="preserve">{spans}</text>')
            begin = index
    height, width = LINE * (ROWS + 1), round(LETTER * (COLUMNS + 4))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="The terminal client: bob talks to alice and carol, and the server is restarted">',
        "<style>text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}", *styles,
        "@media(prefers-reduced-motion){text{animation:none!important}}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>', *texts, "</svg>", ""])


def check():
    drawn = "\n".join("".join(element.itertext()) for element in ElementTree.parse(PICTURE).iter()
                      if element.tag.endswith("text"))
    for who, text, shown in SCRIPT:
        if (text.strip() if who == "bob" else shown) not in drawn:
            sys.exit(f"picture: another conversation is played now ({text!r}); draw it again: python3 docs/picture.py")


if sys.argv[1:] == ["--check"]:
    check()
elif len(sys.argv) <= 2:
    PICTURE.write_text(draw(play(pathlib.Path(sys.argv[1] if sys.argv[1:] else ROOT / "build/dev/bin").resolve())),
                       encoding="utf-8")
else:
    sys.exit(__doc__)
