# SPDX-License-Identifier: BSL-1.0
"""Senders that number their texts, and receivers that record; each process runs a share of them in one loop.

Clients whose connection ends connect again by themselves and go on. A number is never sent twice.
"""
import array
import collections
import contextlib
import ctypes
import errno
import heapq
import multiprocessing
import pickle
import random
import select
import signal
import socket
import threading
import time

from history import ERR, NEVER, OK, Connection, Text

RETRY = 0.02  # seconds between two attempts of a client
TRICKLE = 0.02  # seconds between two texts of a sender when there are enough
BATCH = 128  # texts that a sender with a pipeline sends at once; twice as many may be under way

# What the clients do.
TALK, LAST, SENDERS_LEAVE, RECEIVERS_LEAVE = range(4)


class Plan:
    """Who is in which room, on which server. Everything follows from the arguments."""

    def __init__(self, servers, rooms=6, receivers=4, senders=3, stay=0, churn=True, ends=False, pause=(0.1, 0.5)):
        self.servers, self.stay, self.churn, self.ends, self.pause = servers, stay, churn, ends, pause
        self.rooms = [f"room{number}" for number in range(rooms)]
        self.receivers = []  # (who, name, room, server, what it does besides)
        self.senders = []  # (name, rooms, server, window)
        # The last two receivers of a room have one name; the second has the name of a sender of this room.
        for room in range(rooms):
            for number in range(receivers):
                who = f"r{room}x{number}"
                name = who
                if number == 1:
                    name = f"s{room}x0"
                if receivers > 3 and number == receivers - 1:
                    name = f"r{room}x{number - 1}"
                habit = "stays"
                if churn and number == receivers - 1 or churn == "most" and number or churn == "all":
                    habit = ["leaves", "moves", "roams"][(room + receivers - 1 - number) % 3]
                self.receivers.append((who, name, room, (room + number) % servers, habit))
        if stay:  # few senders, who go from room to room
            for number in range(senders):
                self.senders.append((f"s{number}", list(range(number, rooms, senders)), number % servers, 2 * BATCH))
        else:
            for room in range(rooms):
                for number in range(senders):
                    self.senders.append((f"s{room}x{number}", [room], (room + number + 1) % servers,
                                         1 if number % 3 == 2 else 2 * BATCH))
        self.names_in = [[] for _ in range(rooms)]
        for _, name, room, _, _ in self.receivers:
            self.names_in[room].append(name)

    def addressee(self, number, room):
        """Returns the receiver that this text is for, or None if it is for all."""
        if number % 7 != 3:
            return None
        names = self.names_in[room]
        which = number // 7 % (len(names) + 1)
        return names[which] if which < len(names) else "nobody"


def payload(number):
    if number % 10:
        return b"%d" % number
    return b"%d: a:b \t\x80\xff" % number + b"x" * (number // 10 % 150)


class Shared:
    """What the main process tells the workers, and they tell it."""

    def __init__(self, workers):
        number = multiprocessing.Array(ctypes.c_double, 8 + 8 * workers, lock=False)
        self.all = number
        self.workers = workers

    task = property(lambda self: int(self.all[0]))  # TALK, ...
    since = property(lambda self: self.all[1])  # when the task or the fault's end was

    def tell(self, task, since):
        self.all[1] = since
        self.all[0] = task

    def limit(self, texts):  # for each worker
        self.all[2] = texts / self.workers

    @contextlib.contextmanager
    def flow(self, first, last, seconds):
        """Raises the limit steadily over this time, or until the end of the context."""
        begin = time.monotonic()
        self.flooded = False
        ended = threading.Event()

        def raise_limit():
            share = 0.0
            while (share < 1 or self.flooded) and not ended.wait(0.005):
                share = min(1.0, (time.monotonic() - begin) / seconds)
                self.limit(NEVER if self.flooded else first + (last - first) * share)

        thread = threading.Thread(target=raise_limit)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def flood(self):
        """There is no limit until the end of the context."""
        self.flooded = True
        self.limit(NEVER)

    def mine(self, worker, what, value):
        self.all[8 + 8 * worker + what] = value

    def sum(self, what):
        return sum(self.all[8 + 8 * worker + what] for worker in range(self.workers))


SENT, FRESH, JOINED, SENDERS_GONE, RECEIVERS_GONE, ERRS, CUTS, UNREADY = range(8)


class Client:
    def __init__(self, worker, server):
        self.worker, self.server = worker, server
        self.socket = None
        self.unsent = b""
        self.gone = False
        self.idle_until = None

    def connect(self):
        if self.gone:
            return
        self.socket = socket.socket()
        self.waits_to_write = False
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unsent = b""
        error = self.socket.connect_ex(("127.0.0.1", self.worker.ports[self.server]))
        self.worker.clients[self.socket.fileno()] = self
        self.worker.epoll.register(self.socket, select.EPOLLIN)
        if error not in (0, errno.EINPROGRESS):
            self.end()
            return
        self.connected()

    def send(self, data):
        """Sends, or keeps what the socket does not take yet."""
        self.unsent += data
        self.flush()

    def flush(self):
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent)
                self.unsent = self.unsent[sent:]
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno == errno.ENOTCONN:  # it still connects
                    break
                self.unsent = b""  # the end is found by reading, after all that has arrived
                break
        if bool(self.unsent) != self.waits_to_write:
            self.waits_to_write = bool(self.unsent)
            self.worker.epoll.modify(self.socket, select.EPOLLIN | (select.EPOLLOUT if self.unsent else 0))

    def on_event(self, event):
        if event & select.EPOLLOUT:
            self.flush()
        if not event & ~select.EPOLLOUT:
            return
        try:
            data = self.socket.recv(1 << 18)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self.take(data, time.monotonic())
        else:
            self.end()

    def end(self):
        self.worker.epoll.unregister(self.socket)
        del self.worker.clients[self.socket.fileno()]
        self.socket.close()
        self.socket = None
        self.ended(time.monotonic())

    def later(self, seconds, function):
        self.worker.at(time.monotonic() + seconds, function)


class Sender(Client):
    def __init__(self, worker, number, name, rooms, server, window):
        super().__init__(worker, server)
        self.place, self.name, self.rooms, self.window = number, name, rooms, window
        self.room = 0  # index into rooms
        self.stay = worker.plan.stay
        self.joined = False
        self.connection = 0
        self.replies = 0  # of this connection: to login and join
        self.part = b""
        self.sent = array.array("d")
        self.answered = array.array("d")
        self.outcome = bytearray()
        self.where = array.array("i")
        self.on = array.array("i")
        self.next_reply = 0  # number of the text
        self.fresh = 0.0  # when its latest text with an ok was sent
        self.quitting = False
        self.trickles = False

    def connected(self):
        self.connection += 1
        self.state = "login"
        self.part = b""
        self.joined = False
        self.next_reply = len(self.outcome)
        self.send(b"slogin:%s\njoin:%s\n" % (self.name.encode(), self.room_name()))

    def room_name(self):
        return self.worker.plan.rooms[self.rooms[self.room]].encode()

    def join(self):
        if self.socket and self.state == "joins again":
            self.state = "joining"
            self.send(b"join:%s\n" % self.room_name())

    def take(self, data, now):
        data = self.part + data
        count = data.count(b"\n")
        if self.state == "run" and data.count(b"ok:") == count == data.count(b":"):
            self.part = data[data.rindex(b"\n") + 1:] if count else data
            self.reply(OK, count, now)
        else:
            lines = data.split(b"\n")
            self.part = lines.pop()
            for line in lines:
                self.line(line, now)
        if self.socket:
            self.pump()

    def reply(self, outcome, count, now):
        if not count:
            return
        first, last = self.next_reply, self.next_reply + count
        if self.quitting and last == len(self.outcome) + 1:
            last -= 1  # the reply to quit
        if last > len(self.outcome):
            self.worker.complaints.append(f"{self.name} got a reply for nothing")
            return
        self.outcome[first:last] = bytes([outcome]) * (last - first)
        self.answered[first:last] = array.array("d", [now]) * (last - first)
        self.next_reply = last
        if outcome == OK:
            if last > first:
                self.fresh = self.sent[last - 1]
            self.idle_until = None
        else:
            self.worker.errs += count
            self.idle_until = now + TRICKLE  # and then one by one until a text gets ok

    def line(self, line, now):
        ok = line.startswith(b"ok:")
        if not ok and not line.startswith(b"err:"):
            self.worker.complaints.append(f"{self.name} got {line[:80]!r}")
        if not ok:
            self.worker.reasons[line] += 1
        if self.state == "login":
            if ok:
                self.state = "joining"
        elif self.state == "joining":
            if ok:
                self.state = "run"
                self.joined = True
                self.stayed = 0
            else:
                self.worker.errs += 1
                self.state = "joins again"
                self.later(RETRY, self.join)
        elif self.state == "run":
            self.reply(OK if ok else ERR, 1, now)

    def pump(self):
        """Sends as much as it may now."""
        if self.state != "run" or self.quitting:
            return
        worker = self.worker
        now = time.monotonic()
        pending = len(self.outcome) - self.next_reply
        if worker.task >= SENDERS_LEAVE:
            if not pending:
                self.quitting = True
                self.send(b"quit:\n")
            return
        if self.stay and self.stayed >= self.stay:
            if not pending:
                self.room = (self.room + 1) % len(self.rooms)
                self.state = "joining"
                self.send(b"join:%s\n" % self.room_name())
            return
        slow = self.idle_until is not None or worker.task == LAST or worker.sent >= worker.limit
        window = 1 if slow else self.window
        if slow:
            if pending or self.trickles:
                return
            self.trickles = True
            self.later(TRICKLE, self.after_trickle)
        elif pending > window // 2:
            return
        count = window - pending
        if self.stay:
            count = min(count, self.stay - self.stayed)
            self.stayed += count
        first = len(self.outcome)
        room = self.rooms[self.room]
        lines = []
        for number in range(first, first + count):
            to = worker.plan.addressee(number, room) if number % 7 == 3 else None
            lines.append(b"sendall:%s\n" % payload(number) if to is None
                         else b"senduser:%s:%s\n" % (to.encode(), payload(number)))
        self.sent.extend(array.array("d", [now]) * count)
        self.answered.extend(array.array("d", [0.0]) * count)
        self.outcome.extend(bytes(count))
        self.where.extend(array.array("i", [room]) * count)
        self.on.extend(array.array("i", [self.connection]) * count)
        worker.sent += count
        self.send(b"".join(lines))

    def after_trickle(self):
        self.trickles = False
        if self.socket:
            self.pump()

    def ended(self, now):
        if self.quitting and self.next_reply == len(self.outcome):
            self.gone = True
            return
        self.quitting = False
        if self.joined:
            self.worker.cut_senders += 1
        self.joined = False
        self.state = "away"
        self.later(RETRY, self.connect)

    def ready(self, since):
        return self.gone or self.fresh >= since

    def result(self):
        self.sent, self.answered = self.sent.tobytes(), self.answered.tobytes()
        return (self.name, self.sent, self.answered, bytes(self.outcome), self.where.tobytes(), self.on.tobytes())


class Receiver(Client):
    def __init__(self, worker, who, name, room, server, habit):
        super().__init__(worker, server)
        self.who, self.name, self.room, self.home, self.habit = who, name, room, room, habit
        self.joined = False
        self.connections = []
        self.random = random.Random(who)
        self.quitting = False

    def connected(self):
        self.head = b""
        self.joined = self.quitting = False
        self.chunks, self.marks, self.lines = [], [], 0
        now = time.monotonic()
        self.commands = [(now, "login", None), (now, "join", self.worker.plan.rooms[self.room])]
        self.send(b"rlogin:%s\njoin:%s\n" % (self.name.encode(), self.worker.plan.rooms[self.room].encode()))

    def take(self, data, now):
        self.chunks.append(data)
        lines = data.count(b"\n")
        if lines:
            self.lines += lines
            self.marks.append((self.lines, now))
        if not self.joined:
            self.head += data
            replies = self.head.split(b"\n", 2)
            if len(replies) == 3 and replies[0].startswith(b"ok:") and replies[1].startswith(b"ok:"):
                self.joined = True
                self.head = b""
                if self.worker.task >= RECEIVERS_LEAVE:
                    self.leave()
                elif self.habit != "stays":
                    connection = self.socket
                    self.later(self.random.uniform(*self.worker.plan.pause), lambda: self.wander(connection))

    def wander(self, connection):
        if self.socket is not connection or not self.joined or self.quitting or self.worker.task >= LAST:
            return
        if self.habit == "moves":
            rooms = self.worker.plan.rooms
            self.room = self.home if self.room != self.home else (self.home + 1) % len(rooms)
            self.commands.append((time.monotonic(), "join", rooms[self.room]))
            self.send(b"join:%s\n" % rooms[self.room].encode())
            self.later(self.random.uniform(*self.worker.plan.pause), lambda: self.wander(connection))
        elif self.worker.plan.ends and self.random.random() < 0.5:
            # Nobody is cut here, so the server's end is its answer to this one.
            self.quitting = True
            self.commands.append((time.monotonic(), "end", None))
            self.socket.shutdown(socket.SHUT_WR)
        else:
            self.leave()

    def leave(self):
        self.quitting = True
        self.commands.append((time.monotonic(), "quit", None))
        self.send(b"quit:\n")

    def ended(self, now):
        data = b"".join(self.chunks)
        if data:
            self.connections.append(Connection(self.who, self.name, self.commands, data, self.marks, now))
        left = self.quitting and (self.commands[-1][1] == "end" or
                                  data[data.rfind(b"\n", 0, -1) + 1:].startswith(b"ok:"))
        if self.joined and not left:
            self.worker.cut_rooms.append(None if self.habit == "moves" else self.worker.plan.rooms[self.room])
        self.joined = False
        self.chunks = self.marks = None
        if self.worker.task >= RECEIVERS_LEAVE:
            self.gone = True
            return
        if self.habit in ("roams", "moves"):
            self.server = (self.server + 1) % len(self.worker.ports)
        if self.habit == "moves":
            self.room = self.home
        self.later(RETRY, self.connect)


class Worker:
    def __init__(self, number, plan, ports, shared, file):
        self.number, self.plan, self.ports, self.shared, self.file = number, plan, ports, shared, file
        self.epoll = select.epoll()
        self.clients = {}
        self.timers = []
        self.timer_count = 0
        self.sent = self.errs = self.cut_senders = 0
        self.cut_rooms = []  # of receivers; None for those that move: they may be between two
        self.reasons = collections.Counter()  # what err said to senders
        self.complaints = []
        self.task = TALK
        self.limit = 0
        mine = lambda items: [(i, item) for i, item in enumerate(items) if i % shared.workers == number]
        self.receivers = [Receiver(self, *item) for _, item in mine(plan.receivers)]
        self.senders = [Sender(self, i, *item) for i, item in mine(plan.senders)]

    def at(self, when, function):
        self.timer_count += 1
        heapq.heappush(self.timers, (when, self.timer_count, function))

    def run(self):
        for client in self.receivers + self.senders:
            client.connect()
        reported = 0.0
        while self.task < RECEIVERS_LEAVE or not all(receiver.gone for receiver in self.receivers):
            now = time.monotonic()
            pause = 0.01
            if self.timers:
                pause = min(pause, max(0.0, self.timers[0][0] - now))
            for descriptor, event in self.epoll.poll(pause):
                client = self.clients.get(descriptor)
                if client:
                    client.on_event(event)
            now = time.monotonic()
            while self.timers and self.timers[0][0] <= now:
                heapq.heappop(self.timers)[2]()
            task, limit = self.shared.task, self.shared.all[2]
            if task != self.task or limit != self.limit:
                self.task, self.limit = task, limit
                for sender in self.senders:
                    if sender.socket:
                        sender.pump()
                if task == RECEIVERS_LEAVE:
                    for receiver in self.receivers:
                        if receiver.socket and receiver.joined and not receiver.quitting:
                            receiver.leave()
                        elif not receiver.socket:
                            receiver.gone = True
            if now - reported > 0.01 or task == RECEIVERS_LEAVE:
                reported = now
                self.report()
            if task == RECEIVERS_LEAVE and self.shared.all[3]:  # the main process has lost its patience
                break
        self.report()
        with open(self.file, "wb") as file:
            pickle.dump({"senders": [sender.result() for sender in self.senders],
                         "connections": [connection for receiver in self.receivers for connection in
                                         receiver.connections],
                         "complaints": self.complaints, "cut_senders": self.cut_senders,
                         "cut_rooms": self.cut_rooms, "reasons": self.reasons}, file, pickle.HIGHEST_PROTOCOL)

    def report(self):
        tell = lambda what, value: self.shared.mine(self.number, what, value)
        since = self.shared.since
        tell(SENT, self.sent)
        tell(ERRS, self.errs)
        tell(CUTS, self.cut_senders + len(self.cut_rooms))
        tell(FRESH, sum(sender.ready(since) for sender in self.senders))
        tell(JOINED, sum(receiver.joined for receiver in self.receivers))
        tell(SENDERS_GONE, sum(sender.gone for sender in self.senders))
        tell(RECEIVERS_GONE, sum(receiver.gone for receiver in self.receivers))


def work(number, plan, ports, shared, file):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    Worker(number, plan, ports, shared, file).run()


def texts_of(plan, result):
    """Returns the texts of all senders in a worker's result, by room."""
    rooms = {}
    for name, sent, answered, outcome, where, on in result["senders"]:
        sent, answered = array.array("d", sent), array.array("d", answered)
        where, on = array.array("i", where), array.array("i", on)
        prefix = name.encode() + b":"
        for number, room in enumerate(where):
            rooms.setdefault(room, []).append(Text(prefix + payload(number), name, plan.addressee(number, room),
                                                   on[number], number, sent[number], outcome[number],
                                                   answered[number]))
    return rooms
