# SPDX-License-Identifier: BSL-1.0
"""check_generated.py RUNNER: checks the generated scenes: that a seed gives the same ones everywhere, that their text
says all of them, and that those which fail are shrunk."""
import hashlib
import os
import re
import subprocess
import sys
import tempfile

runner = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))


def run(*arguments, code=0):
    ran = subprocess.run([runner, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == code, (arguments, ran.returncode, ran.stdout, ran.stderr)
    return ran.stderr if code == 2 else ran.stdout


def server(fault=None):
    return "--", sys.executable, os.path.join(here, "faulty_server.py" if fault else "chat_server.py"), "{port}", \
        *([fault] if fault else [])


# --- What a seed gives is part of the version: every compiler and system gives this ---

shown = run("--generate", "50", "--seed", "2026", "--show", "generated-*")
digest = hashlib.sha256(shown.encode()).hexdigest()
assert digest == "002efc6c698dc59f15f52788dc33c54a296895d076fe93d0c71357cfc8ac0e04", f"other scenes: {digest}"

scenes = re.findall(r"^# (generated-2026-\d+)\.scene\n((?:.+\n)+)", shown, re.M)
assert [name for name, _ in scenes] == [f"generated-2026-{n}" for n in range(1, 51)]
assert len({text.split("\n", 1)[1] for _, text in scenes}) == 50
assert scenes[6][1] in run("--show", "generated-2026-7")
assert scenes[6][1] not in run("--show", "generated-2027-7")
# Every kind of step and message is there.
for part in ("ok slogin:", "ok rlogin:", "err senduser:", "ok leave:", r"ok join:\{room\}[aAb0]", "> quit:", "quit$",
             "shutdown", "close", "reset", "eof", "closed", "connect", "<2 delivery:", r"same r\d", "fence", r">.*\\r",
             r">.*\{\d{3,4}\}", r"ok .*\\x[89a-f]", "ok sendall:$", ">> "):
    assert re.search(r"^[rs]\d+ " + part, shown, re.M), part
few = run("--generate", "50", "--seed", "2026", "--without", "senduser,leave,receiver-quit,bytes,crlf,together",
          "--show", "generated-*")
for part in ("senduser", "leave:", r"^r\d+ quit", r"^r\d+ (>|ok|err) quit:", r"sendall:.*\\x(?!5c)", r"\\r", "<1",
             " same "):
    assert not re.search(part, few, re.M), part
assert "--without has a list" in run("--without", "nonsense", *server(), code=2)
assert "no generated scene" in run("--show", "generated-*", code=2)

# --- Saved as files they are the same scenes, and a correct server passes them ---

with tempfile.TemporaryDirectory() as folder:
    for name, text in scenes:
        with open(os.path.join(folder, name + ".scene"), "w", encoding="ascii") as file:
            file.write(text)
    again = run("--show", folder)
    assert sorted(re.findall(r"\.scene\n((?:.+\n)+)", again)) == sorted(text for _, text in scenes)
    assert "50 passed, 0 failed, 0 skipped" in run("--timeout", "60", folder, *server())
text = run("--generate", "5", "--forms", "whole", "login-sender", *server())
seed = re.match(r"--seed (\d+) ", text)[1]
assert text.endswith("6 passed, 0 failed, 0 skipped\n"), text
assert f"passed generated-{seed}-5" in run("--generate", "5", "--seed", seed, "--verbose", "generated-*", *server())

# --- Scenes that fail are shrunk, and the short ones fail when they are played from a file ---

patient = ("--timeout", "60")  # shrinking ends after a multiple of this
for fault, number, rule, most in (("strips-blanks", 3, "1 Lines, the payload byte for byte", 8),
                                  ("to-the-own-name", 10, "4 Sender, sendall", 7),
                                  ("keeps-a-receiver-in-the-old-room", 1, "4 Sender, sendall", 8),
                                  ("closes-on-a-bad-line", 1, "1 Lines, malformed", 4),
                                  ("dies-on-nul", 4, "3 Login", 2)):
    text = run(*patient, f"generated-2026-{number}", *server(fault), code=1)
    found = re.search(r"\nFAILED generated-2026-\d+: .*\n  rule      (.*)\n(?:  .*\n)*?"
                      r"  shrunk    from (\d+) actions to (\d+), in \d+ plays\n  scene .*\n((?:      .+\n)+)", text)
    assert found, text
    named, before, after, scene = found.groups()
    steps = scene.splitlines()[4:]
    print(f"{fault}: from {before} to {after} actions, {len(steps)} steps; {named}")
    assert int(after) < int(before) and len(steps) <= most and named.startswith(rule), text
    with tempfile.TemporaryDirectory() as folder:
        file_name = os.path.join(folder, "short.scene")
        with open(file_name, "w", encoding="ascii") as file:
            file.write(re.sub("^ +", "", scene, flags=re.M))
        assert "FAILED short: " in run(file_name, *server(fault), code=1)

# Many that fail are not all shrunk, but all are told of.
text = run(*patient, "--generate", "20", "--seed", "2026", "generated-*", *server("strips-blanks"), code=1)
failed = len(re.findall(r"^FAILED generated-", text, re.M))
assert failed > 3 and text.count("  shrunk    from ") == 3 and text.count("enough scenes fail") == failed - 3, text

# --- What fails only now and then is shown as it was, and not shrunk to a scene that passes ---

name, long = next((name, text) for name, text in scenes if text.count("leave:") == text.count(" ok leave:\n") == 1)
with tempfile.TemporaryDirectory() as folder:
    file_name = os.path.join(folder, "forgetful.py")
    with open(file_name, "w", encoding="ascii") as file:
        file.write(f"""
import sys
sys.path.insert(0, {here!r})
import chat_server
class Client(chat_server.Client):
    wrong = int(sys.argv[2])
    def leave(self, payload):
        Client.wrong -= 1
        self.reply("err") if Client.wrong >= 0 else super().leave(payload)
chat_server.Server(int(sys.argv[1]), Client).serve()
""")
    for times, why in (2, "none of the shorter scenes that were played fails so"), (3, "shorter scenes fail only now"):
        text = run(*patient, name, "--", sys.executable, file_name, "{port}", str(times), code=1)
        assert f"shrunk    no: {why}" in text and "rule      4 Sender, leave" in text, text
        assert re.sub("^", "      ", long, flags=re.M).rstrip(" ") in text, text
    assert "1 passed" in run(name, "--", sys.executable, file_name, "{port}", "0")
