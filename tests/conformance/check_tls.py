# SPDX-License-Identifier: BSL-1.0
"""check_tls.py RUNNER FOLDER: checks how the runner speaks TLS, with a server by Python's ssl that writes down what
comes. FOLDER has the certificates of tests/certificates.sh."""
import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

runner, folder = sys.argv[1:]
authority = os.path.join(folder, "ca.pem")
work = tempfile.TemporaryDirectory()
conversation = os.path.join(work.name, "conversation.scene")


class Server:
    """Answers each line with ok:, and quit: also with the end. `records` has what each record of each client held; the
    last entry says how the client ended."""

    def __init__(self, address="127.0.0.1", encrypted=True, says_goodbye=True):
        self.says_goodbye, self.records = says_goodbye, []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if encrypted else None
        if encrypted:
            self.context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
        self.listener = socket.create_server((address, 0))
        self.port = str(self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return  # stopped
            try:
                if self.context:  # an end of TCP without close_notify raises an exception
                    connection = self.context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False)
            except OSError:  # the runner did not accept the certificate
                connection.close()
                continue
            self.records.append(self.converse(connection))

    def converse(self, connection):
        records, lines = [], b""
        try:
            # Each call returns the rest of one record.
            while record := connection.recv(65536):
                records.append(record)
                lines += record
                while b"\n" in lines:
                    line, lines = lines.split(b"\n", 1)
                    connection.sendall(b"ok:\n")
                    if line == b"quit:":
                        return records + ["quit"]
            # After close_notify, TCP still goes both ways.
            return records + ["end"]
        except OSError:
            try:  # Python has one exception for both: writing fails after a reset, and not yet after an end of TCP
                os.write(connection.fileno(), b"x")
                return records + ["cut"]
            except OSError:
                return records + ["reset"]
        finally:
            try:
                if self.says_goodbye and self.context:
                    connection.settimeout(10)
                    connection = connection.unwrap()
            except OSError:
                pass  # the client has closed, or reset
            connection.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


def run(*arguments, code):
    ran = subprocess.run([runner, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    assert ran.returncode == code, (arguments, ran.returncode, ran.stdout)
    return ran.stdout


def play(steps, *arguments, code=0, host="localhost", **kinds):
    """Plays a scene with a server of its own, and returns what the runner said and what came after its first
    connection, which only tries the handshake."""
    with open(conversation, "w", encoding="ascii") as scene:
        print("title: A conversation", "rule: 8 TLS", *steps, sep="\n", file=scene)
    server = Server(**kinds)
    try:
        said = run("--timeout", "30", *arguments, host, server.port, conversation, code=code)
    finally:
        server.stop()
    return said, server.records[1:]


trusting = ("--tls", "--ca", authority)
whole = (*trusting, "--forms", "whole")
session = ("a ok one:1", "a ok quit:", "a eof")

# --- Pieces, and the three ways to end ---

assert play(session, *whole)[1] == [[b"one:1\n", b"quit:\n", "quit"]]
assert play(session, "--tls", "--insecure", "--forms", "whole")[1] == [[b"one:1\n", b"quit:\n", "quit"]]
bytewise = play(session, *trusting, "--only", "bytewise")[1]
assert bytewise == [[*(bytes([byte]) for byte in b"one:1\nquit:\n"), "quit"]], bytewise
split = play(session, *trusting, "--only", "split a at 2")[1]
assert split == [[b"on", b"e:1\n", b"quit:\n", "quit"]], split
big = "two:" + "x" * 40000
assert b"".join(play((f"a ok {big}", "a shutdown", "a eof"), *whole)[1][0][:-1]) == big.encode() + b"\n"
assert play(("a ok one:1", "a shutdown", "a eof"), *whole)[1] == [[b"one:1\n", "end"]]
assert play(("a ok one:1", "a close"), *whole)[1] == [[b"one:1\n", "end"]]
assert play(("a ok one:1", "a reset"), *whole)[1] == [[b"one:1\n", "reset"]]

# --- A server that ends without close_notify has not ended in order ---

said = play(session, *whole, says_goodbye=False, code=1)[0]
assert re.search(r"came +nothing, then the end of TCP without TLS's close_notify", said), said
play(("a ok one:1", "a ok quit:", "a closed"), *whole, says_goodbye=False)

# --- What makes each scene fail is said once ---

said = play(session, "--tls", code=2)[0]
assert "certificate is not accepted: unable to get local issuer certificate" in said, said
said = play(session, *trusting, host="127.0.0.2", address="127.0.0.2", code=2)[0]
assert "certificate is not accepted: IP address mismatch" in said, said
said = play(session, *trusting, "--timeout", "1", encrypted=False, code=2)[0]
assert "TLS with the server under test: " in said and said.count("\n") == 1, said
assert os.path.join(folder, "none") in run("--tls", "--ca", os.path.join(folder, "none"), "localhost", "1", code=2)
for wrong, why in ((("--insecure",), "need --tls"), (("--tls", *trusting, "--insecure"), "exclude each other"),
                   (("--tls", "--program", "sender=cat"), "needs a server")):
    assert why in run(*wrong, "localhost", "1", code=2)
