# SPDX-License-Identifier: BSL-1.0
"""redis.py SOURCE SERVER: carries out what docs/cluster.md tells an operator to set: Redis with these lines, with TLS
too, and two servers with these options, at free ports of this machine. The rights of Redis' user must be those that the
library needs, and no others."""
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

source = pathlib.Path(sys.argv[1])
server_program = os.path.abspath(sys.argv[2])
sys.path.insert(0, str(source / "tests/cluster"))
from three_servers import PATIENCE, free_port, start, takes_texts, wait_until  # noqa: E402


def check(right, what):
    if not right:
        sys.exit(f"redis: {what}")


def check_rights(lines):
    """Compares the rights of the user with the commands in the library's headers."""
    headers = [file.read_text(encoding="utf-8") for file in (source / "include/chatproto/detail/redis").glob("*.hpp")]
    used = {command.lower() for header in headers for command in re.findall(r"redis\.p?call\('(\w+)'", header)}
    for command, first in re.findall(r'send\(\{"([A-Z]+)"(?:, "([A-Z]+)")?', "".join(headers)):
        used.add((command + ("|" + first if first else "")).lower())
    used.remove("auth")  # needs no right
    user = next(line for line in lines if line.startswith("user chatproto "))
    granted = {word[1:] for word in user.split() if word.startswith("+")}
    check(used == granted, f"the user's rights differ from what is needed by {used ^ granted}")


def say(port, *lines):
    """Plays a client that says all this at once. Returns the replies."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall("".join(line + "\n" for line in lines).encode())
        return b"".join(iter(lambda: client.recv(4096), b"")).decode().splitlines()


def play(folder, lines, options, redis_port):
    """A conversation between two servers, with Redis set up by `lines`."""
    config = folder / "redis.conf"
    config.write_text("\n".join([*lines, f"dir {folder}", f"logfile {folder}/redis.log"]) + "\n", encoding="ascii")
    (folder / "redis.log").write_text("")
    running = [start("redis-server", config)]
    try:
        wait_until(lambda: "Ready to accept connections" in (folder / "redis.log").read_text()
                   or check(running[0].poll() is None, "Redis does not start") or False, "Redis does not start")

        def told(*flags):
            """What --check says. A Redis that did not answer in time is asked again: the machine may be busy."""
            while True:
                ended = subprocess.run([server_program, "--check", *flags], capture_output=True, text=True,
                                       timeout=PATIENCE, check=False)
                if "does not answer\n" not in ended.stderr:
                    return ended

        checked = told(*options)
        check(checked.stdout == "ok\n", checked.stderr)
        refused = told("--redis", f"127.0.0.1:{redis_port}", *options[options.index("--redis-password-file") + 2:])
        check(refused.returncode == 1 and "NOAUTH" in refused.stderr, f"without a password: {refused.stderr}")
        ports, logs = [], []
        for number in range(2):
            logs.append(folder / f"server-{number}.log")
            with open(logs[-1], "wb") as log:
                running.append(start(server_program, "0", "--address", "127.0.0.1", *options, stderr=log))
            ports.append(int(wait_until(lambda log=logs[-1]: re.search(r"^listening on port (\d+)$", log.read_text(),
                                                                       re.M), "a server does not listen")[1]))
            wait_until(lambda port=ports[-1]: takes_texts(port), "a server takes no texts")
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=PATIENCE) as receiver:
            file = receiver.makefile("rw", encoding="ascii")
            file.write("rlogin:alice\njoin:cafe\n")
            file.flush()
            check([file.readline()[:3] for _ in range(2)] == ["ok:", "ok:"], "a receiver cannot join")
            replies = say(ports[1], "slogin:bob", "join:cafe", "sendall:hello", "quit:")
            check([reply[:3] for reply in replies] == ["ok:"] * 4, f"bob is told {replies}")
            check(file.readline() == "delivery:cafe:bob:hello\n", "a text does not arrive")
        for process, log in zip(running[1:], logs):
            process.terminate()
            check(process.wait(PATIENCE) == 0, "a server has not ended well")
            check("event=redis_refused" not in log.read_text(), log.read_text())
    finally:
        for process in running[::-1]:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


def main(folder):
    page = (source / "docs/cluster.md").read_text(encoding="utf-8")
    port = free_port()
    text = re.search(r"^```\n(bind .*?)^```$", page, re.M | re.S)[1]
    check(text.count(">ADMIN_SECRET ") == text.count(">SECRET ") == 1, "other passwords than the page says")
    check_rights(text.splitlines())
    lines = text.replace("10.0.0.9", "").replace("SECRET", "correct-horse").splitlines() + [f"port {port}"]
    options = re.search(r'CHATPROTO_OPTIONS="([^"]*)"', page)[1]
    options = options.replace("10.0.0.9:6379", f"127.0.0.1:{port}").replace("/etc/chatproto", str(folder)).split()
    (folder / "redis-password").write_text("correct-horse\n", encoding="ascii")
    if "needs hiredis" in subprocess.run([server_program, "--check", "--redis", "localhost:1"], capture_output=True,
                                         text=True, timeout=PATIENCE, check=False).stderr:
        return 77
    play(folder, lines, options, port)

    names = re.search(r"`port 0`, (.*?)\s+and each server `--redis-ca FILE`", page, re.S)
    settings = re.findall(r"`(tls-[a-z-]+)(?: ([a-z0-9]+))?`", names[1]) if names else []
    check([name for name, _ in settings] == ["tls-port", "tls-cert-file", "tls-key-file", "tls-ca-cert-file",
                                             "tls-auth-clients"], f"settings for TLS: {settings}")
    if subprocess.run(["sh", source / "tests/certificates.sh", folder], timeout=PATIENCE, check=False).returncode != 0:
        print("skipped: TLS, because there is no openssl")
        return 0
    values = {"tls-port": port, "tls-cert-file": folder / "cert.pem", "tls-key-file": folder / "key.pem",
              "tls-ca-cert-file": folder / "ca.pem", "tls-auth-clients": "no"}
    lines = lines[:-1] + ["port 0", *(f"{name} {values[name]}" for name, _ in settings)]
    options = [option.replace("127.0.0.1:", "localhost:") for option in options]
    options += ["--redis-ca", str(folder / "ca.pem")]
    if "built" in subprocess.run([server_program, "--check", *options], capture_output=True, text=True,
                                 timeout=PATIENCE, check=False).stderr:
        print("skipped: TLS, without which the server was built")
        return 0
    play(folder, lines, options, port)
    return 0


if not shutil.which("redis-server"):
    print("skipped: no redis-server")
    sys.exit(77)
with tempfile.TemporaryDirectory() as scratch:
    sys.exit(main(pathlib.Path(scratch)))
