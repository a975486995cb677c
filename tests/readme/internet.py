# SPDX-License-Identifier: BSL-1.0
"""internet.py SOURCE SERVER SENDER: carries out the chapter "On the internet" of docs/operate.md, without root, systemd
and the internet: the machine's folders are in a scratch folder, its name is localhost, and its ports are free ones. For
certbot, an authority of our own makes the certificate; for systemd, this script opens the sockets as the units say.
"""
import os
import pathlib
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile

PATIENCE = 120  # seconds, after which something has gone wrong; nothing is expected to take long
source = pathlib.Path(sys.argv[1])
server, sender = (os.path.abspath(program) for program in sys.argv[2:])

# What stands for programs that change the machine. The hook is run as certbot runs it, but in a subshell.
STAND_INS = r"""
sh() { command sh -n "$@"; }
apt() { [ "$1" = install ] && case $2 in ./build/deb/chatproto-tools_*.deb) ;; *) return 1 ;; esac; }
certbot() {
  [ "$*" = "certonly --standalone -d localhost --deploy-hook $6" ] || return
  (export RENEWED_LINEAGE="$scratch/live/localhost" && eval "$6")
}
systemctl() { printf '%s\n' "$*" >>"$scratch/systemctl"; }
"""


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"internet: {what}: {found!r} and not {wanted!r}")


def commands():
    """Returns the chapter's commands."""
    text = (source / "docs/operate.md").read_text(encoding="utf-8")
    chapter = re.search(r"^## On the internet\n(.*?)^## ", text, re.M | re.S)[1]
    blocks = re.findall(r"^```sh\n(.*?)^```$", chapter, re.M | re.S)
    expect(len(blocks), 1, "blocks of commands")
    return blocks[0].splitlines()


def on_terminal(command, environment, dialogue):
    """Plays (prompt, answer) on a terminal of the command's own. Returns its exit code and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve("/bin/sh", ["sh", "-c", "exec " + command], environment)
    shown, seen = b"", 0
    while select.select([terminal], [], [], PATIENCE)[0]:
        try:
            more = os.read(terminal, 4096)
        except OSError:  # the other end is gone
            break
        if not more:
            break
        shown += more
        if dialogue and dialogue[0][0] in shown[seen:]:
            seen = len(shown)
            os.write(terminal, dialogue.pop(0)[1])
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def listening(unit, etc):
    """Returns the last address that systemd would open for this socket, its name, and such a socket, on a free port."""
    lines = (source / "packaging/systemd" / unit).read_text(encoding="ascii").splitlines()
    for drop_in in sorted((etc / "systemd/system" / (unit + ".d")).glob("*.conf")):
        lines += drop_in.read_text(encoding="ascii").splitlines()
    values = {}
    for line in lines:
        key, _, value = line.partition("=")
        values.setdefault(key, []).append(value)
        if value == "":  # resets the list
            values[key] = []
    expect(len(values["ListenStream"]), 1, "addresses of " + unit)
    return values["ListenStream"][0], values["FileDescriptorName"][0], socket.create_server(("127.0.0.1", 0))


def make_machine(scratch):
    """Makes what a bare machine, certbot and the package would have. Exits if something is missing."""
    etc = scratch / "etc"
    for folder in "bin", "live/localhost", "etc/chatproto", "etc/default":
        (scratch / folder).mkdir(parents=True)
    for name, program in ("server", server), ("sender", sender):
        (scratch / "bin" / ("chatproto-" + name)).symlink_to(program)
    if subprocess.run(["sh", source / "tests/certificates.sh", scratch], timeout=PATIENCE, check=False).returncode != 0:
        print("skipped: no openssl")
        sys.exit(77)
    for made, name in ("cert", "fullchain"), ("key", "privkey"):
        shutil.copy(scratch / (made + ".pem"), scratch / "live/localhost" / (name + ".pem"))
    has_fail2ban = shutil.which("fail2ban-client") and os.access("/etc/fail2ban/jail.conf", os.R_OK)
    if has_fail2ban:
        shutil.copytree("/etc/fail2ban", etc / "fail2ban")
        shutil.rmtree(etc / "fail2ban/jail.d")
    for folder in "fail2ban/filter.d", "fail2ban/jail.d":
        (etc / folder).mkdir(parents=True, exist_ok=True)
    return etc, has_fail2ban


def main(scratch):
    if sys.platform != "linux":
        print("skipped: the commands are those of Debian")
        sys.exit(77)
    etc, has_fail2ban = make_machine(scratch)
    environment = {**os.environ, "PATH": f"{scratch}/bin:{os.environ['PATH']}", "scratch": str(scratch),
                   "SSL_CERT_FILE": str(scratch / "ca.pem")}
    for flags in ["--cert", f"{scratch}/cert.pem", "--key", f"{scratch}/key.pem"], ["--passwords", "/dev/null"]:
        checked = subprocess.run([server, "--check", *flags], capture_output=True, text=True, timeout=PATIENCE,
                                 check=False)
        if "built" in checked.stderr:
            print("skipped: " + checked.stderr)
            sys.exit(77)

    *machine, client = commands()
    for command in machine:
        print(command, flush=True)
        for name, here in (("/etc/", f"{etc}/"), ("chat.example.org", "localhost"),
                           ("/usr/share/chatproto/fail2ban", f"{source}/packaging/fail2ban")):
            command = command.replace(name, here)
        subprocess.run(["bash", "-euc", STAND_INS + command], input="correct horse\n", text=True, env=environment,
                       cwd=source, timeout=PATIENCE, check=True)
    expect((scratch / "systemctl").read_text().splitlines(),
           ["try-reload-or-restart chatproto-server", "enable --now chatproto-server-tls.socket chatproto-server",
            "restart fail2ban"], "what systemd is told")
    expect((etc / "chatproto/privkey.pem").stat().st_mode & 0o777, 0o640, "the key's mode")
    if has_fail2ban:
        told = subprocess.run(["fail2ban-client", "-c", etc / "fail2ban", "-d"], capture_output=True, text=True,
                              timeout=PATIENCE, check=True).stdout
        for part in "['add', 'chatproto', 'systemd']", "['set', 'chatproto', 'addaction', 'nftables']":
            expect(part in told, True, f"fail2ban: {part}")
    else:
        print("skipped: no fail2ban")

    # The service needs the socket without TLS, which is therefore opened too.
    where, names, sockets = zip(*(listening(unit, etc)
                                  for unit in ("chatproto-server.socket", "chatproto-server-tls.socket")))
    expect((where, names), (("127.0.0.1:47374", "47375"), ("plain", "tls")), "the sockets")
    start = f"""set -eu; . '{etc}/default/chatproto-server'; exec 3<&{sockets[0].fileno()} 4<&{sockets[1].fileno()}
        [ "$('{server}' --check $CHATPROTO_OPTIONS)" = ok ]
        LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=plain:tls exec '{server}' $CHATPROTO_OPTIONS"""
    expect(sockets[0].fileno() < sockets[1].fileno(), True, "descriptors that do not overwrite each other")
    with subprocess.Popen(["sh", "-c", start], pass_fds=[each.fileno() for each in sockets], stderr=subprocess.PIPE,
                          text=True) as running:
        try:
            client = client.replace("chat.example.org", "localhost")
            client = client.replace("47375", str(sockets[1].getsockname()[1]))
            for secret, exit_code in (b"incorrect horse\n", 1), (b"correct horse\n", 0):
                found = on_terminal(client, environment, [(b"Secret of bob: ", secret), (b"> ", b"/join cafe\n"),
                                                          (b"> ", b"hello\n"), (b"> ", b"/quit\n")])
                expect(found[0], exit_code, f"{client} ({found[1]!r})")
            other = subprocess.run(client.replace(" bob ", " carol ").replace(" --ask-password", ""), shell=True,
                                   env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                   timeout=PATIENCE, check=False)
            expect((other.returncode, other.stderr), (1, "wrong name or secret\n"), "a name that is not registered")
        finally:
            running.terminate()
            log = running.communicate(timeout=PATIENCE)[1]
    expect(running.returncode, 0, log)
    expect("event=stopped accepted=3 refused=0 " in log and " texts=1\n" in log, True, log)


with tempfile.TemporaryDirectory() as folder:
    main(pathlib.Path(folder))
