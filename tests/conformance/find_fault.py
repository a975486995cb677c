# SPDX-License-Identifier: BSL-1.0
"""find_fault.py RUNNER FAULT: plays the scene that must find this fault against a server that has it.

The scene must fail and name the right rule."""
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

from faulty_server import FAULTS

runner, name = sys.argv[1:]
_, scene, rule = FAULTS[name]
faulty = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faulty_server.py")
with tempfile.TemporaryDirectory() as folder:
    junit = os.path.join(folder, "junit.xml")
    forms = "whole,split,bytewise" if scene == "split" else "whole"
    scenes = "lines-*" if scene == "split" else scene
    ran = subprocess.run([runner, "--timeout", "5", "--forms", forms, "--junit", junit, scenes, "--",
                          sys.executable, faulty, "{port}", name],
                         stdout=subprocess.PIPE, text=True)
    failures = {case.get("name"): case.find("failure").get("type")
                for case in xml.etree.ElementTree.parse(junit).iter("testcase") if case.find("failure") is not None}
print(ran.stdout)
print("failed:", *failures)
assert ran.returncode == 1, ran.returncode
assert failures.get(scene, "").startswith(rule), f"{scene} should have failed, with the rule {rule}"
last = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", ran.stdout.splitlines()[-1])
assert last and int(last[2]) == len(failures), ran.stdout
