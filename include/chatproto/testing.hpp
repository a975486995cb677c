// SPDX-License-Identifier: BSL-1.0
/// @file
/// Simulates a service with its clients in many orders, and shrinks a history that fails.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <chatproto/detail/testing/play.hpp>
#include <chatproto/detail/testing/random.hpp>
#include <chatproto/detail/testing/shrink.hpp>
#include <chatproto/detail/testing/simulated_link.hpp>
#include <chatproto/detail/testing/simulated_server.hpp>
#include <chatproto/peer.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>
#include <chatproto/testing/history.hpp>

/// Simulates services, for tests.
///
/// `find_failure` plays a service with its clients without sockets, threads or clock, in an order that a seed chooses.
/// It uses the real rules of the server's links and the real queues: lines arrive in pieces or several at once,
/// clients stop reading, reset their connections and come again, time passes, deadlines and limits (`ServerOptions`)
/// apply, and pauses, resumes and posted tasks take effect late. A history in which a check fails is shrunk: clients
/// and steps are removed as long as it still fails.
///
/// A seed gives the same history with every compiler on every system, unless the service itself depends on something
/// else, such as addresses, the clock or other threads. Calls of sessions never overlap, so a data race is not found:
/// use ThreadSanitizer for that. A service's `on_start`, `on_stop` and `on_end` are not called, and `executor_of`
/// returns an empty executor: a service that has timers should get the time from `Clock` and its timers from
/// `post_after`.
///
/// Thread safety: only one thread of a process may simulate at a time.
namespace chatproto::testing {

/// The time of the simulation, for a service that has its clock as a template parameter. It is a clock like those of
/// the standard library, with the time points of `std::chrono::steady_clock`. The time changes only between steps.
using Clock = detail::SimulatedTime;

/// Reproducible random choices: `below(n)`, `between(first, last)`, `percent(chance)`, `one_of(range)`.
using Random = detail::Random;

/// Posts a task to a client (`Peer::post`) when `delay` has passed in the simulation, for a service that gets its
/// timers as a function. At the end of a history, tasks whose time has not come are dropped.
inline void post_after(Peer peer, Clock::duration delay, std::function<void()> task) {
  detail::SimulatedTimers::add(std::move(peer), delay, std::move(task));
}

/// A line that a client may send, and how often compared with others.
struct Choice {
  std::string line;     ///< without its terminator
  unsigned weight = 1;  ///< not 0

  /// Constructs a line that is sent `often` times as often as one with 1.
  Choice(std::string text, unsigned often = 1) : line(std::move(text)), weight(often) {}
  /// As above.
  Choice(char const* text, unsigned often = 1) : line(text), weight(often) {}
};

/// What a client may do.
struct ClientPlan {
  std::string name;                     ///< for messages
  std::vector<std::string> first = {};  ///< lines that it sends first on each connection, such as a login
  std::vector<Choice> lines = {};       ///< then any of these, in any order
  std::size_t connections = 1;          ///< how often it may connect
  /// If set, makes the lines after the first ones, instead of `lines`; nothing: no line now. Its argument is what the
  /// client has seen so far. Not called when a history is replayed.
  std::function<std::optional<std::string>(Random&, Client const&)> next = {};
};

/// What a check gets.
template <class S>
struct View {
  S& service;                          ///< the service
  std::vector<Client> const& clients;  ///< in the order of their plans
};

/// What to simulate. `S` is a `Service`.
template <Service S>
struct Scenario {
  /// A check returns what is broken, or an empty string.
  using Check = std::function<std::string(View<S> const&)>;

  std::vector<ClientPlan> clients;  ///< what each client may do; not empty
  Check after_step = {};            ///< called after each step; clients may not have received everything yet
  Check at_end = {};                ///< called when the server has done all that is due and clients have received all
  ServerOptions options = {};       ///< the limits of the server, except those of its socket, threads and memory
  std::size_t steps = 60;           ///< the most steps of a history, not counting what happens at its end
  bool may_throw = false;           ///< whether a session may throw; else that is a failure
  /// The times that may pass in a step. Without any, no time passes.
  std::vector<std::chrono::milliseconds> times = {std::chrono::milliseconds(1), std::chrono::milliseconds(20),
                                                  std::chrono::milliseconds(200), std::chrono::seconds(3),
                                                  std::chrono::seconds(11)};
  /// If set, gets each seed and each step before it is tried: if the program crashes, the last ones are to blame.
  std::ostream* trace = nullptr;
  /// Makes the service for a history. If empty, it is constructed without arguments.
  std::function<std::unique_ptr<S>()> make = {};
};

/// A failure: a seed and a history.
struct Failure {
  std::uint64_t seed = 0;  ///< `play` plays the whole history again
  std::size_t steps = 0;   ///< how many steps it had
  History history = {};    ///< shrunk

  /// Writes the seed and the history as text.
  friend std::ostream& operator<<(std::ostream& out, Failure const& failure) {
    return out << "seed " << failure.seed << ", shrunk from " << failure.steps << " steps to "
               << failure.history.steps.size() << '\n'
               << to_string(failure.history);
  }
};

/// Plays one history of a scenario. `seed` makes all choices. Throws `std::invalid_argument` if the scenario has no
/// clients or a negative time. Exceptions of checks and of `Scenario::make` are passed on.
template <Service S>
History play(Scenario<S> const& scenario, std::uint64_t seed) {
  return detail::Play<S, Scenario<S>>(scenario).random(seed);
}

/// Plays these steps again, except those that are not possible. Throws as `play` does.
template <Service S>
History replay(Scenario<S> const& scenario, std::vector<Step> const& steps) {
  return detail::Play<S, Scenario<S>>(scenario).steps(steps);
}

/// Plays the histories of `seeds` seeds, beginning with `first`, until one fails. Returns the failure, shrunk, or
/// nothing. Throws as `play` does.
///
/// @code
/// struct Echo {
///   struct Session {
///     chatproto::Peer peer;
///     void on_line(std::string_view line) { peer.send_line(line); }
///   };
///   Session open(chatproto::Peer peer) { return {std::move(peer)}; }
/// };
/// chatproto::testing::Scenario<Echo> scenario{
///     .clients = {{.name = "alice", .lines = {"a", "b"}}, {.name = "bob", .lines = {{"c", 3}, "d"}}},
///     .at_end = [](auto const& view) {
///       auto const& alice = view.clients[0];
///       return alice.connected && alice.received() != alice.sent() ? "alice did not get what she sent" : "";
///     }};
/// if (auto const failure = chatproto::testing::find_failure(scenario)) std::cerr << *failure;
/// @endcode
template <Service S>
std::optional<Failure> find_failure(Scenario<S> const& scenario, std::uint64_t seeds = 1000, std::uint64_t first = 1) {
  constexpr std::size_t most_replays = 5000;
  for (auto seed = first; seed - first < seeds; ++seed) {
    auto const found = play(scenario, seed);
    if (found.broken.empty()) continue;
    auto const fails = [&](std::vector<Step> const& steps) -> std::optional<std::vector<Step>> {
      auto history = replay(scenario, steps);
      if (history.broken.empty()) return std::nullopt;
      return std::move(history.steps);
    };
    auto const steps = detail::shrink(found.steps, scenario.clients.size(), fails, most_replays);
    return Failure{seed, found.steps.size(), replay(scenario, steps)};
  }
  return std::nullopt;
}

}  // namespace chatproto::testing
