# SPDX-License-Identifier: BSL-1.0
"""addresses.py SERVER: limits by address, bans, proxies, idle steps and full rooms, with many loopback addresses."""
import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile

server_program = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Client:
    def __init__(self, port, source="127.0.0.1", to="127.0.0.1"):
        self.socket = socket.create_connection((to, port), timeout=60, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, line):
        self.send(line.encode() + b"\n")
        return self.line()

    def line(self):
        """Returns the next line, or "(end)"."""
        try:
            return self.file.readline().decode().rstrip("\n") or "(end)"
        except ConnectionError:
            return "(end)"

    def is_in(self):
        """Whether the server answers a login."""
        try:
            return self.ask("slogin:bob") == "ok:"
        except ConnectionError:
            return False

    def close(self):
        self.file.close()
        self.socket.close()


class Server:
    """A server whose log is read up to the lines that are waited for. It must end in order."""

    def __init__(self, *flags):
        self.process = subprocess.Popen([server_program, "0", "--threads", "1", "--log", "info", *map(str, flags)],
                                        stderr=subprocess.PIPE, text=True)
        self.log = []
        self.port = int(self.await_line("^listening on port ([0-9]+)")[1])

    def __enter__(self):
        return self

    def __exit__(self, error, *_):
        self.process.send_signal(signal.SIGKILL if error else signal.SIGTERM)
        self.log += self.process.stderr.readlines()
        self.process.stderr.close()
        status = self.process.wait()
        assert error or status == 0, (status, self.log)

    def await_line(self, pattern):
        while line := self.process.stderr.readline():
            self.log.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"no line {pattern} in {self.log}")

    def client(self, *source):
        return Client(self.port, *source)

    def admitted(self, source="127.0.0.1", login="slogin:bob"):
        client = self.client(source)
        answer = client.ask(login)
        assert answer == "ok:", answer
        return client

    def refused(self, source):
        """Returns what a client from there is told. It must be closed after that."""
        with contextlib.closing(self.client(source)) as client:
            answer = client.line()
            assert client.line() == "(end)"
            return answer

    def reload(self):
        self.process.send_signal(signal.SIGHUP)
        self.await_line("event=bans_read")


def number_of_clients():
    with Server("--limit-loopback", "--max-clients-per-address", 2, "--new-clients-rate", 0) as server:
        first, _second = server.admitted("127.0.0.2"), server.admitted("127.0.0.2")
        assert server.refused("127.0.0.2") == "err:too many clients from your address"
        server.await_line("level=warn event=refused reason=too_many address=127.0.0.2:[0-9]+$")
        other = server.admitted("127.0.0.3")
        first.ask("quit:")
        assert first.line() == "(end)"
        first.close()
        server.await_line("event=ended reason=closed client=1 address=127.0.0.2:")
        third = server.admitted("127.0.0.2")
        assert other.ask("join:cafe").startswith("ok:") and third.ask("join:cafe").startswith("ok:")
        for client in _second, other, third:
            client.close()
    if shutil.which("fail2ban-regex"):
        with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
            log.writelines(server.log)
            log.flush()
            found = subprocess.run(["fail2ban-regex", "--out", "ip", log.name,
                                    os.path.join(here, "..", "packaging", "fail2ban", "chatproto.conf")],
                                   stdout=subprocess.PIPE, text=True, check=True).stdout
            assert found.split() == ["127.0.0.2"], found


def rate_of_clients():
    with Server("--limit-loopback", "--new-clients-burst", 2) as server:
        server.admitted("127.0.0.2").close()
        answer = "ok:"
        while answer == "ok:":  # a token comes back each second
            with contextlib.closing(server.client("127.0.0.2")) as client:
                with contextlib.suppress(ConnectionError):
                    client.send(b"slogin:bob\n")
                answer = client.line()
        assert answer == "err:too many new clients from your address, try again later", answer
        server.admitted("127.0.0.3").close()


def loopback_is_not_limited():
    with Server() as server:
        clients = [server.admitted() for _ in range(100)]
        for client in clients:
            client.close()


def offences_are_logged_by_address():
    """A flood from one address does not hide one offence of another."""
    with Server("--limit-loopback", "--max-clients-per-address", 1, "--new-clients-rate", 0) as server:
        held = [server.admitted("127.0.0.2"), server.admitted("127.0.0.3")]
        for _ in range(200):
            server.refused("127.0.0.2")
        server.refused("127.0.0.3")
        server.await_line("event=refused reason=too_many address=127.0.0.3:[0-9]+ suppressed=180$")
        for client in held:
            client.close()


def bans():
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "bans")

        def write(text):
            with open(file, "w", encoding="ascii") as out:
                out.write(text)

        write("127.0.0.2\n")
        with Server("--ban", file) as server:
            assert server.refused("127.0.0.2") == "err:your address is banned"
            server.await_line("event=refused reason=banned address=127.0.0.2:")
            here, mallory, innocent = (server.admitted(*who) for who in (
                ["127.0.0.4"], ["127.0.0.5", "rlogin:mallory"], ["127.0.0.6"]))
            assert mallory.ask("join:cafe").startswith("ok:")
            write("127.0.0.4/31 # also 127.0.0.5\n127.0.0.5\nbad line\n")
            server.process.send_signal(signal.SIGHUP)
            server.await_line("bans:3: 'bad line' is not")
            assert here.ask("join:cafe").startswith("ok:")
            assert server.refused("127.0.0.2") == "err:your address is banned"
            write("127.0.0.4 # is there\nmallory\n")
            server.reload()
            assert here.line() == "(end)" and mallory.line() == "(end)"
            for address in "127.0.0.4", "127.0.0.5":
                server.await_line(f"event=ended reason=banned client=[0-9]+ address={address}:")
            server.admitted("127.0.0.2").close()
            with contextlib.closing(server.client()) as client:
                client.send(b"slogin:mallory\njoin:cafe\nsendall:hello\n")
                assert client.line() == "err:this name is banned" and client.line() == "(end)"
            assert innocent.ask("join:cafe").startswith("ok:")
            for client in here, mallory, innocent:
                client.close()
        wrong = subprocess.run([server_program, "0", "--ban", os.path.join(folder, "none")], stderr=subprocess.PIPE,
                               text=True, check=False)
        assert wrong.returncode == 1 and "none: " in wrong.stderr, wrong


def proxied(server, header, source="127.0.0.9"):
    client = server.client(source)
    client.send(header)
    return client


def v1(address, port=50312):
    return f"PROXY TCP4 {address} 127.0.0.1 {port} 47374\r\n".encode()


def v2(command, family, rest):
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(rest)) + rest


def v2_ipv4(address):
    return v2(0x21, 0x11, socket.inet_aton(address) * 2 + struct.pack("!HH", 50312, 47374) + b"\x04\0\x03abc")


def proxies():
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("198.51.100.0/24\n")
        file.flush()
        with Server("--proxy-protocol", "127.0.0.9,127.0.1.0/24", "--max-clients-per-address", 2, "--new-clients-rate",
                    0, "--limit-loopback", "--ban", file.name) as server:
            bob = proxied(server, v1("203.0.113.7") + b"slogin:bob\njoin:cafe\n")
            assert bob.line() == "ok:" and bob.line().startswith("ok:")
            server.await_line("event=connected client=1 address=203.0.113.7:50312$")
            server.await_line("event=logged_in client=1 address=203.0.113.7:50312 name=bob$")
            ann = proxied(server, v2_ipv4("203.0.113.7") + b"slogin:ann\n", "127.0.1.77")
            assert ann.line() == "ok:"
            late = proxied(server, v1("203.0.113.7") + b"slogin:late\n")
            assert late.line() == "err:too many clients from your address" and late.line() == "(end)"
            server.await_line("event=refused reason=too_many address=203.0.113.7:50312$")
            server.await_line("event=ended reason=refused client=3 address=203.0.113.7:50312$")
            eve = proxied(server, v1("198.51.100.66"))
            assert eve.line() == "err:your address is banned" and eve.line() == "(end)"
            six = proxied(server, v2(0x21, 0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + b"\1\1\1\1"))
            assert six.is_in()
            server.await_line(r"event=connected client=5 address=\[2001:db8::7\]:257$")
            slow = server.client("127.0.0.9")
            for byte in v1("203.0.113.8") + b"slogin:slow\n":
                slow.send(bytes([byte]))
            assert slow.line() == "ok:"
            # The limits do not apply to the proxy itself.
            checks = [proxied(server, header) for header in [v2(0x20, 0, b""), b"PROXY UNKNOWN\r\n"] * 3]
            assert all(client.is_in() for client in checks)
            # Whoever is no proxy is an ordinary client.
            plain = server.admitted("127.0.0.8")
            liar = proxied(server, v1("203.0.113.9"), "127.0.0.8")
            assert liar.line().startswith("err:") and liar.line() == "(end)"
            bad = proxied(server, b"slogin:bob\n")
            assert bad.line() == "(end)"
            server.await_line("event=ended reason=handshake client=[0-9]+ address=127.0.0.9:[0-9]+ error=")
            bob.close()
            server.await_line("event=ended reason=closed client=1 address=203.0.113.7:50312$")
            again = proxied(server, v1("203.0.113.7"))
            assert again.is_in()
            for client in [ann, late, eve, six, slow, plain, liar, bad, again, *checks]:
                client.close()
    with Server("--proxy-protocol", "127.0.0.9", "--login-deadline", 0.2) as server:
        for header in b"", b"PROXY TCP4 203.0", v2(0x20, 0, b"x" * 99)[:-1]:
            silent = proxied(server, header)
            assert silent.line() == "(end)"
            server.await_line("event=ended reason=handshake client=[0-9]+ address=127.0.0.9:[0-9]+$")
            silent.close()
        nameless = proxied(server, v1("203.0.113.7"))
        assert nameless.line() == "(end)"
        server.await_line("event=ended reason=login_deadline client=4 address=203.0.113.7:50312$")
        nameless.close()


def proxies_and_tls():
    """The header precedes the handshake of TLS; a client with TLS that is refused gets no line."""
    if "without TLS" in subprocess.run([server_program, "0", "--tls", "0", "--cert", "none", "--key", "none"],
                                  stderr=subprocess.PIPE, text=True, check=False).stderr or not shutil.which("openssl"):
        print("skipped: the server has no TLS, or there is no openssl")
        return
    with tempfile.TemporaryDirectory() as folder:
        key, cert = os.path.join(folder, "key"), os.path.join(folder, "cert")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
                       stderr=subprocess.DEVNULL, check=True)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with Server("--tls", 0, "--cert", cert, "--key", key, "--proxy-protocol", "127.0.0.9", "--limit-loopback",
                    "--max-clients-per-address", 1, "--new-clients-rate", 0) as server:
            server.port = int(re.search("with TLS on port ([0-9]+)", server.log[-1])[1])
            with proxied(server, v2_ipv4("203.0.113.7")).socket as plain, context.wrap_socket(plain) as bob:
                bob.sendall(b"slogin:bob\n")
                assert bob.recv(100) == b"ok:\n"
                server.await_line("event=logged_in client=1 address=203.0.113.7:50312 name=bob$")
                late = proxied(server, v1("203.0.113.7"))
                assert late.line() == "(end)"
                server.await_line("event=refused reason=too_many address=203.0.113.7:50312$")
                with server.client("127.0.0.2").socket as first, context.wrap_socket(first):
                    assert server.client("127.0.0.2").line() == "(end)"
                    server.await_line("event=refused reason=too_many address=127.0.0.2:")


def idle_steps():
    with Server("--login-deadline", 0.2) as server:
        sender, receiver, idle = (server.admitted(login=login) for login in ("slogin:a", "rlogin:b", "rlogin:c"))
        joined = receiver.ask("join:cafe").startswith("ok:")  # on a busy machine it may be too late
        assert idle.line() == "(end)"
        server.await_line("event=ended reason=login_deadline client=3 ")
        assert sender.ask("join:cafe").startswith("ok:")
        assert not joined or receiver.ask("quit:").startswith("ok:")
        for client in sender, receiver, idle:
            client.close()


def full_rooms():
    with Server("--max-rooms", 2, "--max-members", 2) as server:
        clients = [server.admitted() for _ in range(3)]
        full = "err:the room is full, or there are too many rooms"
        assert [client.ask("join:a")[:3] for client in clients] == ["ok:", "ok:", "err"]
        assert clients[2].ask("join:b").startswith("ok:")
        assert clients[2].ask("join:a") == full and clients[2].ask("join:c") == full
        assert clients[2].ask("sendall:still here").startswith("ok:")
        assert clients[0].ask("leave:").startswith("ok:") and clients[2].ask("join:a").startswith("ok:")
        receiver = server.admitted(login="rlogin:d")
        assert receiver.ask("join:a") == full and receiver.line() == "(end)"
        for client in [*clients, receiver]:
            client.close()


def main():
    signal.alarm(250)
    for part in (number_of_clients, rate_of_clients, loopback_is_not_limited, offences_are_logged_by_address, bans,
                 proxies, proxies_and_tls, idle_steps, full_rooms):
        print(part.__name__, flush=True)
        part()


main()
