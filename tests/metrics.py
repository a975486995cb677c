# SPDX-License-Identifier: BSL-1.0
"""metrics.py SERVER: compares the server's metrics, read with Prometheus' own parser, with what the clients did."""
import contextlib
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

try:
    from prometheus_client.parser import text_string_to_metric_families
except ImportError:
    if os.path.exists("/usr/bin/python3") and "again" not in sys.argv:  # it has the system's packages
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv, "again"])
    print("metrics: skipped: there is no prometheus_client (Debian: python3-prometheus-client)")
    sys.exit(77)

server_program = sys.argv[1]
REASONS = ["closed", "lost", "login_deadline", "write_deadline", "overflow", "failed", "aborted", "memory",
           "handshake", "refused", "banned", "room_lost"]
REFUSALS = ["full", "too_many", "too_fast", "banned"]
TYPES = dict.fromkeys(
    ["accepted", "ended", "refused", "accept_errors", "lines_in", "bytes_in", "bytes_out", "throttled",
     "observer_failures", "texts", "deliveries", "log_dropped"], "counter")
TYPES.update(dict.fromkeys(["clients", "queued_bytes", "held_bytes", "history_bytes", "rooms"], "gauge"))
REDIS_TYPES = dict.fromkeys(
    ["appended", "refused", "unknown", "delivered", "gaps_closed", "rooms_lost"], "counter")
REDIS_TYPES.update(dict.fromkeys(["connected", "silence_seconds", "under_way"], "gauge"))


def read_all(client):
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data


class Server:
    """A server that is stopped, and must end in order, at the end of its `with` block."""
    compared = None

    def __init__(self, *flags, **popen):
        self.flags, self.popen = flags, popen

    def __enter__(self):
        self.process = subprocess.Popen([server_program, "0", "--metrics", "0", *self.flags],
                                        stderr=subprocess.PIPE, **self.popen)
        self.port, self.metrics_port = (int(self.process.stderr.readline().split()[-1]) for _ in range(2))
        return self

    def __exit__(self, error, *_):
        if error:
            self.process.kill()
        self.process.send_signal(signal.SIGTERM)
        rest = self.process.stderr.read()
        assert self.process.wait() == 0 or error
        assert rest == b"" or error, rest

    def connect(self, port=None):
        return socket.create_connection(("127.0.0.1", port or self.port), timeout=60)

    def ask(self, request, shut=False):
        """Returns the reply to these bytes: status line, fields, body. It must end in order."""
        with self.connect(self.metrics_port) as client:
            client.sendall(request)
            if shut:
                client.shutdown(socket.SHUT_WR)
            head, _, body = read_all(client).partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines)
        assert fields["connection"] == "close"
        if not request.lstrip().startswith(b"HEAD"):
            assert int(fields["content-length"]) == len(body), (fields, body)
        return status, fields, body

    def scrape(self):
        status, fields, body = self.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status == "HTTP/1.1 200 OK"
        assert fields["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        figures = {}
        for family in text_string_to_metric_families(body.decode()):
            assert family.documentation and family.type == TYPES[family.name.removeprefix("chatproto_")], family
            for sample in family.samples:
                name = sample.name.removeprefix("chatproto_")
                if family.name == "chatproto_refused":
                    name = "refused_" + sample.labels["reason"]
                figures[sample.labels["reason"] if family.name == "chatproto_ended" else name] = int(sample.value)
        names = [name + ("_total" if kind == "counter" else "") for name, kind in TYPES.items()
                 if name not in ("ended", "refused")]
        assert sorted(figures) == sorted(names + REASONS + ["refused_" + reason for reason in REFUSALS]), figures
        return figures

    def await_figures(self, **expected):
        """Waits for these figures; others must be 0, except held_bytes: a room keeps some memory for its log."""
        while True:
            figures = {name: value for name, value in self.scrape().items() if value != 0 and name != "held_bytes"}
            if figures == {name: value for name, value in expected.items() if value != 0}:
                return
            Server.compared = (figures, expected)
            time.sleep(0.02)


class Client:
    def __init__(self, server):
        self.socket = server.connect()
        self.file = self.socket.makefile("rwb")
        self.sent = self.got = 0

    def say(self, *lines):
        data = "".join(line + "\n" for line in lines).encode()
        self.file.write(data)
        self.file.flush()
        self.sent += len(data)

    def hear(self, count=1):
        lines = [self.file.readline() for _ in range(count)]
        self.got += sum(map(len, lines))
        return lines

    def ask(self, *lines):
        self.say(*lines)
        answers = self.hear(len(lines))
        assert all(answer.startswith(b"ok:") for answer in answers), answers

    def close(self):
        self.file.close()
        self.socket.close()


def conversation():
    with Server("--max-clients", "3", "--log", "off") as server:
        server.await_figures()
        alice, dave, bob = clients = [Client(server) for _ in range(3)]
        alice.ask("rlogin:alice", "join:cafe")
        dave.ask("rlogin:dave", "join:cafe")
        bob.ask("slogin:bob", "join:cafe", "sendall:hello", "sendall:again")
        for receiver in alice, dave:
            receiver.hear(2)
        traffic = lambda: {"bytes_in_total": sum(c.sent for c in clients),
                           "bytes_out_total": sum(c.got for c in clients)}
        server.await_figures(clients=3, accepted_total=3, lines_in_total=8, rooms=1, texts_total=2, deliveries_total=4,
                             **traffic())
        with server.connect() as fourth:
            assert read_all(fourth).startswith(b"err:")
        server.await_figures(clients=3, accepted_total=3, lines_in_total=8, rooms=1, texts_total=2, deliveries_total=4,
                             refused_full=1, **traffic())
        bob.ask("senduser:alice:psst")
        alice.hear()
        for client in clients:
            client.ask("quit:")
            client.close()
        server.await_figures(closed=3, accepted_total=3, lines_in_total=12, texts_total=3, deliveries_total=5,
                             refused_full=1, **traffic())


def other_reasons():
    with Server("--login-deadline", "1", "--rate", "100", "--rate-burst", "1") as server:
        with server.connect() as silent:
            assert read_all(silent) == b""
        server.await_figures(accepted_total=1, login_deadline=1)
        reset = Client(server)
        reset.ask("slogin:bob")
        reset.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.close()
        while server.scrape()["lost"] != 1:
            pass
        fast = Client(server)
        fast.ask("slogin:bob", "join:cafe", "sendall:1", "sendall:2", "quit:")
        fast.close()
        figures = server.scrape()
        assert figures["throttled_total"] > 0 and figures["texts_total"] == 2, figures


def log_dropped():
    """Log lines that cannot be written are counted, and reported nowhere else."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    server = Server()
    server.port, server.metrics_port = ports
    process = subprocess.Popen([server_program, str(ports[0]), "--metrics", str(ports[1]), "--log", "info"],
                               preexec_fn=lambda: os.close(2))
    try:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                client = Client(server)
                break
            assert process.poll() is None
            time.sleep(0.02)
        client.ask("slogin:bob", "quit:")
        assert client.file.read() == b""
        client.close()
        # started, connected, logged_in, ended
        server.await_figures(accepted_total=1, closed=1, lines_in_total=2, log_dropped_total=4,
                             bytes_in_total=client.sent, bytes_out_total=client.got)
    finally:
        process.terminate()
        assert process.wait() == 0


def with_redis():
    """Each Redis has its figures. These two are not there."""
    with socket.socket() as taken:  # nobody can listen there
        taken.bind(("127.0.0.1", 0))
        names = [f"{host}:{taken.getsockname()[1]}" for host in ("127.0.0.1", "[::1]")]
        flags = ["--redis", ",".join(names)]
        refused = subprocess.run([server_program, "--check", *flags], capture_output=True, text=True).stderr
        if "without which" in refused:
            print("skipped: the server has no Redis")
            return
        with Server(*flags) as server:
            body = server.ask(b"GET /metrics HTTP/1.1\r\n\r\n")[2].decode()
            found = {}
            for family in text_string_to_metric_families(body):
                if family.name.startswith("chatproto_redis_"):
                    name = family.name.removeprefix("chatproto_redis_")
                    assert family.documentation and family.type == REDIS_TYPES.pop(name), family
                    found[name] = {sample.labels["redis"]: sample.value for sample in family.samples}
            assert not REDIS_TYPES, REDIS_TYPES
            expected = {name: dict.fromkeys(names, 0) for name in found}
            expected["silence_seconds"] = dict.fromkeys(names, float("inf"))
            assert found == expected, found


def requests(server):
    get = b"GET /metrics HTTP/1.1\r\n\r\n"
    length = server.ask(get)[1]["content-length"]
    for request in [
            b"GET /metrics HTTP/1.0\r\n\r\n", b"GET /metrics HTTP/1.1\n\n", b"\r\n\r\n" + get, get + get,
            b"GET /metrics?name=x HTTP/1.1\r\n\r\n", get + b"x" * 100000,
            b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100000 + b"\r\n\r\n",
            b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10000 + b"\r\n"]:
        assert server.ask(request)[0] == "HTTP/1.1 200 OK", request[:99]
    assert server.ask(get, shut=True)[0] == "HTTP/1.1 200 OK"
    status, fields, body = server.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert status == "HTTP/1.1 200 OK" and fields["content-length"] == length and body == b""
    for request, status in [
            (b"GET / HTTP/1.1\r\n\r\n", "404 Not Found"), (b"GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"GET /metrics\0 HTTP/1.1\r\n\r\n", "404 Not Found"), (b"HEAD /x HTTP/1.1\r\n\r\n", "404 Not Found"),
            (b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + b"x\n" * 500000, "405 Method Not Allowed"),
            (b"get /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
            (b"GET /metrics\r\n", "400 Bad Request"), (b"GET  HTTP/2.0\r\n", "400 Bad Request"),
            (b"slogin:bob\n", "400 Bad Request"), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400 Bad Request"),
            (b"\x16\x03\x01\x00\xa5\x01\x00\n", "400 Bad Request"), (b"x" * 100000 + b"\n", "414 URI Too Long"),
            (b"GET /" + b"x" * 10000 + b" HTTP/1.1\r\n\r\n", "414 URI Too Long"), (b"\0" * 9000, "414 URI Too Long")]:
        answer, fields, _ = server.ask(request)
        assert answer == "HTTP/1.1 " + status, (request[:99], answer)
        assert (fields.get("allow") == "get, head") == status.startswith("405")
    with server.connect(server.metrics_port) as client:  # byte by byte
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in get:
            client.sendall(bytes([byte]))
        assert read_all(client).startswith(b"HTTP/1.1 200 OK\r\n")


FULL = b"err:server full\n"


def garbage(server):
    dice = random.Random(1)
    for _ in range(200):
        with server.connect(server.metrics_port) as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(dice.randbytes(dice.choice([0, 1, 10, 1000, 20000])))
                if dice.random() < 0.5:
                    client.shutdown(socket.SHUT_WR)
                    answer = read_all(client)
                    assert answer in (b"", FULL) or answer.startswith(b"HTTP/1.1 4"), answer
    for _ in range(200):
        with server.connect(server.metrics_port) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n"[:dice.randrange(26)])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    answer = FULL
    while answer == FULL:  # while the server still holds some of those connections
        with server.connect(server.metrics_port) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 200"), answer


def slow_clients():
    """Scrapes are answered however many clients send nothing or half a request, or do not close after the answer."""
    with Server() as server, contextlib.ExitStack() as slow:
        for i in range(60):
            client = slow.enter_context(server.connect(server.metrics_port))
            client.sendall([b"", b"GET /metrics HTTP/1.1\r\nX: ", b"GET /metrics HTTP/1.1\r\n\r\n"][i % 3])
            server.scrape()


def under_load():
    """Counters only grow, scrapes slow no client down for good, and the last figures are right."""
    with Server() as server:
        failures, done = [], threading.Event()

        def ask_often():
            try:
                before = server.scrape()
                while not done.is_set():
                    now = server.scrape()
                    gauges = ["clients", "queued_bytes", "held_bytes", "rooms"]
                    assert all(now[name] >= before[name] for name in now if name not in gauges), (before, now)
                    before = now
            except BaseException as failure:  # reported by the main thread
                failures.append(failure)

        threads = [threading.Thread(target=ask_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        receivers = [Client(server) for _ in range(3)]
        for receiver in receivers:
            receiver.ask("rlogin:alice", "join:cafe")
        bob = Client(server)
        bob.ask("slogin:bob", "join:cafe")
        for i in range(100):
            bob.ask(*(f"sendall:{i}.{j}" for j in range(100)))
            for receiver in receivers:
                assert [line.rsplit(b":")[-1] for line in receiver.hear(100)] == \
                    [b"%d.%d\n" % (i, j) for j in range(100)]
        done.set()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        server.await_figures(
            clients=4, accepted_total=4, lines_in_total=10008, rooms=1, texts_total=10000, deliveries_total=30000,
            bytes_in_total=bob.sent + sum(r.sent for r in receivers),
            bytes_out_total=bob.got + sum(r.got for r in receivers))


def waited_in_vain(*_):
    raise TimeoutError(f"is and should be: {Server.compared}")


def main():
    signal.signal(signal.SIGALRM, waited_in_vain)
    signal.alarm(250)
    with Server() as server:
        silent = server.connect(server.metrics_port)
        requests(server)
        garbage(server)
        if shutil.which("promtool"):
            body = server.ask(b"GET /metrics HTTP/1.1\r\n\r\n")[2]
            subprocess.run(["promtool", "check", "metrics"], input=body, check=True)
        bob = Client(server)
        bob.ask("slogin:bob", "quit:")
        bob.close()
        server.await_figures(accepted_total=1, closed=1, lines_in_total=2, bytes_in_total=bob.sent,
                             bytes_out_total=bob.got)
        assert read_all(silent) == b""  # closed at its deadline
        silent.close()
        silent = server.connect(server.metrics_port)  # the server must not wait for this one at its end
    conversation()
    other_reasons()
    log_dropped()
    with_redis()
    slow_clients()
    under_load()


main()
