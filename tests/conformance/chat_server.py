# SPDX-License-Identifier: BSL-1.0
"""chat_server.py PORT [DEADLINE [NAME=SECRET]] [--more]: a small chat server that keeps the protocol. Each client has a
reading thread and a writing thread; one lock guards the rooms' members. DEADLINE is for the login, in seconds. With
NAME=SECRET, it asks for logins: NAME needs the SECRET, others may log in without one. With --more, it keeps what was
said, and tells who is in a room.

It tests the suite: every scene must pass with it. faulty_server.py breaks it in one place at a time.
"""
import contextlib
import os
import queue
import re
import socket
import sys
import threading
import time

class Server:
    def __init__(self, port, client=None, deadline=10, secrets=None, more=False):
        self.client, self.deadline, self.secrets, self.more = client or Client, deadline, secrets, more
        self.lock = threading.Lock()
        self.receivers = []
        self.said = []  # with --more: (room, whether it is for a receiver, line)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)

    def serve(self):
        while True:
            connection = self.listener.accept()[0]
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.client(self, connection).run, daemon=True).start()


class Client:
    longest = 255  # of a line, including its end
    longest_delivery = 255

    def __init__(self, server, connection):
        self.server, self.connection = server, connection
        self.role, self.name, self.room, self.secret = "", b"", b"", b""
        self.came_after = 0  # how many texts had been said
        self.closing = False  # after its quit, or an err that ends it
        self.outgoing = queue.Queue(10000)  # bounded: a client that does not read must not cost more
        self.login_until = time.monotonic() + server.deadline

    # --- Bytes and lines ---

    def run(self):
        writer = threading.Thread(target=self.write_lines, daemon=True)
        writer.start()
        try:
            self.read_lines()
            self.forget()
            self.outgoing.put(None, timeout=10)
            writer.join(timeout=10)
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(2)
            while self.closing and self.connection.recv(65536):
                pass  # an immediate close could destroy the last bytes on their way
        except (OSError, queue.Full):
            pass  # the client has disconnected
        finally:
            self.forget()
            with contextlib.suppress(queue.Full):  # the writer may be waiting for lines
                self.outgoing.put_nowait(None)
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)  # or for the client to read
            writer.join(timeout=10)  # if it wrote after the close, another client might have the descriptor by then
            self.connection.close()

    def forget(self):
        with self.server.lock:
            if self in self.server.receivers:
                self.server.receivers.remove(self)

    def write_lines(self):
        try:
            while (line := self.outgoing.get()) is not None:
                self.connection.sendall(line)
        except OSError:
            pass  # the reader will notice

    def read(self):
        self.connection.settimeout(None if self.role else max(0.001, self.login_until - time.monotonic()))
        return self.connection.recv(4096)

    def read_lines(self):
        buffer = b""
        too_long = False  # the rest of a long line is still to come
        while not self.closing and (data := self.read()):
            buffer += data
            while not self.closing and (end := buffer.find(b"\n") + 1):
                line, buffer = buffer[:end], buffer[end:]
                if too_long:
                    too_long = False
                elif len(line) > self.longest:
                    self.bad_line("the line is too long")
                else:
                    self.on_line(self.without_end(line))
            if len(buffer) >= self.longest and not self.closing:
                if not too_long:
                    self.bad_line("the line is too long")
                too_long, buffer = True, b""

    def without_end(self, line):
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def send(self, line):
        try:
            self.outgoing.put_nowait(line + b"\n")
        except queue.Full:
            self.connection.shutdown(socket.SHUT_RDWR)  # disconnected: it does not get the rest

    def reply(self, tag, text=""):
        self.send(f"{tag}:{text}".encode())

    # --- Messages ---

    def on_line(self, line):
        tag, colon, payload = line.partition(b":")
        if not colon or not re.fullmatch(b"[a-z]+", tag):
            return self.bad_line("this is no message")
        self.on_message(tag.decode(), payload)

    def on_message(self, tag, payload):
        if not self.role:
            self.log_in(tag, payload)
        elif self.role == "receiver" and not self.room and tag != "join":
            self.refuse("join a room first")
        elif tag == "join":
            self.join(payload)
        elif tag == "quit":
            self.quit()
        elif self.role == "sender" and tag in ("leave", "sendall", "senduser"):
            getattr(self, tag)(payload)
        elif self.server.more and self.role == "receiver" and tag == "history":
            self.history(payload)
        elif self.server.more and self.role == "sender" and self.room and tag == "who":
            self.who()
        else:
            self.unknown(tag)

    def bad_line(self, why):
        if not self.role or (self.role == "receiver" and not self.room):
            self.refuse(why)
        else:
            self.reply("err", why)

    def unknown(self, tag):
        self.reply("err", "not a command for you")

    def refuse(self, why):
        self.reply("err", why)
        self.closing = True

    def log_in(self, tag, payload):
        secrets = self.server.secrets
        if secrets and tag == "pass" and payload and not self.secret:
            self.secret = payload
            return self.reply("ok")
        if tag not in ("slogin", "rlogin") or not self.is_name(payload):
            return self.refuse("log in with slogin:NAME or rlogin:NAME")
        if secrets and secrets.get(payload, b"") != self.secret:
            return self.refuse("wrong name or secret")
        self.role, self.name = "sender" if tag == "slogin" else "receiver", payload
        self.reply("ok")

    def is_name(self, text):
        return re.fullmatch(b"[A-Za-z0-9]+", text) is not None

    def join(self, room):
        if not self.is_name(room):
            if self.role == "receiver" and not self.room:
                return self.refuse("this is no name for a room")
            return self.reply("err", "this is no name for a room")
        with self.server.lock:  # no text may come between the join and its ok
            if room != self.room:
                self.came_after = len(self.server.said)
            self.room = room
            if self.role == "receiver" and self not in self.server.receivers:
                self.server.receivers.append(self)
            self.reply("ok")

    def is_in(self, room):
        return self.room == room

    def quit(self):
        self.forget()  # nothing is delivered after this ok
        self.reply("ok")
        self.closing = True

    def leave(self, _):
        was_in, self.room = self.room, b""
        self.reply("ok") if was_in else self.reply("err", "you are in no room")

    def sendall(self, text):
        self.deliver(text, lambda receiver: receiver.name != self.name)

    def senduser(self, payload):
        user, colon, text = payload.partition(b":")
        if not colon or not self.is_name(user):
            return self.reply("err", "write senduser:NAME:TEXT")
        self.deliver(text, lambda receiver: receiver.name == user)

    def deliver(self, text, reaches):
        line = b"delivery:" + self.room + b":" + self.name + b":" + text
        if not self.room:
            return self.reply("err", "you are in no room")
        if len(line) + 1 > self.longest_delivery:
            return self.reply("err", "the text is too long")
        with self.server.lock:  # one order for all receivers
            for receiver in self.server.receivers:
                if receiver.is_in(self.room) and reaches(receiver):
                    receiver.send(line)
            if self.server.more:
                self.server.said.append((self.room, reaches, line))
            self.reply("ok")

    def history(self, number):
        if not re.fullmatch(b"[0-9]{1,20}", number) or int(number) > 4294967295:
            return self.reply("err", "write history:N")
        with self.server.lock:
            lines = [line for room, reaches, line in self.server.said[:self.came_after]
                     if room == self.room and reaches(self)]
            lines = lines[max(0, len(lines) - int(number)):]
            self.send(b"".join([b"ok:%d" % len(lines), *(b"\n" + line for line in lines)]))

    def who(self):
        with self.server.lock:
            there = [receiver.name for receiver in self.server.receivers if receiver.is_in(self.room)]
        names = sorted(set(there))
        line = b" ".join([b"ok:%d" % len(there), *names])
        while len(line) > 254:
            names.remove(max(names, key=len))
            line = b" ".join([b"ok:%d" % len(there), *names, b"..."])
        self.send(line)


if __name__ == "__main__":
    more = "--more" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--more"]
    name, _, secret = (os.fsencode(arguments[2]) if len(arguments) > 2 else b"").partition(b"=")
    Server(int(arguments[0]), deadline=float(arguments[1]) if len(arguments) > 1 else 10,
           secrets={name: secret} if name else None, more=more).serve()
