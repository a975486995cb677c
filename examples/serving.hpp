// SPDX-License-Identifier: BSL-1.0
/// @file
/// The common part of the server programs: flags, the three policies, signals.
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

#include <chatproto/server.hpp>
#include <chatproto/stop_on_signals.hpp>
#include <chatproto/threading.hpp>

#include "descriptors.hpp"
#include "program.hpp"

namespace program {

inline std::string check_address(std::string const& text) {
  std::error_code ec;
  asio::ip::make_address(text, ec);
  return ec ? "'" + text + "' is not an IP address" : std::string();
}

inline std::string check_keepalive(std::string const& seconds) {
  auto const short_time = seconds == "1" || seconds == "2" || seconds == "3";
  return short_time ? "'" + seconds + "' is neither 0 nor at least 4 seconds" : std::string();
}

/// The command-line flags of a server.
struct ServerFlags {
  chatproto::ServerOptions options;
  std::string policy = "pool";

  /// Without a default, the port is a required argument.
  void add_to(CLI::App& app, std::optional<std::uint16_t> default_port = {}) {
    auto* const port =
        app.add_option("PORT", options.port, "TCP port to listen on; 0: a free port, whose number is printed on stderr")
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
    app.add_option("--threads", options.threads, "Number of threads for pool and strand; 0: one for each core")
        ->check(decimal(0, 1024))
        ->capture_default_str();
    app.add_option("--address", options.address, "Address to listen on; by default all addresses, IPv6 and IPv4")
        ->check(check_address, "");
    app.add_option("--max-clients", options.max_clients,
                   "Maximum number of clients; the server refuses further ones; 0: as many as it has descriptors for")
        ->check(decimal(0, 1'000'000'000))
        ->capture_default_str();
    // Not above the protocol's limit, which the clients keep too.
    app.add_option("--line-limit", options.line_limit,
                   "Maximum length of a client's line in bytes, including its line end")
        ->check(decimal(16, chatproto::max_line))
        ->capture_default_str();
    app.add_option("--rate", options.rate, "Lines per second that a client may send in the long run; 0: no limit")
        ->check(decimal(0, 1'000'000'000))
        ->type_name("LINES")
        ->capture_default_str();
    app.add_option("--rate-burst", options.rate_burst, "Lines that a client may send at once before --rate applies")
        ->check(decimal(1, 1'000'000'000))
        ->type_name("LINES")
        ->capture_default_str();
    app.add_option("--queue-limit", options.queue_limit, "Bytes that may wait for one client that does not read")
        ->check(decimal(1, 1'000'000'000))
        ->capture_default_str();
    app.add_option("--memory-limit", options.memory_limit,
                   "Bytes that the server may hold for all clients together; 0: half of the memory that it may use")
        ->check(decimal(0, 1'000'000'000'000'000))
        ->capture_default_str();
    app.add_option_function<std::string>(
           "--overflow",
           [this](std::string const& what) {
             options.overflow =
                 what == "disconnect" ? chatproto::Overflow::disconnect : chatproto::Overflow::block_sender;
           },
           "What the server does at the queue limit: disconnect the client, or make those who send to its room wait")
        ->check(CLI::IsMember({"disconnect", "block-sender"}))
        ->default_str("disconnect");
    app.add_option("--send-buffer", options.send_buffer,
                   "Size of the system's send buffer for one client, in bytes; 0: the system's default")
        ->check(decimal(0, 1'000'000'000))
        ->capture_default_str();
    add_seconds(app, "--write-deadline", options.write_deadline,
                "Time after which a client that takes none of its pending output is disconnected");
    add_seconds(app, "--linger", options.linger,
                "Time that a client has to close its side after the server has closed its own");
    app.add_option_function<std::int64_t>(
           "--keepalive", [this](std::int64_t time) { options.keepalive = std::chrono::seconds(time); },
           "Time of silence after which TCP probes whether a client's machine is still there; 0: never")
        ->check(decimal(0, 32767))
        ->check(check_keepalive, "")
        ->type_name("SECONDS")
        ->default_str(std::to_string(options.keepalive.count()));
    add_seconds(app, "--drain", options.drain,
                "Time that clients have to take their pending output when the server stops");
    add_seconds(app, "--accept-retry", options.accept_retry,
                "Time after which the server accepts again when descriptors or memory were short; doubles each time");
    add_seconds(app, "--accept-retry-most", options.accept_retry_most, "Maximum of that time");
  }
  /// For services with logins.
  void add_login_deadline_to(CLI::App& app) {
    add_seconds(app, "--login-deadline", options.login_deadline, "Time that a client has to log in");
  }
};

/// Tells a person at the terminal that the server listens and how it serves, and a script which port it has got.
inline void announce(auto const& server, std::string const& policy) {
  auto const& options = server.options();
  if (options.port != 0 && !is_terminal(stderr)) return;
  auto line = "listening on port " + std::to_string(server.port());
  if (is_terminal(stderr)) {
    auto const threads = std::to_string(options.threads) + (options.threads == 1 ? " thread" : " threads");
    line += " (" + policy + (options.threads == 0 ? ")" : ", " + threads + ")");
  }
  complain(line);
}

/// Serves until SIGINT or SIGTERM; a second signal stops without waiting for clients to read. The object that `beside`
/// makes for the server lives while it serves.
template <class Server, class... Args>
void serve_until_signal(ServerFlags const& flags, auto const& beside, Args const&... service_args) {
  auto server = [&] {
    try {
      return std::make_unique<Server>(flags.options, service_args...);
    } catch (std::system_error const& error) {
      throw std::runtime_error(error.what());  // not a lost connection
    }
  }();
  chatproto::StopOnSignals const stop_on_signals(*server);
  announce(*server, flags.policy);
  [[maybe_unused]] auto const companion = beside(*server);
  server->run();
}

/// Serves `Service`, made from `service_args`, under the policy of the flags. `beside` is as above.
template <class Service, class... Args>
int serve_beside(ServerFlags const& flags, auto const& beside, Args const&... service_args) {
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);
#endif
#ifdef SIGHUP
  std::signal(SIGHUP, SIG_IGN);  // the server outlives its terminal
#endif
  raise_descriptor_limit();  // each client needs at least one
  using namespace chatproto;
  if (flags.policy == "thread-per-client")
    serve_until_signal<Server<ThreadPerClient, Service>>(flags, beside, service_args...);
  else if (flags.policy == "strand")
    serve_until_signal<Server<StrandPool, Service>>(flags, beside, service_args...);
  else
    serve_until_signal<Server<ThreadPool, Service>>(flags, beside, service_args...);
  return 0;
}
template <class Service, class... Args>
int serve(ServerFlags const& flags, Args const&... service_args) {
  return serve_beside<Service>(
      flags, [](auto const&) { return 0; }, service_args...);
}

}  // namespace program
