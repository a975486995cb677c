# SPDX-License-Identifier: BSL-1.0
"""check_sanitize.py: their reports are read correctly, and a submission is built with them by its own Makefile."""
import os
import subprocess
import tempfile

import sanitize

REPORTS = """\
hello
==================
WARNING: ThreadSanitizer: data race (pid=11347)
  Read of size 8 at 0x7b0c00007820 by thread T15:
    #0 std::_Rb_tree<Client*>::_M_get_insert_unique_pos(Client* const&) /usr/include/c++/12/bits/stl_tree.h:2059 (s+0x1)
    #1 Room::add(Client&) FOLDER/room.cpp:31 (server+0x1046e)
    #2 Client::join(std::string const&) FOLDER/client.cpp:33:7 (server+0x10)

  Previous write of size 8 at 0x7b0c00007820 by thread T13:
    #0 operator new(unsigned long) ../../tsan_new_delete.cpp:64 (libtsan.so.2+0x87323)
    #1 Room::remove(Client&) FOLDER/room.cpp:40 (server+0x1046e)

SUMMARY: ThreadSanitizer: data race /usr/include/c++/12/bits/stl_tree.h:2059 in std::_Rb_tree
==================
==================
WARNING: ThreadSanitizer: data race (pid=11347)
  Write of size 8 at 0x7b0c00009999 by thread T18:
    #0 Room::add(Client&) FOLDER/room.cpp:31 (server+0x1046e)
==================
==================
WARNING: ThreadSanitizer: lock-order-inversion (potential deadlock) (pid=4216)
  Cycle in lock order graph: M21 (0x7b200000c058) => M46 (0x7b2000020058) => M21

  Mutex M46 acquired here while holding mutex M21 in thread T108:
    #0 pthread_mutex_lock ../../sanitizer_common_interceptors.inc:4324 (libtsan.so.2+0x558e1)
    #1 Guard::Guard(pthread_mutex_t&) FOLDER/guard.h:27 (server+0x11b88)
    #2 move FOLDER/room.cpp:99 (server+0x11b88)
==================
=================================================================
==2072==ERROR: AddressSanitizer: heap-use-after-free on address 0x60e000050c10 at pc 0x55a8 bp 0x7f94 sp 0x7f94
READ of size 8 at 0x60e000050c10 thread T39
    #0 0x55a8297e3b2c in std::deque<int>::size() const /usr/include/c++/12/bits/stl_deque.h:375
    #1 0x55a8297e3b2c in operator()(Client const&) const FOLDER/client.cpp:52

0x60e000050c10 is located 16 bytes inside of 160-byte region
freed by thread T40 here:
    #0 0x7f94 in operator delete(void*) ../../asan_new_delete.cpp:160
SUMMARY: AddressSanitizer: heap-use-after-free /usr/include/c++/12/bits/stl_deque.h:375
==2073==ERROR: AddressSanitizer: attempting double-free on 0x602000000010 in thread T2:
    #0 0x7f1 in free ../../asan_malloc_linux.cpp:52
    #1 0x7f2 in elsewhere /usr/src/other.c:7
=================================================================
FOLDER/client.cpp:12:3: runtime error: signed integer overflow: 2147483647 + 1 cannot be represented
"""

MAKEFILE = """\
CFLAGS = -DNAME=1 -pthread
server: race.c
\tgcc $(CFLAGS) -o server race.c
"""

RACE = """\
#include <pthread.h>
int counter = NAME;
static void *count(void *nothing) { for (int i = 0; i < 1000; ++i) ++counter; return nothing; }
int main(void) {
  pthread_t one, two;
  pthread_create(&one, 0, count, 0);
  pthread_create(&two, 0, count, 0);
  pthread_join(one, 0);
  pthread_join(two, 0);
  return 0;
}
"""


def check_reports(folder):
    found = sanitize.parse(REPORTS.replace("FOLDER", folder), folder)
    rows = [(one["sanitizer"], one["type"], one["where"], one["callers"], one["count"]) for one in found]
    expected = [
        ("ThreadSanitizer", "data race", "Room::add room.cpp:31", ["Client::join client.cpp:33"], 2),
        ("ThreadSanitizer", "lock-order-inversion (potential deadlock)", "Guard::Guard guard.h:27",
         ["move room.cpp:99"], 1),
        ("AddressSanitizer", "heap-use-after-free", "operator() client.cpp:52", [], 1),
        ("AddressSanitizer", "attempting double-free", "free", [], 1),
        ("UndefinedBehaviorSanitizer", "signed integer overflow: 2147483647 + 1 cannot be represented",
         "client.cpp:12", [], 1)]
    assert rows == expected, rows
    assert found[0]["report"][0].startswith("WARNING: ThreadSanitizer"), found[0]["report"]
    assert not sanitize.parse("nothing\nto see: #0 here\n", folder)


def check_build(folder):
    sources = os.path.join(folder, "submission")
    os.mkdir(sources)
    for name, text in (("Makefile", MAKEFILE), ("race.c", RACE)):
        with open(os.path.join(sources, name), "w", encoding="utf-8") as file:
            file.write(text)
    wrappers = sanitize.compilers(folder, "thread")
    program = os.path.join(sources, "server")
    subprocess.run(["make"], cwd=sources, check=True,
                   env={**os.environ, "PATH": wrappers + os.pathsep + os.environ["PATH"]})
    ran = subprocess.run([program], stderr=subprocess.PIPE, text=True,
                         env={**os.environ, **sanitize.SANITIZERS["thread"]["environment"]})
    if "unexpected memory mapping" in ran.stderr:
        ran = subprocess.run(["setarch", "-R", program], stderr=subprocess.PIPE, text=True)
    found = sanitize.parse(ran.stderr, os.path.dirname(program))
    assert [one["where"].split(":")[0] for one in found] == ["count race.c"], ran.stderr


with tempfile.TemporaryDirectory() as given:
    check_reports(os.path.realpath(given))
    check_build(given)
