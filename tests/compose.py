# SPDX-License-Identifier: BSL-1.0
"""compose.py SERVER: checks packaging/compose without a container engine: that compose.yaml and haproxy.cfg fit
together and to the server's options, and, if HAProxy and Redis are here, that what they describe works: the services
run with the arguments of compose.yaml, at free ports of this machine."""
import contextlib
import ipaddress
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

try:
    import yaml
except ImportError:
    print("skipped: no yaml for Python")
    sys.exit(77)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "cluster"))
from three_servers import PATIENCE, free_port, start, wait_until  # noqa: E402

SERVER = os.path.abspath(sys.argv[1])
FOLDER = pathlib.Path(__file__).parents[1] / "packaging/compose"
PROXY = "127.0.0.9"  # what the balancer connects from


def check(right, what):
    if not right:
        raise AssertionError(what)


def check_files(services, networks, config):
    """Checks what would otherwise show only when the containers run."""
    balancer, server, redis = services["balancer"], services["server"], services["redis"]
    network = networks["chat"]["ipam"]["config"][0]
    address = ipaddress.ip_address(balancer["networks"]["chat"]["ipv4_address"])
    check(address in ipaddress.ip_network(network["subnet"]), "the balancer is not in its network")
    check(address not in ipaddress.ip_network(network["ip_range"]), "a server may get the balancer's address")
    check(server["networks"] == redis["networks"] == ["chat"], "not one network")
    check("ports" not in redis and "ports" not in server, "only the balancer is published")
    check(balancer["volumes"] == ["./haproxy.cfg:/usr/local/etc/haproxy/haproxy.cfg:ro"], "another file is mounted")
    check((FOLDER / server["build"] / "Dockerfile").is_file(), "no Dockerfile is where compose.yaml says")

    port, *flags = server["command"]
    options = dict(zip(flags[::2], flags[1::2]))
    check(options["--proxy-protocol"] == str(address), "the servers believe another proxy")
    check(options["--redis"] == "redis:6379", "the servers ask another Redis")
    check(balancer["ports"] == [f"{port}:{port}"] and f"bind :{port}\n" in config, "another port is published")
    check(f" server:{port}\n" in config, "the balancer connects to another port")
    shown = subprocess.run([SERVER, "--help"], capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    unknown = set(options) - set(re.findall(r"--[a-z-]+", shown))
    check(not unknown, f"the server does not know {unknown}")


class Client:
    def __init__(self, port, address):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(address, 0))
        self.file = self.socket.makefile("rb")

    def ask(self, line):
        self.socket.sendall(line.encode() + b"\n")
        return self.line()

    def line(self):
        return self.file.readline().decode().rstrip("\n")


def states(control):
    """Returns the states of the servers that the balancer knows, and what their last checks found."""
    with socket.socket(socket.AF_UNIX) as asks:
        asks.settimeout(PATIENCE)
        try:
            asks.connect(control)
        except (FileNotFoundError, ConnectionRefusedError):
            return []
        asks.sendall(b"show stat typed\n")
        text = b"".join(iter(lambda: asks.recv(65536), b"")).decode()
    found = {}
    for kind, name, value in re.findall(r"^(S\.\d+\.\d+)\.\d+\.(status|check_status)\.\d+:\S*:\w+:(.*)$", text, re.M):
        found.setdefault(kind, {})[name] = value
    return sorted((each["status"], each["check_status"].lstrip("* ")) for each in found.values())


def play(services, config, folder):
    running = []
    try:
        redis_port, port = free_port(), free_port()
        running.append(start(*services["redis"]["command"], "--port", str(redis_port), "--bind", "127.0.0.1",
                             "--dir", folder, stdout=subprocess.DEVNULL))
        ports, logs = [], []
        for number in range(services["server"]["deploy"]["replicas"]):
            flags = services["server"]["command"][1:]
            flags[flags.index("--redis") + 1] = f"127.0.0.1:{redis_port}"
            flags[flags.index("--proxy-protocol") + 1] = PROXY
            log = os.path.join(folder, f"server-{number}.log")
            with open(log, "wb") as file:
                running.append(start(SERVER, "0", "--address", "127.0.0.1", *flags, stderr=file))
            logs.append(pathlib.Path(log))

            def listens(log=logs[-1], process=running[-1]):
                check(process.poll() is None, log.read_text())
                return re.search(r"^listening on port (\d+)$", log.read_text(), re.M)

            ports.append(wait_until(listens, "a server does not listen")[1])

        # The same balancer, which finds the servers by their ports instead of Docker's names, and says what it knows.
        control = os.path.join(folder, "control")
        config = re.sub(r"^global$", f"global\n  stats socket {control}", config, flags=re.M)
        config = re.sub(r"maxconn \d+$", "maxconn 100", config, flags=re.M)
        config = re.sub(r"^  bind :\d+$", f"  bind 127.0.0.1:{port}", config, flags=re.M)
        config = re.sub(r"^  server-template .*$", "".join(
            f"  server s{each} 127.0.0.1:{each} source {PROXY}\n" for each in ports), config, flags=re.M)
        pathlib.Path(folder, "haproxy.cfg").write_text(config, encoding="ascii")
        running.append(start("haproxy", "-db", "-f", os.path.join(folder, "haproxy.cfg")))
        wait_until(lambda: states(control) == [("UP", "L7OK")] * len(ports), "not all servers are up")

        # As many receivers as servers, so that each server has one: it has the fewest clients before.
        receivers = [Client(port, "127.0.0.77") for _ in ports]
        for receiver in receivers:
            check(receiver.ask("rlogin:alice") == "ok:" and receiver.ask("join:cafe").startswith("ok:"), "not let in")
        sender = Client(port, "127.0.0.78")
        check(sender.ask("slogin:bob") == "ok:" and sender.ask("join:cafe").startswith("ok:"), "not let in")
        check(sender.ask("sendall:hello").startswith("ok:"), "a text is refused")
        for receiver in receivers:
            check(receiver.line() == "delivery:cafe:bob:hello", "a text does not arrive")
        servers = running[1:-1]
        servers[0].terminate()
        wait_until(lambda: ("DOWN", "UP", "UP") == tuple(sorted(state for state, _ in states(control))),
                   "the balancer does not notice the end of a server")
        check(Client(port, "127.0.0.77").ask("rlogin:alice") == "ok:", "nobody is let in after the end of a server")
        running[0].kill()  # Redis
        wait_until(lambda: {state for state, _ in states(control)} == {"DOWN"}, "servers without Redis are not down")
        for server in servers:
            server.terminate()
            check(server.wait(PATIENCE) == 0, "a server has not ended well")
        for log in logs:  # what a PROXY header tells
            check("address=127.0.0.77:" in log.read_text(), "a server has no client, or does not learn its address")
        return 0
    finally:
        for process in running[::-1]:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


def main():
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="ascii"))
    config = (FOLDER / "haproxy.cfg").read_text(encoding="ascii")
    check_files(compose["services"], compose["networks"], config)
    if not shutil.which("haproxy") or not shutil.which("redis-server"):
        print("skipped: no haproxy, or no redis-server")
        return 77
    checked = subprocess.run(["haproxy", "-c", "-f", FOLDER / "haproxy.cfg"], capture_output=True, text=True,
                             timeout=PATIENCE, check=False)
    check(checked.returncode == 0 and "WARNING" not in checked.stderr, checked.stderr)
    with tempfile.TemporaryDirectory() as folder:
        return play(compose["services"], config, folder)


sys.exit(main())
