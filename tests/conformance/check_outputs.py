# SPDX-License-Identifier: BSL-1.0
"""check_outputs.py RUNNER: checks the runner's lists and reports. prove (if installed) reads TAP, Python JUnit."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

runner = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
work = tempfile.TemporaryDirectory()
junit, tap, own_scene = (os.path.join(work.name, name) for name in ("junit.xml", "out.tap", "own.scene"))


def run(*arguments, code):
    patient = ["--timeout", "60"] if arguments else []
    ran = subprocess.run([runner, *patient, *arguments], stdout=subprocess.PIPE, text=True)
    assert ran.returncode == code, (arguments, ran.returncode, ran.stdout)
    return ran.stdout


def faulty(fault):
    return "--", sys.executable, os.path.join(here, "faulty_server.py"), "{port}", fault


# --- The list ---

names = {name[:-len(".scene")] for name in os.listdir(os.path.join(here, "scenes"))}
listed = run("--list", code=0)
assert set(re.findall(r"^  (\S+) .*\[\d \w.*\]$", listed, re.M)) == names
assert re.findall(r"^level (\w+)$", listed, re.M) == ["basic", "robust", "concurrent"]
basic = set(re.findall(r"^  (\S+)", run("--list", "--level", "basic", code=0), re.M))
assert basic and basic < names
with open(os.path.join(here, "scenes", "login-sender.scene"), encoding="ascii") as scene:
    assert scene.read() in run("--show", "login-sender", code=0)
assert "HOST PORT" in run(code=2) and "--junit" in run("--help", code=0)
assert re.fullmatch(r"chatproto-conformance \d+\.\d+\.\d+\n", run("--version", code=0))

# --- Text, TAP and JUnit of the same failures, and levels ---

text = run("--forms", "whole", "--junit", junit, *faulty("strips-blanks"), code=1)
passed, failed, skipped = map(
    int, re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", text.splitlines()[-1]).groups())
assert failed >= 1 and skipped == 4 and passed + failed + skipped == len(names)
told = re.search(r"^FAILED lines-payload-blanks: .*\n(?:  .*\n)+", text, re.M)[0]
for part in ("rule      1 Lines", "so far    r connect", "expected  r: the line delivery:", "came      delivery:"):
    assert part in told, told

suites = list(xml.etree.ElementTree.parse(junit).getroot())
assert [suite.get("name") for suite in suites] == ["basic", "robust", "concurrent"]
assert sum(int(suite.get("tests")) for suite in suites) == len(names)
failures = {case.get("name"): case.find("failure") for case in suites[1] if case.find("failure") is not None}
assert len(failures) == failed and failures["lines-payload-blanks"].get("type").startswith("1 Lines")
assert sum(case.find("skipped") is not None for suite in suites for case in suite) == skipped

text = run("--level", "basic", *faulty("strips-blanks"), code=0)
assert text.splitlines()[-1] == f"{len(basic)} passed, 0 failed, 0 skipped" and "level robust" not in text


# What needs a program is told in one line.
course = "--profile", "course", "--level", "basic", "--", sys.executable, os.path.join(here, "chat_server.py"), "{port}"
text = run(*course, code=0)
needs = re.findall(r"^skipped (\d+) scenes: they need --program receiver=FILE, --program sender=FILE "
                   r"\(--verbose lists them\)$", text, re.M)
listed = re.findall(r"^skipped program-\S+: needs --program ", run("--verbose", *course, code=0), re.M)
assert len(needs) == 1 and int(needs[0]) == len(listed) > 9 and "needs --program" not in text, text


def check_tap(output, code):
    lines = output.splitlines()
    assert lines[0] == "TAP version 13" and lines[1] == f"1..{len(re.findall(r'^(?:not )?ok ', output, re.M))}"
    with open(tap, "w", encoding="utf-8") as file:
        file.write(output)
    if shutil.which("prove"):
        proved = subprocess.run(["prove", tap], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert proved.returncode == code and "Parse errors" not in proved.stdout, proved.stdout


output = run("--tap", "lines-*", *faulty("strips-blanks"), code=1)
assert "\nnot ok " in output and " robust split: " in output
assert re.findall(r"(\S+): .* # SKIP (.*)", output) == \
    [("lines-payload-cr-cr", "could not be checked, because lines-payload-cr failed")], output
check_tap(output, 1)
check_tap(run("--tap", "--forms", "whole", "login-*", "--",
              sys.executable, os.path.join(here, "chat_server.py"), "{port}", code=0), 0)

# --- What the protocol leaves open, only one form, a server that dies ---

with open(own_scene, "w", encoding="ascii") as scene:
    scene.write("title: Own\nrule: 3 Login\nopen: nobody knows\ns ok login:\ns quit\n")
output = run("--tap", "--forms", "whole", own_scene, *faulty("strips-blanks"), code=0)
assert "not ok 1 - basic own: Own # TODO open: nobody knows" in output
check_tap(output, 0)
assert "open own: Own" in run(own_scene, *faulty("strips-blanks"), code=0)
assert "FAILED own: Own" in run("--strict", own_scene, *faulty("strips-blanks"), code=1)
assert "skipped login-sender: it has no form 'split s at 999'" in run(
    "--only", "split s at 999", "login-sender", *faulty("strips-blanks"), code=2)
assert "1 passed, 0 failed, 0 skipped" in run("--only", "split s at 3", "login-sender", *faulty("strips-blanks"),
                                              code=0)

# --- Wrong profiles ---

def write(name, *lines):
    path = os.path.join(work.name, name)
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    return path


def refused(*lines):
    ran = subprocess.run([runner, "--list", "--profile", write("bad.profile", *lines)], capture_output=True, text=True)
    assert ran.returncode == 2, ran
    return ran.stderr


assert "bad.profile:2: 'open:' is for scenes, and split is none" in refused("rule: 1 A", "open: split because of it")
assert "bad.profile:2: 'open:' needs scenes and a reason" in refused("rule: 1 A", "open: login-sender because")
assert "bad.profile:3: no scene is called 'nonsense'" in refused("rule: 1 A", "", "scenes:  login-sender  nonsense")
assert "login-sender belongs to two rules" in refused("rule: 1 A", "scenes: login-*", "rule: 1 B", "scenes: *-sender")

# --- A run that ends early ---

def read_json():
    with open(own_json, encoding="ascii") as file:
        report = json.load(file)
    return ({test["name"]: (test["status"], test["why"]) for test in report["tests"]},
            {rule["name"]: (rule["status"], rule["score"]) for rule in report["rules"]}, report)


# The last scene interrupts the run. What was not played has not failed, so it excuses no failure; and a rule whose
# scenes were not all played is not earned by those that were.
own_json, head = os.path.join(work.name, "own.json"), ("title: Own", "rule: 7 Programs")
good = write("good.scene", *head, "p run cat", "p > a", "p < a", "p shutdown", "p exit 0")
bad = write("bad.scene", *head, "uses: ends", "p run sh -c exit\\x203", "p exit 0")
ends = write("ends.scene", *head, "p run sh -c kill\\x20-INT\\x20$PPID;cat", "p exit 0")
own_profile = write("own.profile", "rule: 1 Good and ends", "scenes: good ends", "rule: 2 Pieces", "scenes: split fine",
                    "rule: 4 Fine", "scenes: fine-*", "rule: 8 Bad", "scenes: bad")
programs = "--program", "sh=/bin/sh", "--program", "cat=cat"
fine = [shutil.copy(good, os.path.join(work.name, name)) for name in ("fine.scene", "fine-2.scene")]
run("--jobs", "1", "--profile", own_profile, "--json", own_json, *programs, good, *fine, bad, ends, code=2)
tests, rules, report = read_json()
ended = "unchecked", "could not be checked, because the run ended before"
assert report["stopped"] == "interrupted" and tests["good"][0] == "passed" and tests["ends"] == ended, tests
assert tests["bad"][0] == "failed" and tests["split"] == tests["bytewise"] == ended, tests
assert rules == {"Good and ends": ("unchecked", 0), "Pieces": ("unchecked", 0), "Fine": ("passed", 4),
                 "Bad": ("failed", 0)}, rules

port = "0"
for port in map(str, range(32100, 32200)):
    server = subprocess.Popen([sys.executable, os.path.join(here, "faulty_server.py"), port, "dies-on-nul"],
                              stderr=subprocess.DEVNULL)
    while server.poll() is None and subprocess.run([runner, "127.0.0.1", port, "login-sender"],
                                                   capture_output=True).returncode:
        time.sleep(0.1)
    if server.poll() is None:
        break
# So it is when the server has gone: nothing is played in pieces any more.
own_profile = write("own.profile", "rule: 1 Before and after", "scenes: lines-254 split", "rule: 2 Besides",
                    "scenes: lines-payload-* lines-unknown-tag")
text = run("--jobs", "1", "--profile", own_profile, "--json", own_json, "127.0.0.1", port, "lines-254",
           "lines-payload-colons", "lines-payload-nul", "lines-unknown-tag", code=1)
assert "nobody takes connections there any more" in text and "lines-payload-nul" in text, text
tests, rules, report = read_json()
assert tests["lines-254"][0] == "passed" and tests["split"] == ended, tests
assert rules["Before and after"] == ("unchecked", 0), rules
server.wait()
