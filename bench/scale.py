#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Measures what a cluster costs that has many receivers or many rooms: the factors of docs/scale.md.

Starts Redis and the servers, joins the receivers, each in the next room and all spread over the servers, and says one
text after the other, each in the next room. A text must reach every receiver of its room. Then the connections to
Redis are killed, and texts must still reach everybody. Linux only.
"""
import argparse
import multiprocessing
import os
import pathlib
import resource
import select
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests/cluster"))
import cluster

AT_ONCE = 500  # receivers that connect at the same time, fewer than a listener's backlog


class Receivers:
    """A process that is all receivers of one server."""

    def __init__(self, port, rooms):
        """rooms: the number of each receiver's room"""
        self.joined, self.heard, self.gone = (multiprocessing.Value("q", 0, lock=False) for _ in range(3))
        self.process = multiprocessing.get_context("fork").Process(target=self.run, args=(port, rooms), daemon=True)
        self.process.start()

    def run(self, port, rooms):
        resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
        clients, epoll = {}, select.epoll()
        for first in range(0, len(rooms), AT_ONCE):
            for number, room in enumerate(rooms[first:first + AT_ONCE], first):
                client = socket.create_connection(("127.0.0.1", port), cluster.PATIENCE)
                client.sendall(b"rlogin:r%d\njoin:room%d\n" % (number, room))
                clients[client.fileno()] = client
            for client in list(clients.values())[first:]:
                replies = b""
                while replies.count(b"\n") < 2:
                    replies += client.recv(100) or b"closed\n\n"
                if replies.count(b"ok:") != 2:
                    sys.exit(f"a receiver cannot join: {replies}")
                self.joined.value += 1
                epoll.register(client, select.EPOLLIN)
        while True:
            for descriptor, _ in epoll.poll():
                lines = clients[descriptor].recv(65536)
                self.heard.value += lines.count(b"\n")
                if not lines:
                    self.gone.value += 1
                    epoll.unregister(descriptor)


class Sender:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), cluster.PATIENCE)
        self.replies = self.socket.makefile("rb")
        self.ask(b"slogin:ann\n")

    def ask(self, line):
        self.socket.sendall(line)
        reply = self.replies.readline()
        if not reply.startswith(b"ok:"):
            sys.exit(f"{line} was answered by {reply}")

    def say(self, room):
        self.ask(b"join:room%d\n" % room)
        self.ask(b"sendall:" + b"x" * 64 + b"\n")


def kernel_memory():
    """Returns the bytes of the kernel's objects, which are mainly sockets here."""
    with open("/proc/meminfo") as info:
        return sum(int(line.split()[1]) * 1024 for line in info if line.startswith("Slab:"))


class Usage:
    """CPU seconds and bytes at one moment."""

    def __init__(self, run):
        self.time = time.monotonic()
        self.servers = sum(server.cpu() for server in run.servers)
        self.redis = sum(engine.cpu() for engine in run.redis)
        self.memory = sum(server.memory() for server in run.servers)
        self.kernel = kernel_memory()
        self.stored = sum(int(line.split(b":")[1]) for engine in run.redis
                          for line in engine.ask("INFO", "memory").split(b"\r\n") if line.startswith(b"used_memory:"))


def show(what, value, unit):
    print(f"  {what:58} {value:12,.2f} {unit}", flush=True)


def measure(run, options):
    total = options.servers * options.receivers
    before = Usage(run)
    crowd = [Receivers(server.port, [(place * options.servers + number) % options.rooms
                                     for place in range(options.receivers)])
             for number, server in enumerate(run.servers)]

    def count(what):
        if dead := [one.process.exitcode for one in crowd if one.process.exitcode is not None]:
            sys.exit(f"receivers have ended: {dead}")
        return sum(getattr(one, what).value for one in crowd)

    def wait_for(value, what):
        cluster.wait_for(lambda: count(what) >= value, f"{value} to be {what}", 600)

    wait_for(total, "joined")
    time.sleep(2)
    joined = Usage(run)
    print(f"{total:,} receivers in {options.rooms:,} rooms on {options.servers} servers, {options.redis} Redis")
    show("server: memory of a receiver", (joined.memory - before.memory) / total, "bytes")
    show("server: CPU for a login and join", (joined.servers - before.servers) / total * 1e6, "us")
    show("kernel: both ends of a connection", (joined.kernel - before.kernel) / total, "bytes")
    if run.redis:
        show("Redis: memory of a room", (joined.stored - before.stored) / options.rooms, "bytes")
        show("Redis: CPU for a join", (joined.redis - before.redis) / total * 1e6, "us")
    show("time until all had joined", joined.time - before.time - 2, "s")

    time.sleep(options.silence)
    silent = Usage(run)
    seconds = silent.time - joined.time
    show("server: CPU while nobody speaks, each", (silent.servers - joined.servers) / options.servers / seconds * 1e3,
         "ms/s")
    if run.redis:
        show("Redis: CPU while nobody speaks", (silent.redis - joined.redis) / seconds * 1e3, "ms/s")

    sender = Sender(run.servers[0].port)
    members = [total // options.rooms + (number < total % options.rooms) for number in range(options.rooms)]
    due = 0
    longest = 0.0
    first = Usage(run)
    for text in range(options.texts):
        begin = time.monotonic()
        sender.say(text % options.rooms)
        due += members[text % options.rooms]
        wait_for(due, "heard")
        longest = max(longest, time.monotonic() - begin)
    last = Usage(run)
    show("server: CPU for a delivery, all servers together", (last.servers - first.servers) / due * 1e6, "us")
    if run.redis:
        show("Redis: CPU for a text", (last.redis - first.redis) / options.texts * 1e6, "us")
    show("a text and all its deliveries, mean", (last.time - first.time) / options.texts * 1e3, "ms")
    show("the longest", longest * 1e3, "ms")

    for engine in run.redis:
        engine.kill_connections("normal", "pubsub")
    begin = time.monotonic()
    for room in range(min(options.rooms, 100)):
        sender.say(room)
        due += members[room]
    wait_for(due, "heard")
    if run.redis:
        show("until all is delivered after the connections to Redis were killed", time.monotonic() - begin, "s")
    if count("heard") != due or count("gone"):
        sys.exit(f"{count('heard')} deliveries instead of {due}, and {count('gone')} receivers are gone")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="build/release/bin/server", help="program (%(default)s)")
    parser.add_argument("--servers", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument("--redis", type=int, default=1, help="how many (%(default)s); 0: servers of their own")
    parser.add_argument("--receivers", type=int, default=5000, help="of each server (%(default)s)")
    parser.add_argument("--rooms", type=int, default=1, help="%(default)s")
    parser.add_argument("--texts", type=int, default=20, help="%(default)s")
    parser.add_argument("--silence", type=float, default=5, help="seconds to watch (%(default)s)")
    options = parser.parse_args()
    if options.redis == 0 and options.servers > 1:
        parser.error("several servers need Redis")
    if min(options.servers, options.receivers, options.rooms, options.texts) < 1:
        parser.error("there must be servers, receivers, rooms and texts")
    with cluster.Cluster(os.path.abspath(options.server), options.servers, options.redis,
                         arguments=["--max-members", "0", "--max-rooms", "0", "--threads", "1"]) as run:
        measure(run, options)


main()
