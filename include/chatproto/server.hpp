// SPDX-License-Identifier: BSL-1.0
/// @file
/// `Server`, which combines a threading policy with a service.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <utility>

#include <asio/io_context.hpp>

#include <chatproto/address_list.hpp>
#include <chatproto/chat_service.hpp>
#include <chatproto/detail/server/near_misses.hpp>
#include <chatproto/detail/server/server_core.hpp>
#include <chatproto/executor.hpp>
#include <chatproto/observer.hpp>
#include <chatproto/server_options.hpp>
#include <chatproto/service.hpp>
#include <chatproto/threading.hpp>

namespace chatproto {

/// A server for a line protocol. Gives each client an executor (`Policy`) and a session (`Svc`), until it is stopped.
///
/// @code
/// chatproto::Server<chatproto::ThreadPool> server({.port = 47374});
/// server.run();
/// @endcode
///
/// Errors while accepting never end the server: if descriptors or memory are short, it tries again later, and serves
/// its clients meanwhile. If memory is short elsewhere, or the service throws, only the client concerned is
/// disconnected.
///
/// Thread safety: distinct objects: safe. Shared objects: unsafe, except that any thread may call `stop`, `port`,
/// `service`, `stats` and `ban`. Only one thread may call `run`.
template <ThreadingPolicy Policy, Service Svc = ChatService>
class Server {
  static_assert(detail::has_no_near_miss<typename Svc::Session>());
  static_assert(detail::service_has_no_near_miss<Svc, asio::io_context, StopMode>());

 public:
  using executor_type = typename Policy::executor_type;  ///< the executor of one client

  /// Constructs the service from `service_args` and starts to listen. Throws `std::system_error` if an address is
  /// invalid or cannot be bound, or the policy cannot start its threads, and `std::invalid_argument` if the options
  /// have listeners and also a port or an address, or a proxy is no address or network.
  template <class... Args>
    requires(std::constructible_from<Svc, Args...>)
  explicit Server(ServerOptions options = {}, Args&&... service_args);
  Server(Server const&) = delete;
  Server& operator=(Server const&) = delete;
  /// Disconnects the clients that are still connected because an exception left `run()`.
  ~Server();

  /// Returns the port that the first listener, or another one, listens on. Throws `std::out_of_range`.
  std::uint16_t port(std::size_t listener = 0) const;
  /// Returns the service.
  Svc& service() noexcept;
  /// Returns the options. `max_clients` and `memory_limit` are the actual limits, never 0; `threads` is their actual
  /// number, 0 for a policy without a fixed number of them; `listeners` is never empty. Any thread may call it.
  ServerOptions const& options() const noexcept;
  /// Returns a snapshot of the counters, which need not all be of the same instant.
  ServerStats stats() const;
  /// Returns the context on which clients are accepted, run by `run()`: for a `signal_set` or a timer of the program's
  /// own.
  asio::io_context& context() noexcept;

  /// Serves clients until the server is stopped and the last client has ended. Timers and signal sets pending on
  /// `context()` do not delay its return. Call it once. Exceptions of the program's own handlers on `context()` leave
  /// it.
  void run();

  /// Bans these addresses and names, and no others: refuses clients from these addresses, and disconnects those that
  /// are there (`DisconnectReason::banned`). The service gets the names if it has a `ban`, as `ChatService` has.
  /// Takes effect when `run()` comes to it. Throws `std::bad_alloc`. Any thread may call it.
  void ban(Bans bans);

  /// Makes `run()` return, even if `run()` is only called later. Returns at once and allocates no memory. Idempotent;
  /// `StopMode::now` cuts short a drain under way. Any thread may call it, also from a session.
  void stop(StopMode how = StopMode::drain) noexcept;

 private:
  detail::ServerCore<Policy, Svc> core_;
};

// These are defined outside of the class, so that `extern template` keeps a compiler from instantiating them.

template <ThreadingPolicy Policy, Service Svc>
template <class... Args>
  requires(std::constructible_from<Svc, Args...>)
Server<Policy, Svc>::Server(ServerOptions options, Args&&... service_args)
    : core_(std::move(options), std::forward<Args>(service_args)...) {}

template <ThreadingPolicy Policy, Service Svc>
Server<Policy, Svc>::~Server() = default;

template <ThreadingPolicy Policy, Service Svc>
std::uint16_t Server<Policy, Svc>::port(std::size_t listener) const {
  return core_.port(listener);
}

template <ThreadingPolicy Policy, Service Svc>
Svc& Server<Policy, Svc>::service() noexcept {
  return core_.service();
}

template <ThreadingPolicy Policy, Service Svc>
ServerOptions const& Server<Policy, Svc>::options() const noexcept {
  return core_.options();
}

template <ThreadingPolicy Policy, Service Svc>
ServerStats Server<Policy, Svc>::stats() const {
  return core_.stats();
}

template <ThreadingPolicy Policy, Service Svc>
asio::io_context& Server<Policy, Svc>::context() noexcept {
  return core_.context();
}

template <ThreadingPolicy Policy, Service Svc>
void Server<Policy, Svc>::run() {
  core_.run();
}

template <ThreadingPolicy Policy, Service Svc>
void Server<Policy, Svc>::ban(Bans bans) {
  core_.ban(std::move(bans));
}

template <ThreadingPolicy Policy, Service Svc>
void Server<Policy, Svc>::stop(StopMode how) noexcept {
  how == StopMode::now ? core_.ask_to_stop() : core_.ask_to_drain();
}

#ifdef CHATPROTO_COMPILED  // see compiled.hpp
extern template class Server<ThreadPerClient>;
extern template class Server<ThreadPool>;
extern template class Server<StrandPool>;
extern template Server<ThreadPerClient>::Server(ServerOptions);
extern template Server<ThreadPool>::Server(ServerOptions);
extern template Server<StrandPool>::Server(ServerOptions);
#endif

}  // namespace chatproto
