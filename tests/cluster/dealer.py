# SPDX-License-Identifier: BSL-1.0
"""dealer.py PORT...: listens on a free port of this machine, prints its number, and deals connections out: the first
one to the server at the first PORT, the next one to that at the second, and so on. It is as if a client were connected
to the server itself: the end of its input, a reset, and a side that does not read reach the other side."""
import asyncio
import contextlib
import itertools
import socket
import struct
import sys


def listener(port=0):
    opened = socket.create_server(("127.0.0.1", port), backlog=4096)
    opened.setblocking(False)
    return opened


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


async def pump(from_, to, lag):
    """Passes on bytes, and their end. Returns whether `to` took all. Raises OSError if `from_` is reset.
    All of it is late by `lag` seconds or more."""
    # Plain sockets: a transport that cannot write also forgets what it has still to read.
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(from_, 65536):
        if lag:
            await asyncio.sleep(lag)
        try:
            await loop.sock_sendall(to, data)  # so nothing more is read until this is taken
        except OSError:
            return False  # what `to` sent before its end is still to be passed on
    try:
        to.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


class Dealer:
    def __init__(self, ports, listens=None, lag=0):
        """What the servers send comes late by `lag` seconds or more."""
        self.ports, self.next, self.lag = ports, itertools.count(), lag
        self.listens = listens or listener()
        self.tasks = set()  # asyncio itself does not keep them

    def port(self):
        return self.listens.getsockname()[1]

    async def run(self):
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self.listens)
            task = loop.create_task(self.pass_on(client, next(self.next)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def pass_on(self, client, number):
        with client, socket.socket() as server:
            sides = (client, server)
            for side in sides:
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # pieces stay pieces
            try:
                port = self.ports[number % len(self.ports)]
                await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", port))
            except OSError:
                return reset(client)
            pumps = [asyncio.ensure_future(each) for each in (pump(client, server, 0), pump(server, client, self.lag))]
            try:
                if all(await asyncio.gather(*pumps)):
                    return
            except OSError:
                pass
            finally:
                for task in pumps:
                    task.cancel()
                await asyncio.wait(pumps)  # a socket that is closed must not be waited for
            for side in sides:
                reset(side)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    dealer = Dealer([int(port) for port in sys.argv[1:]])
    print(dealer.port(), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(dealer.run())
