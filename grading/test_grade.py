# SPDX-License-Identifier: BSL-1.0
"""test_grade.py CONFORMANCE [CLASS]: tests chatproto-grade with servers in Python, good, faulty and hostile ones."""
import csv
import datetime
import html.parser
import io
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import urllib.parse
import zipfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import judging  # noqa: E402
import page  # noqa: E402
import perturb  # noqa: E402
import reports  # noqa: E402
import submissions  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SERVERS = os.path.join(HERE, "..", "tests", "conformance")
CONFORMANCE = ""

PROFILE = """# for the tests of chatproto-grade
title: Assignment <5>
rule: 5 A sender logs in
scenes: login-sender
rule: 3 Texts are <i>not</i> changed
scenes: lines-payload-colons lines-payload-blanks
rule: 2 The login deadline
scenes: login-deadline-*
"""


def server(code):
    """A server that binds its port, so that a test of it can begin."""
    return ("import os, socket, subprocess, sys, threading, time\n"
            "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])), backlog=64)\n" + code)


HANGS = server("time.sleep(3600)\n")


class Folder(unittest.TestCase):
    """A folder for submissions and results that is there for each test."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="grade-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.submissions, self.out = self.path("submissions"), self.path("out")
        os.makedirs(self.submissions)
        with open(self.path("profile"), "w", encoding="ascii") as file:
            file.write(PROFILE)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.submissions, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)

    def good(self, name, fault="", when="True"):
        """A server that is good, or that has a fault under this condition."""
        for file in "chat_server.py", "faulty_server.py":
            os.makedirs(os.path.join(self.submissions, name), exist_ok=True)
            shutil.copy(os.path.join(SERVERS, file), os.path.join(self.submissions, name))
        self.write(f"{name}/server.py", "import os, sys, chat_server, faulty_server\n"
                   f"fault = faulty_server.FAULTS[{fault!r}][0] if {fault!r} and {when} else None\n"
                   "chat_server.Server(int(sys.argv[1]), fault).serve()\n")

    def grade(self, *options, code=0, folder=None):
        command = [sys.executable, os.path.join(HERE, "chatproto-grade"), "--conformance", CONFORMANCE]
        if folder is not False:
            command += [folder or self.submissions, "--out", self.out, "--profile", self.path("profile")]
        ran = subprocess.run([*command, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                             errors="replace", check=False)
        self.assertEqual(ran.returncode, code, ran.stdout + ran.stderr)
        return ran

    def read(self, *parts):
        with open(os.path.join(self.out, *parts), encoding="utf-8") as file:
            return file.read()

    def json(self, *parts):
        return json.loads(self.read(*parts))

    def points(self):
        rows = list(csv.DictReader(io.StringIO(self.read("points.csv"))))
        return {row["submission"]: int(row["points"]) for row in rows}

    def nothing_left(self, marker):
        """No process has the marker in its command line."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found += [pid] if marker.encode() in file.read() else []
            except OSError:
                pass
        self.assertEqual(found, [])


class Submissions(Folder):
    """How submissions are found and copied."""

    def unpack(self, name):
        return submissions.unpack(os.path.join(self.submissions, name), self.path("copy"))

    def make_zip(self, files):
        with zipfile.ZipFile(os.path.join(self.submissions, "a.zip"), "w") as archive:
            for name, data in files:
                archive.writestr(name, data)

    def make_tar(self, *infos):
        with tarfile.open(os.path.join(self.submissions, "a.tar.gz"), "w:gz") as archive:
            for info in infos:
                info.size = 2 if info.isreg() else 0
                archive.addfile(info, io.BytesIO(b"hi"))

    @staticmethod
    def info(name, **members):
        info = tarfile.TarInfo(name)
        for member, value in members.items():
            setattr(info, member, value)
        return info

    def test_found(self):
        self.write("ann/server.py", "")
        self.write("notes.txt", "")
        self.write(".git/config", "")
        self.make_zip([("server.py", "")])
        os.rename(os.path.join(self.submissions, "a.zip"), os.path.join(self.submissions, "ann.zip"))
        self.make_tar(self.info("server.py"))
        self.assertEqual(list(submissions.find(self.submissions)), ["a", "ann", "ann.zip"])

    def test_the_only_folder_is_entered(self):
        self.make_zip([("solution/server.py", "hi"), ("__MACOSX/x", "")])
        root, left_out = self.unpack("a.zip")
        self.assertEqual((os.listdir(root), left_out), (["server.py"], []))

    def test_an_archive_in_a_folder(self):
        self.make_zip([("solution/server.py", "hi")])
        os.makedirs(os.path.join(self.submissions, "Ann_1_file"))
        os.rename(os.path.join(self.submissions, "a.zip"), os.path.join(self.submissions, "Ann_1_file", "a.zip"))
        self.assertEqual(os.listdir(self.unpack("Ann_1_file")[0]), ["server.py"])

    def test_names_that_lead_outside(self):
        for name in "../evil", "/tmp/evil", "a/../../evil":
            with self.subTest(name):
                self.make_zip([(name, "x"), ("b", "")])
                with self.assertRaisesRegex(submissions.BadSubmission, "leads out"):
                    self.unpack("a.zip")
                shutil.rmtree(self.path("copy"))
                self.make_tar(self.info(name))
                with self.assertRaisesRegex(submissions.BadSubmission, "leads out"):
                    self.unpack("a.tar.gz")
                shutil.rmtree(self.path("copy"))
        self.assertFalse(os.path.exists(self.path("evil")))

    def test_links(self):
        self.make_tar(self.info("out", type=tarfile.SYMTYPE, linkname=self.folder),
                      self.info("up", type=tarfile.SYMTYPE, linkname="here/.."),
                      self.info("here", type=tarfile.SYMTYPE, linkname="."),
                      self.info("hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
                      self.info("pipe", type=tarfile.FIFOTYPE), self.info("out/evil"), self.info("file", mode=0o755))
        root, left_out = self.unpack("a.tar.gz")
        self.assertEqual(sorted(os.listdir(root)), ["file", "here", "out"])
        self.assertEqual(len(left_out), 4)
        self.assertTrue(os.path.isfile(os.path.join(root, "out", "evil")))
        self.assertFalse(os.path.exists(self.path("evil")))
        self.assertTrue(os.access(os.path.join(root, "file"), os.X_OK))

    def test_what_is_no_file_is_not_copied(self):
        self.write("ann/server.py", "")
        self.write("ann/.git/config", "")
        os.mkfifo(os.path.join(self.submissions, "ann", "pipe"))
        os.symlink("/etc/passwd", os.path.join(self.submissions, "ann", "secret"))
        root, left_out = self.unpack("ann")
        self.assertEqual((os.listdir(root), len(left_out)), (["server.py"], 2))

    def test_too_much(self):
        self.addCleanup(setattr, submissions, "MAX_BYTES", submissions.MAX_BYTES)
        submissions.MAX_BYTES = 1 << 20
        with zipfile.ZipFile(os.path.join(self.submissions, "a.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros", b"\0" * (4 << 20))
        with self.assertRaisesRegex(submissions.BadSubmission, "more than 1 MiB"):
            self.unpack("a.zip")

    def test_no_archive(self):
        self.write("a.zip", "this is none")
        with self.assertRaisesRegex(submissions.BadSubmission, "cannot be unpacked"):
            self.unpack("a.zip")

    def test_how_to_run(self):
        self.write("ann/sender", "", 0o755)
        self.write("ann/server.py", "")
        root = os.path.join(self.submissions, "ann")
        self.assertEqual(submissions.how_to_run(root, "sender", None), './sender "$@"')
        self.assertEqual(submissions.how_to_run(root, "server", None), 'python3 server.py "$@"')
        self.assertEqual(submissions.how_to_run(root, "receiver", None), None)
        submissions.write_runner(self.path("run"), root, submissions.how_to_run(
            root, "server", "printf '%s|' 'a b' --port={port} {port} \"it's\""), "")
        ran = subprocess.run([self.path("run"), "7"], capture_output=True, text=True, check=True)
        self.assertEqual(ran.stdout, "a b|--port=7|7|it's|")


class Limits(Folder):
    """Submissions that take more than they should."""

    def run_within(self, code, **limits):
        limits = {"folder": self.folder, "environment": {"PATH": os.environ["PATH"]}, "output": self.path("log"),
                  "seconds": 600, "cpu": 600, **limits}
        ran = subprocess.run([sys.executable, judging.LIMITS, json.dumps(limits), sys.executable, "-c", code],
                             capture_output=True, text=True, check=True)
        return json.loads(ran.stdout)

    def test_nothing_special(self):
        ended = self.run_within("print('hi'); raise SystemExit(3)")
        self.assertEqual((ended["exit"], ended["stopped"], ended["killed"]), (3, "", {}))
        with open(self.path("log"), encoding="ascii") as file:
            self.assertEqual(file.read(), "hi\n")
        self.assertEqual(self.run_within("import os; os.abort()")["exit"], -6)

    def test_time(self):
        self.assertIn("longer than 1 s", self.run_within("import time; time.sleep(3600)", seconds=1)["stopped"])

    def test_processor_time(self):
        self.assertIn("processor time", self.run_within("while True: pass", cpu=1)["stopped"])

    def test_memory(self):
        ended = self.run_within("x = b'x' * (300 << 20)\nimport time; time.sleep(3600)", memory=128)
        self.assertEqual(ended["stopped"], "more than 128 MiB of memory")

    def test_memory_that_is_shared_counts_once(self):
        ended = self.run_within("import os, time\nx = b'x' * (64 << 20)\n"
                                "pids = [os.fork() for _ in range(3)]\ntime.sleep(1)\n"
                                "0 in pids or [os.waitpid(pid, 0) for pid in pids]", memory=256)
        self.assertEqual((ended["stopped"], ended["exit"]), ("", 0))

    def test_processes(self):
        ended = self.run_within("import os, time\nfor _ in range(60): os.fork() or time.sleep(3600)\ntime.sleep(3600)",
                                tasks=40)
        self.assertEqual(ended["stopped"], "more than 40 processes and threads")

    def test_files(self):
        ended = self.run_within("f = open('big', 'wb')\nwhile True: f.write(b'x' * (1 << 20))", file=4)
        self.assertLess(ended["exit"], 2)
        self.assertLessEqual(os.path.getsize(self.path("big")), 4 << 20)
        ended = self.run_within("import time\nfor i in range(9): open(str(i), 'wb').write(b'x' * (1 << 20))\n"
                                "time.sleep(3600)", disk=6)
        self.assertEqual(ended["stopped"], "it wrote more than 6 MiB to the disk")

    def test_output(self):
        self.run_within("import sys\nfor _ in range(9000): print('x' * 1000)", log=16)
        self.assertLess(os.path.getsize(self.path("log")), 17 << 10)

    def test_nothing_is_left_behind(self):
        marker = os.path.basename(self.folder)
        ended = self.run_within(
            "import os, signal, subprocess, sys\n"
            f"code = 'import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(3600) # {marker}'\n"
            "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
            "        subprocess.Popen([sys.executable, '-c', code], stdin=0, stdout=subprocess.DEVNULL)\n"
            "        os._exit(0)\n    os._exit(0)\nos.wait()\n")
        self.assertEqual(ended["exit"], 0)
        self.nothing_left(marker)

    def test_a_judge_is_spared(self):
        """Only what it has started is killed, and at the end it is asked to stop."""
        code = ("import signal, subprocess, sys\n"
                "code = \"x = b'x' * (300 << 20); import time; time.sleep(3600)\"\n"
                "print('killed', subprocess.run([sys.executable, '-c', code]).returncode, flush=True)\n"
                "signal.signal(15, lambda *_: sys.exit(7))\nprint('ready', flush=True)\nwhile True: pass\n")
        ended = self.run_within(code, memory=128, spare=True, cpu=4)
        self.assertEqual((ended["exit"], ended["killed"]), (7, {"more than 128 MiB of memory": 1}))
        with open(self.path("log"), encoding="ascii") as file:
            self.assertEqual(file.read(), "killed -9\nready\n")


class Page(html.parser.HTMLParser):
    """Reads a page, and notes its links, anchors and elements."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.elements, self.attributes, self.open = [], set(), set(), set(), []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "href":
                self.links.append(value)
            if name == "id":
                self.anchors.add(value)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"


class Grading(Folder):
    """The whole, with the conformance program."""

    def check_pages(self):
        """Elements are balanced, nothing of a submission became an element, all links lead somewhere."""
        pages = {}
        for folder, _, files in os.walk(self.out):
            for name in files:
                if name.endswith(".html"):
                    path = os.path.join(folder, name)
                    pages[path] = Page(self.read(path))
        for path, parsed in pages.items():
            self.assertEqual(parsed.open, [])
            self.assertFalse(parsed.elements & {"script", "img", "i", "b2", "iframe", "object", "form"})
            self.assertFalse([name for name in parsed.attributes if name.startswith("on")])
            for link in parsed.links:
                address, _, anchor = link.partition("#")
                target = os.path.normpath(os.path.join(os.path.dirname(path), urllib.parse.unquote(address))) \
                    if address else path
                self.assertTrue(os.path.exists(target), link)
                if anchor:
                    self.assertIn(urllib.parse.unquote(anchor), pages[target].anchors, link)
        return pages

    def test_good_and_faulty(self):
        self.good("ann")
        self.good("bob", "text-ends-at-a-colon")
        name = "<script>alert('1')</script>&".replace("/", "\u2044")
        self.good(name, "strips-blanks")
        self.write("=cmd/README", "nothing to run")
        self.grade("--conformance-options=--timeout 60")
        self.assertEqual(self.points(), {"ann": 8, "bob": 5, name: 5, "'=cmd": 0})
        self.assertIn("Points: 8 of 8\n", self.read("ann", "feedback.txt"))
        feedback = self.read("bob", "feedback.txt")
        for part in ("Points: 5 of 8\n", "FAILED        0 of   3  Texts are", "lines-payload-colons: ", "  expected  ",
                     "What was not counted", "login-deadline-"):
            self.assertIn(part, feedback)
        self.assertIn("there is no ./server and no server.py", self.read("=cmd", "feedback.txt"))
        self.assertEqual(self.json("=cmd", "report.json")["max_score"], 8)

        self.check_pages()
        index = self.read("index.html")
        self.assertIn("&lt;script&gt;", index)
        self.assertIn("Texts are &lt;i&gt;not&lt;/i&gt; changed", index)
        for scene in "lines-payload-colons", "lines-payload-blanks":
            self.assertIn(f"<code>{scene}</code>", index.partition('id="causes"')[2])
        self.check_gradescope(self.json("bob", "results.json"))
        self.check_classroom50(self.json("bob", "result.json"))

    def check_gradescope(self, results):
        formats = {"text", "html", "simple_format", "md", "ansi"}
        visibilities = {"hidden", "after_due_date", "after_published", "visible"}
        known = {"score": (int, float), "execution_time": int, "output": str, "output_format": formats,
                 "test_output_format": formats, "test_name_format": formats, "visibility": visibilities,
                 "stdout_visibility": visibilities, "extra_data": dict, "tests": list, "leaderboard": list}
        of_a_test = {"score": (int, float), "max_score": (int, float), "status": {"passed", "failed"}, "name": str,
                     "name_format": formats, "number": str, "output": str, "output_format": formats, "tags": list,
                     "visibility": visibilities, "extra_data": dict}
        for fields, members in (known, results), *((of_a_test, test) for test in results["tests"]):
            for name, value in members.items():
                kind = fields[name]
                self.assertTrue(value in kind if isinstance(kind, set) else isinstance(value, kind), (name, value))
        self.assertEqual([test.get("status") for test in results["tests"]], ["passed", "failed", None])
        self.assertEqual([test.get("max_score") for test in results["tests"]], [5, 3, None])
        self.assertEqual(results["score"], sum(test.get("score", 0) for test in results["tests"]))
        self.assertIn("lines-payload-colons", results["tests"][1]["output"])

    def check_classroom50(self, result):
        self.assertEqual(result["schema"], "classroom50/result/v1")
        for name in "classroom", "assignment", "submission", "commit", "release", "review", "datetime":
            self.assertTrue(result[name] and isinstance(result[name], str))
        datetime.datetime.strptime(result["datetime"], "%Y-%m-%dT%H:%M:%SZ")
        self.assertEqual((result["score"], result["max-score"]), (5, 8))
        self.assertEqual([(test["passed"], test["score"], test["max-score"]) for test in result["tests"]],
                         [(True, 5, 5), (False, 0, 3)])
        self.assertTrue(all(isinstance(test["test-name"], str) for test in result["tests"]))

    def test_hostile(self):
        marker = os.path.basename(self.folder)
        self.write("crashes/server.py", "raise SystemExit('\\33[31mno\\33[0m')\n")
        self.write("hangs/server.py", HANGS)
        self.write("daemon/server.py", server(
            f"code = 'import time; time.sleep(3600) # {marker}'\n"
            "subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\nos.fork() and os._exit(1)\n"
            "time.sleep(3600)\n"))
        self.write("eats/server.py", server("listener.accept()\nx = b'x' * (600 << 20)\ntime.sleep(3600)\n"))
        self.write("talks/server.py", server("while True: print('<b2>\\33[2J' * 100)\n"))
        self.write("html/server.py", server(
            "while True:\n    c = listener.accept()[0]\n    c.sendall(b'<script>alert(1)</script>\\33[2J\\n')\n"))
        self.write("endless/Makefile", f"all:\n\tsleep 3600 # {marker}\n")
        self.write("wrong/Makefile", "all:\n\t@echo '<b2>server.c:1:1: error: \\033[31mwhat'; false\n")
        with zipfile.ZipFile(os.path.join(self.submissions, "outside.zip"), "w") as archive:
            archive.writestr("../../evil", "x")
        with tarfile.open(os.path.join(self.submissions, "good.tar.gz"), "w:gz") as archive:
            for name in "chat_server.py", "server.py":
                archive.add(os.path.join(SERVERS, "chat_server.py"), f"solution/{name}")
        self.grade("--conformance-options=--timeout 3", "--build-seconds", "5", "--memory", "400", "--jobs", "4",
                   "--seconds", "60", "--cpu", "300")
        points = self.points()
        self.assertEqual(points.pop("good"), 8)
        self.assertEqual(set(points.values()), {0}, points)
        self.assertEqual(len(points), 9)
        self.nothing_left(marker)
        self.check_pages()
        self.assertIn("cannot be started", self.read("crashes", "feedback.txt"))
        self.assertIn("\\x1b[31mno", self.read("crashes", "feedback.txt"))
        self.assertIn("longer than 5 s", self.read("endless", "feedback.txt"))
        self.assertIn("server.c:1:1: error:", self.read("wrong", "feedback.txt"))
        self.assertIn("leads out of its folder: ../../evil", self.read("outside", "feedback.txt"))
        self.assertIn("400 MiB of memory", self.read("eats", "feedback.txt"))
        self.assertLess(os.path.getsize(os.path.join(self.out, "talks", "server.log")), 2 << 20)
        for folder, _, files in os.walk(self.out):
            for name in files:
                self.assertNotIn("\33", self.read(folder, name), name)

    def test_what_was_decided_counts(self):
        """A hung server is stopped when the time is over, and what it failed by then is known."""
        self.write("hangs/server.py", HANGS)
        self.grade("--conformance-options=--timeout 3600", "--seconds", "10")
        self.assertEqual(self.points(), {"hangs": 0})
        self.assertIn("longer than 10 s", self.read("hangs", "feedback.txt"))

    def test_interrupted(self):
        """Nothing is left running, and what is there is written."""
        marker, started = os.path.basename(self.folder), self.path("started")
        self.write("hangs/server.py", server(
            f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600) # {marker}'], "
            f"start_new_session=True)\nopen({started!r}, 'w').close()\ntime.sleep(3600)\n"))
        self.write("next/server.py", HANGS)
        command = [sys.executable, os.path.join(HERE, "chatproto-grade"), "--conformance", CONFORMANCE, "--jobs", "1",
                   self.submissions, "--out", self.out, "--profile", self.path("profile"),
                   "--conformance-options=--timeout 3600"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as grading:
            while not os.path.exists(started) and grading.poll() is None:
                time.sleep(0.05)
            grading.send_signal(signal.SIGINT)
            errors = grading.communicate()[1]
        self.assertEqual(grading.returncode, 1, errors)
        self.nothing_left(marker)
        self.assertIn("Interrupted", self.read("index.html"))
        self.assertEqual(self.points(), {"hangs": 0, "next": 0})

    def test_build_and_programs(self):
        self.good("ann")
        self.write("ann/Makefile", "server: server.py\n\t(echo '#!/usr/bin/env python3'; cat server.py) >server; "
                                   "chmod +x server; rm server.py\n")
        self.grade("--conformance-options=--timeout 60", "--programs", "server")
        self.assertEqual(self.points(), {"ann": 8})
        self.assertIn("chmod +x server", self.read("ann", "build.log"))
        self.assertTrue(os.path.exists(os.path.join(self.submissions, "ann", "server.py")))  # only the copy was built
        self.grade("--conformance-options=--timeout 60", "--build", "mv server.py chat.py",
                   "--run", "python3 chat.py {port}")
        self.assertEqual(self.points(), {"ann": 8})

    def test_which_programs_are_graded(self):
        with open(self.path("profile"), "a", encoding="ascii") as file:
            file.write("rule: 4 The sender says that there is no server\nscenes: *sender-no-server\n")
        self.good("server-only")
        self.write("sender-only/sender.py", "raise SystemExit('there is no server')\n")
        self.write("bad-server/server.py", "raise SystemExit('broken')\n")
        self.write("bad-server/sender.py", "raise SystemExit('there is no server')\n")
        self.grade("--conformance-options=--timeout 60")
        self.assertEqual(self.points(), {"server-only": 8, "sender-only": 0, "bad-server": 0})
        self.grade("--conformance-options=--timeout 60", "--programs", "server,sender")
        self.assertEqual(self.points(), {"server-only": 8, "sender-only": 4, "bad-server": 4})
        for name in "server-only", "sender-only", "bad-server":
            self.assertEqual(self.json(name, "report.json")["max_score"], 12)
        self.assertIn("There is no ./sender and", self.read("server-only", "feedback.txt"))
        self.assertIn("No points for the server: there is no ./server", self.read("sender-only", "feedback.txt"))
        self.assertIn("No points for the server: the server under test cannot be started",
                      self.read("bad-server", "feedback.txt"))
        self.grade("--conformance-options=--timeout 60", "--programs", "sender")
        self.assertEqual(self.points(), {"server-only": 0, "sender-only": 4, "bad-server": 4})

    @unittest.skipUnless(shutil.which("cc"), "what delays the threads must be compiled")
    def test_races(self):
        """A server that is wrong only while its threads are delayed. (perturb.py has its own tests with real races.)"""
        with open(self.path("profile"), "a", encoding="ascii") as file:
            file.write("rule: 10 Threads may meet in any order\nscenes: perturbed left-behind\n")
        self.good("ann")
        self.good("racy", "delivers-twice", "'CHATPROTO_PERTURB' in os.environ")
        self.write("empty/README", "nothing to run")
        self.grade("--conformance-options=--timeout 60")
        self.assertEqual(self.points(), {"ann": 8, "racy": 8, "empty": 0})
        self.assertEqual({self.json(name, "report.json")["max_score"] for name in ("ann", "racy", "empty")}, {8})
        self.grade("--conformance-options=--timeout 60", "--races", "1")
        self.assertEqual(self.points(), {"ann": 18, "racy": 8, "empty": 0})
        self.assertEqual({self.json(name, "report.json")["max_score"] for name in ("ann", "racy", "empty")}, {18})
        self.assertIn("found     with the seed 1", self.read("racy", "feedback.txt"))
        self.check_pages()

    @unittest.skipUnless(shutil.which("make") and shutil.which("g++"), "what is sanitized must be compiled")
    def test_sanitizer(self):
        """A submission is built twice, and what the sanitizer finds costs the points of its rule."""
        with open(self.path("profile"), "a", encoding="ascii") as file:
            file.write("rule: 10 Threads may meet in any order\nscenes: thread-sanitizer\n")
        os.makedirs(os.path.join(self.submissions, "racy"))
        for file in "student_server.cpp", "student_server.hpp", "races.cpp":
            shutil.copy(os.path.join(HERE, "faults", file), os.path.join(self.submissions, "racy"))
        self.write("racy/Makefile", "server: student_server.cpp races.cpp\n\tg++ -std=c++20 -pthread -o program $^\n"
                                    "\t(echo '#!/bin/sh'; echo 'exec ./program $$1 lost-update') >server\n"
                                    "\tchmod +x server\n")
        self.good("python")
        self.grade("--conformance-options=--timeout 60", "--sanitize", "thread")
        self.assertEqual(self.points(), {"racy": 8, "python": 8})
        self.assertEqual([self.json(name, "report.json")["max_score"] for name in ("racy", "python")], [18, 8])
        self.assertIn("data race in add races.cpp:", self.read("racy", "feedback.txt"))
        self.check_pages()

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "only root can run programs as others")
    def test_another_user(self):
        self.write("spy/server.py", "import os\nprint('user', os.getuid(), os.access('server.py', os.W_OK))\n"
                   "try:\n    open('../out/report.json', 'w')\nexcept OSError as error:\n"
                   "    print(error, flush=True)\n")
        self.good("ann")
        self.grade("--conformance-options=--timeout 60", "--user", "nobody")
        self.assertEqual(self.points(), {"ann": 8, "spy": 0})
        printed = self.read("spy", "server.log")
        self.assertIn(f"user {pwd.getpwnam('nobody').pw_uid} True\n", printed)
        self.assertIn("Permission denied: '../out/report.json'", printed)

    def test_wrong_command_lines(self):
        self.good("ann")
        self.assertIn("no such folder", self.grade(folder=self.path("none"), code=2).stderr)
        self.assertIn("needs {port}", self.grade("--run", "./server", code=2).stderr)
        self.assertIn("needs a number", self.grade("--jobs", "0", code=2).stderr)
        self.assertIn("within FOLDER", self.grade("--out", os.path.join(self.submissions, "out"), code=2).stderr)
        self.assertIn("is not empty", self.grade("--out", self.submissions + "/../", code=2).stderr)
        self.assertIn("nonsense", self.grade("--profile", "nonsense", code=2).stderr)
        self.assertFalse(os.path.exists(self.out))
        help_text = self.grade("--help", folder=False).stdout
        for option in "--out", "--profile", "--memory", "--gradescope", "--conformance-options":
            self.assertIn(option, help_text)


class Perturbed(Folder):
    """perturb.py, with servers that end while it looks at them."""

    def test_ends_before_the_scenes(self):
        """The server takes the connection that shows that it is there, and then ends."""
        self.write("server.py", server("listener.accept()\nlistener.close()\nraise SystemExit('that was all')\n"))
        with perturb.Server([sys.executable, os.path.join(self.submissions, "server.py"), "{port}"]) as ended:
            ended.process.wait()
            told, slow = perturb.play(CONFORMANCE, ended, ["login-sender"], 15)
        self.assertEqual((told[0], slow), ("came      the server ended, with exit code 1", False))
        self.assertIn("that was all", told[1])


class Bundles(Folder):
    """What is packed for Gradescope and Classroom 50 grades alone."""

    def test_gradescope(self):
        self.good("ann", "text-ends-at-a-colon")
        self.grade("--profile", self.path("profile"), "--gradescope", self.path("auto.zip"),
                   "--visibility", "after_due_date", "--conformance-options=--timeout 60", folder=False)
        root = self.path("autograder")
        with zipfile.ZipFile(self.path("auto.zip")) as archive:
            archive.extractall(os.path.join(root, "source"))
            modes = {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()}
        self.assertEqual((modes["run_autograder"], modes["setup.sh"]), (0o755, 0o755))
        for name, mode in modes.items():
            os.chmod(os.path.join(root, "source", name), mode)
        for script in "setup.sh", "run_autograder":
            subprocess.run(["bash", "-n", os.path.join(root, "source", script)], check=True)
        shutil.copytree(os.path.join(self.submissions, "ann"), os.path.join(root, "submission"))

        def run():
            subprocess.run(["bash", os.path.join(root, "source", "run_autograder")], check=True, capture_output=True,
                           env={**os.environ, "AUTOGRADER": root})
            with open(os.path.join(root, "results", "results.json"), encoding="utf-8") as file:
                return json.load(file)

        results = run()
        self.assertEqual((results["score"], results["visibility"]), (5, "after_due_date"))
        shutil.rmtree(os.path.join(root, "submission"))
        os.makedirs(os.path.join(root, "submission"))
        self.assertEqual(run()["score"], 0)
        os.remove(os.path.join(root, "source", "chatproto-conformance"))
        self.assertIn("tell your teacher", run()["output"])

    def test_classroom50(self):
        self.good("ann", "strips-blanks")
        bundle = self.path("bundle")
        self.grade("--profile", self.path("profile"), "--classroom50", bundle, "--conformance-options=--timeout 60",
                   folder=False)
        checkout = os.path.join(self.submissions, "ann")
        subprocess.run([sys.executable, os.path.join(bundle, "autograder.py")], cwd=checkout, check=True,
                       capture_output=True, env={**os.environ, "CLASSROOM": "cs", "ASSIGNMENT": "chat"})
        with open(os.path.join(checkout, "result.json"), encoding="utf-8") as file:
            result = json.load(file)
        self.assertEqual((result["classroom"], result["score"], result["max-score"]), ("cs", 5, 8))
        os.remove(os.path.join(bundle, "chatproto-conformance"))
        ran = subprocess.run([sys.executable, os.path.join(bundle, "autograder.py")], cwd=checkout, check=False,
                             capture_output=True)
        self.assertNotEqual(ran.returncode, 0)


class Reports(unittest.TestCase):
    """What is written, from results that are made up."""

    @staticmethod
    def graded(name="ann", **members):
        graded = judging.Graded(name)
        told = ["so far    s connect", "expected  s: the line ok:*", "came      err:you <b> are gu4pk4ig"]
        graded.report = {"title": "T", "score": 5, "max_score": 20, "stopped": "", "rules": [
            {"name": name, "score": score, "max_score": 5, "status": status, "tests": [test]}
            for name, score, status, test in (
                ("P", 5, "passed", "p"), ("F", 0, "failed", "f"), ("U", 0, "unchecked", "u"), ("S", 0, "skipped", "s"))
        ], "tests": [
            {"name": name, "level": "basic", "title": f"{name} title", "section": "1 Lines", "status": status,
             "why": why, "told": told if status == "failed" else []} for name, status, why in (
                ("p", "passed", ""), ("f", "failed", ""), ("u", "unchecked", "could not be checked, because f failed"),
                ("s", "skipped", "needs IPv6"), ("perturbed", "failed", ""))]}
        for member, value in members.items():
            setattr(graded, member, value)
        return graded

    def test_feedback_tells_unchecked_from_failed(self):
        text = reports.feedback(self.graded())
        failed, _, rest = text.partition("What could not be checked")
        self.assertIn("f: f title  [1 Lines]", failed)
        self.assertNotIn("because f failed", failed)
        self.assertIn("because f failed", rest)
        self.assertIn("perturbed title", rest.partition("without points")[2])

    def test_other_formats(self):
        results = reports.gradescope(self.graded(), "visible")
        self.assertEqual([test.get("status") for test in results["tests"]],
                         ["passed", "failed", "failed", None, "failed"])
        self.assertIn("could not be checked", results["tests"][2]["name"])
        self.assertEqual(len(reports.classroom50(self.graded())["tests"]), 3)

    def test_matrix(self):
        many = [self.graded(f"s{i}") for i in range(9)]
        text = page.matrix(many, many[0].report, [])
        Page(text)
        for part in ("9 of 9: f title", "<code>err:you &lt;b&gt; are {room}</code> instead of",
                     "9 submissions</summary>", "could not be checked, because f failed", "without points",
                     '<th scope="row">', "<caption>"):
            self.assertIn(part, text)
        self.assertNotIn("because u failed", text)
        Page(page.submission(many[0]))

    def test_a_test_of_all_scenes_has_its_rule(self):
        """The plan plays nothing, so its rules have no such tests as split."""
        graded, plan = self.graded(), self.graded().report
        graded.rules[1]["tests"].append("split")
        graded.report["tests"].append({**graded.tests()["f"], "name": "split", "title": "In pieces"})
        causes = page.matrix([graded], plan, []).partition('id="causes"')[2]
        self.assertRegex(causes, r"<code>split</code>, rule 2, F<")

    def test_what_could_not_be_checked_is_found(self):
        """Also where the scene's rule has failed, and where the scene belongs to none."""
        for rules in ([["p"], ["f", "u"]], [["p"], ["f"]]):
            graded = self.graded()
            graded.report["rules"] = [{"name": "R", "score": 0, "max_score": 5, "status": status, "tests": names}
                                      for status, names in zip(("passed", "failed"), rules)]
            anchors = Page(page.submission(graded)).anchors
            found = [link for link in Page(page.matrix([graded], graded.report, [])).links if link.startswith("ann/")]
            for link in found:
                self.assertIn(link.partition("#")[2], anchors | {""}, link)

    def test_median(self):
        some = [self.graded(f"s{i}") for i in range(4)]
        for one, score in zip(some, (0, 5, 10, 20)):
            one.report["score"] = score
        self.assertIn("median 7.5 points", page.matrix(some, some[0].report, []))
        self.assertIn("median 5 points", page.matrix(some[:3], some[0].report, []))

    def test_shape(self):
        for told, expected in ((["came      delivery:gu4pk4ig:bob:hi\\n"], ("", "delivery:{room}:bob:hi\\n")),
                               (["          s -> join:gmbpfrrg\\n", "came      delivery:gmbpfrrg:somebody:hi\\n"],
                                ("", "delivery:{room}:somebody:hi\\n")),
                               (["expected  b: a line", "came      nothing within 10 s", "step      b < *"],
                                ("b: a line", "nothing within 10 s")),
                               (["came      delivery:a b"], ("", "delivery:a b")),
                               (["something", "else"], ("", "else")), ([], ("", ""))):
            self.assertEqual(page.shape(told), expected)

    def test_colours_can_be_read(self):
        """WCAG AA: 4.5 : 1."""
        def luminance(colour):
            colour = "".join(c * 2 for c in colour[1:]) if len(colour) == 4 else colour[1:]
            parts = [int(colour[i:i + 2], 16) / 255 for i in (0, 2, 4)]
            parts = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

        themes = re.findall(r":root \{[^}]*\}", page.STYLE)
        self.assertEqual(len(themes), 2)
        for theme in themes:
            colours = dict(re.findall(r"--([\w-]+): (#\w+)", theme))
            for front, back in (("text", "page"), ("text", "head"), ("dim", "page"), ("link", "page"), ("link", "head"),
                                ("on-passed", "passed"), ("on-failed", "failed"), ("on-unchecked", "unchecked")):
                high, low = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
                self.assertGreaterEqual((high + 0.05) / (low + 0.05), 4.5, (front, back, theme))

    def test_tests_that_are_added(self):
        """Only the rules that gain tests are marked again, and as chatproto-conformance marks them."""
        ended = "could not be checked, because the run ended before"

        def report():
            rules = {"cut": ("unchecked", 0, [], ["p", "e"]), "both": ("unchecked", 0, ["perturbed"], ["p", "e"]),
                     "missing": ("failed", 0, [], []), "gains": ("skipped", 0, ["perturbed"], ["s"]),
                     "partly": ("passed", 5, ["left-*"], ["p", "u"])}
            return {"score": 5, "max_score": 20, "rules": [
                {"name": name, "status": status, "score": score, "max_score": 5, "scenes": scenes, "tests": tests}
                for name, (status, score, scenes, tests) in rules.items()], "tests": [
                    {"name": name, "status": status, "why": why} for name, status, why in (
                        ("p", "passed", ""), ("e", "unchecked", ended), ("s", "skipped", "needs IPv6"),
                        ("u", "unchecked", "could not be checked, because f failed"))]}

        def marks(status, *names):
            given = report()
            judging.add_tests(given, [{"name": name, "status": status, "why": ""} for name in names])
            return {rule["name"]: (rule["status"], rule["score"]) for rule in given["rules"]}, given

        unchanged = {rule["name"]: (rule["status"], rule["score"]) for rule in report()["rules"]}
        self.assertEqual(marks("failed", "thread-sanitizer")[0], unchanged)
        found, given = marks("passed", "perturbed", "left-behind")
        self.assertEqual(found, {**unchanged, "gains": ("passed", 5)})
        self.assertEqual((given["score"], given["max_score"]), (10, 25))
        self.assertEqual(marks("failed", "perturbed", "left-behind")[0], {
            **unchanged, "both": ("failed", 0), "gains": ("failed", 0), "partly": ("failed", 0)})

    def test_text_of_others_is_shown(self):
        self.assertEqual(judging.shown("a\33[1m\u202eb\udcff\n"), "a\\x1b[1m\\u202eb\\xff\n")


if __name__ == "__main__":
    CONFORMANCE = os.path.abspath(sys.argv.pop(1))
    unittest.main()
