# SPDX-License-Identifier: BSL-1.0
"""history_file.py SERVER: the server's --history-file: what is said outlives the server, also if it is killed; which
files are refused, what --check finds, and what is said when the file is lost."""
import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

SERVER = os.path.abspath(sys.argv[1])
PATIENCE = 120  # seconds, after which something has gone wrong; nothing is expected to take long


def check(right, what):
    if not right:
        raise AssertionError(what)


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        check(time.monotonic() < deadline, what)
        time.sleep(0.02)


def run(*arguments):
    """Runs a server that is to end by itself. Returns its exit code, stdout and stderr."""
    ended = subprocess.run([SERVER, *arguments], text=True, capture_output=True, timeout=PATIENCE)
    return ended.returncode, ended.stdout, ended.stderr


def refused(said, *arguments):
    """Checks that a server with these arguments ends with a line that has `said`; with --check as well."""
    for more in ((), ("--check",)):
        code, out, error = run("0", *arguments, *more)
        check((code, out) == (1, "") and said in error and error.count("\n") == 1,
              f"{arguments} {more}: {code}, {out!r}, {error!r} instead of {said!r}")


class Client:
    def __init__(self, port, *lines):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.stream = self.socket.makefile("rwb", buffering=0)
        for line in lines:
            self.ask(line)

    def ask(self, line):
        self.stream.write(line.encode() + b"\n")
        reply = self.read()
        check(reply.startswith("ok"), f"{line}: {reply}")
        return reply

    def read(self):
        line = b""
        while not line.endswith(b"\n"):
            more = self.stream.readline()
            check(more, f"the end after {line!r}")
            line += more
        return line.decode().rstrip("\n")

    def history(self, most=1000):
        return [self.read() for _ in range(int(self.ask(f"history:{most}")[3:]))]


@contextlib.contextmanager
def serving(file, *options, history=100):
    """A server with this file. It must end with exit code 0, unless it is killed."""
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen([SERVER, "0", "--address", "127.0.0.1", "--history", str(history), "--history-file",
                                   file, *options], stderr=errors)

        def said():
            errors.seek(0)
            return errors.read()
        try:
            wait_until(lambda: "listening on port" in said() or server.poll() is not None, "the server does not listen")
            check(server.poll() is None, said())
            server.said = said
            server.port = int(re.search(r"listening on port (\d+)", said())[1])
            yield server
            if server.poll() is None:
                server.terminate()
                check(server.wait(PATIENCE) == 0, said())
        finally:
            server.kill()
            server.wait()


def last_text_in(file):
    """How many texts of the only room have come into the file; 0 if it cannot be read yet."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            return database.execute("SELECT coalesce(max(line), 0) FROM rooms").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def restarts(folder):
    file = f"{folder}/restarts.db"
    expected = []
    for start in range(3):
        with serving(file) as server:
            bob = Client(server.port, "slogin:bob", "join:cafe")
            for i in range(5):
                bob.ask(f"sendall:{start} {i}")
                expected.append(f"delivery:cafe:bob:{start} {i}")
            bob.ask(f"senduser:alice:{start} psst")
            expected.append(f"delivery:cafe:bob:{start} psst")
            alice, eve = (Client(server.port, f"rlogin:{name}", "join:cafe") for name in ("alice", "eve"))
            check(alice.history() == expected, "alice's history")
            check(eve.history() == [line for line in expected if "psst" not in line], "eve's history")
            bob.ask("sendall:live")
            check(alice.read() == "delivery:cafe:bob:live", "a text after the history")
            expected.append("delivery:cafe:bob:live")
            check(start > 0 or (os.stat(file).st_mode & 0o777) == 0o600, "others may read the file")
            code, out, error = run("--check", "--history", "100", "--history-file", file)
            check((code, out, error) == (0, "ok\n", ""), f"--check beside a server: {code}, {out}, {error}")
            code, _, error = run("0", "--history", "100", "--history-file", file)
            check(code == 1 and error == f"server: '{file}': another server uses this file\n", error)
            check(server.said().count("\n") == 1, server.said())
    with serving(file, "--history-bytes", "255", history=3) as server:
        alice = Client(server.port, "rlogin:alice", "join:cafe")
        check(alice.history() == expected[-3:], "a shorter history")


def kills(folder):
    file = f"{folder}/kills.db"
    said = 0
    for start in range(8):
        with serving(file) as server:
            alice = Client(server.port, "rlogin:alice", "join:cafe")
            before = [int(line.rsplit(":", 1)[1]) for line in alice.history()]
            check(not before or before == list(range(before[0], before[-1] + 1)), f"a gap: {before}")
            number = before[-1] if before else 0
            check(number >= said and len(before) == min(number, 100), f"missing: {before} up to {said}")
            bob = Client(server.port, "slogin:bob", "join:cafe")
            for _ in range(10 + 13 * start):
                number += 1
                bob.ask(f"sendall:{number}")
            said = number
            wait_until(lambda: last_text_in(file) >= said, "the texts do not come into the file")
            for _ in range(7 * (start % 3)):  # these may be lost
                number += 1
                bob.ask(f"sendall:{number}")
            server.send_signal(signal.SIGKILL)
            server.wait()


def wrong_files(folder):
    refused("--history-file needs --history of at least 1", "--history", "0", "--history-file", f"{folder}/new.db")
    refused("--history", "--history-file", f"{folder}/new.db")
    _, _, error = run("0", "--redis", "127.0.0.1:1", "--history", "1", "--history-file", f"{folder}/new.db")
    check("--presence and --history-file cannot be used with --redis" in error or "without which" in error, error)
    history = ("--history", "1", "--history-file")
    code, out, error = run("--check", *history, f"{folder}/new.db")
    check((code, out, error) == (0, "ok\n", "") and os.listdir(folder) == [], f"{code}, {out}, {error}")
    refused("none/new.db'", *history, f"{folder}/none/new.db")
    other = f"{folder}/other"
    for content in (b"text", b"\0" * 4096, b"x" * 100000):
        with open(other, "wb") as file:
            file.write(content)
        refused(f"'{other}': no history of chatproto", *history, other)
        with open(other, "rb") as file:
            check(file.read() == content, "another program's file was changed")
    damaged = f"{folder}/damaged.db"
    with serving(damaged) as server:
        bob = Client(server.port, "slogin:bob", "join:cafe")
        for i in range(100):
            bob.ask(f"sendall:{i} {'x' * 150}")
    with open(damaged, "r+b") as file:
        file.truncate(8192)
    refused(f"'{damaged}': the history is damaged", *history, damaged)


def lost_file(folder):
    for options, words in ((("--log", "error"), " level=error event=history_file problem=\"history file '"),
                           ((), "history file '")):
        file = f"{folder}/lost.db"
        with serving(file, *options) as server:
            alice = Client(server.port, "rlogin:alice", "join:cafe")
            bob = Client(server.port, "slogin:bob", "join:cafe")
            bob.ask("sendall:1")
            os.remove(file)
            bob.ask("sendall:2")
            wait_until(lambda: "nothing is kept any more, because it was moved or deleted" in server.said(),
                       "nobody is told")
            check(words in server.said(), server.said())
            bob.ask("sendall:3")
            check([alice.read() for _ in range(3)] == [f"delivery:cafe:bob:{i}" for i in (1, 2, 3)], "what alice gets")
        for end in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(file + end)


code, _, error = run("--check", "--history", "1", "--history-file", "/")
if "without which this server was built" in error:
    print("skipped: the server was built without SQLite")
    sys.exit(77)
for play in (wrong_files, restarts, kills, lost_file):
    with tempfile.TemporaryDirectory() as scratch:
        play(scratch)
        print(f"{play.__name__}: right")
