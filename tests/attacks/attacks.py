#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Attacks a server with default limits while two innocent clients talk in another room, and judges what these saw.

Each case starts a server and connects all clients. The innocent pair talks undisturbed first, and then under attack.
It runs in its own process, so that it measures the server's delay and not that of the attackers' loop.

A receiver that finds more waiting than its socket holds was late itself, because the machine was too busy for its
process, and may be disconnected. Such a run shows nothing, and is repeated.

With --tls, all clients speak TLS, and there are attacks on TLS itself (encrypted.py) besides.

With --websocket, there are only the attacks on WebSocket (web.py). The innocent pair has TCP then.

With --redis there are two servers with a Redis between them, one for the innocent sender and one for the receiver. The
attackers use both, and there are attacks on what the servers share (shared.py) besides.
"""
import argparse
import collections
import contextlib
import itertools
import math
import multiprocessing
import os
import re
import resource
import selectors
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time

import encrypted
import shared
import web

PATIENCE = 60  # seconds; only a hang lasts longer
TICK = 0.005  # between two bursts of the innocent sender
BURST = 65536  # bytes that an attacker writes at once, repeatedly
ENOUGH = 2_000_000  # bytes of replies to a client that reads slowly
MEMORY = 64  # MiB that a server may hold at its peak
DELAY = 50  # ms that an attack may add to other clients' p99
LATE = 32768  # bytes that waited for a receiver without a break until it was disconnected: about what its socket holds
TRIES = 5  # to get a run in which the receiver is in time
DRAIN = 2  # seconds for which the server is told to drain
PLACE = 0.5  # seconds after which the places of dead clients must be free

# Appending any of these brings libstdc++'s hash of a 64-byte string back to its previous state (64 bits,
# little-endian), so all strings of four of them have the same hash. They are found in milliseconds: take any eight
# letters, compute the eight bytes that undo them, and repeat until those are letters too.
NEUTRAL = ["wYSRZ1oSfW5yBslN", "j6VghdXbOSWRhNW5", "SyM6AeXKegvcCMBR", "CsnN63dF4SnwGEvH", "UkUTJCP024f5jmeF",
           "Qu7vmZglEa3lhAys", "N7Eyv2ABjvZzKbGH", "djvJcVMpRBKQXSVp", "angjsk5zBhzFayA2", "KP0VMbTYsGUzZoMM"]


def repeated(*lines):
    """Returns about BURST bytes of these lines, repeated in turn and each whole."""
    unit = "".join(line + "\n" for line in lines).encode()
    return unit * max(1, BURST // len(unit))


def connect(port, buffers=None, source=None, plain=False):
    connection = socket.socket()
    if source:
        connection.bind((source, 0))
    if buffers:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    connection.settimeout(PATIENCE)
    connection.connect(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection if plain or not encrypted.is_on else encrypted.wrap(connection)


def expect_oks(connection, count):
    replies = b""
    while replies.count(b"\n") < count and (data := connection.recv(4096)):
        replies += data
    if re.fullmatch(b"(ok:[^\n]*\n){%d}" % count, replies) is None:
        raise ConnectionError(f"{count} times ok: was expected, and {replies[:200]!r} came")


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# --- The innocent pair ------------------------------------------------------------------------------------------------


class Pair:
    """A sender that sends texts at each tick without waiting for replies, and a receiver that reads at once."""

    def __init__(self, ports, texts, size):
        self.texts = texts
        self.padding = b"x" * (size - len(b"sendall:0000000 \n"))
        self.ends = selectors.DefaultSelector()
        # Small buffers: what the server could have written must not wait in the system's.
        self.sender, self.receiver = connect(ports[0]), connect(ports[-1], 32768)
        for connection, login in ((self.sender, b"slogin:ann"), (self.receiver, b"rlogin:bob")):
            connection.sendall(login + b"\njoin:quiet\n")
            expect_oks(connection, 2)
            connection.setblocking(False)
            self.ends.register(connection, selectors.EVENT_READ)
        self.unsent = b""
        self.said = []  # when each text was due
        self.input = {self.sender: b"", self.receiver: b""}
        self.oks = self.heard = 0
        self.wrong = []
        self.cut = set()
        self.waiting = 0  # bytes that the receiver has read since its socket was empty

    def talk(self, seconds):
        """Talks so long, then until all texts are answered and received or both are disconnected. Returns figures."""
        self.waits = []
        first = len(self.said)
        now = due = begin = time.monotonic()
        while now < begin + seconds + PATIENCE and len(self.cut) < 2:
            speaking = now < begin + seconds and self.sender not in self.cut
            while speaking and due <= now:
                for _ in range(self.texts):
                    self.unsent += b"sendall:%07d %s\n" % (len(self.said), self.padding)
                    self.said.append(due)
                due += TICK
            self.write()
            answered = self.oks == len(self.said) or self.sender in self.cut
            if not speaking and answered and (self.heard >= self.oks or self.receiver in self.cut):
                break
            ready = [key.fileobj for key, _ in self.ends.select(max(0, due - time.monotonic()) if speaking else 1)]
            if self.receiver not in ready and self.receiver not in self.cut:
                self.waiting = 0
            for connection in ready:
                self.read(connection)
            now = time.monotonic()
        self.waits.sort()
        return {"said": len(self.said) - first, "waits": self.waits, "lost": self.oks - self.heard,
                "unanswered": len(self.said) - self.oks, "wrong": self.wrong,
                "late": self.receiver in self.cut and self.waiting >= LATE,
                "cut": [who for who, connection in (("sender", self.sender), ("receiver", self.receiver))
                        if connection in self.cut]}

    def write(self):
        if self.sender in self.cut:
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self.unsent:
                self.unsent = self.unsent[self.sender.send(self.unsent[:BURST]):]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.unsent else 0)
        if self.ends.get_key(self.sender).events != events:
            self.ends.modify(self.sender, events)

    def read(self, connection):
        try:
            data = connection.recv(BURST)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.cut.add(connection)
            self.ends.unregister(connection)
            connection.close()
            return
        if connection is self.receiver:
            self.waiting += len(data)
        *lines, self.input[connection] = (self.input[connection] + data).split(b"\n")
        now = time.monotonic()
        for line in lines:
            if connection is self.sender:
                self.oks += 1
                right = line.startswith(b"ok:")
            else:
                right = line == b"delivery:quiet:ann:%07d %s" % (self.heard, self.padding)
                self.heard += 1
                if self.heard <= len(self.said):
                    self.waits.append(now - self.said[self.heard - 1])
            if not right and len(self.wrong) < 3:
                self.wrong.append(f"the {'sender' if connection is self.sender else 'receiver'} got {line[:60]!r}")


def pair(control, ports, texts, size):
    innocent = Pair(ports, texts, size)
    control.send(True)
    while seconds := control.recv():
        control.send(innocent.talk(seconds))


# --- The attackers ----------------------------------------------------------------------------------------------------

# A group of `count` clients of one kind. `hello(i)` is the first two lines of the i-th. If there is a burst, one client
# in `every` writes it repeatedly, each time that the last one has been answered in full. A client that does not read
# its replies, or that reads them at a pace (bytes per second), does not wait for them. `at`: the server that they all
# use (0 or 1).
Crowd = collections.namedtuple("Crowd", "count hello burst reads pace every at", defaults=(b"", True, 0, 1, None))

# A group of `count` clients that do what the function `act` of encrypted.py, shared.py or web.py does.
# `cut`: the server must cut them.
Strangers = collections.namedtuple("Strangers", "count act cut", defaults=(False,))


class Progress:
    """How much of its burst a client has written, and how many replies it still expects to earlier bursts."""

    def __init__(self):
        self.written = self.unanswered = 0


def attack_strangely(control, ports, strangers, niceness):
    """Until it is told to end, and until something was done. Returns how often it was, and how many were cut."""
    os.nice(niceness)
    turns = itertools.cycle(ports)
    act = strangers.act(lambda: connect(next(turns), plain=True), strangers.count)
    next(act)
    control.send(True)
    control.recv()
    signal.alarm(10 * PATIENCE)  # in case it is never told to end
    deadline = None
    for done, cut in act:
        if deadline is None and control.poll():
            control.recv()
            deadline = time.monotonic() + PATIENCE
        if deadline and ((done and (cut or not strangers.cut)) or time.monotonic() > deadline):
            break
    act.close()
    control.send({"cut": cut, "taken": done})


def attack(control, ports, crowd, niceness):
    if isinstance(crowd, Strangers):
        return attack_strangely(control, ports, crowd, niceness)
    ports = ports if crowd.at is None else [ports[crowd.at]]
    os.nice(niceness)
    connections = []
    for first in range(0, crowd.count, 100):
        some = []
        for i in range(first, min(first + 100, crowd.count)):
            some.append(connect(ports[i // 2 % len(ports)]))  # i % 2 may have a meaning of its own
            some[-1].sendall(crowd.hello(i).encode())  # at once: there is a deadline for it
        for connection in some:
            expect_oks(connection, 2)
            connection.setblocking(False)
        connections += some
    control.send(True)
    control.recv()
    signal.alarm(10 * PATIENCE)  # in case it is never told to end

    ends = selectors.DefaultSelector()
    ends.register(control, selectors.EVENT_READ)
    at_once = crowd.reads and not crowd.pace
    for i, connection in enumerate(connections):
        writes = crowd.burst and i % crowd.every == crowd.every - 1
        events = (selectors.EVENT_READ if at_once else 0) | (selectors.EVENT_WRITE if writes else 0)
        if events:
            ends.register(connection, events, Progress())
    burst, lines, buffer = memoryview(crowd.burst), crowd.burst.count(b"\n"), bytearray(BURST)
    taken, cut = 0, set()
    paced = time.monotonic()

    def read(connection, limit):
        nonlocal taken
        count = connection.recv_into(buffer, limit)
        taken += count
        if count == 0:
            raise ConnectionError
        return count

    def write(connection, progress):
        progress.written += connection.send(burst[progress.written:])
        if progress.written == len(burst):
            progress.written = 0
            if at_once:
                progress.unanswered += lines
                ends.modify(connection, selectors.EVENT_READ, progress)

    def lose(connection):
        cut.add(connection)
        with contextlib.suppress(KeyError):
            ends.unregister(connection)
        connection.close()

    deadline = None  # once it is told to end
    while not deadline or (crowd.pace and taken < ENOUGH and len(cut) < crowd.count and time.monotonic() < deadline):
        for key, events in ends.select(0.01 if crowd.pace else None):
            if key.fileobj is control:
                control.recv()
                ends.unregister(control)
                deadline = time.monotonic() + PATIENCE
                continue
            try:
                if events & selectors.EVENT_WRITE:
                    write(key.fileobj, key.data)
                if events & selectors.EVENT_READ:
                    count = read(key.fileobj, BURST)
                    if lines and at_once:
                        key.data.unanswered -= buffer.count(b"\n", 0, count)
                        if key.data.unanswered == 0:
                            ends.modify(key.fileobj, selectors.EVENT_READ | selectors.EVENT_WRITE, key.data)
            except BlockingIOError:
                pass
            except ConnectionError:
                lose(key.fileobj)
        if crowd.pace and time.monotonic() - paced >= 0.01:
            most = min(int(crowd.pace * (time.monotonic() - paced)), len(buffer))  # steadily, even on a busy machine
            paced = time.monotonic()
            for connection in set(connections) - cut:
                try:
                    read(connection, most)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    lose(connection)
    for connection in set(connections) - cut:
        reset(connection)
    control.send({"cut": len(cut), "taken": taken})


# --- The server -------------------------------------------------------------------------------------------------------


def peak_memory(process):
    """Returns the MiB that the process has held at its peak; 0 if it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        if found := re.search(r"VmHWM:\s*(\d+) kB", status.read()):
            return int(found[1]) / 1024
    return 0


class Server:
    def __init__(self, program, policy, *options, niceness=0):
        command = ["nice", "-n", str(niceness), program, "0", "--address", "127.0.0.1", "--policy", policy,
                   "--threads", "2", *encrypted.server_options(), *web.server_options(), *map(str, options)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = self.process.stderr.readline()
        ports = re.findall(r" port (\d+)", said) if said.startswith("listening on port ") else []
        if len(ports) != (2 if encrypted.is_on or web.is_on else 1):
            raise SystemExit(f"attacks: the server does not start: {said}")
        self.port = int(ports[0 if web.is_on else -1])
        self.attacked = int(ports[-1])
        self.peak = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    def watch_memory(self):
        self.peak = max(self.peak, peak_memory(self.process))

    def stop(self):
        """Sends SIGTERM. Returns how long the server took to end, or None if it hangs."""
        begin = time.monotonic()
        self.watch_memory()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None and time.monotonic() < begin + PATIENCE:
            self.watch_memory()
            time.sleep(0.01)
        return time.monotonic() - begin if self.process.poll() == 0 else None


class Cluster:
    """A server; with --redis, two of them and their Redis."""

    def __init__(self, *arguments, **how):
        with contextlib.ExitStack() as stack:
            self.redis, options = stack.enter_context(shared.redis()) if shared.is_on else (None, [])
            self.servers = [stack.enter_context(Server(*arguments, *options, **how))
                            for _ in range(2 if shared.is_on else 1)]
            if shared.is_on:
                for server in self.servers:
                    shared.wait_for(server)
            self.ports = [server.port for server in self.servers]
            self.attacked = [server.attacked for server in self.servers]
            self.stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def watch_memory(self):
        for server in self.servers:
            server.watch_memory()

    def peak(self):
        return max(server.peak for server in self.servers)

    def redis_peak(self):
        return peak_memory(self.redis) if self.redis else None

    def stop(self):
        """Stops one server after the other. Returns how long the slowest took to end, or None if one hangs."""
        ends = [server.stop() for server in self.servers]
        return None if None in ends else max(ends)

    def codes(self):
        return ", ".join(str(server.process.returncode) for server in self.servers)


class Process:
    """Runs a function in its own process with one end of a pipe. This object is the other end."""

    def __init__(self, function, *arguments):
        context = multiprocessing.get_context("fork")
        self.control, other = context.Pipe()
        self.process = context.Process(target=function, args=(other, *arguments), daemon=True)
        self.process.start()
        other.close()

    def ask(self, what):
        self.control.send(what)
        return self.answer()

    def answer(self):
        return self.control.recv()

    def end(self):
        self.control.close()
        self.process.kill()
        self.process.join()


# --- The cases --------------------------------------------------------------------------------------------------------

# What happens while the pair talks. `texts` (per tick) and `size` are the pair's. A polite crowd must not be
# disconnected. In a short run `short` replaces `crowds`; a case without it is left out. `drain`: SIGTERM in the middle.
# `only`: "tls", "redis" or "websocket", without which there is no such case; under the attack, a new client must then
# get in. `options`: of the server; not with Redis.
Case = collections.namedtuple("Case", "title crowds short texts size delay polite drain only options",
                              defaults=(None, 1, 40, DELAY, False, False, None, ()))


def receivers(count, *rooms):
    return Crowd(count, lambda i: f"rlogin:listener{i}\njoin:{rooms[i % len(rooms)]}\n")


def senders(count, *lines, **how):
    return Crowd(count, lambda i: f"slogin:attacker{i}\njoin:a\n", repeated(*lines), **how)


def named_rooms(name):
    """Returns crowds of 6,000 receivers, each in its own room, and four senders that join these rooms in turn."""
    names = list(itertools.islice((name(parts) for parts in itertools.product(range(len(NEUTRAL)), repeat=4)), 6000))
    return [Crowd(len(names), lambda i: f"rlogin:listener{i}\njoin:{names[i]}\n"),
            Crowd(4, lambda i: f"slogin:attacker{i}\njoin:a\n", "".join(f"join:{it}\n" for it in names[::7]).encode())]


def hop(listeners):
    return [receivers(listeners, "a", "b"), senders(32, "join:a", "sendall:", "join:b", "sendall:")]


def lookups(listeners):
    return [receivers(listeners, "a"), senders(2, "senduser:a:")]


def empty(count, **how):
    return [senders(count, "", **how)]


def strange(title, act, count, cut=False):
    return Case(title, [Strangers(count, act, cut)], [Strangers(count, act, cut)], only="tls")


def on_web(title, act, count, short=None):
    return Case(title, [Strangers(count, act)], [Strangers(short or count, act)], only="websocket")


def keeps(title, *crowds, short=None):
    return Case(title, crowds, short, options=("--history", "1000"))


def ask_who(listeners):
    return [receivers(listeners, "a"), senders(32, "who:")]


def histories(listeners, **how):
    return [senders(2, "sendall:" + "x" * 200),
            Crowd(listeners, lambda i: f"rlogin:listener{i}\njoin:a\n",
                  repeated("history:9999", "join:b", "join:a"), **how)]


def one_text_histories(listeners):
    names = ["x" * 240, "y" * 240]
    return [senders(2, *(f"senduser:{name}:" for name in names)),
            Crowd(listeners, lambda i: f"rlogin:listener{i}\njoin:a\n", repeated("history:1"))]


def unread_rooms(count):
    lines = "".join(f"join:r{i}\n" + f"sendall:{'x' * 200}\n" * 100 for i in range(count))
    return [Crowd(count, lambda i: f"rlogin:listener{i}\njoin:r{i}\n", reads=False),
            Crowd(32, lambda i: f"slogin:attacker{i}\njoin:r{i}\n", lines.encode())]


def hop_through_histories(listeners, rooms):
    fill = "".join(f"join:r{i}\n" + f"sendall:{'x' * 200}\n" * 300 for i in range(rooms))
    return [senders(2, *fill.splitlines()),
            Crowd(listeners, lambda i: f"rlogin:listener{i}\njoin:r{i % rooms}\n",
                  repeated(*(f"join:r{i}" for i in range(rooms))))]


def across(title, *crowds, **how):
    return Case(title, crowds, crowds, only="redis", **how)


CASES = {
    # All on the receiver's thread, where the policy pool puts every second client. 240 occupy it for a second at a
    # time.
    "stream": Case("empty lines from 40 clients, a stream of 1 MB/s", empty(80, every=2), texts=25, size=200),
    "stream240": Case("empty lines from 240 clients, a stream of 1 MB/s", empty(480, every=2), empty(480, every=2),
                      texts=25, size=200, delay=None),
    "empty": Case("empty lines from 300 clients", empty(300)),
    "unread": Case("empty lines from 300 clients, replies unread", empty(300, reads=False), empty(300, reads=False)),
    "lookups": Case("two senders of `senduser:`, 5,000 receivers", lookups(5000)),
    "hop": Case("32 senders hop between two rooms, 500 receivers", hop(500)),
    "hop2000": Case("32 senders hop between two rooms, 2,000 receivers", hop(2000), hop(1000), delay=250),
    "slow": Case("a sender reads 100,000 replies a second", [senders(1, "", pace=3_200_000)],
                 [senders(1, "", pace=3_200_000)], polite=True),
    "joins": Case("joins among 6,000 rooms", named_rooms(lambda parts: "".join(map(str, parts)) * 16)),
    "hashes": Case("joins among 6,000 rooms of one hash",
                   named_rooms(lambda parts: "".join(NEUTRAL[i] for i in parts))),
    "histories": keeps("300 receivers ask for 64 KiB of history all the time, and read nothing",
                       *histories(300, reads=False), short=histories(300, reads=False)),
    "histories-read": keeps("40 receivers read one history after the other", *histories(40, pace=20_000_000)),
    "histories-slow": keeps("300 rooms with a history and a receiver that reads nothing", *unread_rooms(300),
                            short=unread_rooms(64)),
    "histories-runs": keeps("a room of texts for absent users of long names, and 40 receivers that ask for one",
                            *one_text_histories(40), short=one_text_histories(10)),
    "left-rooms": keeps("32 senders say one text in each of 20,000 rooms, in turn",
                        Crowd(32, lambda i: f"slogin:attacker{i}\njoin:a\n",
                              "".join(f"join:{i}\nsendall:x\n" for i in range(20000)).encode())),
    "who": Case("32 senders ask who is there, 5,000 receivers", ask_who(5000), ask_who(500), options=("--presence",)),
    "drain-empty": Case("drain amid empty lines from 300 clients", empty(300), drain=True),
    "drain-lookups": Case("drain amid `senduser:`, 5,000 receivers", lookups(5000), drain=True),
    "drain-hop": Case("drain amid 32 senders that hop, 2,000 receivers", hop(2000), hop(1000), drain=True),
    "hellos": strange("5,000 handshakes that stall in the hello", encrypted.stall, 5000),
    "trickle": strange("300 hellos, a byte at a time", encrypted.trickle, 300),
    "abandoned": strange("64 handshakes at once, begun and left", encrypted.abandon, 64),
    "garbage": strange("64 clients at once send what is no hello", encrypted.send_garbage, 64),
    "records": strange("records of one byte from 40 clients", encrypted.send_tiny_records, 40),
    "new-keys": strange("100 clients ask for new keys all the time", encrypted.ask_for_keys, 100, cut=True),
    "new-rooms": across("32 senders say 500 texts in one new room after the other",
                        Strangers(32, shared.speak_in_new_rooms)),
    "new-ears": across("300 receivers join one new room after the other", Strangers(300, shared.listen_in_new_rooms)),
    "all-rooms": across("300 senders flood a room each, whose receiver is at the other server",
                        Crowd(300, lambda i: f"rlogin:listener{i}\njoin:own{i}\n", at=1),
                        Crowd(300, lambda i: f"slogin:attacker{i}\njoin:own{i}\n", repeated("sendall:" + "x" * 200),
                              at=0), delay=400),
    "unison": across("300 senders and 300 receivers in one room, all speak", receivers(300, "a"),
                     Crowd(300, lambda i: f"slogin:attacker{i}\njoin:a\n", b"sendall:hello\n")),
    "deaf": across("300 receivers do not read what 32 senders at the other server say",
                   receivers(300, "a")._replace(reads=False, at=1), senders(32, "sendall:" + "x" * 200, at=0)),
    "vanish": across("16 clients at once are reset while their texts are under way", Strangers(16, shared.vanish)),
    "whispers": across("100 senders of `senduser:` to two of 300 in turn", receivers(300, "a"),
                       senders(100, "senduser:listener0:", "senduser:listener1:")),
    "hop-through-histories": across("64 receivers hop through 50 rooms, each with 64 KiB of history",
                                    *hop_through_histories(64, 50), options=("--history", "1000")),
    "requests": on_web("5,000 requests that stall", web.stall, 5000, 1000),
    "big-requests": on_web("1,000 requests that stall after 8 KB", web.stall_with_much, 1000),
    "request-bytes": on_web("300 requests, a byte at a time", web.trickle, 300),
    "no-requests": on_web("64 clients at once ask for the page, wrongly, or without end", web.send_requests, 64),
    "no-frames": on_web("64 clients at once send frames that break the rules", web.send_garbage, 64),
    "endless-frames": on_web("empty lines in frames of 2^63 bytes from 40 clients", web.send_endless_frames, 40),
    "fragments": on_web("fragments of one byte, or of none, from 40 clients", web.send_fragments, 40),
    "pings": on_web("pings from 100 clients", web.ping, 100),
    "pongs-unread": on_web("pings from 300 clients, pongs unread", web.ping_unread, 300),
    "web-deaf": on_web("200 receivers do not read what 10 senders say", web.read_nothing, 210),
}
PLACES = {"addresses": "64 addresses take all places that they get",
          "places-rate": "59 senders die above their rate",
          "places-lossless": "59 senders die as they wait for a receiver"}

# What one run of a case measured: p50 and p99 in ms, undisturbed and under attack, memory in MiB, and the seconds until
# the server had ended or the places of dead clients were free.
Seen = collections.namedtuple("Seen", "before during peak lost end notes redis", defaults=([], None))


def percentile(waits, part):
    return 1000 * waits[min(len(waits) - 1, math.floor(part * len(waits)))] if waits else None


def disturb(program, policy, case, short):
    """Runs the case until the receiver is in time. Returns None if it never is."""
    return next(filter(None, (disturb_once(program, policy, case, short) for _ in range(TRIES))), None)


def disturb_once(program, policy, case, short):
    """Runs the case once. Returns None if the receiver was late."""
    niceness = 19 if short else 0  # no times are measured then, and the pair must be in time on any machine
    crowds = case.short if short else case.crowds
    if policy == "thread-per-client":  # a thread and four descriptors for each
        crowds = [crowd._replace(count=min(crowd.count, 500)) for crowd in crowds]
    options = [*case.options, *(["--drain", DRAIN] if case.drain else [])]
    if short and encrypted.is_on and not case.only:  # handshakes take long where all of this has the lowest priority
        crowds = [crowd._replace(count=min(crowd.count, 300)) for crowd in crowds]
        options += ["--login-deadline", PATIENCE]  # a busy machine may be late with the handshakes of a crowd
    with Cluster(program, policy, *options, niceness=niceness) as cluster, contextlib.ExitStack() as stack:

        def start(*what):
            process = Process(*what)
            stack.callback(process.end)
            process.answer()
            return process

        attackers = [start(attack, cluster.attacked, crowd, niceness) for crowd in crowds]
        innocent = start(pair, cluster.ports, case.texts, case.size)
        before = {} if short or case.drain else innocent.ask(3)
        innocent.control.send(PATIENCE if case.drain else 2 if short else 8)
        for attacker in attackers:
            attacker.control.send(True)
        if case.drain:
            time.sleep(2 if short else 6)
            end = cluster.stop()
        seen = innocent.answer()
        if case.only:
            with connect(cluster.ports[0]) as newcomer:
                newcomer.sendall(b"slogin:newcomer\njoin:quiet\n")
                expect_oks(newcomer, 2)
            if web.is_on:
                web.open_client(lambda: connect(cluster.attacked[0]), b"slogin:newcomer", b"join:quiet").close()
        cluster.watch_memory()
        innocent.end()
        left = [attacker.ask(True) for attacker in attackers]
        redis_peak = cluster.redis_peak()
        if not case.drain:
            end = cluster.stop()

    notes = [f"wrong: {what}" for what in seen["wrong"]]
    if seen["late"] and not case.drain and not notes:
        return None
    if end is None:
        notes.append(f"the server ended with {cluster.codes()}, or hangs")
    if not case.drain:
        notes += [f"the innocent {who} was cut" for who in seen["cut"]]
        if seen["unanswered"]:
            notes.append(f"{seen['unanswered']} of {seen['said']} texts without a reply")
    if case.polite and left[0]["cut"]:
        notes.append(f"was cut after {left[0]['taken']} bytes of replies")
    elif case.polite and left[0]["taken"] < ENOUGH:
        notes.append(f"got only {left[0]['taken']} bytes of replies")
    is_strange = isinstance(crowds[0], Strangers)
    if is_strange and not left[0]["taken"]:
        notes.append("the attack did nothing")
    if is_strange and crowds[0].cut and not left[0]["cut"]:
        notes.append("no attacker was cut")
    # At the end of a drain, receivers may be disconnected and lose what they have not read.
    if seen["lost"] > 0 and (not case.drain or (end or 0) < DRAIN):
        notes.append(f"{seen['lost']} of {seen['said']} texts with an ok were lost")
    # A stack and a buffer for each client; with TLS, besides its state.
    most = MEMORY * (2 if policy == "thread-per-client" else 1) + encrypted.memory(sum(it.count for it in crowds))
    if cluster.peak() >= most:
        notes.append(f"{cluster.peak():.0f} MiB")
    waits = [[percentile(they.get("waits", []), part) for part in (0.5, 0.99)] for they in (before, seen)]
    return Seen(*waits, cluster.peak(), max(0, seen["lost"]), end, notes, redis_peak)


def leave_places(program, policy, case):
    """59 senders send until they have to wait, and die. Their places must be free for other clients at once."""
    options = ["--rate", 1] if case == "places-rate" else ["--overflow", "block-sender", "--write-deadline", 600]
    with Server(program, policy, "--max-clients", 60, *options) as server, contextlib.ExitStack() as stack:
        listener = stack.enter_context(connect(server.port, 4096))
        listener.sendall(b"rlogin:listener\njoin:a\n")
        expect_oks(listener, 2)
        dead = [connect(server.port, BURST) for _ in range(59)]
        for connection in dead:
            connection.sendall(b"slogin:attacker\njoin:a\n")
            expect_oks(connection, 2)
        with connect(server.port, plain=True) as other:  # with TLS it gets no line, only the end
            if not re.match(b"$" if encrypted.is_on else b"err:", other.recv(4096)):
                raise ConnectionError("a client more than there are places was let in")
        burst = b"sendall:%s\n" % (b"x" * 200) * 300
        if case == "places-rate":
            for connection in dead:
                connection.sendall(burst)
            for connection in dead:
                expect_oks(connection, 18)
        notes = []
        if case == "places-lossless" and not speak_until_quiet(dead, burst):
            notes.append("the senders did not have to wait for the receiver")
        for connection in dead:
            reset(connection)

        begin = time.monotonic()
        free = 0
        while free < len(dead) and time.monotonic() < begin + 20:
            with contextlib.suppress(ConnectionError), contextlib.ExitStack() as attempt:
                other = attempt.enter_context(connect(server.port))
                other.sendall(b"slogin:other\n")
                expect_oks(other, 1)
                stack.push(attempt.pop_all())
                free += 1
                continue
            time.sleep(0.02)
        end = time.monotonic() - begin
        stack.close()
        if free < len(dead):
            notes.append(f"only {free} of {len(dead)} places were free after {end:.0f} s")
        if server.stop() is None:
            notes.append(f"the server ended with {server.process.returncode}, or hangs")
    return Seen([None] * 2, [None] * 2, server.peak, 0, end, notes)


def take_places(program, policy):
    """Each of 64 addresses connects until it is refused, and floods. Clients of a 65th must get in and talk."""
    allowed, texts = 8, 100
    flood = repeated("", "join:a")
    with Server(program, policy, "--limit-loopback", "--max-clients-per-address", allowed) as server, \
            contextlib.ExitStack() as stack:

        def enter(source, login, room):
            connection = stack.enter_context(connect(server.port, source=source))
            connection.sendall(f"{login}\njoin:{room}\n".encode())
            expect_oks(connection, 2)
            return connection

        notes = []
        for host in range(1, 65):
            held = []
            with contextlib.suppress(ConnectionError):
                while len(held) <= allowed:
                    held.append(enter(f"127.1.0.{host}", "rlogin:attacker", "a"))
            if len(held) != allowed:
                notes.append(f"an address got {len(held)} of {allowed} places")
            for connection in held:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    connection.send(flood)
        bob, ann = enter("127.2.0.1", "rlogin:bob", "quiet"), enter("127.2.0.1", "slogin:ann", "quiet")
        ann.sendall(b"".join(b"sendall:%d\n" % i for i in range(texts)))
        expect_oks(ann, texts)
        heard = b""
        while heard.count(b"\n") < texts and (data := bob.recv(BURST)):
            heard += data
        if heard != b"".join(b"delivery:quiet:ann:%d\n" % i for i in range(texts)):
            notes.append("the texts of the 65th address did not come through")
        stack.close()
        if server.stop() is None:
            notes.append(f"the server ended with {server.process.returncode}, or hangs")
    return Seen([None] * 2, [None] * 2, server.peak, 0, None, notes)


def speak_until_quiet(connections, burst):
    """Writes and reads until nothing has moved for a second. Returns False if that never happens."""
    ends = selectors.DefaultSelector()
    for connection in connections:
        connection.setblocking(False)
        ends.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE, [0])
    deadline = time.monotonic() + PATIENCE
    while ready := ends.select(1):
        if time.monotonic() > deadline:
            return False
        for key, events in ready:
            with contextlib.suppress(BlockingIOError):
                if events & selectors.EVENT_READ:
                    key.fileobj.recv(BURST)
                if events & selectors.EVENT_WRITE:
                    key.data[0] = (key.data[0] + key.fileobj.send(memoryview(burst)[key.data[0]:])) % len(burst)
    return True


# --- All of it --------------------------------------------------------------------------------------------------------


def median(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def shown(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def row(policy, name, runs):
    """Returns a line of the table, and what is wrong with these runs."""
    case = CASES.get(name)
    before, during = ([median([times[i] for times in phase]) for i in range(2)]
                      for phase in ([run.before for run in runs], [run.during for run in runs]))
    end = median([run.end for run in runs])
    notes = list(dict.fromkeys(note for run in runs for note in run.notes))
    measured = before[1] is not None
    if measured and during[1] is None:
        notes.append("no text came through")
    elif measured and case.delay and during[1] > before[1] + case.delay:
        notes.append(f"p99 is {during[1] - before[1]:,.0f} ms above undisturbed, {case.delay} are allowed")
    limit = None if case and not case.drain else DRAIN + 1 if case else PLACE
    if limit and end and end > limit:
        notes.append(f"took {end:.1f} s of at most {limit} s")
    cells = [policy, case.title if case else PLACES[name], *(shown(value) for value in before)]
    cells += [shown(value) if measured else "-" for value in during]
    cells += [shown(max(run.peak for run in runs)), f"{sum(run.lost for run in runs):,}"]
    cells += [shown(end if limit else None, 2)]
    if shared.is_on:
        cells += [shown(max(run.redis or 0 for run in runs))]
    return cells, notes


def print_table(rows):
    head = ["policy", "attack", "p50 undisturbed, ms", "p99 undisturbed, ms", "p50, ms", "p99, ms", "peak, MiB", "lost",
            "end, s"] + ["Redis, MiB"] * shared.is_on
    print("\n| " + " | ".join(head) + " |\n|" + "|".join(["---"] * 2 + ["--:"] * (len(head) - 2)) + "|")
    for cells, notes in rows:
        print("| " + " | ".join(cells) + " |")
    print()
    for cells, notes in rows:
        for note in notes:
            print(f"- {cells[0]}, {cells[1]}: {note}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the server program")
    parser.add_argument("--policy", action="append", help="the server's policy; may be repeated (pool and strand)")
    parser.add_argument("--short", action="store_true", help="one run of a minute at most; judges no times")
    among = parser.add_mutually_exclusive_group()
    among.add_argument("--redis", action="store_true", help="two servers, which share their rooms")
    among.add_argument("--websocket", action="store_true", help="only attacks on WebSocket")
    among.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="over TLS, with this certificate of the server")
    parser.add_argument("--runs", type=int, default=5, help="number of runs, whose medians are shown (%(default)s)")
    parser.add_argument("--case", action="append", choices=[*CASES, *PLACES], help="runs only this; may be repeated")
    options = parser.parse_args()
    if options.tls:
        encrypted.turn_on(*options.tls)
    names = [name for name in [*CASES, *PLACES] if not options.case or name in options.case]
    shared.is_on, web.is_on = options.redis, options.websocket
    kinds = [None, "redis" if options.redis else "tls" if options.tls else None]
    if options.websocket:
        kinds = ["websocket"]
    # The places of each server are its own.
    with_places = not (options.redis or options.websocket)
    names = [name for name in names if (with_places if name in PLACES else CASES[name].only in kinds)]
    names = [name for name in names if name in PLACES or not (options.redis and "--presence" in CASES[name].options)]
    if not encrypted.can_ask_for_keys():
        names = [name for name in names if name != "new-keys"]
    if options.short:
        names = [name for name in names if name in PLACES or CASES[name].short]
    policies = options.policy or ["pool", "strand"]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    results = collections.defaultdict(list)
    failed = blind = False
    for _ in range(1 if options.short else options.runs):
        for policy, name in itertools.product(policies, names):
            begin = time.monotonic()
            try:
                seen = (take_places(options.server, policy) if name == "addresses"
                        else leave_places(options.server, policy, name) if name in PLACES
                        else disturb(options.server, policy, CASES[name], options.short))
            except (OSError, EOFError) as error:  # EOFError: one of our processes has reported the reason on stderr
                seen = Seen([None] * 2, [None] * 2, 0, 0, None, [f"broken off: {error!r}"])
            if seen:
                results[policy, name].append(seen)
            blind = blind or not seen
            failed = failed or bool(seen and seen.notes)
            what = "; ".join(seen.notes) or "nothing wrong" if seen else "this machine is too busy to show anything"
            print(f"{policy} {name} ({time.monotonic() - begin:.0f} s): {what}", flush=True)
    if not options.short:
        rows = [row(*key, runs) for key, runs in results.items()]
        print_table(rows)
        failed = failed or any(notes for _, notes in rows)
    return 1 if failed else 77 if blind else 0


if __name__ == "__main__":
    sys.exit(main())
