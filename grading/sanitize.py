# SPDX-License-Identifier: BSL-1.0
"""sanitize.py SANITIZER FOLDER CONFORMANCE JSON COMMAND...: plays the concurrent scenes with a server that was built
with a sanitizer (thread or address) from sources in the folder, and writes what the sanitizer has found.

compilers() makes what builds such a server by its own Makefile. parse() alone reads what a sanitizer writes to stderr.
"""
import json
import os
import re
import shutil
import sys

from perturb import CannotPlay, Server, escaped, play

SANITIZERS = {
    "thread": {"flags": "-fsanitize=thread -g -O1", "title": "ThreadSanitizer finds no race and no deadlock",
               "environment": {"TSAN_OPTIONS": "exitcode=0 halt_on_error=0 second_deadlock_stack=1"}},
    "address": {"flags": "-fsanitize=address -fsanitize-recover=address -fno-omit-frame-pointer -g -O1",
                "title": "AddressSanitizer finds no use of memory that is not there",
                "environment": {"ASAN_OPTIONS": "halt_on_error=0:detect_leaks=0"}},  # leaks: reported at exit only
}
COMPILERS = ("cc", "gcc", "clang", "c++", "g++", "clang++")
LONGEST_REPORT = 60  # lines


# --- Reports ----------------------------------------------------------------------------------------------------------

_BEGIN = re.compile(r"(?:WARNING|ERROR): (\w+Sanitizer): (.*)|(\S+?:\d+):\d+: runtime error: (.*)")
_FRAME = re.compile(r"\s+#(\d+) (?:0x[0-9a-f]+ in )?(.*?)(?: (\S+?):(\d+)(?::\d+)?)?(?: \([^()]*\))*$")


def _type(text):
    """The kind of a finding, without what differs each time."""
    text = re.sub(r" \(pid=\d+\)$| on (?:unknown )?address .*| on 0x.*| in thread .*", "", text)
    return re.sub(r"0x[0-9a-f]+|\b\d+ byte.*", "", text).strip(" :")


def parse(stderr, folder):
    """Returns the findings, without repetitions: dictionaries with `sanitizer`, `type`, `where` (the first frame in the
    folder's own files: function, file and line), `callers` (the folder's other frames above it, in the first report),
    `count`, and `report`, the lines of the first one."""
    folder = os.path.realpath(folder)
    reports = []
    for line in stderr.splitlines():
        if begin := _BEGIN.search(line):
            reports.append([begin[1] or "UndefinedBehaviorSanitizer", _type(begin[2] or begin[4]), [line], begin[3]])
        elif re.fullmatch(r"={10,}", line):
            reports.append(None)  # the end of a report, or its beginning
        elif reports and reports[-1] is not None:
            reports[-1][2].append(line)
    findings = {}
    for sanitizer, what, lines, where in filter(None, reports):
        frames = [frame for frame in map(_FRAME.fullmatch, lines) if frame]
        stacks = [[]]  # of the report, only own frames
        for frame in frames:
            if frame[1] == "0":
                stacks.append([])
            if frame[3] and _is_in(frame[3], folder):
                file = os.path.relpath(os.path.realpath(frame[3]), folder)
                stacks[-1].append(f"{_short(frame[2])} {file}:{frame[4]}")
        own = next(filter(None, stacks), [])
        if own:
            where = own[0]
        elif where:
            where = os.path.relpath(os.path.realpath(where), folder) if _is_in(where, folder) else where
        else:
            where = _short(frames[0][2]) if frames else ""
        found = findings.setdefault((sanitizer, what, where), {
            "sanitizer": sanitizer, "type": what, "where": where, "callers": own[1:], "count": 0,
            "report": [escaped(line) for line in lines[:LONGEST_REPORT]]})
        found["count"] += 1
    return list(findings.values())


def _is_in(file, folder):
    return os.path.realpath(file).startswith(folder + os.sep)


def _short(function):
    """The name of a function without its parameters."""
    name = function.split("(")[0] or function
    return name + "()" if name.endswith("operator") else name


# --- Building and playing ---------------------------------------------------------------------------------------------

def compilers(folder, sanitizer):
    """Writes compilers of the usual names that add a sanitizer's flags, and returns their folder, which is to come
    first in PATH. (Flags that are given to make would replace those of the Makefile.)"""
    wrappers = os.path.join(folder, "compilers")
    os.mkdir(wrappers)
    for name in COMPILERS:
        if compiler := shutil.which(name):
            wrapper = os.path.join(wrappers, name)
            with open(wrapper, "w", encoding="utf-8") as file:
                file.write(f"#!/bin/sh\nexec '{compiler}' \"$@\" {SANITIZERS[sanitizer]['flags']}\n")
            os.chmod(wrapper, 0o755)
    return wrappers


def check(conformance, command, sanitizer, folder, scenes=("promises-*", *4 * ["races-*"]), timeout=15):
    """Plays the scenes with a server that was built with the sanitizer from sources in the folder. Only what the
    sanitizer finds counts here: whether scenes pass is the subject of other tests. Returns a test of the report, with
    the findings as "findings"."""
    result = {"name": sanitizer + "-sanitizer", "level": "concurrent", "section": "6 Promises", "status": "passed",
              "why": "", "title": SANITIZERS[sanitizer]["title"], "told": [], "findings": []}
    errors = ""
    try:
        try:
            errors = _errors(conformance, command, sanitizer, scenes, timeout)
        except CannotPlay as error:
            if "unexpected memory mapping" not in str(error) or not shutil.which("setarch"):
                raise
            # Older versions of TSan cannot run where the kernel places memory at very random addresses.
            errors = _errors(conformance, ["setarch", "-R", *command], sanitizer, scenes, timeout)
    except CannotPlay as error:
        result["status"] = "unchecked"
        result["why"] = f"could not be checked: {error}"
    result["findings"] = parse(errors, folder)
    if result["findings"]:
        result["status"] = "failed"
        for found in result["findings"]:
            times = f", {found['count']} times" if found["count"] > 1 else ""
            caller = f", called by {found['callers'][0]}" if found["callers"] else ""
            result["told"].append(f"found     {found['type']} in {found['where']}{caller}{times}")
        result["told"] += ["such as   " + result["findings"][0]["report"][0],
                           *("          " + line for line in result["findings"][0]["report"][1:])]
    return result


def _errors(conformance, command, sanitizer, scenes, timeout):
    with Server(command, SANITIZERS[sanitizer]["environment"]) as server:
        play(conformance, server, list(scenes), timeout)
        server.errors.seek(0)
        return server.errors.read(64 << 20).decode(errors="replace")


def main(sanitizer, folder, conformance, path, *command):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"tests": [check(conformance, list(command), sanitizer, folder)]}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
