# SPDX-License-Identifier: BSL-1.0
"""TLS for the clients of attacks.py, and attacks on TLS itself.

Each attack is a generator: it yields once when it is ready, and then again and again how often it has done what it
does, and how many of its clients the server has cut. `connect()` makes a connection without TLS.
"""
import contextlib
import ctypes
import itertools
import selectors
import socket
import ssl
import struct
import time

RECORD = 16384  # bytes that fit in a record
BURST = 65536
EACH = 64 / 1024  # MiB that the server may hold for a client, besides what it holds without TLS

is_on = False
certificate = key = context = None


def turn_on(certificate_file, key_file):
    global is_on, certificate, key, context
    is_on, certificate, key = True, certificate_file, key_file
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.sslsocket_class = Encrypted


def server_options():
    return ["--tls", "0", "--cert", certificate, "--key", key] if is_on else []


def memory(clients):
    return EACH * clients if is_on else 0


def as_plain(call, *arguments):
    """Raises the exceptions that a socket without TLS does."""
    try:
        return call(*arguments)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise BlockingIOError from None
    except ssl.SSLError as error:
        raise ConnectionError(str(error)) from None


class Encrypted(ssl.SSLSocket):
    """A socket with TLS that can be used as one without, if at least a record is read at once after a selector."""

    def read(self, *arguments):
        return as_plain(super().read, *arguments)

    def send(self, data, flags=0):
        return as_plain(super().send, data[:RECORD], flags)  # more would be sent all or not at all


def wrap(connection):
    return as_plain(context.wrap_socket, connection)


def make_hello():
    output = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), output).do_handshake()
    return output.read()


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# --- Handshakes -------------------------------------------------------------------------------------------------------


def stall(connect, count, make=make_hello):
    """Sends half a hello, and no more."""
    yield
    hello, clients = make(), []
    while True:
        if len(clients) < count:
            clients.append(connect())
            clients[-1].sendall(hello[:len(hello) // 2])
        else:
            time.sleep(0.01)
        yield len(clients) == count, 0


def hurry(connect, count, openings, until_end):
    """Sends one of `openings`, reads until something comes (or the end), and begins anew. So do `count` at once."""
    yield
    ends, done, turns = selectors.DefaultSelector(), 0, itertools.cycle(openings)
    while True:
        while len(ends.get_map()) < count:
            connection = connect()
            connection.setblocking(False)
            with contextlib.suppress(OSError):  # less may fit, and the server may have closed already
                connection.send(next(turns))
            ends.register(connection, selectors.EVENT_READ)
        for chosen, _ in ends.select(0.1):
            data = b""
            with contextlib.suppress(ConnectionError):
                data = chosen.fileobj.recv(BURST)
            if not data or not until_end:
                ends.unregister(chosen.fileobj)
                reset(chosen.fileobj)
                done += 1
        yield done, 0


def abandon(connect, count):
    """Sends a hello, which costs the server a signature, and leaves with the first bytes of the answer."""
    return hurry(connect, count, [make_hello()], until_end=False)


def send_garbage(connect, count):
    """Sends what is no hello, until the server closes."""
    hello = make_hello()
    wrong = bytearray(hello)
    wrong[9::7] = bytes(byte ^ 0x55 for byte in wrong[9::7])
    random = (b"\x16\x03\x01\x40\x00" + bytes(i * 2654435761 >> 13 & 255 for i in range(BURST)))[:BURST]
    return hurry(connect, count, [b"GET / HTTP/1.1\r\n\r\n", b"slogin:ann\njoin:quiet\n", random[1:], random,
                                  b"\x17\x03\x03\x40\x00" + bytes(RECORD), bytes(wrong),
                                  b"\x15\x03\x01\x00\x02\x02\x28"], until_end=True)


def trickle(connect, count, make=make_hello):
    """Sends hellos a byte at a time."""
    yield
    hello = make()
    clients = {}
    done = cut = 0
    while True:
        while len(clients) < count:
            clients[connect()] = 0
        for connection, sent in list(clients.items()):
            clients[connection] += 1
            try:
                connection.sendall(hello[sent:sent + 1])
                done += 1
            except ConnectionError:
                cut += 1
                clients[connection] = len(hello)
            if clients[connection] == len(hello):
                reset(connection)
                del clients[connection]
        yield done, cut


# --- After the handshake ----------------------------------------------------------------------------------------------


def flood(clients, more, reads=True):
    """Writes more(client) to each client again and again, and reads and drops the answers, if it reads. A client is a
    pair: its connection, and what encrypts for it."""
    ends, done, cut = selectors.DefaultSelector(), 0, 0
    for connection, encrypts in clients:
        connection.setblocking(False)
        ends.register(connection, selectors.EVENT_READ * reads | selectors.EVENT_WRITE, [encrypts, b""])
    while True:
        for chosen, events in ends.select(0.1):
            connection, state = chosen.fileobj, chosen.data
            try:
                if events & selectors.EVENT_READ and not connection.recv(BURST):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    state[1] = state[1] or more(state[0])
                    state[1] = state[1][connection.send(state[1]):]
                    done += 1
            except BlockingIOError:
                pass
            except ConnectionError:
                ends.unregister(connection)
                connection.close()
                cut += 1
        if not ends.get_map():
            time.sleep(0.01)
        yield done, cut


class InMemory:
    """TLS 1.3 of a client, by Python's ssl, whose bytes go through memory."""

    def __init__(self):
        self.input, self.output = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.input, self.output)

    def shake(self, connection):
        while True:
            try:
                self.tls.do_handshake()
                return connection.sendall(self.output.read())
            except ssl.SSLWantReadError:
                connection.sendall(self.output.read())
                self.input.write(connection.recv(BURST))

    def encrypt(self, *records):
        for record in records:
            self.tls.write(record)
        return self.output.read()


def senders(connect, count, tls):
    """Returns pairs of a connection and its `tls`, of clients that have logged in and joined a room."""
    clients = []
    for _ in range(count):
        connection, layer = connect(), tls()
        layer.shake(connection)
        connection.sendall(layer.encrypt(b"slogin:attacker\njoin:a\n"))
        clients.append((connection, layer))
    return clients


def send_tiny_records(connect, count):
    """Senders, each byte of whose empty lines is a record. (Their login is not: only what comes after.)"""
    clients = senders(connect, count, InMemory)
    yield
    yield from flood(clients, lambda client: client.encrypt(*[b"\n"] * 1000))


class LibSsl:
    """TLS 1.3 of a client, by OpenSSL itself: Python's ssl cannot ask for new keys."""

    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    functions = {"TLS_client_method": [pointer], "SSL_CTX_new": [pointer, pointer], "SSL_new": [pointer, pointer],
                 "SSL_set_bio": [None, pointer, pointer, pointer], "SSL_set_connect_state": [None, pointer],
                 "SSL_do_handshake": [number, pointer], "SSL_key_update": [number, pointer, number],
                 "SSL_write": [number, pointer, text, number], "BIO_s_mem": [pointer], "BIO_new": [pointer, pointer],
                 "BIO_read": [number, pointer, text, number], "BIO_write": [number, pointer, text, number]}
    context = None

    @classmethod
    def load(cls):
        """Throws OSError or AttributeError if there is no OpenSSL 3."""
        libraries = ctypes.CDLL("libssl.so.3"), ctypes.CDLL("libcrypto.so.3")
        for name, (result, *arguments) in cls.functions.items():
            function = getattr(libraries[name.startswith("BIO")], name)
            function.restype, function.argtypes = result, arguments
            setattr(cls, name, staticmethod(function))
        cls.context = cls.SSL_CTX_new(cls.TLS_client_method())

    def __init__(self):
        self.ssl = self.SSL_new(self.context)
        self.input, self.output = self.BIO_new(self.BIO_s_mem()), self.BIO_new(self.BIO_s_mem())
        self.SSL_set_bio(self.ssl, self.input, self.output)
        self.SSL_set_connect_state(self.ssl)
        self.buffer = ctypes.create_string_buffer(BURST)

    def taken(self):
        data = b""
        while (count := self.BIO_read(self.output, self.buffer, BURST)) > 0:
            data += self.buffer.raw[:count]
        return data

    def shake(self, connection):
        while self.SSL_do_handshake(self.ssl) != 1:
            connection.sendall(self.taken())
            data = connection.recv(BURST)
            self.BIO_write(self.input, data, len(data))
        connection.sendall(self.taken())

    def encrypt(self, data):
        self.SSL_write(self.ssl, data, len(data))
        return self.taken()

    def ask_for_keys(self, times):
        for _ in range(times):
            if self.SSL_key_update(self.ssl, 1) != 1 or self.SSL_do_handshake(self.ssl) != 1:
                raise RuntimeError("OpenSSL does not ask for new keys")
        return self.taken()


def can_ask_for_keys():
    if not is_on:
        return False
    try:
        LibSsl.load()
        return True
    except (OSError, AttributeError):
        return False


def ask_for_keys(connect, count):
    """Senders that ask for new keys all the time, and say nothing."""
    clients = senders(connect, count, LibSsl)
    yield
    yield from flood(clients, lambda client: client.ask_for_keys(500))
