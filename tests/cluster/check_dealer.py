# SPDX-License-Identifier: BSL-1.0
"""check_dealer.py: checks that dealer.py deals connections out in turn, and changes nothing about them."""
import contextlib
import os
import select
import socket
import struct
import subprocess
import sys

PATIENCE = 60  # seconds, after which something has gone wrong; nothing is expected to take long
HERE = os.path.dirname(os.path.abspath(__file__))
servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
for listening in servers:
    listening.settimeout(PATIENCE)


def check(right, what):
    if not right:
        raise AssertionError(what)


def pair(turn):
    """Returns a client, and the server's end of its connection."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    server, _ = servers[turn % 3].accept()
    server.settimeout(PATIENCE)
    return client, server


def receive(connection):
    return b"".join(iter(lambda: connection.recv(65536), b""))


def is_reset(connection):
    with contextlib.suppress(ConnectionResetError):
        connection.recv(1)
        return False
    return True


with subprocess.Popen([sys.executable, os.path.join(HERE, "dealer.py"),
                       *(str(listening.getsockname()[1]) for listening in servers)],
                      stdout=subprocess.PIPE, text=True) as dealer:
    try:
        port = int(dealer.stdout.readline())
        for turn in range(6):  # both ends finish first, by turns
            one, other = pair(turn)[::1 if turn % 2 else -1]
            one.sendall(b"question")
            one.shutdown(socket.SHUT_WR)
            check(receive(other) == b"question", "the end of one side does not arrive")
            other.sendall(b"answer")
            other.shutdown(socket.SHUT_WR)
            check(receive(one) == b"answer", "after the end of one side, the other side is not heard")
        for turn in range(2):
            one, other = pair(turn)[::1 if turn % 2 else -1]
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
            check(is_reset(other), "a reset does not arrive")

        client, server = pair(2)
        client.setblocking(False)
        sent, most = 0, 1 << 28
        while sent < most and select.select([], [client], [], 1)[1]:  # it may be busy: then the test shows less
            with contextlib.suppress(BlockingIOError):
                sent += client.send(bytes(1 << 16))
        check(sent < most, "it reads on from one side although the other side takes nothing")
        client.shutdown(socket.SHUT_WR)
        check(len(receive(server)) == sent, "bytes are lost")

        client, server = pair(3)  # nobody listens at the next turn
        servers[1].close()
        with contextlib.suppress(ConnectionResetError):  # of the connect, or after it
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as refused:
                refused.recv(1)
            check(False, "a connection without a server is not reset")
        client.sendall(b"still here")
        check(server.recv(10) == b"still here", "another connection has suffered")
    finally:
        dealer.terminate()
