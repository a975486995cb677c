#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""passwords.py SERVER SENDER RECEIVER: names that need a secret, from the command line to the terminal."""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

server, sender, receiver = sys.argv[1:]
PATIENCE = 60  # seconds for what must happen; the result never depends on the time
running = []


def run(*command, text=""):
    """Runs it without a terminal."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE,
                          start_new_session=True)
    return done.returncode, done.stdout, done.stderr


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"passwords: {what}: {found!r} and not {wanted!r}")


def line_of(name, secret):
    code, out, err = run(server, "--hash", name, text=secret + "\n")
    expect((code, err), (0, ""), "--hash")
    if not re.fullmatch(name + r":\$argon2id\$\S+\n", out):
        sys.exit(f"passwords: no line: {out!r}")
    return out


def on_terminal(command, dialogue):
    """Plays (prompt, answer) on a terminal of the command's own; returns its exit code and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    shown = b""
    dialogue = list(dialogue)
    while True:
        if not select.select([terminal], [], [], PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
            sys.exit(f"passwords: nothing more on the terminal after {shown!r}")
        try:
            more = os.read(terminal, 4096)
        except OSError:  # the other end is gone
            more = b""
        if not more:
            break
        shown += more
        if dialogue and shown.endswith(dialogue[0][0]):
            os.write(terminal, dialogue.pop(0)[1])
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


class Server:
    def __init__(self, *flags):
        self.process = subprocess.Popen([server, "0", "--log", "warn", *flags], stderr=subprocess.PIPE, text=True)
        running.append(self.process)
        self.port = self.line("listening on port ").split()[-1]

    def line(self, wanted):
        """Waits for a line on stderr that has this."""
        for line in self.process.stderr:
            if wanted in line:
                return line.strip()
        sys.exit(f"passwords: the server has ended without saying {wanted!r}")

    def says(self, user, *flags, host="127.0.0.1"):
        code, _, err = run(sender, host, self.port, user, *flags, text="/join cafe\nhello\n")
        return "yes" if code == 0 else err.strip()

    def stop(self):
        self.process.terminate()
        expect(self.process.wait(PATIENCE), 0, "the server's exit code")


def main(folder):
    def file(name, text):
        path = os.path.join(folder, name)
        with open(path, "w") as out:
            out.write(text)
        return path

    passwords = file("passwords", "")
    code, _, err = run(server, "--hash", "bob", text="secret\n")
    if "libsodium" in err:
        wanted = "server: --passwords and --hash need libsodium, without which this server was built\n"
        expect((code, err), (1, wanted), "--hash without libsodium")
        expect(run(server, "0", "--passwords", passwords), (1, "", wanted), "--passwords without libsodium")
        return
    expect(run(server, "--hash", "b b", text="x\n")[::2],
           (1, "server: 'b b' is no name: letters and digits only\n"), "a bad name")
    expect(run(server, "--hash", "bob")[::2], (1, "server: there is no secret on stdin\n"), "no secret")
    expect(run(server, "--hash", "bob", text="\n")[::2], (1, "server: the secret is empty\n"), "an empty secret")
    for flag in "--members-only", "--insecure-passwords":
        code, _, err = run(server, "0", flag)
        expect((code, "--passwords" in err), (1, True), flag + " alone")
    expect(run(server, "0", "--passwords", folder + "/none")[::2],
           (1, f"server: '{folder}/none': cannot be read: No such file or directory\n"), "no file")

    # Registered names.
    good, wrong = file("good", "correct horse\n"), file("wrong", "incorrect horse\n")
    file("passwords", line_of("bob", "correct horse"))
    names = Server("--passwords", passwords)
    refused = "wrong name or secret"
    expect(names.says("bob", "--password-file", good), "yes", "the right secret")
    expect(names.says("bob", "--password-file", wrong), refused, "a wrong secret")
    address = names.line("event=login_refused")
    if not re.search(r"level=warn event=login_refused name=bob address=127\.0\.0\.1:\d+$", address):
        sys.exit(f"passwords: the log says {address!r}")
    expect(names.says("bob"), refused, "no secret")
    expect(names.says("alice"), "yes", "another name")
    expect(names.says("alice", "--password-file", wrong), refused, "another name with a secret")
    expect(run(receiver, "127.0.0.1", names.port, "bob", "cafe", "--password-file", wrong)[::2],
           (1, refused + "\n"), "a receiver")

    # What the client programs refuse.
    expect(names.says("bob", "--password-file", file("empty", "\nx\n")),
           f"sender: '{folder}/empty' has no secret in its first line", "a file without a secret")
    expect(names.says("bob", "--password-file", file("two", "a\nb\n")),
           f"sender: '{folder}/two' has more than one line", "a file of two lines")
    code, _, err = run(sender, "127.0.0.1", names.port, "bob", "--password-file", good, "--ask-password")
    expect(code, 1, "two secrets")

    # Read again: a broken file changes nothing.
    file("passwords", "bob:secret\n")
    names.process.send_signal(signal.SIGHUP)
    expect(names.line("not read again"), f"not read again: '{passwords}': line 1: no argon2id hash", "a broken file")
    expect(names.says("bob", "--password-file", good), "yes", "the old file")
    file("passwords", line_of("bob", "incorrect horse") + line_of("carol", "x"))
    names.process.send_signal(signal.SIGHUP)
    while names.says("carol") == "yes":  # until the new file is read; without a secret this is no guess
        time.sleep(0.01)
    expect(names.says("bob", "--password-file", wrong), "yes", "the new file")
    names.stop()

    # Members only, and the terminal.
    file("passwords", line_of("bob", "correct horse"))
    members = Server("--passwords", passwords, "--members-only")
    expect(members.says("alice"), refused, "no member")
    command = [sender, "127.0.0.1", members.port, "bob", "--ask-password"]
    code, shown = on_terminal(command, [(b"Secret of bob: ", b"correct horse\n"), (b"> ", b"/quit\n")])
    expect((code, b"horse" in shown), (0, False), f"a secret from the terminal ({shown!r})")
    code, shown = on_terminal([server, "--hash", "bob"], [(b"Secret of bob: ", b"a\n"), (b"again: ", b"b\n")])
    expect((code, b"that was not the same" in shown), (1, True), "two different secrets")
    expect(run(sender, "127.0.0.1", members.port, "bob", "--ask-password")[::2],
           (1, "sender: there is no terminal on which to ask for the secret\n"), "no terminal")
    members.stop()


try:
    with tempfile.TemporaryDirectory() as scratch:
        main(scratch)
finally:
    for process in running:
        if process.poll() is None:
            process.kill()
