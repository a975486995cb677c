# SPDX-License-Identifier: BSL-1.0
"""service_manager.py SERVER: plays a service manager (systemd) for the server: opens its sockets, gets its
notifications, and restarts it while clients connect. Also tries systemd-socket-activate, if that is installed."""
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

SERVER = os.path.abspath(sys.argv[1])
PATIENCE = 120  # seconds, after which something has gone wrong; nothing is expected to take long
running = []
CERTIFICATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "certificates.sh")


def check(right, what):
    if not right:
        raise AssertionError(what)


def listener():
    """Returns a TCP socket that listens on a free port, as a service manager opens it."""
    opened = socket.create_server(("127.0.0.1", 0), backlog=4096)
    opened.settimeout(PATIENCE)
    return opened


def command(sockets, names, *arguments):
    """Returns a command that starts the server with these sockets as its descriptors 3, 4..."""
    moves = " ".join(f"{3 + i}<&{s.fileno()}" for i, s in enumerate(sockets))
    names = "" if names is None else f"LISTEN_FDNAMES='{names}'"
    script = f'exec {moves}; LISTEN_PID=$$ LISTEN_FDS={len(sockets)} {names} exec "$@"' if sockets else 'exec "$@"'
    return ["sh", "-c", script, "sh", SERVER, *arguments]


def run(*arguments, sockets=(), names=None, **environment):
    """Runs a server that is to end by itself. Returns its exit code, stdout and stderr."""
    ended = subprocess.run(command(sockets, names, *arguments), env={**os.environ, **environment}, text=True,
                           pass_fds=[s.fileno() for s in sockets], capture_output=True, timeout=PATIENCE)
    return ended.returncode, ended.stdout, ended.stderr


class Server:
    """A server that is notified of by `where`, a path or '@' and a name."""

    def __init__(self, where, sockets, *arguments, names="plain"):
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.settimeout(PATIENCE)
        self.notifications.bind(where.replace("@", "\0"))
        self.process = subprocess.Popen(command(sockets, names, *arguments), pass_fds=[s.fileno() for s in sockets],
                                        env={**os.environ, "NOTIFY_SOCKET": where})
        running.append(self.process)
        self.status = self.told("READY")["STATUS"]

    def told(self, *states):
        """Awaits the next notification, which must be of these states. Returns its fields."""
        fields = dict(line.split("=", 1) for line in self.notifications.recv(4096).decode().split("\n"))
        check(all(fields.get(state) == "1" for state in states), f"{states} expected, not {fields}")
        return fields

    def stop(self):
        """Begins to stop. When this returns, no more client is accepted."""
        self.process.send_signal(signal.SIGTERM)
        return self.told("STOPPING")

    def ends(self):
        code = self.process.wait(PATIENCE)
        running.remove(self.process)
        check(code == 0, f"the server has ended with exit code {code}")
        self.notifications.setblocking(False)
        try:
            check(False, f"after its end: {self.notifications.recv(4096)}")
        except BlockingIOError:
            pass
        self.notifications.close()


class Client:
    """A client. Each line that it sends must be answered by ok."""

    def __init__(self, where):
        self.socket = socket.create_connection(where, PATIENCE)
        self.file = self.socket.makefile("rb")

    def encrypt(self, context):
        """From here on it uses TLS, and checks the server's certificate."""
        self.file.close()
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def send(self, *lines):
        self.socket.sendall(b"".join(line.encode() + b"\n" for line in lines))

    def answered(self, count=1):
        for _ in range(count):
            line = self.file.readline()
            check(line.startswith(b"ok:"), f"not ok, but {line}")

    def close(self):
        self.file.close()
        self.socket.close()


def has_tls():
    return "without TLS" not in run("--check", "--cert", "/dev/null", "--key", "/dev/null")[2]


def has_passwords():
    return "without which" not in run("--check", "--passwords", "/dev/null")[2]


def test_check(scratch):
    code, out, error = run("--check")
    check((code, out, error) == (0, "ok\n", ""), f"--check: {code}, {out}, {error}")
    with listener() as taken:  # it binds nothing
        code, out, error = run("--check", str(taken.getsockname()[1]), "--log", "info")
        check((code, out, error) == (0, "ok\n", ""), f"--check PORT: {code}, {out}, {error}")
    code, out, error = run("--check", "--cert", "/dev/null", "--key", "/dev/null")
    check(code == 1 and out == "" and "/dev/null" in error or "without TLS" in error, f"--check --cert: {error}")
    with open(scratch + "/bans", "w", encoding="ascii") as bans:
        bans.write("192.0.2.0/99\n")
    wrong = {flag: f"{scratch}/wrong{flag}" for flag in ("--cert", "--key", "--client-ca", "--passwords")}
    wrong["--ban"] = scratch + "/bans"
    for arguments in (["--check"], ["0"]):  # a server that is to serve reports the same
        code, out, error = run(*arguments, *(word for pair in wrong.items() for word in pair))
        check(code == 1 and out == "", f"every file is wrong: {code}, {out}")
        said = [wrong[flag] for flag in ("--cert", "--key", "--client-ca")] if has_tls() else ["without TLS"]
        said += [wrong["--passwords"] if has_passwords() else "without which", wrong["--ban"]]
        lines = error.splitlines()
        check(len(lines) == len(said) and all(line.startswith("server: ") and what in line
                                              for line, what in zip(lines, said)), f"not {said}, but {error}")
    code, out, error = run("--check", "--ban", scratch)
    check(code == 1 and out == "" and f"{scratch}: Is a directory" in error, f"--check --ban FOLDER: {out}, {error}")
    code, out, error = run("--check", "--rate", "fast")
    check(code == 1 and out == "" and "'fast'" in error, f"--check with a wrong argument: {code}, {out}, {error}")


def test_bad_values(scratch):
    with listener() as one, socket.socket() as deaf, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, \
            socket.socket(socket.AF_UNIX) as local, open("/dev/null") as file:
        deaf.bind(("127.0.0.1", 0))
        local.bind(scratch + "/local")
        local.listen()
        port = str(one.getsockname()[1])
        for arguments, sockets, names, environment, said in (
                ([], [], None, {}, "PORT is required"),
                ([], [], None, {"LISTEN_FDS": "1"}, "PORT is required"),
                ([], [], None, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, "PORT is required"),  # another process
                ([], [], None, {"LISTEN_PID": "me", "LISTEN_FDS": "1"}, "LISTEN_PID is 'me', not a number from 1 to"),
                ([port], [one], "plain", {}, "PORT cannot be given: the service manager has opened the sockets"),
                (["--address", "127.0.0.1"], [one], "plain", {}, "--address cannot be given"),
                ([], [one], "nonsense", {}, "calls a socket 'nonsense' (LISTEN_FDNAMES), neither"),
                ([], [one], "tls", {}, "a socket for TLS, which needs --cert and --key"),
                ([], [one], "secure-websocket", {}, "a socket for TLS, which needs --cert and --key"),
                (["--origin", "http://a"], [one], "plain", {}, "--origin needs --websocket or --secure-websocket"),
                (["--websocket", "0"], [one], "plain", {}, "--websocket cannot be given"),
                ([], [one], "", {}, "calls a socket '' (LISTEN_FDNAMES)"),
                ([], [one], "plain:plain", {}, "LISTEN_FDNAMES is 'plain:plain', but LISTEN_FDS is 1"),
                ([], [one, one], "plain", {}, "LISTEN_FDNAMES is 'plain', but LISTEN_FDS is 2"),
                ([], [deaf], None, {}, "descriptor 3 ('unknown', of LISTEN_FDS) is not a TCP socket that listens"),
                ([], [one, datagrams], None, {}, "descriptor 4 "),
                ([], [local], None, {}, "descriptor 3 "),
                ([], [file], None, {}, "descriptor 3 "),
                (["0"], [], None, {"NOTIFY_SOCKET": "here"}, "NOTIFY_SOCKET is 'here', neither a path"),
                (["0"], [], None, {"NOTIFY_SOCKET": "@"}, "NOTIFY_SOCKET is '@', neither a path"),
                (["0"], [], None, {"NOTIFY_SOCKET": "/" + 107 * "x"}, "or too long"),
                (["0"], [], None, {"NOTIFY_SOCKET": scratch + "/none"}, "cannot notify the service manager at")):
            code, out, error = run(*arguments, sockets=sockets, names=names, **environment)
            check(code == 1 and out == "" and said in error, f'not "{said}": {code}, {out}, {error}')
        for count in ("0", "-1", "101", "1x", ""):
            ended = subprocess.run(["sh", "-c", f"LISTEN_PID=$$ LISTEN_FDS='{count}' exec {SERVER}"], text=True,
                                   capture_output=True, timeout=PATIENCE)
            check(ended.returncode == 1 and f"LISTEN_FDS is '{count}', not a number" in ended.stderr, ended.stderr)


def test_notifications(scratch):
    for where in (scratch + "/notify", f"@chatproto-test-{os.getpid()}"):
        with listener() as one, listener() as two:
            server = Server(where, [one, two], "--drain", "50", names="plain:chat.socket")
            check(server.status == "listening on 2 sockets of the service manager", server.status)
            for at in (one, two):
                client = Client(at.getsockname())
                client.send("slogin:bob", "quit:")
                client.answered(2)
                client.close()
            for _ in range(2):
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                server.process.send_signal(signal.SIGHUP)
                at = int(server.told("RELOADING")["MONOTONIC_USEC"])
                check(before <= at <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, f"a wrong time: {at}")
                check(server.told("READY")["STATUS"] == server.status, "another status")
            may_take = int(server.stop()["EXTEND_TIMEOUT_USEC"])
            check(may_take > 50_000_000, f"it may take {may_take} us, less than its drain")
            server.ends()
    server = Server(scratch + "/port", [], "0", names=None)
    client = Client(("127.0.0.1", int(server.status.removeprefix("listening on port "))))
    client.send("slogin:bob")
    client.answered()
    client.close()
    server.stop()
    server.ends()


def test_restart(scratch):
    """Clients connect all through restarts. Each connection succeeds, and each login is answered."""
    one = listener()
    stop = threading.Event()
    failed = []
    logins = [0] * 8

    def connect(number):
        try:
            while not stop.is_set():
                client = Client(one.getsockname())
                client.send("slogin:bob" if number % 2 else "rlogin:bob")
                client.answered()
                client.close()
                logins[number] += 1
        except Exception as error:  # of any kind
            failed.append(error)

    clients = [threading.Thread(target=connect, args=[number], daemon=True) for number in range(len(logins))]
    for client in clients:
        client.start()
    for number, policy in enumerate(2 * ("pool", "strand", "thread-per-client")):
        server = Server(f"{scratch}/restart-{number}", [one], "--policy", policy, "--drain", "600")
        enough = [count + 20 for count in logins]
        while any(count < least for count, least in zip(logins, enough)) and not failed:
            time.sleep(0.01)
        server.stop()
        between = Client(one.getsockname())  # nobody accepts it
        between.send("slogin:eve")
        server.ends()
        last = Server(f"{scratch}/next-{number}", [one], "--drain", "600")
        between.answered()
        between.close()
        check(not failed, failed)
        last.stop()
        last.ends()
    last = Server(scratch + "/last", [one], "--drain", "600")
    stop.set()
    for client in clients:
        client.join(PATIENCE)
        check(not client.is_alive(), "a client waits for its answer")
    last.stop()
    last.ends()
    check(not failed, failed)
    one.close()
    print(f"{sum(logins)} logins")


def test_drain(scratch):
    """What was said before a stop is delivered; who connects meanwhile waits for the next server."""
    count = 20000
    text = 200 * "x"
    with listener() as one:
        server = Server(scratch + "/drained", [one], "--drain", "600", "--write-deadline", "600", "--queue-limit",
                        "100000000")
        alice, bob = Client(one.getsockname()), Client(one.getsockname())
        alice.send("rlogin:alice", "join:cafe")
        alice.answered(2)
        bob.send("slogin:bob", "join:cafe", *(f"sendall:{number} {text}" for number in range(count)))
        bob.answered(2 + count)
        server.stop()  # cannot end, because alice does not read
        waiting = [Client(one.getsockname()) for _ in range(10)]
        for client in waiting:
            client.send("slogin:carol")
        for number in range(count):
            line = alice.file.readline().decode()
            check(line == f"delivery:cafe:bob:{number} {text}\n", f"alice gets {line}")
        check(alice.file.read() == b"" and bob.file.read() == b"", "what else?")
        alice.close()
        bob.close()
        server.ends()
        server = Server(scratch + "/next", [one])
        for client in waiting:
            client.answered()
            client.close()
        server.stop()
        server.ends()


def test_tls(scratch):
    """A socket named tls is served with TLS, beside one that is not, or alone; also after a restart."""
    if not has_tls():
        print("skipped: the server has no TLS")
        return
    if subprocess.run(["sh", CERTIFICATES, scratch + "/certificates"], timeout=PATIENCE).returncode != 0:
        print("skipped: no openssl")
        return
    flags = [f"--{name}={scratch}/certificates/{name}.pem" for name in ("cert", "key")] + ["--drain", "600"]
    context = ssl.create_default_context(cafile=scratch + "/certificates/ca.pem")
    with listener() as one, listener() as two:
        for number, names in enumerate(("chatproto-server.socket:tls", "tls:plain", "tls")):
            sockets = [one, two][:len(names.split(":"))]
            tls = sockets[names.split(":").index("tls")]
            server = Server(f"{scratch}/tls-{number}", sockets, *flags, names=names)
            alice, bob = Client(tls.getsockname()), Client(sockets[0].getsockname())
            for client, at in ((alice, tls), (bob, sockets[0])):
                if at is tls:
                    client.encrypt(context)
            alice.send("rlogin:alice", "join:cafe")
            alice.answered(2)
            bob.send("slogin:bob", "join:cafe", "sendall:hello")
            bob.answered(3)
            line = alice.file.readline()
            check(line == b"delivery:cafe:bob:hello\n", f"alice gets {line}")
            unencrypted = Client(tls.getsockname())
            unencrypted.send("slogin:eve")
            try:
                check(b"ok:" not in unencrypted.file.read(), "served without TLS")
            except ConnectionResetError:
                pass
            for client in (alice, bob, unencrypted):
                client.close()
            server.stop()
            between = Client(tls.getsockname())  # nobody accepts it
            server.ends()
            server = Server(f"{scratch}/next-tls-{number}", sockets, *flags, names=names)
            between.encrypt(context)
            between.send("slogin:carol")
            between.answered()
            between.close()
            server.stop()
            server.ends()


def test_websocket(scratch):
    """A socket named websocket is served with WebSocket, and one named secure-websocket with both."""
    if "without WebSocket" in run(sockets=[], names=None, *("--check", "--websocket", "0"))[2]:
        print("skipped: the server has no WebSocket")
        return
    secure = has_tls() and subprocess.run(["sh", CERTIFICATES, scratch + "/web"], timeout=PATIENCE).returncode == 0
    flags = [f"--{name}={scratch}/web/{name}.pem" for name in ("cert", "key")] if secure else []
    request = ("GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Origin: http://friend\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
               "Sec-WebSocket-Version: 13\r\n\r\n").encode()
    with listener() as one, listener() as two:
        sockets = [one, two] if secure else [one]
        server = Server(scratch + "/web-notify", sockets, "--origin", "http://friend", *flags,
                        names="websocket:secure-websocket" if secure else "websocket")
        for at in sockets:
            client = Client(at.getsockname())
            if at is two:
                client.encrypt(ssl.create_default_context(cafile=scratch + "/web/ca.pem"))
            client.socket.sendall(request + b"\x82\x8b\0\0\0\0slogin:bob\n")
            line = client.file.readline()
            check(line == b"HTTP/1.1 101 Switching Protocols\r\n", f"a request gets {line}")
            while client.file.readline() != b"\r\n":
                pass
            check(client.file.read(1) == b"\x82", "no binary message")
            check(client.file.read(4)[1:] == b"ok:", "the login is not answered by ok")
            client.close()
        server.stop()
        server.ends()


def test_socket_activate(_):
    tool = shutil.which("systemd-socket-activate")
    if tool is None:
        print("skipped: no systemd-socket-activate")
        return
    for port in range(20000 + os.getpid() % 10000, 65536):
        process = subprocess.Popen([tool, "-l", f"127.0.0.1:{port}", "--fdname=plain", SERVER, "--log", "info"],
                                   stderr=subprocess.PIPE, text=True)
        said = process.stderr.readline()
        if said.startswith("Listening on"):
            break
        process.wait()  # the port is taken
        process.stderr.close()
    running.append(process)
    client = Client(("127.0.0.1", port))
    client.send("slogin:bob", "quit:")
    client.answered(2)
    client.close()
    process.terminate()
    check(process.wait(PATIENCE) == 0 and "event=stopped accepted=1 " in process.stderr.read(), "it ends badly")
    running.remove(process)
    process.stderr.close()


def main():
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for test in (test_check, test_bad_values, test_notifications, test_restart, test_drain, test_tls,
                         test_websocket, test_socket_activate):
                print(test.__name__, flush=True)
                test(scratch)
    finally:
        for process in running:
            process.kill()


if __name__ == "__main__":
    main()
