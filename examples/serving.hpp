// SPDX-License-Identifier: BSL-1.0
/// @file
/// The common part of the server programs: flags, the three policies, signals.
#pragma once

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <chatproto/address_list.hpp>
#include <chatproto/server.hpp>
#include <chatproto/stop_on_signals.hpp>
#include <chatproto/threading.hpp>

#include "descriptors.hpp"
#include "program.hpp"
#include "reload.hpp"
#include "service_manager.hpp"
#include "tls.hpp"
#include "websocket.hpp"

namespace program {

/// Returns the parts between commas.
inline std::vector<std::string> split(std::string const& text) {
  std::vector<std::string> parts(1);
  for (auto const c : text) c == ',' ? parts.emplace_back() : parts.back().append(1, c);
  return parts;
}

inline std::string check_networks(std::string const& text) try {
  for (auto const& network : split(text)) chatproto::AddressList().add(network);
  return {};
} catch (std::invalid_argument const& error) {
  return error.what();
}

inline std::string check_keepalive(std::string const& seconds) {
  auto const short_time = seconds == "1" || seconds == "2" || seconds == "3";
  return short_time ? "'" + seconds + "' is neither 0 nor at least 4 seconds" : std::string();
}

/// The command-line flags of a server.
struct ServerFlags {
  chatproto::ServerOptions options;
  std::string policy = "pool";
  TlsServerFlags tls = {};
  WebSocketFlags web = {};
  std::vector<Reloader> reloaders;          ///< called at SIGHUP
  bool check = false;                       ///< only read the files
  std::vector<ManagedSocket> sockets = {};  ///< where to listen; empty: on PORT

  ServerFlags() {
    options.max_clients_per_address = 64;
    options.new_clients_per_address = 1;
  }

  /// Without a default, the port is a required argument.
  void add_to(CLI::App& app, std::optional<std::uint16_t> default_port = {}) {
    port_ =
        app.add_option("PORT", options.port, "TCP port to listen on; 0: a free port, whose number is printed on stderr")
            ->check(decimal(0, 65535));
    if (default_port) {
      options.port = *default_port;
      port_->capture_default_str();
    } else {
      port_->required();
    }
    app.add_option("--policy", policy, "Which threads serve the clients")
        ->check(CLI::IsMember({"thread-per-client", "pool", "strand"}))
        ->capture_default_str();
    app.add_option("--threads", options.threads, "Number of threads for pool and strand; 0: one for each core")
        ->check(decimal(0, 1024))
        ->capture_default_str();
    address_ =
        app.add_option("--address", options.address, "Address to listen on; by default all addresses, IPv6 and IPv4")
            ->check(check_address, "");
    app.add_option("--max-clients", options.max_clients,
                   "Maximum number of clients; the server refuses further ones; 0: as many as it has descriptors for")
        ->check(decimal(0, 1'000'000'000))
        ->capture_default_str();
    app.add_option("--max-clients-per-address", options.max_clients_per_address,
                   "Maximum number of clients from one address (IPv6: from one /64 network); 0: no limit")
        ->check(decimal(0, 1'000'000'000))
        ->capture_default_str();
    app.add_option("--new-clients-rate", options.new_clients_per_address,
                   "New clients per second from one address in the long run; 0: no limit")
        ->check(decimal(0, 1'000'000'000))
        ->type_name("CLIENTS")
        ->capture_default_str();
    app.add_option("--new-clients-burst", options.new_clients_burst,
                   "New clients from one address at once before --new-clients-rate applies")
        ->check(decimal(1, 1'000'000'000))
        ->type_name("CLIENTS")
        ->capture_default_str();
    app.add_flag("--limit-loopback", options.limit_loopback,
                 "Apply the limits for one address to clients from this machine too");
    app.add_option_function<std::string>(
           "--proxy-protocol", [this](std::string const& text) { options.proxies = split(text); },
           "Addresses and networks of proxies, whose connections must begin with a PROXY header")
        ->check(check_networks, "")
        ->type_name("ADDRESS[,ADDRESS...]");
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
  /// For the chat.
  void add_layers_to(CLI::App& app) {
    tls.add_to(app);
    web.add_to(app);
  }
  /// Returns the server's options, with its listeners.
  chatproto::ServerOptions complete() const {
    auto all = options;
    for (auto const& [descriptor, name] : sockets) {
      auto layer = needs_tls(name) ? tls.layer() : nullptr;
      if (is_for_web(name)) layer = web.layer(std::move(layer));
      all.listeners.push_back({.layer = std::move(layer), .descriptor = descriptor});
    }
    auto const further = further_listeners();
    if (further.empty()) return all;
    all.listeners = {{.port = options.port, .address = options.address}};
    for (auto const& each : further) all.listeners.push_back(each.listener);
    all.port = 0;
    all.address.clear();
    return all;
  }
  /// A listener besides that of PORT.
  struct Further {
    std::string what;  ///< as it is announced
    chatproto::ListenerOptions listener;
  };
  /// Returns them in the order of the server's listeners. Throws if they cannot be.
  std::vector<Further> further_listeners() const {
    std::vector<Further> all;
    auto const& secure = tls.address.empty() ? options.address : tls.address;
    if (!tls.address.empty() && !tls.port && !web.secure_port)
      throw std::runtime_error("--tls-address needs --tls or --secure-websocket");
    if (tls.port) all.push_back({"with TLS", {.port = *tls.port, .address = secure, .layer = tls.layer()}});
    if (web.port)
      all.push_back({"for WebSocket", {.port = *web.port, .address = options.address, .layer = web.layer(nullptr)}});
    if (web.secure_port) {
      if (!tls.has_files()) throw std::runtime_error("--secure-websocket needs --cert and --key");
      all.push_back(
          {"for WebSocket with TLS", {.port = *web.secure_port, .address = secure, .layer = web.layer(tls.layer())}});
    }
    return all;
  }
  /// For services with logins.
  void add_login_deadline_to(CLI::App& app) {
    add_seconds(app, "--login-deadline", options.login_deadline, "Time that a client has to log in");
  }
  /// For a server that a service manager runs. PORT is then no longer required: see `find_sockets`.
  void add_check_to(CLI::App& app) {
    app.add_flag("--check", check,
                 "Check the arguments, the files and each Redis, say what is wrong or 'ok', and exit");
    port_->required(false);
  }

  /// Takes the sockets that the service manager has opened, if it has. Throws if they cannot be used, or if it is not
  /// clear where to listen. Call it after the flags were parsed.
  void find_sockets() {
    if (check) return;
    sockets = managed_sockets();
    if (sockets.empty()) {
      if (port_->empty()) throw CLI::RequiredError("PORT");
      web.check_origins(false);
      return;
    }
    for (auto const& [is_given, name] : {std::pair(!port_->empty(), "PORT"),
                                         {!address_->empty(), "--address"},
                                         {tls.port.has_value(), "--tls"},
                                         {web.port.has_value(), "--websocket"},
                                         {web.secure_port.has_value(), "--secure-websocket"}})
      if (is_given)
        throw std::runtime_error(std::string(name) +
                                 " cannot be given: the service manager has opened the sockets (LISTEN_FDS)");
    for (auto& [descriptor, name] : sockets) {
      if (name == "unknown" || name.ends_with(".socket")) name = "plain";  // by default systemd gives its unit's name
      if (name != "plain" && !needs_tls(name) && !is_for_web(name))
        throw std::runtime_error("the service manager calls a socket '" + name +
                                 "' (LISTEN_FDNAMES), neither 'plain', 'tls', 'websocket' nor 'secure-websocket'");
      if (needs_tls(name) && !tls.has_files())
        throw std::runtime_error("the service manager has opened a socket for TLS, which needs --cert and --key");
    }
    web.check_origins(
        std::any_of(sockets.begin(), sockets.end(), [](auto const& each) { return is_for_web(each.name); }));
  }

 private:
  static bool needs_tls(std::string const& name) { return name == "tls" || name == "secure-websocket"; }
  static bool is_for_web(std::string const& name) { return name == "websocket" || name == "secure-websocket"; }

  CLI::Option *port_ = nullptr, *address_ = nullptr;
};

/// Returns where the server listens, for people.
inline std::string place(auto const& server, ServerFlags const& flags) {
  auto const count = server.options().listeners.size();
  if (!flags.sockets.empty())
    return "listening on " + std::to_string(count) + (count == 1 ? " socket" : " sockets") + " of the service manager";
  auto line = "listening on port " + std::to_string(server.port());
  auto const further = flags.further_listeners();
  for (std::size_t i = 0; i < further.size(); ++i)
    line += ", " + further[i].what + " on port " + std::to_string(server.port(i + 1));
  return line;
}

/// Tells a person at the terminal that the server listens and how it serves, and a script which port it has got.
inline void announce(auto const& server, ServerFlags const& flags) {
  auto const& options = server.options();
  auto const is_free = [](auto const& listener) { return listener.port == 0 && listener.descriptor == -1; };
  if (std::none_of(options.listeners.begin(), options.listeners.end(), is_free) && !is_terminal(stderr)) return;
  auto line = place(server, flags);
  if (is_terminal(stderr)) {
    auto const threads = std::to_string(options.threads) + (options.threads == 1 ? " thread" : " threads");
    line += " (" + flags.policy + (options.threads == 0 ? ")" : ", " + threads + ")");
  }
  complain(line);
}

/// `Service`, which calls a function before its server drains.
template <class Service>
class DrainedService : public Service {
 public:
  template <class... Args>
  explicit DrainedService(std::function<void()> before_drain, Args const&... args)
      : Service(args...), before_drain_(std::move(before_drain)) {}
  void on_stop(chatproto::StopMode how) {
    if (how == chatproto::StopMode::drain) before_drain_();
    if constexpr (requires { this->Service::on_stop(how); }) this->Service::on_stop(how);
  }

 private:
  std::function<void()> before_drain_;
};

/// Serves until SIGINT or SIGTERM; a second signal stops without waiting for clients to read. The object that `beside`
/// makes for the server lives while it serves.
template <class Policy, class Service, class... Args>
void serve_until_signal(ServerFlags const& flags, auto const& beside, Args const&... service_args) {
  using Server = chatproto::Server<Policy, DrainedService<Service>>;
  ServiceManager const manager;
  auto const options = flags.complete();
  std::unique_ptr<Server> server;
  auto const before_drain = [&] {
    auto const patience = options.drain / 10;  // with clients that have still to log in
    manager.stopping(patience + options.drain + options.linger + std::chrono::seconds(5));  // and for the last lines
  };
  try {
    server = std::make_unique<Server>(options, before_drain, service_args...);
  } catch (std::system_error const& error) {
    throw std::runtime_error(error.what());  // not a lost connection
  }
  chatproto::StopOnSignals const stop_on_signals(*server);
  announce(*server, flags);
  auto const status = place(*server, flags);
  ReloadOnHangup const reload_on_hangup(server->context(), flags.reloaders, manager, status);
  [[maybe_unused]] auto const companion = beside(*server);
  manager.ready(status);
  server->run();
}

/// Serves `Service`, made from `service_args`, under the policy of the flags. `beside` is as above. Returns the
/// program's exit code.
template <class Service, class... Args>
int serve_beside(ServerFlags const& flags, auto const& beside, Args const&... service_args) {
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);
#endif
#ifdef SIGHUP
  std::signal(SIGHUP, SIG_IGN);  // the server outlives its terminal
#endif
  raise_descriptor_limit();  // each client needs at least one
  if (flags.check) return print_or_fail("ok"), 0;
  using namespace chatproto;
  if (flags.policy == "thread-per-client")
    serve_until_signal<ThreadPerClient, Service>(flags, beside, service_args...);
  else if (flags.policy == "strand")
    serve_until_signal<StrandPool, Service>(flags, beside, service_args...);
  else
    serve_until_signal<ThreadPool, Service>(flags, beside, service_args...);
  return 0;
}
template <class Service, class... Args>
int serve(ServerFlags const& flags, Args const&... service_args) {
  return serve_beside<Service>(
      flags, [](auto const&) { return 0; }, service_args...);
}

}  // namespace program
