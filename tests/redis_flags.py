# SPDX-License-Identifier: BSL-1.0
"""redis_flags.py SERVER: the server's flags for Redis: which ones are wrong, what --check finds, and what the log says
when a Redis refuses texts, goes and comes back. Needs redis-server for the most of it."""
import contextlib
import http.server
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SERVER = os.path.abspath(sys.argv[1])
CERTIFICATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "certificates.sh")
PATIENCE = 120  # seconds, after which something has gone wrong; nothing is expected to take long
USER = ("user chat on >chatting resetchannels ~{chat:* &{chat:* &chat:node:* -@all +info +publish +subscribe "
        "+unsubscribe +evalsha +script|load +wait +get +set +del +hget +hmget +hgetall +hlen +hset +hdel +hincrby "
        "+xadd +xrange +xrevrange +xtrim +expire +time")


def check(right, what):
    if not right:
        raise AssertionError(what)


def run(*arguments):
    """Runs a server that is to end by itself. Returns its exit code, stdout and stderr."""
    ended = subprocess.run([SERVER, *arguments], text=True, capture_output=True, timeout=PATIENCE)
    return ended.returncode, ended.stdout, ended.stderr


def refused(said, *arguments):
    """Checks that a server with these arguments ends with these lines on stderr."""
    told = run(*arguments)
    lines = "".join(f"{line}\n" for line in said.split("\n"))
    check(told == (1, "", lines), f"{arguments}: {told} instead of {lines!r}")


def find(*arguments):
    """Returns what --check finds. A Redis that did not answer in time is asked again: the machine may be busy."""
    while True:
        code, out, error = run("--check", *arguments)
        check((code, out) == ((1, "") if error else (0, "ok\n")), f"--check {arguments}: {code}, {out}, {error}")
        if "does not answer\n" not in error:
            return error


def finds(said, *arguments):
    found = find(*arguments)
    check(found == (f"server: {said}\n" if said else ""), f"--check {arguments}: {found!r} instead of {said!r}")


def wrong_arguments(scratch):
    for text in ("nonsense", ":6379", "localhost:", "localhost:0", "localhost:70000", "localhost:x", "::1:6379"):
        refused(f"server: --redis: '{text}' is not HOST:PORT (usage: server [OPTION]... PORT)", "0", "--redis", text)
    for text in ("", "localhost:6379,", "localhost:6379,,localhost:6380"):
        refused("server: --redis: '' is not HOST:PORT (usage: server [OPTION]... PORT)", "0", "--redis", text)
    refused("server: --redis: 'a:1' is there twice (usage: server [OPTION]... PORT)", "0", "--redis", "a:1,b:1,a:1")
    for flag, needed in (("--redis-password-file", "--redis"), ("--redis-ca", "--redis"),
                         ("--redis-replicas", "--redis"), ("--redis-new-rooms", "--redis"),
                         ("--redis-keep", "--redis"),
                         ("--redis-user", "--redis-password-file")):
        refused(f"usage: server [OPTION]... PORT ({flag} requires {needed}; see --help)", "0", flag, "60",
                *([] if needed == "--redis" else ["--redis", "a:1"]))
    refused("server: --redis-replicas: '101' is not a number from 0 to 100 (usage: server [OPTION]... PORT)",
            "0", "--redis", "a:1", "--redis-replicas", "101")
    refused("server: --redis-new-rooms: '0' is not a number from 1 to 1000000 (usage: server [OPTION]... PORT)",
            "0", "--redis", "a:1", "--redis-new-rooms", "0")
    refused("server: --redis-keep: '59' is not a number from 60 to 31536000 (usage: server [OPTION]... PORT)",
            "0", "--redis", "a:1", "--redis-keep", "59")
    for flag in (["--presence"], ["--history", "1", "--history-file", f"{scratch}/history.db"]):
        refused("server: --presence and --history-file cannot be used with --redis", "0", "--redis", "a:1", *flag)
    for first in "0", "--check":
        refused("server: --overflow block-sender cannot be used with --redis: a server cannot hold up the senders of "
                "other servers", first, "--redis", "a:1", "--overflow", "block-sender")

    def cannot_read(path):
        return f"server: cannot read '{path}': No such file or directory"

    none, empty, two = (f"{scratch}/{name}" for name in ("none", "empty", "two"))
    for path, content in ((empty, ""), (two, "one\ntwo\n")):
        with open(path, "w", encoding="ascii") as file:
            file.write(content)
    for first in "0", "--check":
        refused(cannot_read(none), first, "--redis", "a:1", "--redis-password-file", none)
        refused(f"server: '{empty}' has no secret in its first line",
                first, "--redis", "a:1", "--redis-password-file", empty)
        refused(f"server: '{two}' has more than one line", first, "--redis", "a:1", "--redis-password-file", two)
    authorities = run("0", "--redis", "a:1", "--redis-ca", none)
    check(authorities[:2] == (1, ""), authorities)
    if "without TLS" not in authorities[2]:
        check(authorities[2] == f"server: authorities '{none}': No such file or directory\n", authorities)
        refused(f"server: {none}: No such file or directory\n{cannot_read(none)}\n"
                f"server: authorities '{none}': No such file or directory",
                "0", "--ban", none, "--redis", "a:1", "--redis-password-file", none, "--redis-ca", none)


@contextlib.contextmanager
def talking(talk):
    """A server that does this with each connection. Yields its port; at the end all its connections are closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        def serve():
            with contextlib.suppress(OSError):
                while True:
                    client = listener.accept()[0]
                    stack.callback(shut, client)
                    threading.Thread(target=converse_with, args=[client], daemon=True).start()

        def converse_with(client):
            with client, contextlib.suppress(OSError):
                talk(client)

        def shut(connection):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            shut(listener)
            accepting.join()


@contextlib.contextmanager
def answering(answer):
    """A server that answers whatever it gets. Yields its name."""
    def talk(client):
        while client.recv(4096):
            client.sendall(answer)

    with talking(talk) as port:
        yield f"127.0.0.1:{port}"


def no_redis():
    with socket.socket() as taken:  # nobody can listen there
        taken.bind(("127.0.0.1", 0))
        name = "127.0.0.1:%d" % taken.getsockname()[1]
        finds(f"Redis {name}: Connection refused", "--redis", name)
        found = find("--redis", f"{name},nowhere.invalid:1")
        check(found.startswith(f"server: Redis {name}: Connection refused\n"
                               "server: Redis nowhere.invalid:1: cannot look up nowhere.invalid: ") and
              found.count("\n") == 2, found)
    info = b"# Server\r\nredis_version:6.2.14\r\nrun_id:1\r\n# Replication\r\nrole:master\r\nmaster_replid:1\r\n"
    for answer, said in ((b"$%d\r\n%s\r\n" % (len(info), info), "is Redis 6.2.14, older than 7.0"),
                         (b"+hello\r\n", "does not answer INFO like Redis"),
                         (b"HTTP/1.1 400 Bad Request\r\n\r\n", 'Protocol error, got "H" as reply type byte')):
        with answering(answer) as name:
            finds(f"Redis {name}: {said}", "--redis", name)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # this is what find() waits for in vain
        name = "127.0.0.1:%d" % silent.getsockname()[1]
        code, out, error = run("--check", "--redis", name)
        check((code, out) == (1, "") and re.fullmatch(f"server: Redis {name}: (it )?does not answer\n", error), error)


class Redis:
    """A Redis with these lines of configuration."""

    def __init__(self, scratch, *lines, tls=False, port=0):
        self.scratch, self.lines, self.tls = scratch, lines, tls
        self.port = port
        self.start()

    def start(self):
        """Starts it, again at the same port."""
        deadline = time.monotonic() + PATIENCE
        again = self.port
        while True:
            if not again:
                with socket.create_server(("127.0.0.1", 0)) as free:
                    self.port = free.getsockname()[1]
            ports = [f"port 0\ntls-port {self.port}" if self.tls else f"port {self.port}"]
            with open(f"{self.scratch}/redis-{self.port}.conf", "w", encoding="ascii") as file:
                file.write("\n".join([*ports, "bind 127.0.0.1", 'save ""', f"dir {self.scratch}", *self.lines, ""]))
            self.process = subprocess.Popen(["redis-server", file.name], stdout=subprocess.PIPE, text=True)
            said = ""
            for line in self.process.stdout:
                said += line
                if "Ready to accept connections" in line:
                    threading.Thread(target=self.process.stdout.read, daemon=True).start()
                    return
            self.process.wait()  # its port was taken meanwhile, or it has no TLS
            check(time.monotonic() < deadline and "in use" in said, f"redis-server: {said}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def name(self, host="127.0.0.1"):
        return f"{host}:{self.port}"

    def ask(self, command):
        """Returns the first line of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as client:
            client.sendall(command.encode() + b"\r\n")
            return client.makefile("rb").readline()

    def tell(self, command):
        answer = self.ask(command)
        check(answer == b"+OK\r\n", answer)


def passwords(scratch):
    right, wrong = (f"{scratch}/{name}" for name in ("right", "wrong"))
    for path, content in ((right, "chatting\n"), (wrong, "fishing\n")):
        with open(path, "w", encoding="ascii") as file:
            file.write(content)
    wrong_pair = "WRONGPASS invalid username-password pair or user is disabled."
    with Redis(scratch, "requirepass chatting", "repl-diskless-sync-delay 0") as redis:
        name = redis.name()
        finds(f"Redis {name}: NOAUTH Authentication required.", "--redis", name)
        finds(f"Redis {name}: {wrong_pair}", "--redis", name, "--redis-password-file", wrong)
        finds("", "--redis", name, "--redis-password-file", right)
        finds(f"Redis {name}: {wrong_pair}", "--redis", name, "--redis-password-file", right, "--redis-user", "chat")
        flags = "--redis", name, "--redis-password-file", right, "--redis-replicas"
        finds(f"Redis {name}: has 0 of 1 replicas", *flags, "1")
        with Redis(scratch, f"replicaof 127.0.0.1 {redis.port}", "masterauth chatting",
                   "dbfilename replica.rdb") as replica:  # not what the others load
            finds(f"Redis {replica.name()}: is a replica", "--redis", replica.name())
            deadline = time.monotonic() + PATIENCE
            while find(*flags, "1"):
                check(time.monotonic() < deadline, "the replica does not follow")
            finds(f"Redis {name}: has 1 of 2 replicas", *flags, "2")
            # One that does not answer is still "online": no text may be taken in vain.
            replica.process.send_signal(signal.SIGSTOP)
            finds(f"Redis {name}: its replicas are too slow", *flags, "1")
            with Server(scratch, *flags, "1") as server:
                server.await_lines(f'event=redis_disconnected redis={name} error="its replicas are too slow"', 1)
                replica.process.send_signal(signal.SIGCONT)
                converse(server)
    with Redis(scratch, USER, "user info on >fishing +info") as redis:
        name = redis.name()
        finds("", "--redis", name)
        check("without any password configured" in find("--redis", name, "--redis-password-file", right), "no password")
        finds(f"Redis {name}: NOPERM this user has no permissions to run the 'subscribe' command",
              "--redis", name, "--redis-user", "info", "--redis-password-file", wrong)
        flags = "--redis", name, "--redis-user", "chat", "--redis-password-file", right
        finds("", *flags)
        with Server(scratch, *flags, "--history", "10") as server:  # it needs no other rights
            converse(server)
            check("redis_refused" not in server.log(), server.log())


def encrypted(scratch):
    if shutil.which("openssl") is None or "without TLS" in find("--redis", "a:1", "--redis-ca", "/dev/null"):
        print("skipped: no openssl, or the server has no TLS")
        return
    ours, other = (f"{scratch}/{name}" for name in ("ours", "other"))
    for folder in ours, other:
        subprocess.run(["sh", CERTIFICATES, folder], check=True)
    files = [f"tls-{what} {ours}/{file}" for what, file in
             (("cert-file", "cert.pem"), ("key-file", "key.pem"), ("ca-cert-file", "ca.pem"))]
    with Redis(scratch, *files, "tls-auth-clients no", tls=True) as redis:
        flags = "--redis", redis.name("localhost"), "--redis-ca", ours + "/ca.pem"
        finds("", *flags)
        with Server(scratch, *flags) as server:
            converse(server)
        found = find("--redis", redis.name("localhost"), "--redis-ca", other + "/ca.pem")
        check("certificate" in found, found)


class Server:
    """A server with a log, that must end in order."""

    def __init__(self, scratch, *flags):
        number, self.path = tempfile.mkstemp(dir=scratch)
        with open(number) as log:
            self.process = subprocess.Popen(
                [SERVER, "0", "--address", "127.0.0.1", "--log", "info", "--metrics", "0", *flags], stderr=log)
        self.was_killed = False
        self.await_lines("event=started", 1)
        self.port, self.metrics_port = (int(re.search(f"^{what} on port ([0-9]+)$", self.log(), re.M)[1])
                                        for what in ("listening", "metrics"))

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        if self.was_killed:
            return
        if error:
            print(self.log())
        check(code == 0 or error, f"the server has ended with exit code {code}")

    def kill(self):
        self.was_killed = True
        self.process.kill()

    def log(self):
        with open(self.path, encoding="ascii") as log:
            return log.read()

    def await_lines(self, pattern, count):
        """Waits until the log has this so often."""
        deadline = time.monotonic() + PATIENCE
        while len(re.findall(pattern, self.log())) < count:
            check(self.process.poll() is None and time.monotonic() < deadline,
                  f"waited in vain for {count} of {pattern}: {self.log()}")
            time.sleep(0.02)

    def check_memory(self):
        """Checks that it never had much memory, where that is known. (A sanitizer keeps more of it.)"""
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            peak = int(re.search("^VmHWM:\\s+([0-9]+) kB$", file.read(), re.M)[1])
            check(peak < 1 << 20, f"{peak} KiB of memory")

    def await_metrics(self, redis, **expected):
        """Waits for these figures of a Redis, which may be a tenth of a second old."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.create_connection(("127.0.0.1", self.metrics_port), PATIENCE) as client:
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                with client.makefile("r", encoding="ascii") as answer:
                    lines = answer.read().splitlines()
            if all(f'chatproto_redis_{name}{{redis="{redis}"}} {value}' in lines for name, value in expected.items()):
                return
            check(time.monotonic() < deadline, f"{lines} instead of {expected}")
            time.sleep(0.02)


class Client:
    """A client in the cafe. It tries again until the server, which may not have reached Redis, lets it in."""

    def __init__(self, server, login, joins=True):
        deadline = time.monotonic() + PATIENCE
        while True:
            self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
            self.file = self.socket.makefile("rb")
            self.ask(login)
            if not joins or self.say("join:cafe") == b"ok":
                return
            check(time.monotonic() < deadline, f"{login} cannot join: {server.log()}")
            self.close()
            time.sleep(0.02)

    def close(self):
        self.file.close()
        self.socket.close()

    def say(self, line):
        """Returns the tag of the reply."""
        self.socket.sendall(line.encode() + b"\n")
        return self.file.readline().split(b":")[0]

    def ask(self, line):
        reply = self.say(line)
        check(reply == b"ok", f"{line}: {reply}")

    def hears(self, text):
        line = self.file.readline()
        check(line == b"delivery:cafe:bob:%s\n" % text, line)


def converse(server):
    with contextlib.closing(Client(server, "rlogin:alice")) as alice, \
            contextlib.closing(Client(server, "slogin:bob")) as bob:
        bob.ask("sendall:hello")
        alice.hears(b"hello")


def echo(client):
    while data := client.recv(4096):
        client.sendall(data)


def sending(first, *then):
    """What sends something at once, and the rest again and again."""
    def talk(client):
        client.sendall(first)
        while True:
            for data in then:
                client.sendall(data)

    return talk


@contextlib.contextmanager
def web_server():
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def strangers(scratch):
    """Something else listens where Redis should. The server lives on, and says so; later Redis takes the port."""
    noise = random.Random(1).randbytes(1 << 20)
    too_large = "a reply is too large"
    for stranger, said in (
            (web_server(), r'Protocol error, got \\"[H<]\\" as reply type byte'),
            (talking(echo), "does not answer INFO like Redis"),
            (talking(lambda client: client.recv(1 << 20, socket.MSG_WAITALL)), "it does not answer"),
            (talking(sending(b"!", noise)), "Protocol error, got .* as reply type byte"),
            (talking(sending(b"+", b"no end" * 10000)), too_large),
            (talking(sending(b"$2147483647\r\n", noise)), too_large),
            (talking(sending(b"*1000000000\r\n", b":1\r\n" * 10000)), too_large),
            (talking(sending(b"*1000\r\n", b"*1000\r\n")), too_large)):
        with contextlib.ExitStack() as stack:
            with stranger as port:
                server = stack.enter_context(Server(scratch, "--redis", f"127.0.0.1:{port}"))
                server.await_lines(f'level=error event=redis_disconnected redis=127.0.0.1:{port} error="{said}"\n', 1)
                with contextlib.closing(Client(server, "rlogin:alice", joins=False)) as alice:
                    check(alice.say("join:cafe") == b"err", "nobody can join")
                server.check_memory()
            stack.enter_context(Redis(scratch, port=port))
            converse(server)


def new_rooms(scratch):
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(Redis(scratch))
        server = stack.enter_context(Server(scratch, "--redis", redis.name(), "--redis-new-rooms", "1"))
        alice, bob, spammer = (stack.enter_context(contextlib.closing(Client(server, login)))
                               for login in ("rlogin:alice", "slogin:bob", "slogin:spammer"))
        room = 0
        spammer.ask("join:0")
        while spammer.say("sendall:spam") == b"ok":
            room += 1
            spammer.ask(f"join:{room}")
        check(room >= 39, f"only {room} more rooms could begin")
        server.await_lines('level=error event=redis_refused redis=[^ ]* error="too many new rooms at once"\n', 1)
        bob.ask("sendall:hello")  # the cafe is not new
        alice.hears(b"hello")
        carol = stack.enter_context(contextlib.closing(Client(server, "rlogin:carol")))
        bob.ask("sendall:again")
        for receiver in alice, carol:
            receiver.hears(b"again")


def histories(scratch):
    def tells(server, *texts):
        """Who joins there now is told of these texts."""
        with contextlib.closing(Client(server, "rlogin:carol")) as carol:
            carol.socket.sendall(b"history:10\n")
            told = [carol.file.readline() for _ in range(len(texts) + 1)]
            check(told == [b"ok:%d\n" % len(texts)] + [b"delivery:cafe:bob:%d\n" % text for text in texts], told)

    with Redis(scratch) as redis:
        flags = "--redis", redis.name(), "--history", "3"
        with Server(scratch, *flags) as one, contextlib.closing(Client(one, "slogin:bob")) as bob:
            for number in range(5):
                bob.ask(f"sendall:{number}")
            with Server(scratch, *flags) as other:
                tells(other, 2, 3, 4)
                with contextlib.closing(Client(other, "rlogin:alice")) as alice:
                    bob.ask("sendall:5")
                    alice.hears(b"5")
                    tells(other, 3, 4, 5)
                tells(one, 3, 4, 5)
                one.kill()
                tells(other, 3, 4, 5)
        with Server(scratch, *flags) as later:
            tells(later, 3, 4, 5)
    for flags, least, most in (([], 0, 60), (["--history", "3"], 86000, 86400),
                               (["--history", "3", "--redis-keep", "1000"], 900, 1000)):
        with Redis(scratch) as redis, Server(scratch, "--redis", redis.name(), *flags) as server:
            converse(server)
            texts, room = (int(redis.ask(f"TTL {{chat:cafe}}:{key}")[1:]) for key in ("stream", "log"))
            check(least <= texts <= most and room > texts, f"{flags}: {texts}, {room}")


def other_lists(scratch):
    with contextlib.ExitStack() as stack:
        redis = [stack.enter_context(Redis(scratch)) for _ in range(2)]
        one, both = redis[0].name(), ",".join(each.name() for each in redis)
        dead = f"{redis[0].name()},127.0.0.1:1"
        found = find("--redis", dead)
        check(found == "server: Redis 127.0.0.1:1: Connection refused\n", found)
        with Server(scratch, "--redis", one) as server:
            converse(server)
            with Server(scratch, "--redis", both) as other:
                other.await_lines(f'redis={one} error="another server names only this Redis, not [^"]*"', 1)
                # What no server of the first list would ever see is not taken, whichever Redis has the room.
                with socket.create_connection(("127.0.0.1", other.port), PATIENCE) as bob, \
                        bob.makefile("rb") as replies:
                    bob.sendall(b"slogin:bob\n" + b"".join(b"join:room%d\nsendall:hi\n" % i for i in range(20)))
                    said = [replies.readline().split(b":")[0] for _ in range(41)]
                    check(said == [b"ok"] + [b"ok", b"err"] * 20, said)
                other.await_metrics(redis[1].name(), connected=0, appended_total=0)
        with Server(scratch, "--redis", both) as server:  # Redis forgets the other list after some seconds
            converse(server)
            redis[1].kill()
            server.await_lines(f"level=error event=redis_disconnected redis={redis[1].name()} ", 1)
            # A server that starts now does not know whether the other Redis has another list.
            with Server(scratch, "--redis", both) as later:
                later.await_lines(f'redis={one} error="it is not used before each Redis has been reached"', 1)
                redis[1].start()
                later.await_lines("event=redis_connected", 2)
                converse(later)


def coming_and_going(scratch):
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(Redis(scratch))
        server = stack.enter_context(Server(scratch, "--redis", redis.name()))
        alice, bob = (stack.enter_context(contextlib.closing(Client(server, login)))
                             for login in ("rlogin:alice", "slogin:bob"))
        name = redis.name()
        server.await_lines(f"level=info event=redis_connected redis={name}\n", 1)
        server.await_metrics(name, connected=1)
        redis.tell("CONFIG SET maxmemory 1")
        check(bob.say("sendall:no") == b"err", "Redis has no memory")
        server.await_lines(f'level=error event=redis_refused redis={name} error="OOM [^"]*"\n', 1)
        redis.tell("CONFIG SET maxmemory 0")
        bob.ask("sendall:yes")
        alice.hears(b"yes")
        redis.kill()
        server.await_lines(f'level=error event=redis_disconnected redis={name} error="[^"]+"\n', 1)
        check(alice.file.read() == b"", "alice is disconnected")
        server.await_lines(f"level=warn event=room_lost redis={name} room=cafe\n", 1)
        server.await_lines("level=warn event=ended reason=room_lost client=[0-9]+ address=127.0.0.1:[0-9]+\n", 1)
        server.await_metrics(name, connected=0)
        check(bob.say("sendall:no") == b"err", "nobody can speak")
        redis.start()
        server.await_lines(f"level=info event=redis_connected redis={name}\n", 2)
        alice = stack.enter_context(contextlib.closing(Client(server, "rlogin:alice")))
        bob.ask("sendall:again")
        alice.hears(b"again")
        server.await_metrics(name, connected=1, appended_total=2, delivered_total=2, refused_total=2, unknown_total=0,
                             rooms_lost_total=1)


def main():
    signal.signal(signal.SIGALRM, lambda *_: check(False, "it takes too long"))
    signal.alarm(280)
    if "without which" in run("--check", "--redis", "a:1")[2]:
        refused("server: --redis needs hiredis, without which this server was built", "0", "--redis", "a:1")
        return
    with tempfile.TemporaryDirectory() as scratch:
        wrong_arguments(scratch)
        no_redis()
        if shutil.which("redis-server") is None:
            print("skipped: the rest, because there is no redis-server")
            return
        strangers(scratch)
        passwords(scratch)
        encrypted(scratch)
        new_rooms(scratch)
        histories(scratch)
        other_lists(scratch)
        coming_and_going(scratch)


main()
