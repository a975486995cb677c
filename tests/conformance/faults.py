# SPDX-License-Identifier: BSL-1.0
"""faults.py play RUNNER FILE [COMMAND...]: plays the profile 'full' against a server with each of the faults of
faulty_server.py in turn, and writes the results to FILE. COMMAND starts another server that can have these faults; the
port and the fault follow it.
A fault that is not found as it should be is played again with more time, one at a time: the machine may have been busy.
faults.py check FILE FAULT: fails unless this fault was found by the scene that is about it, and no rule was lost but
the one that this scene belongs to.
faults.py table FILE: writes the table of faults, rules and scenes as Markdown."""
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile

from faulty_server import FAULTS

here = os.path.dirname(os.path.abspath(__file__))


HASTY, PATIENT = 5, 60  # seconds that a step may take: scenes that must fail wait so long


def play(runner, command, fault, timeout=HASTY):
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, "report.json")
        forms = "whole,split,bytewise" if FAULTS[fault][1] == "split" else "whole"
        ran = subprocess.run([runner, "--profile", "full", "--forms", forms, "--timeout", str(timeout),
                              "--json", report, "--", *command, "{port}", fault], stdout=subprocess.PIPE, text=True)
        if ran.returncode not in (0, 1):
            return {"tests": [], "rules": [], "output": ran.stdout}
        with open(report, encoding="ascii") as file:
            return json.load(file)


def named(tests, status):
    return [test["name"] for test in tests if test["status"] == status]


def rules(report, status):
    return [rule for rule in report["rules"] if rule["status"] == status]


def wrong(report, fault):
    """Returns what is wrong with the report, or nothing."""
    _, scene, section = FAULTS[fault]
    tests = {test["name"]: test for test in report["tests"]}
    if scene not in tests or tests[scene]["status"] != "failed":
        return f"{scene} should have failed"
    if not tests[scene]["section"].startswith(section):
        return f"{scene} is not about {section}"
    lost = rules(report, "failed")
    if [scene in rule["tests"] for rule in lost] != [True]:
        return "lost: " + "; ".join(rule["name"] for rule in lost)
    return None


def check(report, fault):
    print(json.dumps(report, indent=1))
    print("failed:", *named(report["tests"], "failed"))
    if why := wrong(report, fault):
        sys.exit(why)


def table(reports):
    print("| fault | the rule that fails | scenes that fail | scenes that could not be checked |\n|---|---|---|---|")
    for fault, report in reports.items():
        lost = "; ".join(rule["name"] for rule in rules(report, "failed"))
        unchecked = len(named(report["tests"], "unchecked"))
        whole = len(rules(report, "unchecked"))
        print(f"| {fault} | {lost} | {', '.join(named(report['tests'], 'failed'))} | {unchecked}"
              + (f"; nothing of {whole} rule{'s' * (whole > 1)} |" if whole else " |"))


def main(task, *arguments):
    if task == "play":
        runner, file, *command = arguments
        command = command or [sys.executable, os.path.join(here, "faulty_server.py")]
        with concurrent.futures.ThreadPoolExecutor(10) as pool:  # they mostly wait
            reports = dict(zip(FAULTS, pool.map(lambda fault: play(runner, command, fault), FAULTS)))
        for fault, report in reports.items():
            if why := wrong(report, fault):
                print(f"{fault}: {why}; once more, with more time", flush=True)
                reports[fault] = play(runner, command, fault, PATIENT)
        with open(file, "w", encoding="ascii") as out:
            json.dump(reports, out)
        return
    with open(arguments[0], encoding="ascii") as file:
        reports = json.load(file)
    if task == "check":
        check(reports[arguments[1]], arguments[1])
    else:
        table(reports)


main(*sys.argv[1:])
