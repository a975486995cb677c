# SPDX-License-Identifier: BSL-1.0
"""limits.py JSON COMMAND...: runs a command within limits, ends everything that it has started, and prints the result.

A process of its own does this for each command: as the "subreaper" it becomes the parent of all orphans below it, so
that no daemon of a submission escapes. JSON has the members of DEFAULTS. The result is JSON as well: `exit` (negative:
the signal), `stopped` (why the command was ended early, or ""), `killed` (why only what the command had started
was killed, and how often for each reason), `seconds`, `cpu`, `memory` (the most, in MiB).
"""
import ctypes
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import time

DEFAULTS = {
    "seconds": 60,       # wall-clock time
    "cpu": 120,          # seconds of all processes together
    "memory": 2048,      # MiB of all processes together
    "tasks": 2000,       # processes and threads
    "file": 256,         # MiB: the largest file that can be written
    "disk": 1024,        # MiB in `folder`
    "folder": ".",       # where the command runs
    "output": "",        # the file for its stdout; "" for none
    "errors": "",        # the file for its stderr, or "" for the same file
    "log": 256,          # KiB: what is kept of each of these files
    "spare": False,      # for a command that judges others: too much memory ends only what that has started
    "environment": {},
}
KILLS = 10  # after so many kills, the command itself is ended

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
libc = ctypes.CDLL(None, use_errno=True)
page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


class Task:
    def __init__(self, pid):
        self.pid = int(pid)
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        self.state, self.parent = fields[0], int(fields[1])
        self.cpu, self.threads = (int(fields[11]) + int(fields[12])) / tick, int(fields[17])
        self.memory = max(0, int(fields[21])) * page

    def own_memory(self):
        """Its memory: a page that several processes share counts in parts."""
        try:
            with open(f"/proc/{self.pid}/smaps_rollup", encoding="ascii") as file:
                return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except (OSError, StopIteration):
            return self.memory


def below(top):
    """All descendants of a process that still run."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                task = Task(name)
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
            children.setdefault(task.parent, []).append(task)
    found, parents = [], [top]
    while parents:
        for task in children.get(parents.pop(), ()):
            parents.append(task.pid)
            if task.state not in "ZX":
                found.append(task)
    return found


def send(pid, number):
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def end_all(top, but=(), reap=lambda: None):
    """Kills all descendants of a process. All are stopped first, so that none can start another in the meantime."""
    for _ in range(500):
        tasks = [task.pid for task in below(top) if task.pid not in but]
        if not tasks:
            return
        for number in signal.SIGSTOP, signal.SIGKILL:
            for pid in tasks:
                send(pid, number)
        reap()
        time.sleep(0.01)


def used(folder, limit):
    """Bytes in a folder; stops counting above the limit."""
    size, folders = 0, [folder]
    while folders and size <= limit:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    size += 4096 + entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            pass  # it has just been removed
    return size


class Log:
    """Keeps the first bytes of what comes, and drops the rest."""

    def __init__(self, path, limit):
        self.file, self.left = open(path or os.devnull, "wb"), limit

    def add(self, data):
        if 0 < self.left < len(data):
            data = data[:self.left] + b"\n(the rest is not kept)\n"
        if self.left > 0:
            self.file.write(data)
            self.file.flush()
        self.left -= len(data)


class Keeper:
    def __init__(self, limits, command):
        self.limits, self.pid = limits, os.getpid()
        self.stopped, self.killed, self.peak, self.status = "", {}, 0, None
        self.began = time.monotonic()
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            signal.signal(number, self.interrupted)
        self.main = subprocess.Popen(command, cwd=limits["folder"], env=limits["environment"], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                                     preexec_fn=self.in_child)
        output = Log(limits["output"], limits["log"] * 1024)
        errors = Log(limits["errors"], limits["log"] * 1024) if limits["errors"] else output
        self.selector = selectors.DefaultSelector()
        for pipe, log in (self.main.stdout, output), (self.main.stderr, errors):
            os.set_blocking(pipe.fileno(), False)
            self.selector.register(pipe, selectors.EVENT_READ, log)

    def in_child(self):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        largest = self.limits["file"] << 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        try:  # if memory runs out all the same, the system should end these first
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write("1000")
        except OSError:
            pass

    def interrupted(self, *_):
        self.stopped = self.stopped or "interrupted"

    def reap(self):
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.main.pid:
                    self.status = self.main.returncode = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            pass

    def read(self, timeout):
        for key, _ in self.selector.select(timeout):
            try:
                data = os.read(key.fd, 65536)
            except BlockingIOError:
                continue
            key.data.add(data)
            if not data:
                self.selector.unregister(key.fileobj)
        if not self.selector.get_map():
            time.sleep(timeout)

    def too_much(self, why):
        """Ends what the command has started, or the command as well."""
        self.killed[why] = self.killed.get(why, 0) + 1
        if not self.limits["spare"]:
            self.stopped = why
        elif sum(self.killed.values()) >= KILLS:
            self.stopped = why + ", again and again"
        else:
            end_all(self.pid, {self.main.pid}, self.reap)

    def look(self):
        limits, tasks = self.limits, below(self.pid)
        memory = sum(task.memory for task in tasks)
        if memory > limits["memory"] << 20:
            memory = sum(task.own_memory() for task in tasks)
        self.peak = max(self.peak, memory)
        if memory > limits["memory"] << 20:
            self.too_much(f"more than {limits['memory']} MiB of memory")
        elif sum(task.threads for task in tasks) > limits["tasks"]:
            self.too_much(f"more than {limits['tasks']} processes and threads")
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu = ended.ru_utime + ended.ru_stime + sum(task.cpu for task in tasks)
        if self.cpu > limits["cpu"]:
            self.stopped = f"it took more than {limits['cpu']} s of processor time"
        if time.monotonic() - self.began > limits["seconds"]:
            self.stopped = f"it took longer than {limits['seconds']} s"

    def run(self):
        looks = 0
        while self.status is None and not self.stopped:
            self.read(0.05)
            self.reap()
            looks += 1
            if looks % 2:
                self.look()
            if looks % 20 == 0 and used(self.limits["folder"], self.limits["disk"] << 20) > self.limits["disk"] << 20:
                self.stopped = f"it wrote more than {self.limits['disk']} MiB to the disk"
        if self.status is None and self.limits["spare"]:
            self.ask_to_end()
        end_all(self.pid, reap=self.reap)
        self.reap()
        self.read(0)
        return {"exit": self.status, "stopped": self.stopped, "killed": self.killed, "cpu": round(self.cpu, 1),
                "seconds": round(time.monotonic() - self.began, 1), "memory": self.peak >> 20}

    def ask_to_end(self):
        """The judge writes its report on SIGTERM. It must not wait for a server that ignores signals."""
        send(self.main.pid, signal.SIGTERM)
        for tenths in range(200):
            self.read(0.1)
            self.reap()
            if self.status is not None:
                return
            if tenths >= 5:
                end_all(self.pid, {self.main.pid}, self.reap)

    cpu = 0.0


if __name__ == "__main__":
    try:
        print(json.dumps(Keeper({**DEFAULTS, **json.loads(sys.argv[1])}, sys.argv[2:]).run()))
    except OSError as error:
        sys.exit(f"limits: {error}")
