# SPDX-License-Identifier: BSL-1.0
"""check_websocket.py RUNNER: checks how the runner speaks WebSocket, with a server by Python's websockets that writes
down what comes. It finds frames that break the rules, and so does the runner."""
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading

try:
    from websockets import server as websockets
    from websockets.frames import Opcode
except ImportError:
    if os.path.exists("/usr/bin/python3") and "again" not in sys.argv:  # it has the system's packages
        os.execv("/usr/bin/python3", ["/usr/bin/python3", *sys.argv, "again"])
    print("check_websocket: skipped: there is no websockets (Debian: python3-websockets)")
    sys.exit(77)

runner = sys.argv[1]
Protocol = getattr(websockets, "ServerProtocol", None) or websockets.ServerConnection  # before 11.0
work = tempfile.TemporaryDirectory()
conversation = os.path.join(work.name, "conversation.scene")


class Server:
    """Answers each line with ok:, and quit: also with the end. `frames` has what each frame of each client held, with
    `...` if it did not end its message; the last entry says how the client ended. `answer` changes the answer to the
    request, and `reply` makes the bytes that answer a line."""

    def __init__(self, answer=lambda response: response, reply=None, says_goodbye=True):
        self.answer, self.reply, self.says_goodbye, self.frames = answer, reply, says_goodbye, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = str(self.listener.getsockname()[1])
        self.hosts = set()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return  # stopped
            with connection:
                connection.settimeout(60)
                self.frames.append(self.converse(connection, Protocol()))

    @staticmethod
    def send(connection, protocol):
        for data in protocol.data_to_send():
            if data:
                connection.sendall(data)

    def converse(self, connection, protocol):
        frames, line = [], b""
        try:
            while data := connection.recv(65536):
                protocol.receive_data(data)
                for event in protocol.events_received():
                    if not hasattr(event, "opcode"):
                        self.hosts.add(event.headers["Host"])
                        protocol.send_response(self.answer(protocol.accept(event)))
                        continue
                    if event.opcode in (Opcode.CLOSE, Opcode.PONG):
                        frames.append((event.opcode.name, bytes(event.data)))
                        continue
                    assert event.opcode is (Opcode.CONT if frames and frames[-1].endswith(b"...") else Opcode.BINARY)
                    frames.append(bytes(event.data) + (b"" if event.fin else b"..."))
                    line += event.data
                    while b"\n" in line:
                        text, line = line.split(b"\n", 1)
                        if self.reply:
                            connection.sendall(self.reply)
                        elif protocol.state.name == "OPEN":  # else the client has ended
                            protocol.send_binary(b"ok:\n")
                        if text == b"quit:":
                            self.send(connection, protocol)
                            if not self.says_goodbye:
                                return frames + ["quit"]
                            protocol.send_close(1001)
                self.send(connection, protocol)
                if protocol.state.name == "CLOSED" or any(frame[0] == "CLOSE" for frame in frames):
                    return frames + ["end"]
            return frames + ["cut"]
        except ConnectionResetError:
            return frames + ["reset"]

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def run(*arguments, code):
    ran = subprocess.run([runner, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert ran.returncode == code, (arguments, ran.returncode, ran.stdout)
    return ran.stdout


def play(steps, *arguments, code=0, **kinds):
    """Plays a scene with a server of its own, and returns what the runner said and what came after its first
    connections, which only try whether there is a server, and the handshake."""
    with open(conversation, "w", encoding="ascii") as scene:
        print("title: A conversation", "rule: 8 WebSocket", *steps, sep="\n", file=scene)
    server = Server(**kinds)
    try:
        said = run("--websocket", "--timeout", "30", *arguments, "localhost", server.port, conversation, code=code)
    finally:
        server.stop()
    assert server.hosts == {f"localhost:{server.port}"}, server.hosts
    return said, server.frames[2:]


def expect(found, expected):
    assert found == expected, (found, expected)


whole = ("--forms", "whole")
session = ("a ok one:1", "a ok quit:", "a eof")
normal, going = ("CLOSE", b"\x03\xe8"), ("CLOSE", b"\x03\xe9")  # 1000; and 1001, which is echoed

# --- Messages hold whole lines, frames are pieces, and there are three ways to end ---

expect(play(session, *whole)[1], [[b"one:1\n", b"quit:\n", going, "end"]])
expect(play(session, "--only", "split a at 2")[1], [[b"on...", b"e:1\n", b"quit:\n", going, "end"]])
bytewise = [bytes([byte]) + (b"" if byte == 10 else b"...") for byte in b"one:1\nquit:\n"]
expect(play(session, "--only", "bytewise")[1], [[*bytewise, going, "end"]])
together = ("a >> one:1\\ntwo:2\\nthr", "a < ok:*", "a < ok:*", "a >> ee:3\\n", "a < ok:*", "a quit")
expect(play(together, *whole)[1], [[b"one:1\ntwo:2\n", b"thr...", b"ee:3\n", b"quit:\n", going, "end"]])
big = "two:" + "x" * 200000
frames = play((f"a ok {big}", "a shutdown", "a eof"), *whole)[1][0]
expect(b"".join(frame.removesuffix(b"...") for frame in frames[:-2]), big.encode() + b"\n")
expect(play(("a ok one:1", "a close"), *whole)[1], [[b"one:1\n", normal, "end"]])
expect(play(("a ok one:1", "a reset"), *whole)[1], [[b"one:1\n", "reset"]])

# --- What the server sends: text and binary, fragments, pings between them ---

reply = b"\x01\x02ok\x89\x02hi\x80\x02:\n"
expect(play(("a ok one:1", "a close"), *whole, reply=reply)[1], [[b"one:1\n", ("PONG", b"hi"), normal, "end"]])

# --- A server that ends without a close frame has not ended in order ---

said = play(session, *whole, says_goodbye=False, code=1)[0]
assert re.search(r"came +nothing, then the end of TCP without WebSocket's close frame", said), said
play(("a ok one:1", "a ok quit:", "a closed"), *whole, says_goodbye=False)

# --- A server that breaks the rules is told why, and fails the scene ---

for wrong, close_code in ((b"\x82\x84\0\0\0\0ok:\n", 1002),  # masked
                          (b"\xc2\x04ok:\n", 1002),          # a reserved bit
                          (b"\x83\x04ok:\n", 1002),          # an unknown opcode
                          (b"\x80\x04ok:\n", 1002),          # continues nothing
                          (b"\x02\x01o\x82\x03k:\n", 1002),  # a message within a message
                          (b"\x09\x01a\x82\x04ok:\n", 1002),  # a ping in fragments
                          (b"\x81\x05ok:\xff\n", 1007)):     # a text that is not UTF-8
    said, frames = play(("a ok one:1", "a close"), *whole, reply=wrong, code=1)
    assert f"breaks WebSocket's rules (close code {close_code})" in said, (wrong, said)
    expect(frames[0][0], b"one:1\n")
    assert frames[0][1] in (("CLOSE", close_code.to_bytes(2, "big")), ("CLOSE", b"")), (wrong, frames)

# --- What makes each scene fail is said once ---


def having(name, *values):
    def change(response):
        if name in response.headers:
            del response.headers[name]
        for value in values:
            response.headers[name] = value
        return response
    return change


for wrong in (having("Upgrade"), having("Connection"), having("Sec-WebSocket-Accept"),
              having("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
              having("Sec-WebSocket-Protocol", "chat"), having("Sec-WebSocket-Extensions", "permessage-deflate")):
    said = play(session, *whole, answer=wrong, code=2)[0]
    assert said.endswith(": WebSocket with the server under test: the answer 101 is not one to the request\n"), said
listener = socket.create_server(("127.0.0.1", 0))
with listener:
    for first, why in ((b"HTTP/1.1 404 Not Found\r\n\r\n", "the answer to the request is 404 in place of 101"),
                       (b"ok:\n", "what came is no HTTP"),
                       (b"", "the end of TCP without WebSocket's close frame"),
                       (b"HTTP/1.1 101 x\r\n" + b"a: b\r\n" * 20000, "the answer's header has more than 64 KiB")):
        def refuse(first=first):
            listener.accept()[0].close()  # finds that there is a server
            with listener.accept()[0] as connection:
                while not connection.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                try:
                    connection.sendall(first)
                except OSError:
                    pass  # it was too much
        thread = threading.Thread(target=refuse)
        thread.start()
        said = run("--websocket", "127.0.0.1", str(listener.getsockname()[1]), code=2)
        thread.join()
        assert said == f"chatproto-conformance: WebSocket with the server under test: {why}\n", (said, why)
assert "--websocket needs a server to test" in run("--websocket", "--program", "sender=cat", "localhost", "1", code=2)
