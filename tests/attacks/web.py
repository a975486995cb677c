# SPDX-License-Identifier: BSL-1.0
"""Attacks on WebSocket for attacks.py, while the innocent pair talks over TCP.

The attacks are generators, as in encrypted.py. Frames are masked with zeros, which changes nothing.
"""
import contextlib
import itertools

import encrypted

REQUEST = (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
FINAL, CONTINUATION, BINARY, PING = 0x80, 0, 2, 9

is_on = False


def server_options():
    return ["--websocket", "0"] if is_on else []


def frame(first, payload):
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload


def message(payload):
    return frame(FINAL | BINARY, payload)


def open_client(connect, *lines):
    """Returns a connection after the handshake, and after the replies to these lines, which must be ok."""
    connection = connect()
    connection.sendall(REQUEST + b"".join(message(line + b"\n") for line in lines))
    data = b""
    while data.count(b"ok:") < len(lines) or b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        if not more or b"err:" in data:
            raise ConnectionError(f"{len(lines)} times ok: was expected, and {data[-200:]!r} came")
        data += more
    return connection


def open_clients(connect, count, *lines):
    return [open_client(connect, *lines) for _ in range(count)]


# --- Handshakes -------------------------------------------------------------------------------------------------------


def stall(connect, count):
    return encrypted.stall(connect, count, lambda: 2 * REQUEST[:-2])


def stall_with_much(connect, count):
    """Sends nearly as much of a request as the server takes."""
    return encrypted.stall(connect, count, lambda: 2 * (REQUEST[:-2] + b"X: " + b"x" * 7500))


def trickle(connect, count):
    return encrypted.trickle(connect, count, lambda: REQUEST)


def send_requests(connect, count):
    """Sends requests that are no handshake, until the server closes: endless ones, wrong ones, and for the page."""
    return encrypted.hurry(connect, count, [
        REQUEST[:-2] + b"X: " + b"x" * encrypted.BURST, REQUEST[:-2] + b"X: y\r\n" * (encrypted.BURST // 6),
        b"GET /" + b"x" * encrypted.BURST, b"\r\n" * encrypted.BURST, b"slogin:ann\njoin:quiet\n",
        b"\x16\x03\x01\x40\x00" * 1000, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", REQUEST.replace(b"13", b"12"),
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n" + b"x" * encrypted.BURST],
        until_end=True)


# --- After the handshake ----------------------------------------------------------------------------------------------


def send_garbage(connect, count):
    """Shakes hands and sends a frame that breaks the rules, until the server closes."""
    junk = bytes(1000)
    return encrypted.hurry(connect, count, [REQUEST + wrong + junk for wrong in (
        b"\x82\x7e\xff\xff", b"\x82\x05ping\n", b"\x82\xff" + b"\xff" * 8, b"\x82\xff\x80" + bytes(7), b"\xf2\x80",
        b"\x8f\x80", b"\x80\x80", b"\x09\x80", b"\x89\xfe\xff\xff", b"\x81\x85\0\0\0\0\xff\xff\xff\xff\n",
        b"\x88\x81")], until_end=True)


def send_endless_frames(connect, count):
    """Senders whose empty lines are all in one frame of 2^63 - 1 bytes."""
    clients = [(each, itertools.chain([b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4)], itertools.repeat(b"\n" * 10000)))
               for each in open_clients(connect, count, b"slogin:attacker", b"join:a")]
    yield
    yield from encrypted.flood(clients, next)


def send_fragments(connect, count):
    """Senders whose empty lines come in a message without end: a million fragments of one byte, or of none."""
    some = (frame(CONTINUATION, b"") * 9 + frame(CONTINUATION, b"\n")) * 800
    clients = [(each, itertools.chain([frame(BINARY, b"")], itertools.repeat(some)))
               for each in open_clients(connect, count, b"slogin:attacker", b"join:a")]
    yield
    yield from encrypted.flood(clients, next)


def ping(connect, count, reads=True):
    some = frame(FINAL | PING, b"x" * 125) * 400
    clients = [(each, None) for each in open_clients(connect, count, b"slogin:attacker", b"join:a")]
    yield
    yield from encrypted.flood(clients, lambda _: some, reads)


def ping_unread(connect, count):
    """Clients that do not read their pongs."""
    return ping(connect, count, reads=False)


def read_nothing(connect, count):
    """Receivers that read nothing of what ten senders say."""
    ears = open_clients(connect, count - 10, b"rlogin:attacker", b"join:a")
    texts = message(b"sendall:%s\n" % (b"x" * 200)) * 200
    clients = [(each, None) for each in open_clients(connect, 10, b"slogin:attacker", b"join:a")]
    yield
    with contextlib.ExitStack() as stack:
        for each in ears:
            stack.enter_context(each)
        yield from encrypted.flood(clients, lambda _: texts)
