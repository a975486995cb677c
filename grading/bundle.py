# SPDX-License-Identifier: BSL-1.0
"""Packs the kit for Gradescope and for Classroom 50, which grade one submission at a time."""
import json
import os
import shlex
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = ("chatproto-grade", "bundle.py", "judging.py", "limits.py", "page.py", "perturb.c", "perturb.py",
           "reports.py", "sanitize.py", "submissions.py")

SETUP = """#!/bin/bash
# Gradescope runs this once, as root, when it builds the image.
set -eu
apt-get update
DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {packages}
id student >/dev/null 2>&1 || useradd --create-home student
cd "$(dirname "$0")"
chmod -R go-rwx . # submissions run as another user, who must not read the profile
chmod u+x chatproto-conformance
./chatproto-conformance --version
"""

RUN = """#!/bin/bash
# Gradescope runs this for each submission. It writes results even if the grading fails.
root=${{AUTOGRADER:-/autograder}}
source=$root/source
mkdir -p "$root/results"
out=$(mktemp -d)
python3 "$source/chatproto-grade" --single "$root/submission" --out "$out" \\
  --conformance "$source/chatproto-conformance" {user}{options}
cp "$out"/*/results.json "$root/results/results.json" || cat >"$root/results/results.json" <<'END'
{{"score": 0, "output": "The autograder itself failed. Please tell your teacher.", "stdout_visibility": "hidden"}}
END
rm -rf "$out"
exit 0
"""

AUTOGRADER = '''#!/usr/bin/env python3
"""Classroom 50 runs this for each submission, in the student's checkout, and reads ./result.json."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

here = os.path.dirname(os.path.abspath(__file__))
for program in "chatproto-grade", "chatproto-conformance":
    os.chmod(os.path.join(here, program), 0o755)
with tempfile.TemporaryDirectory() as out:
    ran = subprocess.run([sys.executable, os.path.join(here, "chatproto-grade"), "--single", ".", "--out", out,
                          "--conformance", os.path.join(here, "chatproto-conformance"),
                          *{options}], check=False)
    if ran.returncode != 0:
        sys.exit(ran.returncode)  # an infrastructure error
    for name in "result.json", "feedback.txt":
        shutil.copy(glob.glob(os.path.join(glob.escape(out), "*", name))[0], name)
'''


def needs_libraries(program):
    """Whether an ELF program needs a dynamic linker, and so the libraries of the system that it was built on."""
    with open(program, "rb") as file:
        head = file.read(4096)
    if head[:4] != b"\x7fELF":
        return False
    start, size, count = (int.from_bytes(head[at:at + width], "little") for at, width in ((32, 8), (54, 2), (56, 2)))
    return any(head[start + i * size:start + i * size + 4] == b"\3\0\0\0" for i in range(count))


def content(conformance, profile, arguments):
    """The files of both kinds: {name: (bytes, executable)}, and the options for chatproto-grade, ready for quoting."""
    files = {}
    for name in MODULES:
        with open(os.path.join(HERE, name), "rb") as file:
            files[name] = file.read(), name == "chatproto-grade"
    with open(conformance, "rb") as file:
        files["chatproto-conformance"] = file.read(), True
    if os.path.isfile(profile):
        with open(profile, "rb") as file:
            files["profile"] = file.read(), False
    return files, [*arguments, "--profile"]


def gradescope(path, conformance, profile, arguments, packages):
    files, options = content(conformance, profile, arguments)
    quoted = " ".join([*map(shlex.quote, options), '"$source/profile"' if "profile" in files else shlex.quote(profile)])
    files["setup.sh"] = SETUP.format(packages=" ".join(map(shlex.quote, ["python3", *packages]))).encode(), True
    user = '$([ "$(id -u)" = 0 ] && id student >/dev/null 2>&1 && echo --user student) '
    files["run_autograder"] = RUN.format(options=quoted, user=user).encode(), True
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, executable) in files.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.external_attr = (0o100755 if executable else 0o100644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)


def classroom50(folder, conformance, profile, arguments):
    files, options = content(conformance, profile, arguments)
    listed = json.dumps(options) + " + [" + ('os.path.join(here, "profile")' if "profile" in files
                                             else json.dumps(profile)) + "]"
    files["autograder.py"] = AUTOGRADER.replace("*{options}", f"*({listed})").encode(), True
    os.makedirs(folder, exist_ok=True)
    for name, (data, executable) in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)
        os.chmod(os.path.join(folder, name), 0o755 if executable else 0o644)
