// SPDX-License-Identifier: BSL-1.0
// arrival_server PORT: tells two clients whose line came first.
//
// Why this needs concurrency: the server cannot know whose line will come first. If it read from one client and then
// from the other, it would wait for the first even if the second had sent a line long ago; it would report the order in
// which it read, not the order in which the lines came. It must wait for both at once, and they share the lines
// received, which only one session may touch at a time (Pair::mutex_). Later each may send a line at any time, and it
// goes to the other.
//
// How each policy provides it: thread-per-client waits for each client in its own thread, and the threads meet at the
// lock. A thread of the pool waits for all its clients at once (epoll and the like) and runs the sessions of the
// clients that have sent something, one after the other; two clients of one thread never contend for the lock. With
// strand, whichever thread is free runs a client's session: the two sessions may run at once, as with threads of their
// own, but there are no more threads than cores.
#include "arrival_service.hpp"
#include "serving.hpp"

int main(int argc, char** argv) {
  program::ServerFlags flags;
  CLI::App app("Tells two clients who was first, then lets them chat. Serves until SIGINT or SIGTERM.");
  flags.add_to(app);
  return program::run(app, argc, argv, [&] { return program::serve<examples::ArrivalService>(flags, program::print); });
}
