# SPDX-License-Identifier: BSL-1.0
"""Builds one submission, runs chatproto-conformance against it, and returns the results."""
import copy
import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import sanitize
import submissions

HERE = os.path.dirname(os.path.abspath(__file__))
LIMITS, PERTURB = os.path.join(HERE, "limits.py"), os.path.join(HERE, "perturb.py")
SANITIZE = os.path.join(HERE, "sanitize.py")
CUT_OFF = "could not be checked, because the run ended before"  # why chatproto-conformance has not played a scene
RACES = {"perturbed", "left-behind", "thread-sanitizer", "address-sanitizer"}  # the tests of perturb.py and sanitize.py


class KitError(Exception):
    """Grading has failed, and the submission is not to blame."""


class Graded:
    """The results of a submission."""

    def __init__(self, name):
        self.name = name
        self.folder = name  # in which its results are
        self.problem = ""   # why it has no points at all, or only those that need no server
        self.kit_error = ""
        self.notes = []
        self.build = ""     # what the build printed
        self.server = ""    # what the server printed
        self.report = {}    # of chatproto-conformance
        self.seconds = 0.0

    @property
    def score(self):
        return self.report["score"]

    @property
    def max_score(self):
        return self.report["max_score"]

    @property
    def rules(self):
        return self.report["rules"]

    def tests(self):
        return {test["name"]: test for test in self.report["tests"]}


def text_of(path):
    """A program may have written anything: what is no printable text is shown as escapes."""
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return shown(file.read())
    except OSError:
        return ""


def shown(text):
    return "".join(c if c.isprintable() or c == "\n" else "    " if c == "\t" else
                   repr(c)[1:-1] if not 0xDC80 <= ord(c) <= 0xDCFF else f"\\x{ord(c) - 0xDC00:02x}" for c in text)


def first_errors(log, most=12):
    """The lines of a build log that a reader should see first."""
    lines = [line for line in log.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if "error" in line.lower() or "***" in line),
                 max(0, len(lines) - most))
    return lines[first:first + most]


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def plan_of(options):
    """The rules of the profile: the report of a run that can play nothing. Also checks the options."""
    with tempfile.TemporaryDirectory() as work:
        report = os.path.join(work, "report.json")
        command = [options.conformance, *options.conformance_options, "--profile", options.profile, "--json", report,
                   "--no-server"]
        try:
            ran = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                 text=True, errors="replace", timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KitError(f"{options.conformance} cannot be run: {error}") from error
        plan = read_json(report)
    if plan is None or not plan.get("rules"):
        raise KitError(ran.stderr.strip() or f"the profile {options.profile} has no rules")
    return plan


def mark(rule, tests):
    """Computes the points of a rule, as chatproto-conformance does."""
    own = [tests[name] for name in rule["tests"]]
    statuses = {test["status"] for test in own}
    if "passed" in statuses and any(test["why"] == CUT_OFF for test in own):
        statuses.remove("passed")
    rule["status"] = next((status for status in ("failed", "passed", "unchecked") if status in statuses), "skipped")
    rule["score"] = rule["max_score"] if rule["status"] == "passed" else 0


def add_tests(report, added):
    """Adds tests of another program to a report, and marks the rules again to which they belong."""
    report["tests"] += added
    tests = {test["name"]: test for test in report["tests"]}
    for rule in report["rules"]:
        names = [test["name"] for test in added
                 if any(fnmatch.fnmatchcase(test["name"], pattern) for pattern in rule["scenes"])]
        if names:
            rule["tests"] += names
            mark(rule, tests)
    counted = [rule for rule in report["rules"] if rule["status"] != "skipped"]
    report.update(score=sum(rule["score"] for rule in counted), max_score=sum(rule["max_score"] for rule in counted))


def not_checked(names, why):
    """The tests of another program, where it has decided nothing."""
    return [{"name": name, "level": "concurrent", "title": "Races and leaks", "section": "6 Promises", "told": [],
             "status": "unchecked", "why": f"could not be checked: {why}"} for name in names]


def belongs_to(rule, tests, programs, races):
    """Whether scenes of a rule need one of these programs."""
    if RACES.issuperset(rule["scenes"]):
        return races and "server" in programs
    whys = [tests[name]["why"] for name in rule["tests"] if name in tests]
    needs = tuple(f"needs --program {program}=" for program in programs)  # why chatproto-conformance skips a scene
    if "server" in programs:
        needs += "needs a server to test",
    return ("server" in programs and not whys) or any(why.startswith(needs) for why in whys)


def without(report, programs, why, races):
    """The report of a submission that lacks these programs: the rules about them are failed."""
    report = copy.deepcopy(report)
    tests = {test["name"]: test for test in report["tests"]}
    report["score"] = report["max_score"] = 0
    for rule in report["rules"]:
        if rule["status"] == "skipped" and belongs_to(rule, tests, programs, races):
            rule.update(status="failed", score=0)
            rule["why"] = why
        if rule["status"] != "skipped":
            report["score"] += rule["score"]
            report["max_score"] += rule["max_score"]
    return report


class Judge:
    def __init__(self, options, plan):
        self.options, self.plan = options, plan
        self.keepers = set()
        self.stopping = False

    def stop(self):
        self.stopping = True
        for keeper in list(self.keepers):
            keeper.terminate()

    def run(self, command, work, **limits):
        """Runs a command within the limits of limits.py."""
        options = self.options
        own = os.path.join(work, "tmp")
        limits = {"memory": options.memory, "tasks": options.tasks, "file": options.file, "disk": options.disk,
                  "folder": work, "environment": {
                      "PATH": os.environ.get("PATH", os.defpath), "HOME": own, "TMPDIR": own,
                      "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}, **limits}
        if self.stopping:
            raise KitError("interrupted")
        keeper = subprocess.Popen([sys.executable, LIMITS, json.dumps(limits), *command], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.keepers.add(keeper)
        if self.stopping:  # an interruption may have come while it started
            keeper.terminate()
        out, errors = keeper.communicate()
        self.keepers.discard(keeper)
        if keeper.returncode != 0:
            raise KitError(errors.strip() or f"the process that watches the submission ended with {keeper.returncode}")
        if self.stopping:
            raise KitError("interrupted")
        return json.loads(out)

    def judge(self, name, source):
        graded, began = Graded(name), time.monotonic()
        work = tempfile.mkdtemp(prefix="chatproto-grade-")
        try:
            os.makedirs(os.path.join(work, "tmp"))
            os.makedirs(os.path.join(work, "run"))
            os.makedirs(os.path.join(work, "out"), mode=0o700)  # the report, which the submission must not write
            root, left_out = submissions.unpack(source, os.path.join(work, "files"))
            graded.notes += [shown(f"left out: {what}") for what in left_out]
            if self.options.user:
                for folder in "files", "tmp":
                    submissions.give_to(os.path.join(work, folder), self.options.user)
                os.chmod(work, 0o755)
            if self.build(graded, root, work):
                self.play(graded, root, work)
                if graded.report and not graded.problem and "server" in self.options.programs:
                    for sanitizer in self.options.sanitize:
                        add_tests(graded.report, self.sanitized(source, work, sanitizer))
        except submissions.BadSubmission as error:
            graded.problem = shown(str(error))
        except (KitError, OSError) as error:
            graded.kit_error = shown(str(error))
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if not graded.report:
            graded.report = without(self.plan, self.options.programs, graded.problem or graded.kit_error,
                                    self.options.races or self.options.sanitize)
        graded.seconds = time.monotonic() - began
        return graded

    def as_user(self):
        user = self.options.user
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
                "--no-new-privs"] if user else []

    def how_to_build(self, root):
        if self.options.build is not None:
            return self.options.build
        if not any(os.path.isfile(os.path.join(root, name)) for name in ("GNUmakefile", "makefile", "Makefile")):
            return ""
        if not shutil.which("make"):
            raise KitError("make is not installed")
        return "make"

    def run_build(self, command, root, work, log):
        return self.run([*self.as_user(), "/bin/sh", "-c", f"cd {shlex.quote(root)} && {command}"], work,
                        seconds=self.options.build_seconds, cpu=4 * self.options.build_seconds, output=log)

    def build(self, graded, root, work):
        """Builds the submission. Returns whether this succeeded."""
        command = self.how_to_build(root)
        if not command:
            return True
        log = os.path.join(work, "out", "build.log")
        ended = self.run_build(command, root, work, log)
        graded.build = text_of(log)
        if ended["stopped"]:
            graded.problem = f"its build was ended: {ended['stopped']}"
        elif ended["exit"] != 0:
            graded.problem = f"it does not build: {shown(command)} ended with {how(ended['exit'])}"
        return not graded.problem

    def play(self, graded, root, work):
        options, out, runners = self.options, os.path.join(work, "out"), os.path.join(work, "run")
        command, missing = [], []
        before = "".join(shlex.quote(word) + " " for word in self.as_user())
        for program in options.programs:
            how_to = submissions.how_to_run(root, program, options.run)
            runner = os.path.join(runners, program)
            if how_to is None:
                missing.append(program)
                why = f"there is no ./{program} and no {program}.py" + (" after the build" if graded.build else "")
                if program == "server":
                    graded.problem = why
                else:
                    graded.notes.append(why[0].upper() + why[1:] + ".")
            else:
                submissions.write_runner(runner, root, how_to, before)
            if program != "server" or (how_to and not options.run):
                command += ["--program", f"{program}={runner}"]  # one that is missing fails its scenes
        server = ["--", os.path.join(runners, "server"), "{port}"] if "server" not in missing else []
        if "server" not in options.programs:
            server = []
        errors = os.path.join(out, "errors")
        ended, report = self.conformance(work, command + server, errors)
        if report is None and server:
            graded.server = text_of(errors)
            lines = graded.server.splitlines()
            graded.problem = next((line.partition(": ")[2] for line in lines if "cannot be started" in line),
                                  ended["stopped"] and f"it was ended before anything was decided: {ended['stopped']}")
            if not graded.problem:
                raise KitError(self.why_no_report(errors, ended))
            server, missing = [], ["server"]
        if "server" in missing:
            if len(options.programs) == 1:
                return
            ended, report = self.conformance(work, command, os.path.join(out, "errors2"))
        if report is None:
            raise KitError(self.why_no_report(errors, ended))
        graded.server = graded.server or text_of(errors)
        if "server" in missing:
            report = without(report, missing, graded.problem, options.races or options.sanitize)
        elif server and options.races:
            add_tests(report, self.races(work, server))
        graded.report = report
        if ended["stopped"]:
            graded.notes.append(f"The run was ended: {ended['stopped']}. What had been decided counts.")
        for why, times in ended["killed"].items():
            graded.notes.append(f"Its processes were killed {times} times: {why}.")

    def conformance(self, work, command, errors):
        options, path = self.options, os.path.join(work, "out", "report.json")
        ended = self.run([options.conformance, *options.conformance_options, "--profile", options.profile, "--json",
                          path, *command], work, seconds=options.seconds, cpu=options.cpu, spare=True, errors=errors)
        return ended, read_json(path)

    def races(self, work, server):
        """Looks for races, and for what clients leave behind."""
        options, path = self.options, os.path.join(work, "out", "races.json")
        errors = os.path.join(work, "out", "races")
        ended = self.run([sys.executable, PERTURB, "--seconds", str(options.races), "--library", options.library,
                          "--conformance", options.conformance, "--json", path, *server], work,
                         seconds=options.races + options.seconds, cpu=options.cpu, spare=True, errors=errors)
        return self.tests_of(path, errors, ended, ["perturbed", "left-behind"])

    def sanitized(self, source, work, sanitizer):
        """Builds a submission that has sources once more, with a sanitizer, and plays with it."""
        options, folder, name = self.options, os.path.join(work, sanitizer), f"{sanitizer}-sanitizer"
        out, runner = os.path.join(work, "out", sanitizer), os.path.join(work, "run", name)
        os.mkdir(folder)
        root, _ = submissions.unpack(source, os.path.join(folder, "files"))
        if options.user:
            submissions.give_to(folder, options.user)
        command = self.how_to_build(root)
        if not command:
            return []
        command = "make -B" if command == "make" else command  # objects may have been handed in
        wrappers = sanitize.compilers(folder, sanitizer)
        ended = self.run_build(f"PATH={shlex.quote(wrappers)}:$PATH {command}", root, work, out + ".build")
        how_to = submissions.how_to_run(root, "server", options.run)
        if ended["exit"] != 0 or how_to is None:
            lines = first_errors(text_of(out + ".build"))
            return not_checked([name], f"it does not build with the sanitizer: {lines[0] if lines else 'no server'}")
        submissions.write_runner(runner, root, how_to, "".join(shlex.quote(word) + " " for word in self.as_user()))
        ended = self.run([sys.executable, SANITIZE, sanitizer, root, options.conformance, out, runner, "{port}"], work,
                         seconds=options.seconds, cpu=options.cpu, spare=True, errors=out + ".errors")
        return self.tests_of(out, out + ".errors", ended, [name])

    @staticmethod
    def tests_of(path, errors, ended, names):
        """The tests that another program has written, or why it has written none."""
        found = read_json(path)
        if found is not None:
            return found["tests"]
        lines = text_of(errors).strip().splitlines()
        return not_checked(names, ended["stopped"] or (lines[-1] if lines else how(ended["exit"])))

    @staticmethod
    def why_no_report(errors, ended):
        lines = text_of(errors).strip().splitlines()
        return (f"chatproto-conformance wrote no report ({ended['stopped'] or how(ended['exit'])})"
                + (": " + lines[-1] if lines else ""))


def how(status):
    return f"exit code {status}" if status >= 0 else f"signal {-status}"
