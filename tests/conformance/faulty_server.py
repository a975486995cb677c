# SPDX-License-Identifier: BSL-1.0
"""faulty_server.py PORT FAULT: the server of chat_server.py with one fault that an implementer might make.

Each fault names what the suite must find: the scene that fails, and the rule of the protocol that it must name.
"""
import contextlib
import os
import select
import socket
import struct
import sys
import threading
import time

import chat_server
from chat_server import Client

FAULTS = {}  # name -> (class, scene, beginning of the rule)


def fault(name, scene, rule):
    def register(client):
        FAULTS[name] = client, scene, rule
        return client
    return register


# --- Lines ---

@fault("accepts-256-bytes", "lines-256", "1 Lines")
class Accepts256(Client):
    longest = 256


@fault("refuses-255-bytes", "lines-255", "1 Lines")
class Refuses255(Client):
    longest = 254


@fault("keeps-cr", "lines-crlf", "1 Lines")
class KeepsCr(Client):
    def without_end(self, line):
        return line[:-1]


@fault("strips-every-cr", "lines-payload-cr", "1 Lines")
class StripsEveryCr(Client):
    def without_end(self, line):
        return line[:-1].replace(b"\r", b"")


@fault("answers-in-crlf", "lines-lf", "1 Lines")
class AnswersInCrlf(Client):
    def send(self, line):
        super().send(line + b"\r")


@fault("each-read-is-a-line", "split", "1 Lines, split and joined")
class EachReadIsALine(Client):
    def read(self):
        data = super().read()
        return data if not data or data.endswith(b"\n") else data + b"\n"


@fault("one-line-of-each-read", "lines-many-in-order", "1 Lines, split and joined")
class OneLineOfEachRead(Client):
    def read(self):
        data = super().read()
        return data[:data.find(b"\n") + 1] or data


@fault("carries-out-a-partial-line", "lines-partial-at-end", "1 Lines")
class CarriesOutAPartialLine(Client):
    pending = b""

    def read(self):
        data = super().read()
        if not data and self.pending:
            data = b"\n"
        self.pending = data[data.rfind(b"\n") + 1:] if b"\n" in data else self.pending + data
        return data


@fault("an-err-for-each-part-of-a-long-line", "lines-long-16k", "1 Lines")
class ManyErrs(Client):
    def read_lines(self):
        buffer = b""
        while not self.closing and (data := self.read()):
            buffer += data
            while not self.closing and (end := buffer.find(b"\n") + 1):
                line, buffer = buffer[:end], buffer[end:]
                self.on_line(self.without_end(line)) if len(line) <= 255 else self.bad_line("too long")
            while len(buffer) >= 255:
                self.bad_line("too long")
                buffer = buffer[255:]


@fault("carries-out-the-tail-of-a-long-line", "lines-256", "1 Lines")
class CarriesOutTheTail(Client):
    def read_lines(self):
        buffer = b""
        while not self.closing and (data := self.read()):
            buffer += data
            while not self.closing and ((end := buffer.find(b"\n") + 1) or len(buffer) >= 255):
                line, buffer = buffer[:min(end or 255, 255)], buffer[min(end or 255, 255):]
                self.on_line(self.without_end(line)) if line.endswith(b"\n") else self.bad_line("too long")


@fault("closes-on-a-bad-line", "lines-no-colon", "1 Lines")
class ClosesOnABadLine(Client):
    def bad_line(self, why):
        self.refuse(why)


@fault("silent-on-unknown-tags", "lines-unknown-tag", "1 Lines, unknown tag")
class SilentOnUnknownTags(Client):
    def unknown(self, tag):
        pass


@fault("dies-on-nul", "lines-payload-nul", "1 Lines")
class DiesOnNul(Client):
    def on_line(self, line):
        if b"\0" in line:
            os._exit(1)
        super().on_line(line)


@fault("text-is-utf8", "lines-payload-high-bytes", "1 Lines")
class TextIsUtf8(Client):
    def on_line(self, line):
        super().on_line(line.decode(errors="replace").encode())


@fault("text-ends-at-a-colon", "lines-payload-colons", "1 Lines")
class TextEndsAtAColon(Client):
    def sendall(self, text):
        super().sendall(text.partition(b":")[0])


@fault("strips-blanks", "lines-payload-blanks", "1 Lines")
class StripsBlanks(Client):
    def sendall(self, text):
        super().sendall(text.strip())


@fault("mixes-up-order", "lines-many-in-order", "1 Lines, split and joined")
class MixesUpOrder(Client):
    def write_lines(self):  # the newest of the waiting lines comes first
        line = b""
        while line is not None:
            lines = []
            while (line := self.outgoing.get()) is not None:
                lines.insert(0, line)
                time.sleep(0.02)
                if self.outgoing.empty():
                    break
            with contextlib.suppress(OSError):  # the client may have gone
                self.connection.sendall(b"".join(lines))


# --- Names and login ---

@fault("wrong-tag-in-a-reply", "basics-sender", "3 Login")
class WrongTag(Client):
    def reply(self, tag, text=""):
        super().reply("okay" if tag == "ok" else tag, text)


@fault("joins-without-login", "login-other-tag", "3 Login")
class JoinsWithoutLogin(Client):
    def log_in(self, tag, payload):
        if tag == "join":
            self.role, self.name = "sender", b"nobody"
            return self.join(payload)
        super().log_in(tag, payload)


@fault("any-name-will-do", "names-bad-sender", "2 Names")
class AnyNameWillDo(Client):
    def is_name(self, text):
        return text != b""


@fault("a-name-only-once", "names-not-unique", "2 Names")
class ANameOnlyOnce(Client):
    names = set()

    def log_in(self, tag, payload):
        if payload in self.names:
            return self.refuse("there is somebody of that name")
        self.names.add(payload)
        super().log_in(tag, payload)

    def forget(self):
        super().forget()
        self.names.discard(self.name)


@fault("rooms-without-case", "names-room-case", "2 Names")
class RoomsWithoutCase(Client):
    def join(self, room):
        super().join(room.lower())


# --- Senders ---

@fault("to-the-own-name", "sendall-not-own-name", "4 Sender, sendall")
class ToTheOwnName(Client):
    def sendall(self, text):
        self.deliver(text, lambda receiver: True)


@fault("senduser-not-to-the-own-name", "senduser-own-name", "4 Sender, senduser")
class SenduserNotToTheOwnName(Client):
    def deliver(self, text, reaches):
        super().deliver(text, lambda receiver: receiver.name != self.name and reaches(receiver))


@fault("no-empty-text", "sendall-empty", "4 Sender, sendall")
class NoEmptyText(Client):
    def sendall(self, text):
        super().sendall(text) if text else self.reply("err", "say something")


@fault("delivers-256-bytes", "sendall-delivery-256", "4 Sender, sendall")
class Delivers256(Client):
    longest_delivery = 256


@fault("err-in-two-lines", "basics-err", "4 Sender, each message")
class ErrInTwoLines(Client):
    def reply(self, tag, text=""):
        super().reply(tag, text + "\nsee the manual" if tag == "err" else text)


@fault("no-reply-to-quit", "sender-quit", "4 Sender, quit")
class NoReplyToQuit(Client):
    def quit(self):
        self.forget()
        self.closing = True


@fault("resets-after-quit", "sender-quit", "4 Sender, quit")
class ResetsAfterQuit(Client):
    def write_lines(self):
        super().write_lines()
        time.sleep(0.05)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@fault("loses-the-last-line-before-the-end", "sender-half-close", "4 Sender, end of input")
class LosesTheLastLine(Client):
    held = b""  # the last one of several lines that came together: a client that awaits each reply loses nothing

    def read(self):
        if self.held:
            line, self.held = self.held, b""
            ready = select.select([self.connection], [], [], 2)[0]
            ended = ready and not self.connection.recv(1, socket.MSG_PEEK)
            return b"" if ended else line
        data = super().read()
        last = data.rfind(b"\n", 0, -1) + 1
        if last and data.endswith(b"\n"):
            data, self.held = data[:last], data[last:]
        return data


@fault("stays-open-at-the-end-of-input", "sender-half-close-idle", "4 Sender, end of input")
class StaysOpen(Client):
    def read(self):
        return super().read() or time.sleep(3600)


# --- Receivers ---

@fault("keeps-a-receiver-in-the-old-room", "receiver-moves", "5 Receiver, join")
class KeepsTheOldRoom(Client):
    rooms = b""

    def join(self, room):
        super().join(room)
        self.rooms += b" " + self.room

    def is_in(self, room):
        return room in self.rooms.split()


@fault("forgets-the-room-at-a-bad-join", "names-bad-room", "2 Names; 4 Sender, join")
class ForgetsTheRoom(Client):
    def join(self, room):
        if self.room and not self.is_name(room):
            self.room = b"nowhere"
        super().join(room)


@fault("receivers-may-send", "receiver-does-not-send", "5 Receiver, anything else")
class ReceiversMaySend(Client):
    def unknown(self, tag):
        if tag == "sendall":
            return self.sendall(b"from a receiver")
        super().unknown(tag)


@fault("any-first-message-of-a-receiver", "receiver-first-not-join", "5 Receiver, join")
class AnyFirstMessage(Client):
    def refuse(self, why):
        super().refuse(why)
        self.closing = self.role != "receiver"


# --- Promises ---

@fault("to-every-room", "promises-rooms-apart", "6 Promises 2")
class ToEveryRoom(Client):
    def is_in(self, room):
        return True


@fault("delivers-twice", "basics-delivery", "4 Sender, sendall")
class DeliversTwice(Client):
    def send(self, line):
        super().send(line)
        if line.startswith(b"delivery:"):
            super().send(line)


@fault("loses-the-301st-text", "promises-many-texts", "6 Promises 2")
class LosesALaterText(Client):
    texts = 0

    def sendall(self, text):
        self.texts += 1
        self.reply("ok") if self.texts == 301 else super().sendall(text)


@fault("tells-what-was-said-before", "receiver-no-history", "6 Promises 2")
class TellsHistory(Client):
    said = []

    def deliver(self, text, reaches):
        self.said.append((self.room, b"delivery:" + self.room + b":" + self.name + b":" + text))
        super().deliver(text, reaches)

    def join(self, room):
        super().join(room)
        for where, line in self.said if self.role == "receiver" else []:
            if where == room:
                self.send(line)


@fault("answers-too-early", "promises-ok-then-visible", "6 Promises 3")
class AnswersTooEarly(Client):
    held = None

    def send(self, line):  # an answered text is still on its way when the next one is sent
        if not line.startswith(b"delivery:"):
            return super().send(line)
        if self.held is None:
            self.held = line
            return threading.Timer(1, self.late).start()
        super().send(line)
        self.late()

    def late(self):
        line, self.held = self.held, None
        if line is not None:
            super().send(line)


class WritesWhatFits(Client):
    """A sender to a client writes what its socket accepts, and leaves the rest to the client's thread. No fault yet."""

    def __init__(self, server, connection):
        super().__init__(server, connection)
        self.waiting, self.turn = b"", threading.Lock()

    def append(self, waiting, line):
        return waiting + line

    def rest(self, waiting, written):
        return waiting[written:]

    def send(self, line):
        with self.turn:
            self.waiting = self.append(self.waiting, line + b"\n")
            self.write_some()

    def write_some(self):
        try:
            self.waiting = self.rest(self.waiting, self.connection.send(self.waiting, socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        except OSError:
            self.waiting = b""  # the client has disconnected

    def write_lines(self):
        while self.waiting or self.outgoing.empty():
            time.sleep(0.001)
            with self.turn:
                self.write_some()


@fault("a-reply-within-a-delivery", "promises-slow-mixed", "6 Promises 2")
class AReplyWithinADelivery(WritesWhatFits):
    ahead = 0  # bytes of replies: they overtake the deliveries, and should wait only for one that is half written

    def append(self, waiting, line):
        if line.startswith(b"delivery:"):
            return waiting + line
        waiting = waiting[:self.ahead] + line + waiting[self.ahead:]
        self.ahead += len(line)
        return waiting

    def rest(self, waiting, written):
        self.ahead = max(0, self.ahead - written)
        return super().rest(waiting, written)


@fault("drops-the-rest-of-a-line", "promises-slow-mixed", "6 Promises 2")
class DropsTheRestOfALine(WritesWhatFits):
    def rest(self, waiting, written):
        return waiting[waiting.find(b"\n", max(0, written - 1)) + 1:]


@fault("repeats-a-half-written-line", "promises-slow-mixed", "6 Promises 2")
class RepeatsAHalfWrittenLine(WritesWhatFits):
    def rest(self, waiting, written):
        return waiting[waiting.rfind(b"\n", 0, written) + 1:]


@fault("one-at-a-time", "basics-company", "3 Login")
class OneAtATime(Client):
    turn = threading.Lock()

    def run(self):
        with self.turn:
            super().run()


if __name__ == "__main__":
    chat_server.Server(int(sys.argv[1]), FAULTS[sys.argv[2]][0]).serve()
