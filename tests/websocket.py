# SPDX-License-Identifier: BSL-1.0
"""websocket.py SERVER: another implementation of WebSocket, Python's websockets, talks to the server, and Python's
http.client asks it for pages. Needs openssl for --secure-websocket."""
import asyncio
import contextlib
import fcntl
import http.client
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import termios
import time

try:
    import websockets
    try:
        from websockets.legacy.client import connect as open_websocket
    except ImportError:
        open_websocket = websockets.connect
except ImportError:
    if os.path.exists("/usr/bin/python3") and "again" not in sys.argv:  # it has the system's packages
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv, "again"])
    print("websocket: skipped: there is no websockets (Debian: python3-websockets)")
    sys.exit(77)

PATIENCE = 60
server_program = sys.argv[1]
if "--websocket PORT" not in subprocess.run([server_program, "--help"], capture_output=True, text=True).stdout:
    print("websocket: skipped: the server has no WebSocket")
    sys.exit(77)
TEXT, BINARY, CONTINUATION = 1, 2, 0


def expect(found, wanted, what):
    if isinstance(wanted, list) and len(wanted) > 10 and found != wanted:
        at = next((i for i, pair in enumerate(zip(found, wanted)) if pair[0] != pair[1]), min(len(found), len(wanted)))
        found, wanted, what = found[at:at + 1], wanted[at:at + 1], f"{what}, from {at} on"
    assert found == wanted, f"{what}: {found!r} in place of {wanted!r}"


class Server:
    """The server on free ports."""

    def __init__(self, *flags):
        self.process = subprocess.Popen([server_program, "0", "--address", "127.0.0.1", "--websocket", "0", *flags],
                                        stderr=subprocess.PIPE, text=True)
        said = self.process.stderr.readline()
        self.tcp, self.web, *self.secure = map(int, re.findall(r"port (\d+)", said))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGTERM)
        expect(self.process.wait(PATIENCE), 0, "the server's exit code")
        self.process.stderr.close()

    def connect(self, **options):
        return open_websocket(f"ws://localhost:{self.web}/", ping_interval=None, **options)


class Lines:
    """The lines of a client, however they come in messages."""

    def __init__(self, web):
        self.web, self.data = web, b""

    async def next(self):
        while b"\n" not in self.data:
            message = await asyncio.wait_for(self.web.recv(), PATIENCE)
            assert isinstance(message, bytes), "the server's messages are binary"
            self.data += message
        line, self.data = self.data.split(b"\n", 1)
        return line

    async def say(self, *lines):
        """Sends each line in a message, when the one before is answered."""
        for line in lines:
            await self.web.send(line + b"\n")
            await self.expect_ok(line)

    async def expect_ok(self, what):
        reply = await self.next()
        assert reply.startswith(b"ok:"), (what, reply)


async def log_in(stack, server, *lines, **options):
    client = Lines(await stack.enter_async_context(server.connect(**options)))
    await client.say(*lines)
    return client


async def shake_hands(server):
    async with server.connect() as web:  # offers permessage-deflate
        expect(web.extensions, [], "extensions")
        expect(web.subprotocol, None, "the subprotocol")
    async with server.connect(subprotocols=["chat"]) as web:
        expect(web.subprotocol, None, "the subprotocol")


async def talk(server):
    """WebSocket and TCP in one room; any byte, and any way to cut messages."""
    async with contextlib.AsyncExitStack() as stack:
        ann = await log_in(stack, server, b"slogin:ann", b"join:cafe")
        bob = await log_in(stack, server, b"rlogin:bob", b"join:cafe")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.tcp)
        stack.callback(writer.close)
        writer.write(b"rlogin:tim\njoin:cafe\n")
        expect([(await reader.readline())[:3] for _ in range(2)], [b"ok:"] * 2, "a login by TCP")

        async def expect_text(text):
            await ann.expect_ok(text)
            delivery = b"delivery:cafe:ann:" + text
            expect(await bob.next(), delivery, "by WebSocket")
            expect(await asyncio.wait_for(reader.readline(), PATIENCE), delivery + b"\n", "by TCP")

        for first in (0, 128):
            text = bytes(byte for byte in range(first, first + 128) if byte != 10)
            await ann.web.send(b"sendall:" + text + b"\n")
            await expect_text(text)
        await ann.web.send([b"send", b"all:in ", b"", b"fragments", b"\n"])
        await expect_text(b"in fragments")
        for piece in (b"sendall:in ", b"", b"messages\nsendall:and", b" more\n"):
            await ann.web.send(piece)
        await expect_text(b"in messages")
        await expect_text(b"and more")
        for final, opcode, data in ((False, TEXT, b"sendall:\xe2"), (False, CONTINUATION, b"\x82"),
                                    (True, CONTINUATION, b"\xac\n")):  # a character in three frames
            await ann.web.write_frame(final, opcode, data)
        await expect_text("€".encode())
        await ann.web.send("sendall:as a text, ä€𝄞\n")
        await expect_text("as a text, ä€𝄞".encode())

        # A ping is answered also within a message, and while nothing else comes.
        await ann.web.write_frame(False, BINARY, b"sendall:around ")
        await asyncio.wait_for(await ann.web.ping(b"x" * 125), PATIENCE)
        await ann.web.write_frame(True, CONTINUATION, b"a ping\n")
        await expect_text(b"around a ping")
        for data in (b"", b"\0\xff", b"once more"):
            await asyncio.wait_for(await bob.web.ping(data), PATIENCE)
        await bob.web.pong(b"unasked")

        count = 400  # texts in a message of more than 64 KiB, which a slow reader may still leave at the server
        texts = [b"%07d" % i + b"x" * 200 for i in range(count)]
        message = b"".join(b"sendall:" + text + b"\n" for text in texts)
        sending = asyncio.ensure_future(ann.web.send(message))
        tim = asyncio.ensure_future(read_all(reader, count))
        expect([(await bob.next())[len(b"delivery:cafe:ann:"):] for _ in texts], texts, "a long message by WebSocket")
        expect([line[len(b"delivery:cafe:ann:"):-1] for line in await asyncio.wait_for(tim, PATIENCE)], texts,
               "a long message by TCP")
        await asyncio.wait_for(sending, PATIENCE)
        for text in texts:
            await ann.expect_ok(text)

        tom_reader, tom = await asyncio.open_connection("127.0.0.1", server.tcp)
        stack.callback(tom.close)
        tom.write(b"slogin:tom\njoin:cafe\nsendall:by TCP\n")
        expect([(await tom_reader.readline())[:3] for _ in range(3)], [b"ok:"] * 3, "a sender by TCP")
        expect(await bob.next(), b"delivery:cafe:tom:by TCP", "from TCP to WebSocket")


async def read_all(reader, count):
    return [await reader.readline() for _ in range(count)]


async def expect_close(web, code, what):
    try:
        async for _ in web:
            pass
    except websockets.exceptions.ConnectionClosed:
        pass
    await asyncio.wait_for(web.wait_closed(), PATIENCE)
    expect(web.close_code, code, what)


async def close(server):
    for code in (1000, 1001, 3000, 4999):
        async with server.connect() as web:
            await web.close(code, "goodbye")
            expect(web.close_code, code, "the code of our own close")
    async with server.connect() as web:
        await Lines(web).say(b"slogin:ann", b"quit:")
        await expect_close(web, 1000, "after quit:")
    async with server.connect() as web:  # what was said before the close is done
        await Lines(web).say(b"rlogin:bob", b"join:bar")
        async with server.connect() as other:
            await other.send(b"slogin:ann\njoin:bar\nsendall:last words\n")
            await other.close()
        expect(await Lines(web).next(), b"delivery:bar:ann:last words", "before a close")
    for wrong, code in ((b"\x81\x86\0\0\0\0quit\xff\n", 1007),        # a text that is not UTF-8
                        (b"\x81\x82\0\0\0\0\xe2\n", 1007),
                        (b"\x81\x81\0\0\0\0\xe2", 1007),              # one that ends within a character
                        (b"\x82\x06quit:\n", 1002),                   # not masked
                        (b"\xc2\x86\0\0\0\0quit:\n", 1002),           # a reserved bit
                        (b"\x83\x86\0\0\0\0quit:\n", 1002),           # an unknown opcode
                        (b"\x80\x86\0\0\0\0quit:\n", 1002),           # continues nothing
                        (b"\x09\x81\0\0\0\0x", 1002),                 # a ping in fragments
                        (b"\x89\xfe\0\x7e\0\0\0\0" + b"x" * 126, 1002),  # a long ping
                        (b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0", 1002),  # 2^64 - 1 bytes
                        (b"\x88\x81\0\0\0\0x", 1002),                 # half a close code
                        (b"\x88\x82\0\0\0\0\x03\xed", 1002)):         # a code that may not be sent
        async with server.connect() as web:
            web.transport.write(wrong)
            await expect_close(web, code, wrong)


async def check_origins(server):
    async def status(**options):
        try:
            async with server.connect(**options) as web:
                await Lines(web).say(b"slogin:ann")
                return 101
        except websockets.exceptions.InvalidStatusCode as refused:
            return refused.status_code

    port = server.web
    for origin, wanted in ((None, 101), (f"http://localhost:{port}", 101), (f"HTTP://LOCALHOST:{port}", 101),
                           ("https://chat.example.org", 101), ("https://friend.example", 101),
                           ("http://chat.example.org", 403), ("https://chat.example.org.evil.example", 403),
                           ("http://localhost", 403), (f"http://evil.example:{port}", 403), ("null", 403)):
        expect(await status(origin=origin), wanted, f"the origin {origin}")


def ask(server, method, target, **fields):
    connection = http.client.HTTPConnection("localhost", server.web, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, target, headers={name.replace("_", "-"): value for name, value in fields.items()})
        response = connection.getresponse()
        return response, response.read()


def ask_for_pages(server):
    response, page = ask(server, "GET", "/")
    expect(response.status, 200, "GET /")
    assert page.startswith(b"<!doctype html>") or page.startswith(b"<!DOCTYPE html>"), page[:80]
    expect(page, (pathlib.Path(__file__).parent.parent / "examples" / "page.html").read_bytes(), "the page")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"], response.headers
    expect(response.headers["Content-Type"], "text/html; charset=utf-8", "the page's type")
    head, nothing = ask(server, "HEAD", "/")
    expect((head.status, nothing, head.headers["Content-Length"]), (200, b"", str(len(page))), "HEAD /")
    expect(ask(server, "GET", "/?query")[1], page, "GET /?query")
    for method, target, status in (("GET", "/favicon.ico", 404), ("GET", "/index.html", 404), ("GET", "//", 404),
                                   ("POST", "/", 405), ("PUT", "/", 405), ("OPTIONS", "/", 405)):
        expect(ask(server, method, target)[0].status, status, f"{method} {target}")
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Key": key}
    for version in ("12", "14", "0", ""):
        response, _ = ask(server, "GET", "/", **upgrade, Sec_WebSocket_Version=version)
        expect((response.status, response.headers["Sec-WebSocket-Version"]), (426, "13"), f"version {version}")
    for wrong in ("", "x", "A" * 24, key[:-1]):
        fields = {**upgrade, "Sec_WebSocket_Key": wrong, "Sec_WebSocket_Version": "13"}
        expect(ask(server, "GET", "/", **fields)[0].status, 400, f"the key {wrong}")
    expect(ask(server, "GET", "/", X="x" * 9000)[0].status, 431, "a long header")
    for host, status in (("evil.example", 421), (f"evil.example:{server.web}", 421), ("127.0.0.1", 200),
                         ("[::1]:1", 200), ("a.localhost:80", 200), ("Chat.example.org", 200)):
        expect(ask(server, "GET", "/", Host=host)[0].status, status, f"the host {host}")


def visit_as_people_do():
    """Who gets the page has offended nobody: fail2ban counts what the log calls a handshake."""
    server = Server("--log", "info")
    for _ in range(20):
        expect(ask(server, "GET", "/")[0].status, 200, "GET /")
    expect(ask(server, "GET", "/nothing")[0].status, 404, "GET /nothing")
    log = ""
    while log.count("event=ended") < 21:
        log += server.process.stderr.readline()
    expect(log.count("reason=handshake"), 1, log)
    server.process.send_signal(signal.SIGTERM)
    server.process.communicate(timeout=PATIENCE)


def read_pongs_late():
    """A client that has not read pongs gets the last one when it reads, although it then sends nothing more."""
    ask = (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    with Server("--policy", "pool", "--threads", "1", "--login-deadline", str(PATIENCE), "--write-deadline",
                str(PATIENCE)) as server, socket.socket() as web, \
            socket.create_connection(("127.0.0.1", server.tcp), PATIENCE) as other:
        web.settimeout(PATIENCE)
        web.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        web.connect(("127.0.0.1", server.web))
        web.sendall(ask)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += web.recv(1)
        web.sendall((b"\x89" + bytes([0x80 | 125]) + bytes(4) + b"x" * 125) * 100000)  # more than all buffers hold
        web.sendall(b"\x89\x84" + bytes(4) + b"last")
        # When the system has passed on everything, the server's thread takes it before the last of these lines.
        while int.from_bytes(fcntl.ioctl(web, termios.TIOCOUTQ, bytes(4)), sys.byteorder) > 0:
            time.sleep(0.01)
        with other.makefile("rwb") as lines:
            for line in (b"slogin:other\n", b"join:quiet\n", *[b"sendall:x\n"] * 500):
                lines.write(line)
                lines.flush()
                assert lines.readline().startswith(b"ok:"), line
        tail = b""
        while not tail.endswith(b"\x8a\x04last"):
            data = web.recv(65536)
            assert data, "the connection has ended before the last pong"
            tail = tail[-6:] + data


async def talk_secretly(server, authority):
    context = ssl.create_default_context(cafile=authority)
    async with open_websocket(f"wss://localhost:{server.secure[0]}/", ssl=context, ping_interval=None) as web, \
            server.connect() as plain:
        await Lines(web).say(b"rlogin:bob", b"join:cafe")
        await Lines(plain).say(b"slogin:ann", b"join:cafe", b"sendall:hi")
        expect(await Lines(web).next(), b"delivery:cafe:ann:hi", "over TLS")
        await asyncio.wait_for(await web.ping(b"hi"), PATIENCE)
        await Lines(plain).say(*[b"sendall:" + b"x" * 200] * 300)
        lines = Lines(web)
        expect({await lines.next() for _ in range(300)}, {b"delivery:cafe:ann:" + b"x" * 200}, "over TLS")
        await web.close(1001)
        expect(web.close_code, 1001, "over TLS")


async def main():
    with Server("--origin", "https://chat.example.org", "--origin", "https://friend.example") as server:
        await shake_hands(server)
        await talk(server)
        await close(server)
        await check_origins(server)
        await asyncio.get_running_loop().run_in_executor(None, ask_for_pages, server)
    visit_as_people_do()
    read_pongs_late()
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(__file__).with_name("certificates.sh")
        made = subprocess.run(["sh", script, folder], check=False).returncode
        if made == 77:
            print("websocket: --secure-websocket is not tested, as there is no openssl")
            return
        expect(made, 0, "certificates.sh")
        with Server("--secure-websocket", "0", "--cert", f"{folder}/cert.pem", "--key", f"{folder}/key.pem") as server:
            await talk_secretly(server, f"{folder}/ca.pem")


asyncio.run(main())
