# SPDX-License-Identifier: BSL-1.0
"""tls.py SERVER: other implementations of TLS talk to the server: Python's ssl, openssl s_client, socat, ncat, sslscan.

Those that are not installed are skipped with a message. Needs openssl for the certificates.
"""

import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile

PATIENCE = 60
server_program = sys.argv[1]
if shutil.which("openssl") is None:
    print("needs openssl")
    sys.exit(77)
if "--tls PORT" not in subprocess.run([server_program, "--help"], capture_output=True, text=True).stdout:
    print("the server has no TLS")
    sys.exit(77)

failures = []


def check(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED:", what)


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def make_certificate(folder, name, extension, issuer):
    """Makes NAME.pem and NAME.key in `folder`, signed by ISSUER.pem or, without an issuer, by itself."""
    signer = ["-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key"] if issuer else []
    request = folder / f"{name}.csr"
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", folder / f"{name}.key", "-out", request)
    extensions = folder / f"{name}.ext"
    extensions.write_text(extension + "\n")
    own = [] if issuer else ["-signkey", folder / f"{name}.key"]
    openssl("x509", "-req", "-in", request, "-days", "7", "-extfile", extensions, *signer, *own,
            *(["-CAcreateserial"] if issuer else []), "-out", folder / f"{name}.pem")


class Server:
    """The server on free ports."""

    def __init__(self, folder, *flags):
        self.process = subprocess.Popen(
            [server_program, "0", "--address", "127.0.0.1", "--tls", "0", "--cert", folder / "chat.pem",
             "--key", folder / "chat.key", *flags], stderr=subprocess.PIPE, text=True)
        said = self.process.stderr.readline()
        self.plain, self.tls = map(int, re.findall(r"port (\d+)", said))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGTERM)
        check(self.process.wait(PATIENCE) == 0, "the server ends well")
        self.process.stderr.close()


def talk(connection, *lines):
    """Sends each line when the one before is answered. Returns the tags of the replies."""
    replies = []
    with connection.makefile("rw", newline="\n") as stream:
        for line in lines:
            stream.write(line + "\n")
            stream.flush()
            replies.append(stream.readline().split(":")[0].strip())
    return replies


def python_client(folder, port, version, certificate=None):
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    context.minimum_version = context.maximum_version = version
    if certificate:
        context.load_cert_chain(folder / f"{certificate}.pem", folder / f"{certificate}.key")
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return context.wrap_socket(plain, server_hostname="localhost")


def through(command, listener):
    """Runs a program that passes on its input and output, and plays a sender through it. Returns what it printed."""
    process = subprocess.Popen([str(each) for each in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    name = command[0]
    replies = []
    for line in (f"slogin:{name}", "join:cafe", f"sendall:hi from {name}", "quit:"):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        while (reply := process.stdout.readline()) and not reply.startswith(("ok:", "err:")):
            pass  # what openssl prints about the certificate
        replies.append(reply.split(":")[0])
    check(replies == ["ok"] * 4, f"{name}: {replies}")
    heard = listener.readline()
    check(heard == f"delivery:cafe:{name}:hi from {name}\n", f"{name}: the receiver got {heard!r}")
    rest, errors = process.communicate(timeout=PATIENCE)  # it ends by itself, as the server has closed
    return rest + errors


def talk_by_python(folder, server):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with python_client(folder, server.tls, version) as client:
            check(client.version() == version.name.replace("_", "."), f"Python: {client.version()}")
            check(talk(client, "slogin:python", "join:cafe", "sendall:hi", "quit:") == ["ok"] * 4, "Python talks")
            check(client.recv(1) == b"", "Python: the server's close_notify")  # else ssl.SSLEOFError


def talk_by_programs(folder, server):
    target = f"127.0.0.1:{server.tls}"
    ca = folder / "ca.pem"
    commands = {
        "openssl": ["openssl", "s_client", "-connect", target, "-servername", "localhost", "-verify_hostname",
                    "localhost", "-verify_return_error", "-CAfile", ca, "-quiet", "-no_ign_eof", "-crlf"],
        "socat": ["socat", "-t", PATIENCE, "-", f"OPENSSL:{target},cafile={ca},commonname=localhost"],
        "ncat": ["ncat", "--ssl-verify", "--ssl-trustfile", ca, "localhost", server.tls],
    }
    with socket.create_connection(("127.0.0.1", server.plain), PATIENCE) as receiver:
        check(talk(receiver, "rlogin:alice", "join:cafe") == ["ok"] * 2, "a receiver without TLS")
        with receiver.makefile("r", newline="\n") as listener:
            for name, command in commands.items():
                if shutil.which(name) is None:
                    print(f"skipped: {name} is not installed")
                else:
                    through(command, listener)


def scan(folder, server):
    if shutil.which("sslscan") is None:
        print("skipped: sslscan is not installed")
        return
    found = subprocess.run(["sslscan", "--no-colour", f"127.0.0.1:{server.tls}"], capture_output=True, text=True,
                           timeout=PATIENCE).stdout
    for version in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
        check(re.search(rf"^{re.escape(version)} +disabled$", found, re.M), f"sslscan: {version} is disabled")
    for version in ("TLSv1.2", "TLSv1.3"):
        check(re.search(rf"^{re.escape(version)} +enabled$", found, re.M), f"sslscan: {version} is enabled")
        check(f"{version} not vulnerable to heartbleed" in found, f"sslscan: Heartbleed, {version}")
    check(re.search("Compression disabled|OpenSSL version does not support compression", found), "sslscan: compression")
    check("Session renegotiation not supported" in found, "sslscan: no renegotiation")
    check("Insecure" not in found and "vulnerable to heartbleed" not in found.replace("not vulnerable", ""),
          "sslscan: a weakness")
    ciphers = re.findall(r"^(?:Preferred|Accepted) +\S+ +(\d+) bits +(\S+)", found, re.M)
    check(len(ciphers) >= 5, f"sslscan: {len(ciphers)} ciphers")
    for bits, cipher in ciphers:
        check(int(bits) >= 128 and re.match(r"TLS_(AES|CHACHA20)_|ECDHE-.*(GCM|CHACHA20)", cipher),
              f"sslscan: weak cipher {cipher}")
    if failures:
        print(found)


def ask_for_certificates(folder, server):
    with python_client(folder, server.tls, ssl.TLSVersion.TLSv1_3, "client") as client:
        check(talk(client, "slogin:python", "quit:") == ["ok"] * 2, "a client with a certificate")
    for certificate in (None, "stranger"):
        try:
            with python_client(folder, server.tls, ssl.TLSVersion.TLSv1_2, certificate):
                check(False, f"the client certificate {certificate} is refused")
        except (ssl.SSLError, ConnectionError):
            pass


with tempfile.TemporaryDirectory() as work:
    files = pathlib.Path(work)
    make_certificate(files, "ca", "basicConstraints=critical,CA:TRUE", None)
    make_certificate(files, "stranger", "subjectAltName=DNS:stranger", None)
    make_certificate(files, "chat", "subjectAltName=DNS:localhost,IP:127.0.0.1", "ca")
    make_certificate(files, "client", "subjectAltName=DNS:client", "ca")
    with Server(files) as running:
        talk_by_python(files, running)
        talk_by_programs(files, running)
        scan(files, running)
    with Server(files, "--client-ca", str(files / "ca.pem")) as running:
        ask_for_certificates(files, running)
sys.exit(1 if failures else 0)
