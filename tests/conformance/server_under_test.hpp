// SPDX-License-Identifier: BSL-1.0
// The server under test: found at an address, or started on a free port and stopped at the end of the run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>

#include "channel.hpp"
#include "play.hpp"
#include "process.hpp"

namespace conformance {

/// Finds a server, and connects to see whether it is running. Throws.
Endpoints find_server(asio::io_context& io, std::string const& host, std::string const& port);

/// Does one handshake with the server, so that what would make each scene fail is said once. Throws.
void check_wrapping(Settings const& settings);

class ServerUnderTest {
 public:
  /// `{port}` in the command stands for the port. The signal `term` stops the server.
  ServerUnderTest(asio::io_context& io, std::vector<std::string> command, int term);

  /// Starts the server, on another port if it ends at once, and waits until it accepts connections. Throws.
  Endpoints start();

  [[nodiscard]] bool started() const { return process_ != nullptr; }

  /// Calls back when the server ends by itself.
  void watch(std::function<void(std::string const& how)> ended);

  /// Stops the server. Returns what was wrong with that, or an empty string.
  std::string stop();

 private:
  bool answers(asio::ip::tcp::endpoint const& endpoint);

  asio::io_context& io_;
  std::vector<std::string> command_;
  int term_;
  std::unique_ptr<Process> process_;
  asio::steady_timer timer_;
};

}  // namespace conformance
