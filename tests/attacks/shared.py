# SPDX-License-Identifier: BSL-1.0
"""A Redis for the servers of attacks.py, and attacks on rooms that two servers share.

The attacks are generators, as in encrypted.py.
"""
import collections
import contextlib
import itertools
import os
import sys
import tempfile

import encrypted

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "cluster"))
import three_servers  # noqa: E402

# Those of docs/cluster.md, with less memory, so that the attacks can fill it.
SETTINGS = ["--maxmemory", "256mb", "--maxmemory-policy", "volatile-ttl", "--stream-node-max-bytes", "1024",
            "--client-output-buffer-limit", "pubsub 256mb 64mb 60"]
TEXTS = b"sendall:%s\n" % (b"x" * 200) * 500

is_on = False


@contextlib.contextmanager
def redis():
    """Yields the process of a Redis, and the servers' options."""
    with tempfile.TemporaryDirectory() as folder:
        process, port = three_servers.start_redis(folder, *SETTINGS)
        try:
            yield process, ["--redis", f"127.0.0.1:{port}"]
        finally:
            process.kill()
            process.wait()


def wait_for(server):
    """Waits until the server takes texts, and so has reached Redis."""
    three_servers.wait_until(lambda: three_servers.takes_texts(server.port), "a server takes no texts")


# --- Attacks ----------------------------------------------------------------------------------------------------------


def hurry_through_rooms(connect, count, login, texts):
    """Clients that join one new room after the other, and say these texts there."""
    def rooms(i):
        for n in itertools.count():
            yield b"join:client%dand%d\n%s" % (i, n, texts)

    clients = [(connect(), rooms(i)) for i in range(count)]
    for connection, _ in clients:
        connection.sendall(login + b":attacker\n")
    yield
    yield from encrypted.flood(clients, next)


def speak_in_new_rooms(connect, count):
    return hurry_through_rooms(connect, count, b"slogin", TEXTS)


def listen_in_new_rooms(connect, count):
    return hurry_through_rooms(connect, count, b"rlogin", b"")


def vanish(connect, count):
    """Clients that reset their connections while what they have said is under way, or while they enter a room. The
    newest `count` of them are there."""
    yield
    clients = collections.deque()
    for done in itertools.count():
        clients.append(connect())
        with contextlib.suppress(ConnectionError):
            clients[-1].sendall(b"rlogin:attacker\njoin:a\n" if done % 3 == 0 else
                                b"slogin:attacker\njoin:%s\n%s" % (b"ab"[done % 2:][:1], TEXTS))
        if len(clients) > count:
            encrypted.reset(clients.popleft())
        yield done, 0
