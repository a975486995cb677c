#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""perturb.py [OPTION]... [SCENE]... -- COMMAND {port} [ARGUMENT]...: looks for races in a server.

It plays scenes in which many clients come, talk and go at once, again and again, each time with a new server around
which perturb.c is loaded with another seed, until one fails or the time is over. Then it looks in /proc for threads and
descriptors that clients that have gone have left behind. Linux only.

This is a program of its own and no option of chatproto-conformance, because each seed needs a new server, whose stderr
and /proc must be read.
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARY = "libchatproto-perturb.so"
SCENES = ["promises-*", "races-*", "races-*"]  # each races-* is played twice, because these are about races
MOST_TOLD = 40  # lines of a server's stderr
SURELY_STILL = 4  # seconds


class CannotPlay(Exception):
    """The scenes could not be played: nothing is known about the server."""


def build_library(folder):
    """Compiles perturb.c and returns the library's path."""
    library = os.path.join(folder, LIBRARY)
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise CannotPlay("no C compiler is there to build perturb.c; name the library with --library")
    built = subprocess.run([*compiler.split(), "-shared", "-fPIC", "-O2", "-o", library,
                            os.path.join(HERE, "perturb.c"), "-ldl"], stderr=subprocess.PIPE, text=True)
    if built.returncode != 0:
        raise CannotPlay("perturb.c cannot be built: " + built.stderr.strip())
    return library


class Server:
    """A server that has been started, with its stderr in a file."""

    def __init__(self, command, environment=None):
        self.errors = tempfile.TemporaryFile("a+b")
        for _ in range(5):  # somebody else may take the port first
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self.port = probe.getsockname()[1]
            words = [word.replace("{port}", str(self.port)) for word in command]
            try:
                self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors,
                                                env={**os.environ, **(environment or {})})
            except OSError as error:
                raise CannotPlay(f"the server cannot be started: {error}") from error
            until = time.monotonic() + 30
            while self.process.poll() is None and time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                    return
                time.sleep(0.01)
            if self.process.poll() is None:
                break
        how = "it takes no connection" if self.process.poll() is None else self.how_it_ended()
        told = self.told()
        self.stop()
        raise CannotPlay("the server cannot be started: " + "\n".join([how, *told]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def how_it_ended(self):
        code = self.process.poll()
        if code >= 0:
            return f"the server ended, with exit code {code}"
        return f"the server ended, by signal {-code} ({signal.Signals(-code).name})"

    def told(self):
        """What the server has written, the lines of perturb.c first."""
        self.errors.seek(0)
        lines = self.errors.read(1 << 20).decode(errors="replace").splitlines()
        first = next((i for i, line in enumerate(lines) if line.startswith("chatproto-perturb:")), 0)
        return [escaped(line) for line in lines[first:first + MOST_TOLD]]

    def count(self):
        """The numbers of its threads and of its open descriptors."""
        try:
            folder = f"/proc/{self.process.pid}"
            return len(os.listdir(folder + "/task")), len(os.listdir(folder + "/fd"))
        except OSError as error:
            raise CannotPlay(f"/proc does not show the server: {error}") from error

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()  # how a server ends in order is the subject of other tests
            self.process.wait()
        self.errors.close()


def escaped(text):
    return "".join(c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in text)[:400]


# --- Perturbed plays --------------------------------------------------------------------------------------------------

class Stillness:
    """Measures for how long a server has done nothing: none of its threads has run or waited for a processor. This
    tells a server that hangs from one that is slow; the clock does not."""
    least = 0.2  # of the time: perturb.c takes at most half, and some servers wake up now and then

    def __init__(self, process):
        self.folder = f"/proc/{process.pid}/task"
        self.work, self.at = self.look(), time.monotonic()
        self.since = self.at

    def look(self):
        work = {}
        with contextlib.suppress(OSError):
            for thread in os.listdir(self.folder):
                with contextlib.suppress(OSError), open(f"{self.folder}/{thread}/schedstat", encoding="ascii") as file:
                    work[thread] = sum(map(int, file.read().split()[:2])) / 1e9
        return work

    def update(self):
        now = time.monotonic()
        if now - self.at < 1:
            return
        work = self.look()
        done = sum(spent - self.work.get(thread, 0) for thread, spent in work.items())
        if not work or done > self.least * (now - self.at):
            self.since = now
        self.work, self.at = work, now

    def seconds(self):
        return self.at - self.since


def play(conformance, server, scenes, timeout, tls=()):
    """Plays the scenes once. `tls`: the options of chatproto-conformance about TLS. Returns the lines that tell of the
    first failure, or None; and whether the server may only have been too slow."""
    with tempfile.TemporaryDirectory() as folder:
        junit, host = os.path.join(folder, "junit.xml"), "localhost" if tls else "127.0.0.1"
        with tempfile.TemporaryFile("w+", errors="replace") as output, subprocess.Popen(
                [conformance, "--only", "whole", "--timeout", str(timeout), *tls, "--junit", junit, host,
                 str(server.port), *scenes], stdout=output, stderr=output) as playing:
            still = Stillness(server.process)
            while playing.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    playing.wait(0.2)
                still.update()
            output.seek(0)
            said = output.read()
        for _ in range(20):  # it may be ending at this moment
            if playing.returncode == 0 or server.process.poll() is not None:
                break
            time.sleep(0.01)
        if server.process.poll() is not None:
            told = ["came      " + server.how_it_ended(), *("          " + line for line in server.told())]
            slow = False
        elif playing.returncode == 0:
            return None, False
        elif not os.path.exists(junit):
            raise CannotPlay("the scenes could not be played: " + said.strip())
        else:  # 2: the server takes no connections any more
            told = [] if playing.returncode == 1 else ["came      " + (said.strip().splitlines() or [""])[-1]]
            slow = playing.returncode == 1 and still.seconds() < SURELY_STILL
        if os.path.exists(junit) and os.path.getsize(junit):  # empty: the server had gone before anything was played
            failed = [(case.get("name"), (failure.text or "").strip("\n").splitlines())
                      for case in xml.etree.ElementTree.parse(junit).iter("testcase")
                      if (failure := case.find("failure")) is not None]
            # A wrong line says more than a missing one.
            failed.sort(key=lambda one: any(line.startswith("came      nothing within") for line in one[1]))
            for name, lines in failed[:1]:
                told += [f"scene     {name}", *lines]
                slow = slow and any(line.startswith("came      nothing within") for line in lines)
    return told, slow


def perturbed(conformance, command, library, seconds=60, first_seed=1, seeds=None, scenes=None, timeout=15,
              tls=()):
    """Plays with one seed after the other, for a number of seconds or of seeds. Returns a test of the report, with
    the number of seeds played as "seeds", and those that were too slow at first as "slow"."""
    began = time.monotonic()
    seed = first_seed
    result = {"name": "perturbed", "level": "concurrent", "section": "6 Promises", "status": "passed", "why": "",
              "title": "The scenes again and again, the server's threads delayed by chance", "told": [], "slow": []}
    while True:
        environment = {"LD_PRELOAD": os.path.abspath(library), "CHATPROTO_PERTURB": str(seed)}
        for patience in (timeout, 8 * timeout):
            with Server(command, environment) as server:
                told, slow = play(conformance, server, scenes or SCENES, patience, tls)
            if not slow:
                break
            result["slow"].append(seed)
        result["seeds"] = seed - first_seed + 1
        if told is not None:
            result["status"] = "failed"
            result["told"] = [f"found     with the seed {seed}, after {time.monotonic() - began:.0f} s; "
                              f"once more: --seed {seed}", *told]
            return result
        seed += 1
        if time.monotonic() - began >= seconds if seeds is None else result["seeds"] >= seeds:
            return result


# --- What clients leave behind ----------------------------------------------------------------------------------------

class Line:
    """A client that sends a line and awaits one."""
    context = None  # of TLS

    def __init__(self, port, login, room, patience):
        self.connection = socket.create_connection(("127.0.0.1", port), patience)
        if self.context:
            self.connection = self.context.wrap_socket(self.connection, server_hostname="localhost")
        self.file = self.connection.makefile("rb")
        for line in (login, "join:" + room):
            self.ask(line)

    def ask(self, line):
        self.connection.sendall(line.encode() + b"\n")
        answer = self.file.readline(4096)
        if not answer.startswith(b"ok:"):
            raise CannotPlay(f"{line} was answered by {escaped(answer.decode(errors='replace'))!r}")

    def close(self):
        self.file.close()
        self.connection.close()

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def end_of_input(self):
        self.connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):  # the server may reset
            while self.connection.recv(4096):
                pass
        self.close()

    def quit(self):
        self.ask("quit:bye")
        self.close()


WAYS = {"receivers that close": ("rlogin", Line.close), "receivers that reset": ("rlogin", Line.reset),
        "senders that close": ("slogin", Line.close), "senders that reset": ("slogin", Line.reset),
        "senders that end their input": ("slogin", Line.end_of_input), "senders that quit": ("slogin", Line.quit)}


def settle(server, talker, room, before, patience):
    """Sends texts to a room that receivers have left, because some servers notice only then. Stops when the server has
    no more threads and descriptors than before, or when the time is over. Returns the least numbers of both."""
    least = (1 << 30, 1 << 30)
    until = time.monotonic() + patience
    talker.ask("join:" + room)
    while True:
        for _ in range(3):  # the first one into a closed connection is answered by a reset, and the next one fails
            talker.ask("sendall:is anybody there?")
        pause = time.monotonic() + 0.5
        while time.monotonic() < pause:
            least = tuple(min(pair) for pair in zip(least, server.count()))
            if least[0] <= before[0] and least[1] <= before[1]:
                return least
            time.sleep(0.01)
        if time.monotonic() >= until:
            return least


def left_behind(command, clients=12, patience=10):
    """Lets clients come and go, in two rounds for each way to go: what only the first round leaves (a pool of threads)
    is no finding. Returns a test of the report."""
    result = {"name": "left-behind", "level": "concurrent", "section": "5 Receiver", "status": "passed", "why": "",
              "title": "Clients that have gone leave no thread and no descriptor behind", "told": []}
    try:
        with Server(command) as server:
            talker = Line(server.port, "slogin:talker", "left0", patience)
            now = settle(server, talker, "left0", (0, 0), 1)
            for number, (way, (login, leave)) in enumerate(WAYS.items()):
                for turn in (1, 2):
                    room = f"left{number}x{turn}"
                    gone = [Line(server.port, f"{login}:user{i}", room, patience) for i in range(clients)]
                    for client in gone:
                        leave(client)
                    before, now = now, settle(server, talker, room, now, patience)
                threads, descriptors = (max(0, after - then) for after, then in zip(now, before))
                # Fewer may be chance: a pool has grown, or a thread has not ended yet.
                if threads * 2 >= clients or descriptors * 2 >= clients:
                    result["status"] = "failed"
                    each = f"{threads / clients:.1f} and {descriptors / clients:.1f} for each"
                    result["told"].append(f"came      {clients} {way} have left {threads} threads and {descriptors} "
                                          f"descriptors behind ({each})")
    except (CannotPlay, OSError) as error:
        result["status"] = "unchecked"
        result["why"] = f"could not be checked: {error}"
    return result


def use_tls(parser, options):
    """Returns the options of chatproto-conformance about TLS."""
    if not options.tls:
        if options.ca or options.insecure:
            parser.error("--ca and --insecure need --tls")
        return []
    if options.ca and options.insecure:
        parser.error("--ca and --insecure exclude each other")
    try:
        Line.context = ssl.create_default_context(cafile=options.ca)
    except OSError as error:
        parser.error(f"--ca {options.ca}: {error}")
    if options.insecure:
        Line.context.check_hostname, Line.context.verify_mode = False, ssl.CERT_NONE
    return ["--tls", *(["--ca", options.ca] if options.ca else []), *(["--insecure"] if options.insecure else [])]


def check_tls(command):
    """Throws if the server's TLS is no basis for anything else: that would look like a race."""
    try:
        with Server(command) as server, socket.create_connection(("127.0.0.1", server.port), 30) as connection:
            Line.context.wrap_socket(connection, server_hostname="localhost").close()
    except OSError as error:
        raise CannotPlay(f"TLS with the server: {error}") from error


def main():
    arguments = sys.argv[1:]
    if "--" not in arguments and not {"-h", "--help"} & set(arguments):
        print("perturb.py: the command that starts the server is needed, after -- (see --help)", file=sys.stderr)
        return 2
    at = arguments.index("--") if "--" in arguments else len(arguments)
    arguments, command = arguments[:at], arguments[at + 1:]
    parser = argparse.ArgumentParser(prog="perturb.py", usage=__doc__.splitlines()[0].split(": ")[0],
                                     description=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"the scenes to play ({' '.join(SCENES)})")
    parser.add_argument("--seconds", type=float, default=60, help="how long to look for races (60)")
    parser.add_argument("--seed", type=int, help="play with this seed only")
    parser.add_argument("--first-seed", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--seeds", type=int, help="how many seeds to play, in place of --seconds")
    parser.add_argument("--timeout", type=int, default=15, help="time limit of each step, in seconds (15)")
    parser.add_argument("--tls", action="store_true", help="speak TLS with the server, whose name is localhost")
    parser.add_argument("--ca", metavar="FILE", help="the authorities to trust, in place of the system's")
    parser.add_argument("--insecure", action="store_true", help="accept any certificate")
    parser.add_argument("--no-left-behind", action="store_true", help="do not look for what clients leave behind")
    parser.add_argument("--conformance", default=shutil.which("chatproto-conformance"),
                        help="chatproto-conformance, if it is not in PATH")
    parser.add_argument("--library", help="the library built from perturb.c (by default, it is built first)")
    parser.add_argument("--json", metavar="FILE", help="also write the results to a file")
    options = parser.parse_args(arguments)
    if not any("{port}" in word for word in command):
        parser.error("the command after -- needs {port} in the place of its port")
    if not options.conformance:
        parser.error("chatproto-conformance is not in PATH; name it with --conformance")
    tls = use_tls(parser, options)
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = options.library or build_library(folder)
            if tls:
                check_tls(command)
            one = options.seed is not None
            tests = [perturbed(options.conformance, command, library, options.seconds,
                               options.seed if one else options.first_seed, 1 if one else options.seeds,
                               options.scenes, options.timeout, tls)]
            if not one and not options.no_left_behind:
                tests.append(left_behind(command))
    except CannotPlay as error:
        print(f"perturb.py: {error}", file=sys.stderr)
        return 2
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"tests": tests}, file, indent=1)
    for test in tests:
        if test["status"] == "failed":
            print(f"FAILED {test['name']}: {test['title']}\n  section   {test['section']}")
            print("".join(f"  {line}\n" for line in test["told"]))
        else:
            print(f"{test['status']} {test['name']}" + (f" ({test['seeds']} seeds)" if "seeds" in test else "")
                  + (f", slow: {test['slow']}" if test.get("slow") else "")
                  + (f": {test['why']}" if test["why"] else ""))
    return 1 if any(test["status"] == "failed" for test in tests) else 0


if __name__ == "__main__":
    sys.exit(main())
