// SPDX-License-Identifier: BSL-1.0
/// @file
/// What the server programs have in common: flags, three policies, signals.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include <asio/ip/address.hpp>
#include <asio/signal_set.hpp>

#include <chatproto/server.hpp>
#include <chatproto/threading.hpp>

#include "descriptors.hpp"
#include "program.hpp"

namespace program {

inline std::string check_address(std::string const& text) {
  std::error_code ec;
  asio::ip::make_address(text, ec);
  return ec ? "'" + text + "' is no IP address" : std::string();
}

/// What the command line says about a server.
struct ServerFlags {
  chatproto::ServerOptions options;
  std::string policy = "pool";

  /// Without a default the port must be named.
  void add_to(CLI::App& app, std::optional<std::uint16_t> default_port = {}) {
    auto* const port =
        app.add_option("PORT", options.port, "TCP port to listen on; 0: a free one, which is told on stderr")
            ->check(decimal(0, 65535));
    if (default_port) {
      options.port = *default_port;
      port->capture_default_str();
    } else {
      port->required();
    }
    app.add_option("--policy", policy, "Which threads serve the clients")
        ->check(CLI::IsMember({"thread-per-client", "pool", "strand"}))
        ->capture_default_str();
    app.add_option("--threads", options.threads, "Threads of pool and strand; 0: as many as there are cores")
        ->check(decimal(0, 1024))
        ->capture_default_str();
    app.add_option("--address", options.address, "The one address to listen on; without it: all, IPv6 and IPv4")
        ->check(check_address, "");
    app.add_option("--queue-limit", options.queue_limit, "Bytes that may wait for a client that does not read")
        ->check(decimal(1, 1'000'000'000))
        ->capture_default_str();
    add_seconds(app, "--write-deadline", options.write_deadline, "Time after which a client that takes nothing is cut");
    add_seconds(app, "--drain", options.drain,
                "Time that clients have to take what waits for them, when the server stops");
  }
  /// For a service with logins.
  void add_login_deadline_to(CLI::App& app) {
    add_seconds(app, "--login-deadline", options.login_deadline, "Time to log in");
  }
};

/// Serves until SIGINT or SIGTERM; a second one does not wait for clients to read.
template <class Server, class... Args>
void serve_until_signal(chatproto::ServerOptions const& options, Args const&... service_args) {
  auto server = [&] {
    try {
      return std::make_unique<Server>(options, service_args...);
    } catch (std::system_error const& error) {
      throw std::runtime_error(error.what());  // not the loss of a connection
    }
  }();
  asio::signal_set signals(server->context(), SIGINT, SIGTERM);
  signals.async_wait([&](std::error_code const& ec, int) {
    if (ec) return;
    server->stop();
    signals.async_wait([&](std::error_code const& again, int) {
      if (again) return;
      server->stop(chatproto::Stop::now);
      signals.clear();  // a third one ends even a server whose sessions hang
    });
  });
  if (options.port == 0) complain("listening on port " + std::to_string(server->port()));
  server->run();
}

/// Serves `Service`, made from `service_args`, under the policy of the flags.
template <class Service, class... Args>
int serve(ServerFlags const& flags, Args const&... service_args) {
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);
#endif
  raise_descriptor_limit();  // one for each client at least
  using namespace chatproto;
  if (flags.policy == "thread-per-client")
    serve_until_signal<Server<ThreadPerClient, Service>>(flags.options, service_args...);
  else if (flags.policy == "strand")
    serve_until_signal<Server<StrandPool, Service>>(flags.options, service_args...);
  else
    serve_until_signal<Server<ThreadPool, Service>>(flags.options, service_args...);
  return 0;
}

}  // namespace program
