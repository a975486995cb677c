#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""chat.py CHAT SERVER [NAME...]: the terminal client on real terminals, and without one. With names, only these scenes.

Each scene waits for what is to appear on the screen or at the server; no time decides. Screens are tmux's.
"""
import os
import pathlib
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time

PATIENCE = int(os.environ.get("PATIENCE", 120))
chat, server = (str(pathlib.Path(each).resolve()) for each in sys.argv[1:3])
only = sys.argv[3:]
os.environ.update(LC_ALL="C.UTF-8", EDITRC="/dev/null", TERM="xterm-256color")
os.environ.pop("NO_COLOR", None)
os.environ.pop("TMUX", None)
scratch = pathlib.Path(tempfile.mkdtemp())


def fail(what):
    raise AssertionError(what)


def expect(found, wanted, what):
    if found != wanted:
        fail(f"{what}: {found!r} instead of {wanted!r}")


def until(condition, what):
    """Returns what the condition returns, as soon as that is true."""
    end = time.monotonic() + PATIENCE
    while not (result := condition()):
        if time.monotonic() > end:
            fail(f"waited in vain: {what() if callable(what) else what}")
        time.sleep(0.02)
    return result


class Server:
    def __init__(self, *flags, port=0):
        self.process = subprocess.Popen([server, str(port), "--address", "127.0.0.1", "--log", "warn", *flags],
                                        stderr=subprocess.PIPE, text=True)
        self.port = port or int(self.process.stderr.readline().split()[-1])  # it prints only one that it has chosen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)
            self.process.stderr.close()


class Client:
    """A client of the protocol."""

    def __init__(self, port, *lines):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.file = self.socket.makefile("rb")
        for line in lines:
            expect(self.ask(line).split(b":")[0], b"ok", line)

    def send(self, line):
        self.socket.sendall((line.encode() if isinstance(line, str) else line) + b"\n")

    def ask(self, line):
        self.send(line)
        return self.file.readline().rstrip(b"\n")

    def hears(self):
        return self.file.readline().rstrip(b"\n").decode(errors="replace")

    def close(self):
        self.file.close()
        self.socket.close()


class Fake:
    """A server that answers as told: `answers` takes a line and returns bytes."""

    def __init__(self, answers):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answers = answers
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rb") as lines:
            try:
                for line in lines:
                    client.sendall(self.answers(line.rstrip(b"\n").decode()))
            except OSError:
                pass


class Screen:
    """The client on a terminal of tmux, with a shell below it."""

    count = 0

    def __init__(self, *arguments, size=(80, 24), environment=""):
        Screen.count += 1
        self.name = f"chat{os.getpid()}x{Screen.count}"
        self.tmux("new-session", "-d", "-x", size[0], "-y", size[1], "env", "PS1=$ ", "sh")
        command = " ".join(str(each) for each in arguments)
        self.before, self.after, self.code = (scratch / f"{self.name}.{each}" for each in ("before", "after", "code"))
        self.type(f"clear; stty -a >{self.before}; {environment} {chat} 127.0.0.1 {command}\n")

    def tmux(self, *arguments, text=None):
        return subprocess.run(["tmux", "-L", self.name, "-f", "/dev/null", *map(str, arguments)], check=True,
                              capture_output=True, text=True, input=text, timeout=PATIENCE).stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-L", self.name, "kill-server"], check=False, capture_output=True)

    def type(self, text):
        """Types; a line end is the key Enter."""
        for number, part in enumerate(text.split("\n")):
            if number:
                self.key("Enter")
            if part:
                self.tmux("send-keys", "-l", part)

    def key(self, *names):
        self.tmux("send-keys", *names)

    def paste(self, text, *flags):
        self.tmux("load-buffer", "-", text=text)
        self.tmux("paste-buffer", *flags)

    def resize(self, columns, rows):
        """Waits until the client can know the size; tmux tells it later if it was changed a moment ago."""
        self.tmux("resize-window", "-x", columns, "-y", rows)
        with open(self.tmux("display-message", "-p", "#{pane_tty}").strip(), encoding="ascii") as terminal:
            until(lambda: tuple(os.get_terminal_size(terminal.fileno())) == (columns, rows), "another size")

    def lines(self, *flags):
        """What is on the screen; rows that belong together as one line."""
        return [line.rstrip() for line in self.tmux("capture-pane", "-p", "-J", *flags).split("\n")]

    def shows(self, *wanted):
        """Waits until the last lines are these; an ending of each suffices."""
        def is_there():
            last = [line for line in self.lines() if line][-len(wanted):]
            return len(last) == len(wanted) and all(line.endswith(each) for line, each in zip(last, wanted))
        until(is_there, lambda: f"{wanted} on the screen:\n" + "\n".join(self.lines()))

    def shows_typed(self, wanted):
        """Waits until the last rows are this. A blank at the end of a row cannot be told from none."""
        def typed():
            rows = [line for line in self.lines() if line]
            begins = [i for i, row in enumerate(rows) if row.startswith("cafe> ")]
            return "".join(rows[begins[-1]:]).replace(" ", "") if len(begins) == 1 else begins
        until(lambda: typed() == wanted.replace(" ", ""), lambda: f"{wanted!r} typed:\n" + "\n".join(self.lines()))

    def has(self, wanted, *flags):
        """Waits until this is somewhere."""
        return until(lambda: [line for line in self.lines(*flags) if wanted in line],
                     lambda: f"{wanted!r} on the screen:\n" + "\n".join(self.lines()))

    def ends(self, code):
        """Waits until the client has ended with this code, and the terminal is as it was."""
        self.shows("$")
        self.type(f"echo $? >{self.code}; stty -a >{self.after}; echo it was\n")
        self.shows("it was", "$")
        expect(self.code.read_text().strip(), str(code), "the exit code")
        sizeless = [[line for line in each.read_text().split("\n") if "rows" not in line]
                    for each in (self.before, self.after)]
        expect(sizeless[1], sizeless[0], "the terminal afterwards")

    def pid(self):
        shell = self.tmux("display-message", "-p", "#{pane_pid}").strip()
        return int(until(lambda: subprocess.run(["pgrep", "-P", shell, "chat"], capture_output=True, text=True,
                                                check=False).stdout.strip(), "the program"))


# --- Talking and listening --------------------------------------------------------------------------------------------

def talks():
    with Server() as host, Screen(host.port, "bob", "cafe") as screen:
        screen.shows("you are in cafe; /help lists the commands", "cafe>")
        listener = Client(host.port, "rlogin:alice", "join:cafe")
        speaker = Client(host.port, "slogin:alice", "join:cafe")
        screen.type("hello")
        screen.shows("cafe> hello")
        speaker.ask("sendall:hi")
        screen.shows("alice: hi", "cafe> hello")
        screen.type(" alice\n")
        screen.shows("bob: hello alice", "cafe>")
        expect(listener.hears(), "delivery:cafe:bob:hello alice", "the listener")
        screen.type("//slash\n/msg alice psst\n/msg zoe nobody\n")
        screen.shows("bob: /slash", "bob -> alice: psst", "bob -> zoe: nobody", "cafe>")
        expect([listener.hears(), listener.hears()], ["delivery:cafe:bob:/slash", "delivery:cafe:bob:psst"], "they")
        screen.type("/join library\n")
        screen.shows("you are in library", "library>")
        speaker.ask("sendall:not for bob")
        speaker.ask("join:library")
        speaker.ask("sendall:for bob")
        screen.shows("you are in library", "alice: for bob", "library>")
        screen.type("/leave\n")
        screen.shows("you are in no room", "no room>")
        screen.type("x\n")
        screen.shows("join a room first: /join ROOM", "no room> x")
        screen.key("C-u")
        screen.type("/nope\n")
        screen.has("unknown command; the commands are: /join ROOM")
        screen.shows("no room> /nope")
        screen.key("C-u")
        screen.type("/join the garden\n")
        screen.has("invalid room name")
        screen.key("C-u")
        screen.type("/join cafe\n")
        screen.shows("you are in cafe", "cafe>")
        screen.type("/help\n")
        screen.has("/history [N]")
        screen.type("/quit\n")
        screen.ends(0)


def starts_in_no_room():
    with Server() as host, Screen(host.port, "bob") as screen:
        screen.shows("you are in no room: /join ROOM takes you to one, /help lists the commands", "no room>")
        screen.type("/join cafe\n")
        screen.shows("you are in cafe", "cafe>")
        screen.key("C-d")
        screen.ends(0)


def asks_the_server():
    with Server("--history", "100", "--presence") as host:
        speaker = Client(host.port, "slogin:alice", "join:cafe")
        listener = Client(host.port, "rlogin:zoe", "join:cafe")
        for number in range(30):
            speaker.ask(f"sendall:text {number}")
        with Screen(host.port, "bob", "cafe", size=(80, 40)) as screen:
            screen.shows("cafe>")
            screen.type("/history 2\n")
            screen.shows("texts of others from before you came: 2", "--:-- alice: text 28", "--:-- alice: text 29",
                         "cafe>")
            speaker.ask("sendall:live")
            screen.shows("alice: live", "cafe>")
            expect([line for line in screen.lines() if "live" in line][0][:2].isdigit(), True, "a live text has a time")
            screen.type("/who\n")
            screen.shows("2 here: bob zoe", "cafe>")
            for wrong in ("0", "x"):
                screen.type(f"/history {wrong}\n")
                screen.shows("/history takes a number of texts, 1 or more", f"cafe> /history {wrong}")
                screen.key("C-u")
            screen.type("/join quiet\n/history\n")
            screen.shows("there are no texts of others from before you came", "quiet>")
        listener.close()


def asks_a_server_without_answers():
    def answers(line):
        return b"err:unknown message\n" if line.startswith(("history", "who")) else b"ok:\n"
    with Screen(Fake(answers).port, "bob", "cafe") as screen:
        screen.shows("cafe>")
        screen.type("/history 3\n")
        screen.shows("this server keeps no history: unknown message", "cafe>")
        screen.type("/who\n")
        screen.shows("this server does not say who is here: unknown message", "cafe>")

    def odd(line):
        return b"ok:99 zoe amy ...\n" if line == "who:" else b"ok:nonsense\n" if "history" in line else b"ok:\n"
    with Screen(Fake(odd).port, "bob", "cafe") as screen:
        screen.shows("cafe>")
        screen.type("/who\n")
        screen.shows("99 here: zoe amy and others", "cafe>")
        screen.type("/history 3\n")
        screen.has("the server does not say how many texts follow")
        screen.type("am")
        screen.key("Tab")
        screen.shows("cafe> amy:")


def refuses():
    """What the server refuses, and what does not fit, is not lost."""
    fake = Fake(lambda line: b"err:not now\n" if line.startswith("sendall") else b"ok:\n")
    with Screen(fake.port, "bob", "cafe") as screen:
        screen.shows("cafe>")
        screen.type("something\n")
        screen.shows("! not sent (not now): something", "cafe>")
        screen.key("Up")
        screen.shows("cafe> something")
    with Server() as host, Screen(host.port, "bob", "cafe") as screen:
        listener = Client(host.port, "rlogin:alice", "join:cafe")
        longest = 255 - len("delivery:cafe:bob:\n")
        screen.shows("cafe>")
        screen.type("x" * (longest + 2) + "\n")
        screen.has("not sent: too long by 2 (counted in bytes)")
        screen.shows_typed("cafe> " + "x" * (longest + 2))
        screen.key("BSpace")
        screen.key("BSpace")
        screen.key("Enter")
        expect(listener.hears(), "delivery:cafe:bob:" + "x" * longest, "the longest text")
        screen.shows("bob: " + "x" * longest, "cafe>")


# --- The screen -------------------------------------------------------------------------------------------------------

def stays_whole():
    """What is typed stays whole while 100 lines a second come, also in more than one row and while the size changes."""
    with Server() as host, Screen(host.port, "bob", "cafe", size=(60, 20)) as screen:
        screen.shows("cafe>")
        listener = Client(host.port, "rlogin:alice", "join:cafe")
        speaker = Client(host.port, "slogin:carol", "join:cafe")
        speaking = threading.Event()
        said = [0]

        def speak():
            while not speaking.is_set():
                speaker.ask(f"sendall:line {said[0]} " + "\u6f22" * (said[0] % 60))
                said[0] += 1
                time.sleep(0.01)
        thread = threading.Thread(target=speak)
        thread.start()
        try:
            for number in range(3):
                line = f"{number} the quick brown fox \u6f22\u5b57 jumps over the lazy dog, " * 2 + "end"
                for letter in line:
                    screen.tmux("send-keys", "-l", letter)
                screen.shows_typed("cafe> " + line)
                screen.tmux("resize-window", "-x", 50 + 7 * number, "-y", 20 - number)
                screen.shows_typed("cafe> " + line)
                begin = said[0]
                until(lambda: said[0] > begin + 50, "more texts")
                screen.shows_typed("cafe> " + line)
                screen.key("Enter")
                while not (heard := listener.hears()).startswith("delivery:cafe:bob:"):
                    pass
                expect(heard, "delivery:cafe:bob:" + line, "the text typed")
        finally:
            speaking.set()
            thread.join()
        last = f"line {said[0] - 1} " + "\u6f22" * ((said[0] - 1) % 60)
        screen.has("carol: " + last.rstrip())  # a blank at the end of a row cannot be seen
        shown = [line for line in screen.lines("-S", "-") if " carol: line " in line]
        numbers = [int(line.split("line ")[1].split()[0]) for line in shown]
        expect(numbers, list(range(numbers[0], said[0])), "the texts on the screen")


def notices_another_size():
    """A text that comes after the size has changed, and before the signal of that, finds the line as drawn now."""
    with Server() as host, Screen(host.port, "bob", "cafe", size=(40, 20), environment="trap '' WINCH;") as screen:
        screen.shows("cafe>")
        speaker = Client(host.port, "slogin:carol", "join:cafe")
        speaker.ask("sendall:first")
        screen.has("carol: first")
        line = "the quick brown fox jumps over the lazy dog, " * 2 + "end"
        screen.tmux("send-keys", "-l", line)
        for columns, text in ((70, "second"), (50, "third"), (100, "fourth")):
            screen.shows_typed("cafe> " + line)
            screen.resize(columns, 20)
            speaker.ask("sendall:" + text)
            screen.has("carol: " + text)
        screen.shows_typed("cafe> " + line)
        texts = [each.split("carol: ")[1] for each in screen.lines() if "carol: " in each]
        expect(texts, ["first", "second", "third", "fourth"], "the texts on the screen")


def loses_no_text_while_the_size_changes():
    """A terminal that has changed before the program knows: all texts stay, though the line may be drawn badly."""
    line = "the quick brown fox \u6f22\u5b57 jumps over the lazy dog, " * 2 + "end"
    for widths in (57, 64), (50, 57), (40, 120), (64, 50):
        with Server() as host, Screen(host.port, "bob", "cafe", size=(widths[0], 20),
                                      environment="trap '' WINCH;") as screen:
            screen.shows("cafe>")
            speaker = Client(host.port, "slogin:carol", "join:cafe")
            screen.type(line)
            screen.shows_typed("cafe> " + line)
            for number in range(40):
                if number == 20:
                    screen.tmux("resize-window", "-x", widths[1])
                speaker.ask(f"sendall:line {number} \u6f22" + "\u5b57" * number)
                screen.has(f"carol: line {number} \u6f22", "-S", "-")
            shown = [text.split("line ")[1].split()[0] for text in screen.lines("-S", "-") if " carol: line " in text]
            expect(shown, [str(number) for number in range(40)], f"the texts on a terminal of {widths} columns")


def is_harmless():
    """No text from the network controls the terminal."""
    nasty = [b"\033[2J\033[1;1Hgone", b"\007bel", b"a\b\b\b\bback", b"x\ry", b"\xc2\x9b2Jc1", b"\xe2\x80\xaertl",
             b"\xffbad", b"\033]0;title\007", b"\xe2\x80\xa8line", b"\0nul"]
    shown = ["^[[2J^[[1;1Hgone", "^Gbel", "a^H^H^H^Hback", "x^My", "<9b>2Jc1", "<202e>rtl", "\ufffdbad",
             "^[]0;title^G", "<2028>line", "^@nul"]
    with Server() as host, Screen(host.port, "bob", "cafe") as screen:
        screen.shows("you are in cafe; /help lists the commands", "cafe>")
        title = screen.tmux("display-message", "-p", "#{pane_title}")
        screen.type("typing")
        screen.shows("cafe> typing")
        speaker = Client(host.port, "slogin:alice", "join:cafe")
        for text in nasty:
            expect(speaker.ask(b"sendall:" + text)[:3], b"ok:", text)
        screen.shows("you are in cafe; /help lists the commands", *("alice: " + text for text in shown), "cafe> typing")
        expect(screen.tmux("display-message", "-p", "#{pane_title}"), title, "the title")
        rows = screen.lines()
        position = screen.tmux("display-message", "-p", "#{cursor_x},#{cursor_y}").strip()
        expect(position, f"{len('cafe> typing')},{rows.index('cafe> typing')}", "the cursor")

    def fake(line):  # names and reasons as well
        if line.startswith("join"):
            return b"ok:\ndelivery:cafe:\033[2Jeve:hi\nerr:\033[2Jreason\n" if fake.first else b"ok:\n"
        fake.first = line.startswith("rlogin")
        return b"ok:\n"
    with Screen(Fake(fake).port, "bob", "cafe") as screen:
        screen.has("^[[2Jeve: hi")
        screen.has("! ^[[2Jreason")


def edits():
    with Server() as host, Screen(host.port, "bob", "cafe") as screen:
        screen.shows("cafe>")
        listener = Client(host.port, "rlogin:alice", "join:cafe")
        Client(host.port, "slogin:alice", "join:cafe").ask("sendall:hi")
        Client(host.port, "slogin:albert", "join:cafe").ask("sendall:hi")
        screen.shows("alice: hi", "albert: hi", "cafe>")
        screen.type("\u6f22\u5b57 \U0001f44d\U0001f600x")
        screen.shows("cafe> \u6f22\u5b57 \U0001f44d\U0001f600x")
        screen.key("BSpace", "BSpace")
        screen.shows("cafe> \u6f22\u5b57 \U0001f44d")
        screen.key("Home", "Right", "Delete", "End")
        screen.type("! e\u0301\n")
        heard = [listener.hears() for _ in range(2)]
        expect([each for each in heard if "albert" in each], ["delivery:cafe:albert:hi"], "what albert said")
        expect(heard[-1], "delivery:cafe:bob:\u6f22 \U0001f44d! e\u0301", "the text edited")
        screen.shows("bob: \u6f22 \U0001f44d! e\u0301", "cafe>")
        screen.key("Up")
        screen.has("cafe> \u6f22 \U0001f44d! e")
        screen.key("Down")
        screen.shows("cafe>")
        screen.type("/h")
        screen.key("Tab")
        screen.has("  /help /history")
        screen.type("e")
        screen.key("Tab")
        screen.shows("cafe> /help")
        screen.key("C-u")
        screen.type("/msg a")
        screen.key("Tab")
        screen.shows("cafe> /msg al")
        screen.key("Tab")
        screen.has("  albert  alice")
        screen.type("b")
        screen.key("Tab")
        screen.shows("cafe> /msg albert")
        screen.type("hi\n")
        screen.shows("bob -> albert: hi", "cafe>")
        screen.key("Escape")
        screen.type("after escape\n")
        expect(listener.hears().endswith("escape"), True, "a text after the key Esc")


def colours():
    with Server() as host:
        speaker = Client(host.port, "slogin:alice", "join:cafe")
        for environment, wanted in (("", True), ("NO_COLOR=1", False)):
            with Screen(host.port, "bob", "cafe", environment=environment) as screen:
                screen.shows("cafe>")
                speaker.ask("sendall:hi")
                screen.has("alice: hi")
                expect("\033[" in screen.tmux("capture-pane", "-p", "-e"), wanted, "colours with " + environment)


def pastes():
    texts = [f"line {number} of a paste \u6f22\t." for number in range(1000)]
    for flags in ("-p",), ():
        wanted = [text if flags else text.replace("\t", "") for text in texts]
        with Server() as host, Screen(host.port, "bob", "cafe") as screen:
            screen.shows("cafe>")
            listener = Client(host.port, "rlogin:alice", "join:cafe")
            screen.paste("\n".join(wanted) + "\n", *flags)
            heard = [listener.hears() for _ in texts]
            expect(heard, ["delivery:cafe:bob:" + text for text in wanted], "the paste")
            screen.shows("bob: " + wanted[-1].expandtabs(8) if not flags else ".", "cafe>")
            if flags:
                screen.paste("a key \033[A and \001 in a paste", *flags)
                screen.has("cafe> a key ^[[A and ^A in a paste")
                screen.key("Enter")
                expect(listener.hears(), "delivery:cafe:bob:a key \033[A and \001 in a paste", "controls")


# --- The end ----------------------------------------------------------------------------------------------------------

def gives_the_terminal_back():
    with Server() as host:
        for key, code in (("C-c", 130), ("C-d", 0), ("C-\\", 131)):
            with Screen(host.port, "bob", "cafe") as screen:
                screen.shows("cafe>")
                screen.key(key)
                screen.ends(code)
        for number in signal.SIGTERM, signal.SIGHUP:
            with Screen(host.port, "bob", "cafe") as screen:
                screen.shows("cafe>")
                screen.type("half a line")
                screen.shows("cafe> half a line")
                os.kill(screen.pid(), number)
                screen.ends(128 + number)
        with Screen(host.port, "bob", "cafe") as screen:
            screen.shows("cafe>")
            screen.type("half a line")
            screen.shows("cafe> half a line")
            screen.key("C-z")
            screen.shows("$")
            screen.type("stty -a\n")
            screen.has(" icanon ")
            speaker = Client(host.port, "slogin:alice", "join:cafe")
            speaker.ask("sendall:while it was stopped")
            screen.type("clear; fg\n")
            screen.shows("alice: while it was stopped", "cafe> half a line")
            screen.type(" and its end\n")
            screen.shows("bob: half a line and its end", "cafe>")
            screen.type("/quit\n")
            screen.shows("$")


def loses_the_server():
    host = Server()
    with Screen(host.port, "bob", "cafe") as screen:
        screen.shows("cafe>")
        screen.type("half")
        screen.shows("cafe> half")
        host.stop()
        screen.has("the server has closed the connection; trying again")
        screen.shows("not connected> half")
        screen.type(" a line\n")
        screen.has("not connected: what you type is kept, and sent when the connection is back")
        with Server(port=host.port) as again:
            listener = None
            screen.has("connected again: what was said since ")
            screen.shows("bob: half a line", "cafe>")
            listener = Client(again.port, "rlogin:alice", "join:cafe")
            screen.type("hello again\n")
            expect(listener.hears(), "delivery:cafe:bob:hello again", "after the loss")
        screen.has("not connected>")
        screen.type("never sent\n")
        screen.key("C-d")
        screen.has("not sent: never sent")
        screen.ends(1)
    silent = threading.Event()

    def answers(line):
        if line == "sendall:stop":
            silent.set()
            raise OSError
        return b"ok:\n"
    with Screen(Fake(answers).port, "bob", "cafe") as screen:
        screen.shows("cafe>")
        screen.type("stop\n")
        screen.has("may not have arrived: stop")
        screen.has("connected again")


# --- Without a terminal -----------------------------------------------------------------------------------------------

def run(port, *arguments, text, code=0):
    result = subprocess.run([chat, "127.0.0.1", str(port), *arguments], input=text.encode(), capture_output=True,
                            timeout=PATIENCE, check=False)
    expect(result.returncode, code, f"the exit code ({result.stderr})")
    return result.stdout, result.stderr.decode()


def pipes():
    with Server("--presence", "--history", "10") as host:
        listener = Client(host.port, "rlogin:alice", "join:cafe")
        expect(run(host.port, "bob", "cafe", text="hi"), (b"", ""), "a pipe")
        expect(listener.hears(), "delivery:cafe:bob:hi", "the text from a pipe")
        lines = [f"{number}" for number in range(1000)]
        expect(run(host.port, "bob", "cafe", text="\n".join(lines)), (b"", ""), "a long pipe")
        expect([listener.hears() for _ in lines], ["delivery:cafe:bob:" + line for line in lines], "1,000 lines")
        out, err = run(host.port, "alice", "cafe",
                       text="/who\n/history 1\n/nope\n/join x\nhi\n/msg alice me\n/quit\nx\n")
        expect(out.decode().splitlines()[:2], ["2 here: alice", "bob: 999"], "answers")
        expect(err.startswith("unknown command"), True, "an unknown command: " + err)
        long = "x" * 200_000
        expect(run(host.port, "bob", "cafe", text=long + "tail\n" + long + "\nnot long\n", code=1)[1],
               "not sent: a line of more than 65536 bytes\n" * 2, "lines that are too long")
        expect(listener.hears(), "delivery:cafe:bob:not long", "what follows them")
        both = subprocess.Popen([chat, "127.0.0.1", str(host.port), "zoe", "cafe"], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        speaker = Client(host.port, "slogin:bob", "join:cafe")
        until(lambda: b"zoe" in speaker.ask("who:"), "zoe in the room")
        speaker.ask(b"sendall:\033[2J\xff")
        expect(both.stdout.readline(), b"bob: \033[2J\xff\n", "bytes in a pipe are unchanged")
        host.stop()
        expect(both.wait(PATIENCE), 1, "the exit code after a lost server")
        expect(both.stderr.read(), b"chat: the server has closed the connection\n", "its last words")
    expect(run(host.port, "bob", text="", code=1)[1],
           f"chat: cannot connect to '127.0.0.1' port {host.port}: Connection refused\n", "no server")
    fake = Fake(lambda line: b"err:no\n")
    expect(run(fake.port, "bob", "cafe", text="", code=1)[1], "chat: no\n", "a refused login")


if shutil.which("tmux") is None:
    print("skipped: tmux is not installed")
    sys.exit(77)
scenes = [talks, starts_in_no_room, asks_the_server, asks_a_server_without_answers, refuses, stays_whole,
          notices_another_size, loses_no_text_while_the_size_changes, is_harmless, edits, colours, pastes,
          gives_the_terminal_back, loses_the_server, pipes]
failed = False
try:
    for scene in scenes:
        if only and scene.__name__ not in only:
            continue
        begin = time.monotonic()
        try:
            scene()
            print(f"{scene.__name__}: well ({time.monotonic() - begin:.1f} s)", flush=True)
        except AssertionError as error:
            failed = True
            print(f"{scene.__name__}: {error}", flush=True)
finally:
    shutil.rmtree(scratch)
sys.exit(failed)
