// SPDX-License-Identifier: BSL-1.0
#include <chatproto/stop_on_signals.hpp>

#include <chatproto/server.hpp>
#include <chatproto/threading.hpp>

#include <csignal>
#include <thread>
#include <vector>

#include <asio/io_context.hpp>

#include "catch.hpp"
#include "socket_support.hpp"
#include "support.hpp"

using chatproto::Server;
using chatproto::StopMode;
using chatproto::StopOnSignals;

namespace {

/// Notes how it was stopped.
struct StoppedServer {
  asio::io_context& context() { return io; }
  void stop(StopMode how) { stops.push_back(how); }
  bool is_stopped(std::vector<StopMode> const& expected) {
    return test::eventually([&] {
      io.restart();
      io.poll();
      return stops == expected;
    });
  }

  asio::io_context io;
  std::vector<StopMode> stops;
};

}  // namespace

TEST_CASE("the first signal drains, the second stops at once, the third has its usual effect", "[stop_on_signals]") {
  auto const signal = GENERATE(SIGINT, SIGTERM);
  StoppedServer server;
  StopOnSignals const stop_on_signals(server);
  std::raise(signal);
  CHECK(server.is_stopped({StopMode::drain}));
  std::raise(signal);
  CHECK(server.is_stopped({StopMode::drain, StopMode::now}));
  CHECK(std::signal(signal, SIG_DFL) == SIG_DFL);
}

TEST_CASE("a signal stops all servers of the process", "[stop_on_signals]") {
  Server<chatproto::ThreadPool> first(test::patient());
  Server<chatproto::StrandPool> second(test::patient());
  StopOnSignals const stop_first(first);
  StopOnSignals const stop_second(second);
  std::raise(SIGTERM);  // also if it comes before run()
  std::thread runner([&] { first.run(); });
  second.run();
  runner.join();
}

TEST_CASE("a StopOnSignals that is destroyed stops nothing", "[stop_on_signals]") {
  StoppedServer server;
  { StopOnSignals const stop_on_signals(server); }
  server.io.run();
  CHECK(server.stops.empty());
  CHECK(std::signal(SIGTERM, SIG_DFL) == SIG_DFL);
}
