// SPDX-License-Identifier: BSL-1.0
/// @file
/// `StopOnSignals`, which ends a server's program in order.
#pragma once

#include <csignal>
#include <system_error>

#include <asio/signal_set.hpp>

#include <chatproto/server_options.hpp>

namespace chatproto {

/// Stops a `Server` when the process gets SIGINT (Ctrl-C) or SIGTERM. After the first signal, clients may still take
/// the output that waits for them (`StopMode::drain`); a second one disconnects them (`StopMode::now`). A third one has
/// its usual effect, so that it ends even a program whose sessions hang.
///
/// @code
/// chatproto::Server<chatproto::ThreadPool> server({.port = 47374});
/// chatproto::StopOnSignals const stop_on_signals(server);
/// server.run();
/// @endcode
///
/// Construct it before `run()` is called, and keep it until `run()` has returned. Several may exist in one process:
/// each stops its server.
template <class Server>
class StopOnSignals {
 public:
  /// Throws `std::system_error` if the signals cannot be handled.
  explicit StopOnSignals(Server& server) : server_(server), signals_(server.context(), SIGINT, SIGTERM) {
    stop_at_next(StopMode::drain);
  }
  StopOnSignals(StopOnSignals const&) = delete;
  StopOnSignals& operator=(StopOnSignals const&) = delete;

 private:
  void stop_at_next(StopMode how) {
    signals_.async_wait([this, how](std::error_code const& ec, int) {
      if (ec) return;
      server_.stop(how);
      how == StopMode::drain ? stop_at_next(StopMode::now) : signals_.clear();
    });
  }

  Server& server_;
  asio::signal_set signals_;
};

}  // namespace chatproto
