# SPDX-License-Identifier: BSL-1.0
"""three_servers.py [--alone | --lag] PORT SERVER ARGUMENT...: a Redis of its own, and three times `SERVER 0 --redis ...
ARGUMENT...`, whose clients connect to PORT, each to another server than the one before. With `--tls` among the
arguments they speak TLS there. With --alone: one SERVER without Redis, behind the same dealer. With --lag, what Redis
sends reaches the second server some 20 ms late, and the third one 40 ms: whatever could come too early, then does.
Ends like a server: on SIGTERM or SIGINT, with the exit code 0 if all servers ended so; and at once if one of them
ends before. Redis and the servers never outlive it."""
import asyncio
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

from dealer import Dealer, listener

PATIENCE = 120  # seconds, after which something has gone wrong; nothing is expected to take long
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
PARENT = os.getpid()


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != PARENT:
        os._exit(1)


def start(*command, **where):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent, **where)


def wait_until(succeeds, what):
    until = time.monotonic() + PATIENCE
    while not (result := succeeds()):
        if time.monotonic() > until:
            sys.exit(f"three_servers: {what}")
        time.sleep(0.02)
    return result


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def start_redis(folder, *settings):
    """Returns the process and its port."""
    for _ in range(5):  # another program may take the port first
        port = free_port()
        log = os.path.join(folder, f"redis-{port}.log")
        redis = start("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                      "--dir", folder, "--logfile", log, *settings)

        def is_ready():
            with contextlib.suppress(FileNotFoundError), open(log, encoding="utf-8") as file:
                return "Ready to accept connections" in file.read()

        if wait_until(lambda: is_ready() or redis.poll() is not None, "Redis does not start") is True and is_ready():
            return redis, port
    sys.exit("three_servers: Redis cannot be started")


def takes_texts(port):
    """Whether the server takes a text: without its Redis it does not."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(b"slogin:ready\njoin:ready\nsendall:\nquit:\n")
        return b"".join(iter(lambda: client.recv(4096), b"")).count(b"ok:") == 4


class Server:
    def __init__(self, *command):
        self.process = start(*command, stderr=subprocess.PIPE)
        self.listens = asyncio.Event()
        self.plain = self.port = None

    async def watch(self):
        """Passes on what it says, and returns its exit code."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), self.process.stderr)
        async for line in reader:
            if ports := re.match(rb"listening on port (\d+)(?:, with TLS on port (\d+))?$", line):
                self.plain, self.port = int(ports[1]), int(ports[2] or ports[1])
                self.listens.set()
            else:
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
        return await loop.run_in_executor(None, self.process.wait)


async def deal(port, servers):
    for server in servers:
        await server.listens.wait()
        await asyncio.get_running_loop().run_in_executor(
            None, wait_until, lambda server=server: takes_texts(server.plain), "a server takes no texts")
    await Dealer([server.port for server in servers], listener(port)).run()


async def main(mode, port, *command):
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory() as folder:
        program, *arguments = command
        redis, lagging = None, []
        engines = [[]]  # the servers' flags for Redis
        if mode != "--alone":
            redis, redis_port = start_redis(folder)
            ways = [Dealer([redis_port], lag=lag) for lag in (0, 0.02, 0.04)]
            lagging = [asyncio.create_task(way.run()) for way in ways]
            ports = [way.port() for way in ways] if mode == "--lag" else [redis_port] * 3
            engines = [["--redis", f"127.0.0.1:{each}"] for each in ports]
        servers = [Server(program, "0", *engine, *arguments) for engine in engines]
        ends = [asyncio.create_task(server.watch()) for server in servers]
        dealing = asyncio.create_task(deal(int(port), servers))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*ends, dealing, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                if dealing.done():
                    dealing.result()  # raises
                return "three_servers: a server has ended"
            for server in servers:
                server.process.send_signal(signal.SIGTERM)
            codes = await asyncio.gather(*ends)  # meanwhile its clients get their last output
            return 0 if not any(codes) else f"three_servers: the servers have ended with {codes}"
        finally:
            for task in [dealing, *lagging]:
                task.cancel()
            for process in [server.process for server in servers] + ([redis] if redis else []):
                process.kill()
                process.wait()


if __name__ == "__main__":
    parameters = sys.argv[1:]
    mode = parameters.pop(0) if parameters and parameters[0].startswith("--") else None
    if len(parameters) < 2 or mode not in (None, "--alone", "--lag"):
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(mode, *parameters)))
