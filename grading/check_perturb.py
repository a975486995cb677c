# SPDX-License-Identifier: BSL-1.0
"""check_perturb.py CONFORMANCE LIBRARY COMMAND...: perturb.py finds the race that this server has.

check_perturb.py left-behind: it finds what servers leave behind, and nothing where they do not."""
import os
import sys

import perturb

sys.path.insert(0, os.path.join(perturb.HERE, "..", "tests", "conformance"))
import chat_server  # noqa: E402


class Lazy(chat_server.Client):
    """Finds out that a receiver has gone only when it sends, as the course allows."""

    def read(self):
        data = super().read()
        while not data and self.role == "receiver" and self.writer_is_alive():
            perturb.time.sleep(0.01)
        return data

    def run(self):
        self.alive = True
        super().run()

    def write_lines(self):
        super().write_lines()
        self.alive = False

    def writer_is_alive(self):
        return self.alive


class NeverCloses(chat_server.Client):
    kept = []

    def __init__(self, server, connection):
        super().__init__(server, connection)
        self.kept.append(connection.dup())


class WriterStays(chat_server.Client):
    """The thread that writes waits for ever when a receiver has vanished."""

    def write_lines(self):
        super().write_lines()
        while self.role == "receiver":
            perturb.time.sleep(3600)

    def forget(self):
        super().forget()
        if self.role == "receiver":
            self.connection.close()


SERVERS = {"correct": (chat_server.Client, ""), "lazy": (Lazy, ""), "never-closes": (NeverCloses, " 0 threads and 1"),
           "writer-stays": (WriterStays, " 0 descriptors")}  # and what each line of the report has


def check_left_behind():
    for name, (_, what) in SERVERS.items():
        test = perturb.left_behind([sys.executable, os.path.abspath(__file__), "server", name, "{port}"],
                                   patience=1 if what else 60)
        print(name, test)
        assert test["status"] == ("failed" if what else "passed"), name
        assert all(what in line for line in test["told"]), name


def check_race(conformance, library, command):
    test = perturb.perturbed(conformance, command, library, seeds=1000, timeout=8)
    print("\n".join(test["told"]))
    assert test["status"] == "failed", "the race has not been found"


if sys.argv[1] == "server":
    chat_server.Server(int(sys.argv[3]), SERVERS[sys.argv[2]][0]).serve()
elif sys.argv[1] == "left-behind":
    check_left_behind()
else:
    check_race(sys.argv[1], sys.argv[2], sys.argv[3:])
