# SPDX-License-Identifier: BSL-1.0
"""Writes the results of submissions as text, CSV and JSON: for people, for Gradescope, for Classroom 50."""
import csv
import datetime
import json
import os

from judging import first_errors

SIGNS = {"passed": "passed", "failed": "FAILED", "unchecked": "not checked", "skipped": "not counted"}


def write_json(path, value):
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def problem_lines(graded):
    """Why a submission as a whole has no points."""
    lines = []
    if graded.kit_error:
        lines.append(f"This submission could not be graded, which is not its fault: {graded.kit_error}")
    if graded.problem:
        lines.append(f"No points for the server: {graded.problem}" if graded.report.get("score") else
                     f"No points: {graded.problem}")
        if graded.build:
            lines += ["  " + line for line in first_errors(graded.build)]
        if graded.server:
            lines += ["What it printed:", *("  " + line for line in graded.server.strip().splitlines()[:12])]
    return lines


def test_lines(test):
    """What happened in a test that did not pass."""
    head = f"{test['name']}: {test['title']}"
    lines = [head + (f"  [{test['section']}]" if test["section"] else ""), *("  " + line for line in test["told"])]
    return lines + (["  " + test["why"]] if test["why"] else [])


def rule_lines(rule, tests):
    """What a student should read about a rule that was not earned."""
    lines = [rule["why"]] if rule.get("why") else []
    chosen = [tests[name] for name in rule["tests"] if name in tests]
    for test in chosen:
        if test["status"] == "failed":
            lines += [*test_lines(test), ""]
    open_ones = [test for test in chosen if test["status"] == "open"]
    for test in open_ones:
        lines += ["Not counted, because the text leaves it open:", *test_lines(test), ""]
    whys = {}
    for test in chosen:
        if test["status"] == "unchecked" or (test["status"] == "skipped" and rule["status"] != "passed"):
            whys.setdefault(test["why"], []).append(test["name"])
    for why, names in whys.items():
        lines += [f"{', '.join(names)}: {why}"]
    return lines


def other_tests(graded):
    """Tests that failed and belong to no rule."""
    known = {name for rule in graded.rules for name in rule["tests"]}
    return [test for test in graded.report["tests"] if test["name"] not in known and test["status"] == "failed"]


def feedback(graded):
    tests = graded.tests()
    title = graded.report.get("title") or "Results"
    lines = [title, "=" * len(title), "", f"Points: {graded.score} of {graded.max_score}", ""]
    lines += [*problem_lines(graded), ""] if graded.problem or graded.kit_error else []
    lines += [*graded.notes, ""] if graded.notes else []
    for rule in graded.rules:
        lines.append(f"{SIGNS[rule['status']]:12}{rule['score']:3} of {rule['max_score']:3}  {rule['name']}")
    for status, head in (("failed", "What failed"), ("unchecked", "What could not be checked"),
                         ("skipped", "What was not counted")):
        rules = [rule for rule in graded.rules if rule["status"] == status and not rule.get("why")]
        if not rules:
            continue
        lines += ["", head, "-" * len(head)]
        if status == "failed":
            lines += ["(x -> what client x of the test sent; x <- what it got; * stands for any bytes)"]
        for rule in rules:
            lines += ["", f"{rule['name']} ({rule['max_score']} points)",
                      *("  " + line if line else "" for line in rule_lines(rule, tests))]
    others = other_tests(graded)
    if others:
        lines += ["", "What failed besides, without points", "-----------------------------------"]
        for test in others:
            lines += ["", *test_lines(test)]
    if graded.report.get("stopped"):
        lines += ["", f"The run ended early: {graded.report['stopped']}"]
    text = "\n".join(lines) + "\n"
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def gradescope(graded, visibility):
    """https://gradescope-autograders.readthedocs.io/en/latest/specs/"""
    tests, played = [], graded.tests()
    for number, rule in enumerate(graded.rules, 1):
        status = rule["status"]
        test = {"name": rule["name"], "number": str(number), "output": "\n".join(rule_lines(rule, played)).strip(),
                "output_format": "text", "name_format": "text", "tags": [status], "extra_data": {"status": status}}
        if status == "skipped":
            test["name"] += " (not counted)"
        else:
            test.update(score=rule["score"], max_score=rule["max_score"],
                        status="passed" if status == "passed" else "failed")
        if status == "unchecked":
            test["name"] += " (could not be checked)"
        tests.append(test)
    for test in other_tests(graded):
        tests.append({"name": test["name"] + " (without points)", "output": "\n".join(test_lines(test)),
                      "output_format": "text", "name_format": "text", "status": "failed", "tags": ["without-points"]})
    head = [*problem_lines(graded), *graded.notes] or [f"{graded.score} of {graded.max_score} points"]
    return {"score": graded.score, "execution_time": round(graded.seconds), "output": "\n".join(head),
            "output_format": "text", "visibility": visibility, "stdout_visibility": "hidden", "tests": tests,
            "extra_data": {"profile": graded.report.get("profile", ""), "version": graded.report.get("version", "")}}


def classroom50(graded):
    """The contract: https://github.com/foundation50/classroom50/wiki/Advanced-Autograding"""
    def of(name):
        return os.environ.get(name) or "none"

    played = graded.tests()
    tests = [{"test-name": rule["name"], "passed": rule["status"] == "passed", "score": rule["score"],
              "max-score": rule["max_score"], "status": rule["status"], "output": "\n".join(rule_lines(rule, played))}
             for rule in graded.rules if rule["status"] != "skipped"]
    return {"schema": "classroom50/result/v1", "classroom": of("CLASSROOM"), "assignment": of("ASSIGNMENT"),
            "submission": os.environ.get("SUBMISSION_TAG") or graded.name, "commit": of("COMMIT_URL"),
            "release": of("RELEASE_URL"), "review": os.environ.get("REVIEW_URL") or of("COMMIT_URL"),
            "datetime": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "score": graded.score, "max-score": graded.max_score, "tests": tests}


def write_all(graded, folder, visibility):
    """Writes all files of one submission except its page."""
    os.makedirs(folder, exist_ok=True)
    for name, text in (("feedback.txt", feedback(graded)), ("build.log", graded.build), ("server.log", graded.server)):
        with open(os.path.join(folder, name), "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    write_json(os.path.join(folder, "report.json"), graded.report)
    write_json(os.path.join(folder, "results.json"), gradescope(graded, visibility))
    write_json(os.path.join(folder, "result.json"), classroom50(graded))


def cell(text):
    """Marks a text so that no spreadsheet takes it for a formula."""
    text = text.encode(errors="replace").decode()
    return "'" + text if text[:1] in tuple("=+-@\t\r") else text


def write_points(all_graded, rules, path):
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["submission", "points", "maximum", "remark", *(cell(rule["name"]) for rule in rules)])
        for graded in all_graded:
            table.writerow([cell(graded.name), graded.score, graded.max_score, cell(graded.kit_error or graded.problem),
                            *("" if rule["status"] == "skipped" else rule["score"] for rule in graded.rules)])
