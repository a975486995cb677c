# SPDX-License-Identifier: BSL-1.0
"""Redis, servers and relays between them as child processes. Only these are stopped, by their process ids."""
import contextlib
import multiprocessing
import os
import random
import selectors
import signal
import socket
import tempfile
import time

import three_servers

PATIENCE = 120  # seconds; only a hang lasts longer


class Stuck(Exception):
    pass


def wait_for(condition, what, seconds=PATIENCE):
    """Waits until the condition holds, and returns its value."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > limit:
            raise Stuck(f"waited {seconds} s for {what}")
        time.sleep(0.005)
    return value


def free_port():
    """Returns a free port below those that systems give to clients: one of these could take it during a restart."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with contextlib.closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Process:
    """A child process that can be killed, started again and stopped for a while."""

    def __init__(self, command, port, log):
        self.command, self.port, self.log = command, port, log
        self.child = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.child = three_servers.start(*self.command, stdout=log, stderr=log)
        wait_for(lambda: self.child.poll() is not None or answers(self.port), f"{self.command[0]} to listen")
        if self.child.poll() is not None:
            with open(self.log, errors="replace") as log:
                raise Stuck(f"{' '.join(self.command)} ended with code {self.child.returncode}: {log.read()[-2000:]}")

    def died(self):
        return self.child.poll() is not None

    def kill(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()

    def pause(self):
        self.child.send_signal(signal.SIGSTOP)
        # The signal takes effect a little later; a test of its effects must not begin before.
        os.waitid(os.P_PID, self.child.pid, os.WSTOPPED | os.WNOWAIT)

    def restart(self):
        self.start()

    def resume(self):
        self.child.send_signal(signal.SIGCONT)

    def cpu(self):
        """Returns the CPU seconds that it has used."""
        with open(f"/proc/{self.child.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Returns the bytes of memory that it uses (RSS)."""
        with open(f"/proc/{self.child.pid}/statm") as pages:
            return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Redis(Process):
    def __init__(self, folder, number, append_only=False, program="redis-server"):
        port = free_port()
        self.folder = os.path.join(folder, f"redis{number}")
        os.mkdir(self.folder)
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", "",
                   "--appendonly", "yes" if append_only else "no", "--daemonize", "no"]
        super().__init__(command, port, os.path.join(folder, f"redis{number}.log"))
        self.until_ready()

    def until_ready(self):
        def ready():
            try:
                return self.ask("PING") == b"PONG"
            except (OSError, RuntimeError):  # not there yet, or it still loads its data
                return False
        wait_for(ready, "Redis to answer")

    def restart(self):
        super().restart()
        self.until_ready()

    def ask(self, *command):
        return self.ask_all([command])[0]

    def ask_all(self, commands):
        """Sends all commands at once, and returns their replies."""
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.port), PATIENCE)) as connection:
            words = [[word if isinstance(word, bytes) else str(word).encode() for word in command]
                     for command in commands]
            connection.sendall(b"".join(b"*%d\r\n" % len(command) + b"".join(
                b"$%d\r\n%s\r\n" % (len(word), word) for word in command) for command in words))
            with connection.makefile("rb") as stream:
                return [read_reply(stream) for _ in commands]

    def keys(self, kind):
        """Returns the names of all keys of this type."""
        found, cursor = [], b"0"
        while True:
            cursor, keys = self.ask("SCAN", cursor, "COUNT", 10000, "TYPE", kind)
            found += keys
            if cursor == b"0":
                return found

    def connections(self, kind):
        """Returns how many connections of this type there are, without the one that asks."""
        lines = self.ask("CLIENT", "LIST", "TYPE", kind).split(b"\n")
        return sum(line != b"" and b" cmd=client|list " not in line for line in lines)

    def kill_connections(self, *kinds):
        return sum(self.ask_all([("CLIENT", "KILL", "TYPE", kind) for kind in kinds]))


def read_reply(stream):
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("Redis has closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RuntimeError(rest.decode(errors="replace"))
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return None if rest == b"-1" else [read_reply(stream) for _ in range(int(rest))]
    return rest


# What a relay does with each direction: 1 (to Redis), 2 (to the server).
TO_REDIS, TO_SERVER, BOTH = 1, 2, 3


class Relay:
    """A TCP relay in a process of its own, between one server and one Redis.

    What is held waits, as the segments do that a broken network loses: TCP sends them again. So nothing is missing on a
    connection that has survived, and what was written before an end of a connection may come late, after a newer
    connection has come. New connections wait as well. A relay can also forget the connections that it had while it held
    them, as a router does that was restarted: then what was held is gone, and both ends get a reset.
    """

    def __init__(self, target, buffer=None):
        self.port = free_port()
        self.held = multiprocessing.Value("i", 0, lock=False)
        self.forget = multiprocessing.Value("i", 0, lock=False)
        self.jitter = multiprocessing.Value("i", 0, lock=False)  # most milliseconds that anything is late
        self.lag = multiprocessing.Value("i", 0, lock=False)  # and that published messages are late
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(100)
        self.process = multiprocessing.get_context("fork").Process(target=self.run, args=(target, buffer),
                                                                      daemon=True)
        self.process.start()
        self.listener.close()

    def close(self):
        self.process.kill()
        self.process.join()

    def run(self, target, buffer):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        # socket: [other, bytes to write to the other, direction, has this one ended, is the end passed on, late until,
        # does it bring published messages]
        pipes = {}
        dice = random.Random(self.port)
        self.listener.setblocking(False)
        while True:
            held = self.held.value
            if self.forget.value:
                for end in pipes:
                    selector.unregister(end)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    end.close()
                pipes.clear()
                self.forget.value = 0
            if not held:
                with contextlib.suppress(BlockingIOError):
                    near, _ = self.listener.accept()
                    far = socket.socket()
                    if buffer:
                        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                    try:
                        far.connect(("127.0.0.1", target))
                    except OSError:
                        near.close()
                        far.close()
                    else:
                        pipes[near] = [far, bytearray(), TO_REDIS, False, False, 0.0, False]
                        pipes[far] = [near, bytearray(), TO_SERVER, False, False, 0.0, False]
                        for end in near, far:
                            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                            end.setblocking(False)
                            selector.register(end, selectors.EVENT_READ)
            dead = set()
            now = time.monotonic()
            for end, pipe in pipes.items():
                other, waiting, direction, ended, passed_on, late, _ = pipe
                if held & direction or late and now < late:
                    continue
                if self.jitter.value and dice.random() < 0.05:
                    pipe[5] = now + dice.uniform(0.0, self.jitter.value / 1000)
                    continue
                try:
                    if not ended and len(waiting) < 1 << 20:
                        with contextlib.suppress(BlockingIOError):
                            data = end.recv(1 << 18)
                            waiting += data
                            pipe[3] = not data
                            if direction == TO_REDIS and b"SUBSCRIBE" in data:
                                pipes[other][6] = True
                            if self.lag.value and pipe[6]:
                                pipe[5] = now + dice.uniform(0.0, self.lag.value / 1000)
                                continue
                    if waiting:
                        with contextlib.suppress(BlockingIOError):
                            del waiting[:other.send(waiting)]
                    if pipe[3] and not waiting and not passed_on:
                        other.shutdown(socket.SHUT_WR)
                        pipe[4] = True
                except OSError:
                    dead |= {end, other}
                if pipe[4] and pipes[other][4]:
                    dead |= {end, other}
            for end in dead:
                selector.unregister(end)
                end.close()
                del pipes[end]
            # A held or ended socket stays readable, so there is a pause at least.
            busy = held or self.jitter.value or self.lag.value or any(pipe[1] or pipe[3] for pipe in pipes.values())
            if busy:
                time.sleep(0.001)
            else:
                selector.select(0.01)


class Cluster:
    """Servers, and the Redis servers between them. As a context, it ends them all."""

    def __init__(self, server, servers=3, redis=1, append_only=False, policy="pool", arguments=(), relayed=(),
                 relay_buffer=None):
        self.folder = tempfile.mkdtemp(prefix="chat_cluster_")
        self.processes, self.relays, self.redis, self.servers = [], [], [], []
        self.relay_of = {}
        try:
            for number in range(redis):
                self.redis.append(Redis(self.folder, number, append_only))
                self.processes.append(self.redis[-1])
            for number in range(servers):
                addresses = [engine.port for engine in self.redis]
                if number in relayed:
                    self.relay_of[number] = [Relay(port, relay_buffer) for port in addresses]
                    self.relays += self.relay_of[number]
                    addresses = [relay.port for relay in self.relay_of[number]]
                port = free_port()
                # The clients come from this machine: they are not limited by address. A harness that is late because
                # the machine is busy must not be cut for that.
                command = [server, str(port), "--policy", policy, "--queue-limit", "1000000000",
                           "--write-deadline", "600", "--log", "info", *arguments]
                if addresses:
                    command += ["--redis", ",".join(f"127.0.0.1:{port}" for port in addresses)]
                self.servers.append(Process(command, port, os.path.join(self.folder, f"server{number}.log")))
                self.processes.append(self.servers[-1])
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for relay in self.relays:
            relay.close()
        for process in reversed(self.processes):
            process.kill()

    def crashed(self):
        return any(process.child.poll() not in (None, -signal.SIGKILL) for process in self.processes)

    def unexpected_deaths(self):
        return [f"{process.command[0]} on port {process.port} has ended with code {process.child.returncode}"
                for process in self.processes if process.died()]

    def complaints(self):
        """Returns what assertions and sanitizers have said in the servers' logs."""
        found = []
        for process in self.processes:
            with open(process.log, errors="replace") as log:
                found += [f"{process.log}: {line.strip()}" for line in log
                          if "Sanitizer" in line or "runtime error:" in line or "Assertion" in line]
        return found
