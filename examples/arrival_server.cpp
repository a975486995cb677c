// SPDX-License-Identifier: BSL-1.0
// arrival_server PORT: two clients, and who was first.
//
// Why this needs concurrency: nobody knows whose line will come in first. A server that read from one client and then
// from the other would wait for the first while the second has long spoken; it would report the order in which it
// asked, not the order in which they came. Both must be waited for at once, and they share what came in, which only one
// may touch at a time (Pair::mutex). Later each may speak at any time, and what one says goes to the other.
//
// How each policy gives it: thread-per-client waits for each client in a thread of its own, and the threads meet at
// the lock. A pool's thread waits for all of its clients at once (epoll and its like) and runs the sessions of those
// who have spoken, one after the other; two clients of one thread never contend for the lock. A strand is run by
// whichever thread is free: the two sessions may run at once, as with threads of their own, but there are no more
// threads than cores.
#include "arrival_service.hpp"
#include "serving.hpp"

int main(int argc, char** argv) {
  program::ServerFlags flags;
  CLI::App app("Tells two clients who was first, then lets them chat. Serves until SIGINT or SIGTERM.");
  flags.add_to(app);
  return program::run(app, argc, argv, [&] { return program::serve<examples::ArrivalService>(flags, program::print); });
}
